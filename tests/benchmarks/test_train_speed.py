"""The training step of the plain reading is the project's own with the original's conventions; both sides learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import train_speed
from benchmarks.train_speed import (
    OriginalStep,
    OurStep,
    Row,
    TrainSpeedOptions,
)
from maskvolume.data.synthetic import SyntheticSample, WorldOptions, sample_worlds
from maskvolume.losses.pictures import l1_loss
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.stages import mpi_frustum

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch() -> SyntheticSample:
    return sample_worlds(WorldOptions(size=(32, 40)), 1, generator=3, device="cpu")


def test_the_original_step_is_that_of_its_architecture(batch: SyntheticSample) -> None:
    """Picture, loss and gradient of one network in the plain reading and in the library."""
    theirs = OriginalStep(8, "l1", CPU)
    model = MaskVolumeModel(CheckpointMeta("mpi", "original", "original", num_planes=8))
    model.mpi_net.load_state_dict(theirs.network.state_dict())
    camera, depths = mpi_frustum(batch, 8, margin=0)
    ours = model.dynamic(batch.images, batch.sources, camera, depths).render(batch.target)
    picture = theirs.render(batch)
    assert picture.std() > 0.01
    torch.testing.assert_close(ours.color[0], picture, rtol=0, atol=2e-3)  # of rounding where a sweep's border falls
    assert (ours.color[0] - picture).abs().mean() < 1e-5

    l1_loss(ours.color, batch.target_image, torch.ones_like(ours.opacity)).backward()
    theirs.loss(picture, batch.target_image[0]).backward()
    expected = dict(theirs.network.named_parameters())
    for name, value in model.mpi_net.named_parameters():
        gradient = expected[name].grad
        assert gradient is not None
        assert value.grad is not None
        assert (value.grad - gradient).norm() < 0.02 * gradient.norm() + 1e-8, name


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["l1", "mse"])
def test_both_sides_learn(loss_type: str, batch: SyntheticSample) -> None:
    options = TrainSpeedOptions(img_hw=(32, 40), num_planes=8, margin=4, loss_type=loss_type)
    steps = [OriginalStep(8, loss_type, CPU)]
    steps += [OurStep(train_speed._train_options(options, arch), "fp32", CPU) for arch in train_speed.ARCHITECTURES]
    for step in steps:
        values = [float(step(batch)) for _ in range(8)]
        assert values[-1] < values[0]


def test_a_row_without_memory_is_left_out(batch: SyntheticSample) -> None:
    def too_large(_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    rows = [Row("original", 1, too_large, [2.0, 4.0, 3.0])]
    rows += [Row("ours, semiglobal", size, too_large, [1.0, 1.0]) for size in (1, 2, 4)]
    assert train_speed._time_row(rows[3], batch, 1, CPU) is None
    result = train_speed._summary(rows)
    assert result["rows"][3] == {"step": "ours, semiglobal", "batch_size": 4, "out_of_memory": True}
    assert result["rows"][0]["seconds"] == {"median": 3.0, "spread": 2.0}
    assert [row["ratio"] for row in result["rows"][:3]] == [1.0, 3.0, 6.0]
    assert result["best"] == {"ours, semiglobal": {"batch_size": 2, "ratio": 6.0}}


@pytest.mark.slow
def test_the_program_writes_and_prints_its_figures(tmp_path: Path, run_program) -> None:
    out = tmp_path / "train_speed.json"
    done = run_program(
        "benchmarks/train_speed.py",
        *("--img_hw", 32, 32, "--num_planes", 8, "--margin", 4, "--batch_size", 1, 2, "--repeats", 2),
        *("--device", "cpu", "--precision", "fp32", "--out", out),
    )
    assert done.rc == 0, done.stderr
    result = json.loads(out.read_text())
    assert {"commit", "machine", "torch", "command", "precision", "margin"} <= set(result)
    names = [(row["step"], row["batch_size"]) for row in result["rows"]]
    assert names == [("original", 1), *((f"ours, {a}", b) for a in ("semiglobal", "original") for b in (1, 2))]
    for row in result["rows"]:
        assert row["samples_per_second"] == pytest.approx(row["batch_size"] / row["seconds"]["median"], rel=0.02)
        assert row["ratio"] > 0
    assert set(result["seconds_to_make_a_batch"]) == {"1", "2"}
    for words in ("| original", "ours, semiglobal", "best of ours, original: batch"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--img_hw", 30, 32), "--img_hw"),
        (("--num_planes", 12), "multiples of 8"),
        (("--batch_size", 0), "--batch_size"),
        (("--repeats", 0), "--repeats"),
    ],
)
def test_bad_options_are_one_line(arguments: tuple[object, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train_speed.py", *(str(word) for word in arguments)])
    with pytest.raises(train_speed.InputError, match=words):
        train_speed.main()
