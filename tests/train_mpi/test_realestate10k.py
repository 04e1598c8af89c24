"""Views drawn from RealEstate10K: geometry of the crops, what is drawn when, workers, wrong data."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from shard_helpers import INTRINSICS, SIZE, write_shards

from maskvolume.data.draws import BatchPlan
from maskvolume.data.recorded import RecordedSource
from maskvolume.data.samples import ViewBatch
from maskvolume.io.shards import SceneShards
from maskvolume.io.triplets import ViewChoice, write_triplets
from maskvolume.runtime.errors import InputError
from train_mpi.realestate10k import SceneSamples, ViewDrawing, draw_frames, open_realestate10k

DRAWING = ViewDrawing((40, 48), scale=(0.8, 2.0), jitter=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_shards(tmp_path_factory.mktemp("shards"), {"a": 40, "b": 24, "c": 60, "d": 5}, {"b": (2.0, 9.0)})
    write_triplets(folder / "triplets.txt", [ViewChoice("a", 5000, (3000, 8000)), ViewChoice("b", 2000, (1000, 4000))])
    return folder


def source(
    folder: Path, workers: int = 0, seed: int = 0, drawing: ViewDrawing = DRAWING, max_views: int | None = None
) -> RecordedSource:
    return open_realestate10k(
        str(folder), str(folder), "", drawing, seed=seed, num_sources=(2, 3), max_views=max_views, val_samples=9,
        device=torch.device("cpu"), num_workers=workers,
    )  # fmt: skip


def batches(of: RecordedSource, plan: BatchPlan, first: int, count: int) -> list[ViewBatch]:
    stream = of.batches(plan.draws(first))
    found = list(islice(stream, count))
    stream.close()
    return found


def frames_of(pictures: torch.Tensor) -> np.ndarray:
    return np.round(255 * pictures[..., 2, :, :].mean(dim=(-2, -1)).numpy() / 4).astype(int)


def test_crops_show_what_their_cameras_say(data: Path) -> None:
    found = batches(source(data), BatchPlan(2), 0, 12)
    assert {batch.images.shape[1] for batch in found} == {2, 3}
    for batch in found:
        pictures = torch.cat([batch.target_image[:, None], batch.images], dim=1).flatten(0, 1)
        K = torch.cat([batch.target.K[:, None], batch.sources.K], dim=1).flatten(0, 1)
        h, w = pictures.shape[-2:]
        assert (h, w) == batch.sources.size == DRAWING.size
        x, y = torch.meshgrid(torch.arange(w) + 0.5, torch.arange(h) + 0.5, indexing="xy")
        for picture, k in zip(pictures, K, strict=True):
            right = ((x - k[0, 2]) / k[0, 0] * INTRINSICS[0] + INTRINSICS[2]) * 255
            down = ((y - k[1, 2]) / k[1, 1] * INTRINSICS[1] + INTRINSICS[3]) * 255
            inner = (slice(2, -2), slice(2, -2))  # at the border of the crop a bilinear filter repeats it
            assert (255 * picture[0] - right)[inner].abs().max() < 3
            assert (255 * picture[1] - down)[inner].abs().max() < 3
            # Rounding to 8 bits may cost half a level; half a pixel would be a whole one.
            assert (255 * picture[0] - right)[inner].mean().abs() < 0.6


def test_poses_go_with_their_frames(data: Path) -> None:
    for batch in batches(source(data), BatchPlan(3), 0, 6):
        shown = np.concatenate([frames_of(batch.target_image)[:, None], frames_of(batch.images)], axis=1)
        x = torch.cat([batch.target.center[:, None], batch.sources.center], dim=1)[..., 0].numpy()
        np.testing.assert_allclose(x, 0.1 * (shown - shown[:, 1:2]), atol=1e-5)
        assert torch.allclose(batch.sources.T_cam_world[:, 0], torch.eye(4))


def test_frames_come_from_a_subsequence_with_a_stride() -> None:
    rng = np.random.default_rng(0)
    strides = set()
    for _ in range(300):
        frames = sorted(draw_frames(rng, 200, 10, DRAWING))
        steps = {b - a for a, b in pairwise(frames)}
        assert len(steps) == 1
        strides |= steps
        assert 0 <= frames[0] <= frames[-1] < 200
    assert strides == set(range(3, 11))
    orders = {tuple(np.argsort(draw_frames(rng, 200, 3, DRAWING))) for _ in range(100)}
    assert len(orders) == 6


@pytest.mark.parametrize("count", [3, 4, 9, 10, 11])
def test_short_scenes_have_smaller_strides(count: int) -> None:
    rng = np.random.default_rng(count)
    found = [draw_frames(rng, count, 3, DRAWING) for _ in range(50)]
    assert all(len(set(frames)) == 3 and max(frames) < count for frames in found)
    assert len({frame for frames in found for frame in frames}) == count


def test_an_epoch_takes_every_scene_once_and_the_next_one_in_another_order(data: Path) -> None:
    samples = SceneSamples(SceneShards(data), DRAWING, seed=1, most_sources=3)
    assert len(samples) == 4
    orders = [[samples.scene_of(4 * epoch + place) for place in range(4)] for epoch in range(8)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 3


def test_scenes_that_are_too_short_are_left_out(data: Path) -> None:
    assert len(SceneSamples(SceneShards(data), DRAWING, seed=1, most_sources=5)) == 3
    with pytest.raises(InputError, match="no scene has 100 frames"):
        open_realestate10k(str(data), str(data), "", DRAWING, seed=0, num_sources=(2, 99), max_views=None,
                           val_samples=1, device=torch.device("cpu"), num_workers=0)  # fmt: skip


def equal(a: ViewBatch, b: ViewBatch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.target.K, b.target.K) and torch.equal(a.near, b.near)


def test_samples_depend_on_seed_and_number_alone(data: Path) -> None:
    jittered = replace(DRAWING, jitter=0.3)
    whole = batches(source(data, drawing=jittered), BatchPlan(4), 0, 4)
    with_workers = batches(source(data, workers=2, drawing=jittered), BatchPlan(4), 0, 4)
    assert all(equal(a, b) for a, b in zip(whole, with_workers, strict=True))
    later = batches(source(data, workers=1, drawing=jittered), BatchPlan(4), 2, 2)
    assert all(equal(a, b) for a, b in zip(whole[2:], later, strict=True))
    ranks = [batches(source(data, drawing=jittered), BatchPlan(2, 1, rank, 2), 0, 4) for rank in range(2)]
    for step in range(4):
        joined = torch.cat([ranks[rank][step].images for rank in range(2)])
        assert torch.equal(joined, whole[step].images)
    assert not equal(whole[0], batches(source(data, seed=1, drawing=jittered), BatchPlan(4), 0, 1)[0])


def test_colours_of_all_views_of_a_sample_change_alike(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "alike", {"a": 40}, alike=True)
    write_triplets(data / "triplets.txt", [ViewChoice("a", 5000, (3000, 8000))])
    plain = batches(source(data), BatchPlan(1), 0, 24)
    jittered = batches(source(data, drawing=replace(DRAWING, jitter=0.3)), BatchPlan(1), 0, 24)
    changed = 0
    for before, after in zip(plain, jittered, strict=True):
        assert torch.equal(before.target.K, after.target.K)  # the same views of the same frames
        assert torch.equal(before.target_image, before.images[:, 0])
        assert torch.equal(after.target_image, after.images[:, 0])
        assert torch.equal(after.target_image, after.images[:, 1])
        changed += not torch.equal(before.target_image, after.target_image)
    assert 10 <= changed <= 23  # "none" is one of five kinds


def test_known_bounds_set_the_planes(data: Path) -> None:
    of = source(data)
    whole, bounded = of.validation()[0], of.validation()[1]
    assert (float(whole.near), float(whole.far)) == (1.0, 100.0)
    assert (float(bounded.near), float(bounded.far)) == pytest.approx((1.8, 18.0))


def test_validation_is_whole_pictures_of_the_listed_frames(data: Path) -> None:
    of = source(data)
    assert len(of.validation()) == 2
    sample = of.validation()[0]
    assert sample.target_image.shape == (1, 3, *SIZE)
    assert frames_of(sample.target_image).tolist() == [5]
    assert frames_of(sample.images).tolist() == [[3, 8]]
    expected = torch.tensor([[INTRINSICS[0] * SIZE[1], 0, INTRINSICS[2] * SIZE[1]],
                             [0, INTRINSICS[1] * SIZE[0], INTRINSICS[3] * SIZE[0]], [0, 0, 1]])  # fmt: skip
    torch.testing.assert_close(sample.target.K[0], expected)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = write_shards(tmp_path / "copy", {"a": 20, "b": 20})
    write_triplets(folder / "triplets.txt", [ViewChoice("a", 5000, (3000, 8000))])
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_is_one_error_from_workers_too(copy: Path, workers: int) -> None:
    shard = copy / "shard-00000.tar"
    content = bytearray(shard.read_bytes())
    for place in range(4000, len(content), 1500):
        content[place] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"shard-00000\.tar"):
        batches(source(copy, workers), BatchPlan(4), 0, 3)


def test_a_list_of_more_views_than_the_network_takes_is_named(copy: Path) -> None:
    (copy / "triplets.txt").write_text("a 5000 3000 8000\na 5000 3000 8000 9000\n")
    with pytest.raises(InputError, match="3 sources, but --arch takes 2"):
        source(copy, max_views=2)
    assert len(source(copy).validation()) == 2


PROGRAM = Path(__file__).resolve().parents[2] / "train_mpi" / "train.py"


@pytest.fixture
def running(copy: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A training with two data workers, in a group of its own, that has made some steps."""
    words = [
        "--dataset_name",
        "realestate10k",
        "--img_hw",
        "40",
        "48",
        "--num_planes",
        "4",
        "--margin",
        "4",
        "--subsequence",
        "4",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--num_workers",
        "2",
        "--num_steps",
        "9000",
        "--save_every",
        "9000",
        "--val_every",
        "9000",
    ]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *words, "--root_dir", str(copy), "--val_dir", str(copy)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(10_000):
        if re.search(r"\b[1-9]\d*/9000", process.stdout.read(1) + process.stdout.readline()):
            break
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at the processes of Linux")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves(
    running: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    """As torchrun, Slurm and a terminal send it: to the data workers too."""
    workers = workers_of(running)
    assert len(workers) >= 2
    os.killpg(running.pid, number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert torch.load(tmp_path / "runs/checkpoints/default/last.pt", weights_only=True)["step"] >= 1
    assert not any(Path(f"/proc/{pid}/cwd").exists() for pid in workers)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at the processes of Linux")
def test_a_killed_worker_is_one_line(running: subprocess.Popen[str]) -> None:
    readers = [pid for pid in workers_of(running) if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(readers[0], signal.SIGKILL)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 2, errors
    assert "Traceback" not in errors
    assert "--num_workers" in errors.splitlines()[-1]


def test_batches_are_pinned_whole(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a DataLoader pins them for a GPU: every tensor, those of the cameras too."""
    pinned = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    batch = batches(source(data), BatchPlan(2), 0, 1)[0]
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    copied = batch.pin_memory()
    assert len(pinned) == 8
    assert equal(copied, batch)
    assert copied.sources.T_cam_world is not batch.sources.T_cam_world


@pytest.mark.parametrize(
    ("lines", "words"),
    [("a 5000 3000 8000\nz 1 2 3\n", "z"), ("a 5001 3000 8000\n", "5001"), ("# none\n", r"triplets\.txt")],
)
def test_a_list_that_does_not_fit_is_named(copy: Path, lines: str, words: str) -> None:
    (copy / "triplets.txt").write_text(lines)
    with pytest.raises(InputError, match=words):
        source(copy)
