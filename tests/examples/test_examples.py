"""The demo and the stereo example, on small pictures with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from examples import demo, stereo
from examples.sheets import Row, draw_sheet
from maskvolume.io.images import read_image
from maskvolume.io.video import VideoFrames
from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel, Stage
from maskvolume.runtime.errors import InputError


def untrained(path: Path, stage: Stage) -> Path:
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta(stage, "matching", num_planes=6)))
    return path


def test_the_demo_makes_video_and_sheet(tiny_rig: Path, tmp_path: Path, capsys) -> None:
    weights = untrained(tmp_path / "mask.safetensors", "mask")
    out = tmp_path / "out"
    arguments = ["--root_dir", str(tiny_rig), "--ckpt_path", str(weights), "--out_dir", str(out)]
    for _ in range(2):  # the second time it makes everything anew
        demo.main([*arguments, "--num_poses", "8"])
    printed = capsys.readouterr().out
    for name in ("video.mp4", "disparity.mp4", "contact_sheet.png"):
        assert str(out / name) in printed
        assert (out / name).is_file()
    assert "8 views of 3 frames in " in printed
    assert VideoFrames(out / "video.mp4").count == 8
    assert read_image(out / "contact_sheet.png").shape[1] == 1600


def test_the_demo_without_weights_says_so(tiny_rig: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors"):
        demo.main(["--root_dir", str(tiny_rig), "--ckpt_path", "none.safetensors", "--out_dir", str(tmp_path)])


def test_a_sheet_shows_its_pictures(tmp_path: Path) -> None:
    red = np.zeros((30, 40, 3), np.uint8)
    red[..., 0] = 200
    grey = np.full((30, 40), 90, np.uint8)
    draw_sheet(tmp_path / "sheet.png", "Title", [Row("a", [red, red], ["1", "2"]), Row("b", [grey])], "Note")
    sheet = read_image(tmp_path / "sheet.png")
    assert (sheet == [200, 0, 0]).all(-1).sum() > 2 * 700 * 500
    assert (sheet == 90).all(-1).sum() > 700 * 500


def test_the_true_disparity_is_that_of_the_left_picture() -> None:
    """What the example says of the pair: left pixel x is right pixel x - disparity, to a fraction of a pixel."""
    left, right, truth = stereo.skimage.data.stereo_motorcycle()
    y, x = np.nonzero(np.isfinite(truth))
    errors = {}
    for offset in (-1, 0, 1):
        in_right = np.round(x - truth[y, x] + offset).astype(int)
        inside = (in_right >= 0) & (in_right < right.shape[1])
        pixels = right[y[inside], in_right[inside]].astype(float)
        errors[offset] = np.abs(pixels - left[y[inside], x[inside]]).mean()
    assert min(errors, key=errors.__getitem__) == 0
    assert errors[0] < 10


def test_the_pairs_cameras_agree_with_its_disparity() -> None:
    left, right, _ = stereo.skimage.data.stereo_motorcycle()
    pair = stereo.StereoPair((left, right), left.shape[:2])
    cameras = pair.cameras()
    near, far = pair.near_far()
    for depth, disparity in ((near, stereo.MAX_DISPARITY), (far, 0.0)):
        point = torch.tensor([0.1, -0.2, depth, 1.0])
        pixels = cameras.K @ (cameras.T_cam_world @ point)[:, :3, None]
        x = pixels[:, 0, 0] / pixels[:, 2, 0]
        assert float(x[0] - x[1]) == pytest.approx(disparity, abs=1e-2)


def test_error_figures_leave_out_what_is_not_known() -> None:
    truth = np.array([[1.0, 2.0], [np.nan, 4.0]])
    error, figures = stereo.errors_of(np.array([[1.0, 3.5], [9.0, 4.0]]), truth)
    assert np.isnan(error[1, 0])
    assert figures.startswith("mean error 0.50 px, median 0.00 px; 33.3 % off by more than 1")


def test_the_stereo_example_runs(tmp_path: Path, capsys) -> None:
    weights = untrained(tmp_path / "mpi.safetensors", "mpi")
    out = tmp_path / "out"
    options = ["--num_frames", "4", "--num_planes", "24", "--shrink", "4", "--device", "cpu"]
    stereo.main(["--ckpt_path", str(weights), "--out_dir", str(out), *options])
    assert VideoFrames(out / "video.mp4").count == 4
    assert read_image(out / "disparity.png").shape[1] == 1600
    figures = capsys.readouterr().out.splitlines()[-1]
    assert float(figures.split()[2]) < 15, "even without training it is better than a guess"
