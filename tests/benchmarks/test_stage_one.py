"""The measure of stage one: held-out seeds, the empty scene's truth, disparity errors and the peer beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import stage_one
from benchmarks.holdout import Targets, open_with_background
from benchmarks.stage_one import CLASSICAL, HELD_OUT_SEED, PARTS, SGBM, SGBM_BARE, EmptyClip
from maskvolume.checkpoints import save_checkpoint
from maskvolume.errors import InputError
from maskvolume.model import CheckpointMeta, MaskVolumeModel
from maskvolume.tasks import SAMPLES_PER_SEED, VALIDATION_SEED

SIZE = (48, 64)
CAMERAS = ("cam00", "cam01", "cam02", "cam03", "cam04")


@pytest.fixture(scope="module")
def rig(make_rig: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 5 cameras with one held-out camera at the place of the middle one."""
    root = make_rig(tmp_path_factory.mktemp("clip") / "rig", cameras=CAMERAS, size=SIZE)
    make_rig(root / "targets", cameras=("target0",), size=SIZE)
    return root


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained models of few planes, one an architecture; the file names are the same."""
    paths = {}
    for arch in ("matching", "original"):
        torch.manual_seed(0)
        paths[arch] = tmp_path_factory.mktemp(arch) / "mpi.safetensors"
        save_checkpoint(paths[arch], MaskVolumeModel(CheckpointMeta("mpi", arch, num_planes=8)))
    return paths


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["stage_one.py", "--device", "cpu", *(str(word) for word in arguments)])
    stage_one.main()


def test_every_part_of_two_checkpoints_is_measured(
    rig: Path,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "stage_one.json"
    run(
        monkeypatch,
        *("--ckpt_path", checkpoints["matching"], checkpoints["original"], "--num_worlds", 2, "--img_hw", 32, 40),
        *("--margin", 4, "--root_dir", rig, "--stereo_planes", 16, "--shrink", 4, "--precision", "fp32", "--out", out),
    )
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    names = ["mpi.safetensors", "mpi.safetensors'"]
    assert [entry["arch"] for entry in result["checkpoints"].values()] == ["matching", "original"]
    assert list(result["checkpoints"]) == list(result["worlds"]["methods"]) == names
    background = result["background"]
    assert list(background["methods"]) == [CLASSICAL, *names, "mpi.safetensors, 4 cameras"]
    assert set(background["targets"]["target0"]["sources"]) == {"cam01", "cam02", "cam03", "cam00"}
    assert background["methods"]["mpi.safetensors"]["psnr"] > 20, "the nearest camera is the held-out one"
    assert list(result["stereo"]["methods"]) == [SGBM, SGBM_BARE, *names]
    assert result["stereo"]["sgbm"]["numDisparities"] == 32  # 70 / 4 pixels and up to a multiple of 16
    matching, semi_global = (result["stereo"]["methods"][name] for name in (names[0], SGBM))
    assert semi_global["mean"] < matching["mean"] < 15 / 4
    for words in ("2 held-out worlds of 40 x 32", "The empty scene of", "Motorcycle pair, 185 x 125, 16 planes"):
        assert words in printed


def test_one_part_alone(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "worlds.json"
    arguments = ("--parts", "worlds", "--num_worlds", 1, "--img_hw", 32, 32, "--ckpt_path", checkpoints["original"])
    run(monkeypatch, *arguments, "--out", out)
    result = json.loads(out.read_text())
    assert set(PARTS) & set(result) == {"worlds"}
    assert set(result["worlds"]["methods"]["mpi.safetensors"]) == {"psnr", "ssim", "psnr_covered"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--parts", "words"), "worlds, background, stereo"),
        (("--num_worlds", 0), "--num_worlds"),
        (("--shrink", 9), "--shrink"),
        (("--ckpt_path", "none.safetensors"), "none.safetensors: no such checkpoint"),
    ],
)
def test_bad_options_are_one_line(arguments: tuple[object, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=words):
        run(monkeypatch, *arguments)


def test_held_out_worlds_are_drawn_by_no_training() -> None:
    """Training draws from the multiples of SAMPLES_PER_SEED on; no run is 100,000 million samples long."""
    assert HELD_OUT_SEED % SAMPLES_PER_SEED > 100_000_000_000
    assert (HELD_OUT_SEED + 1_000_000) // SAMPLES_PER_SEED == HELD_OUT_SEED // SAMPLES_PER_SEED
    assert abs(HELD_OUT_SEED - VALIDATION_SEED) > 100_000_000_000


def test_the_truth_is_the_median_over_time(rig: Path) -> None:
    with open_with_background(rig, None) as clip:
        targets = Targets.open(rig / "targets", SIZE)
        truth = stage_one.static_truth(clip, targets, 0)
        pictures = torch.stack([targets.picture(0, name) for name in clip.frame_names])
        assert torch.equal(truth, pictures.median(dim=0).values)
        assert not torch.equal(truth, pictures[0])
        # cam02 stands where the held-out camera does, and sees the same.
        assert torch.equal(truth, torch.from_numpy(EmptyClip(clip).read(2, 1)).permute(2, 0, 1) / 255)


def square_disparity(size: tuple[int, int] = (40, 80), near: float = 12.0, far: float = 4.0) -> np.ndarray:
    """A square in front of a wall, seen from the left."""
    truth = np.full(size, far)
    truth[10:30, 30:50] = near
    return truth


def test_occlusion_is_what_the_nearer_thing_hides_in_the_right_picture() -> None:
    """The square moves by 8 pixels more than the wall: it hides the 8 columns to its left."""
    hidden = stage_one.occluded(square_disparity())
    expected = np.zeros_like(hidden)
    expected[:, :4] = True  # outside of the right picture
    expected[10:30, 22:30] = True
    assert np.array_equal(hidden, expected)


def test_what_is_not_known_neither_is_hidden_nor_hides() -> None:
    truth = square_disparity()
    truth[10:30, 30:50] = np.nan
    hidden = stage_one.occluded(truth)
    assert not hidden[:, 4:].any()


def test_a_slope_hides_nothing() -> None:
    truth = np.tile(np.linspace(10, 0, 80), (3, 1))  # nearer on the left: seen wider on the right
    assert not stage_one.occluded(truth)[:, 11:].any()


def test_holes_take_the_lesser_of_both_sides() -> None:
    nan = np.nan
    rows = np.array([[nan, 5, nan, nan, 2, nan], [3, nan, 9, nan, 9, 1], [nan] * 6])
    expected = [[5, 5, 2, 2, 2, 2], [3, 3, 9, 9, 9, 1], [0] * 6]
    np.testing.assert_array_equal(stage_one.fill_holes(rows), expected)


def test_semi_global_matching_finds_a_square_before_a_wall() -> None:
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 256, (30, 60, 3), np.uint8), (120, 60), interpolation=cv2.INTER_CUBIC)
    square = rng.integers(0, 256, (30, 30, 3), np.uint8)
    left, right = wall[:, :100].copy(), wall[:, 4:104].copy()  # 4 pixels
    left[15:45, 40:70], right[15:45, 28:58] = square, square  # 12 pixels
    truth = np.full((60, 100), 4.0)
    truth[15:45, 40:70] = 12
    visible = ~stage_one.occluded(truth)
    found = stage_one.semi_global_matching(left, right, 16)
    assert found.shape == truth.shape
    assert np.isfinite(found[:, 4:12]).mean() > 0.7, "the columns on the left are searched as well"
    error = np.abs(stage_one.fill_holes(found) - truth)[visible]
    assert np.median(error) < 0.5
    assert (error > 2).mean() < 0.1


def test_error_figures() -> None:
    truth = np.array([[1.0, 2.0, np.nan, 4.0, 5.0]])
    found = np.array([[1.5, 5.0, 9.0, np.nan, 5.0]])
    visible = np.array([[True, False, False, True, True]])
    figures = stage_one._errors(found, truth, visible, 0.5)
    assert figures == {
        "coverage": 0.75, "mean": pytest.approx(3.5 / 3, abs=1e-4), "median": 0.5,
        "bad2": pytest.approx(1 / 3, abs=1e-4), "mean_visible": 0.25, "median_visible": 0.25, "bad2_visible": 0.0,
        "seconds": 0.5,
    }  # fmt: skip
