"""The demo and the stereo example, on small pictures with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from examples import stereo
from maskvolume.io.images import read_image
from maskvolume.io.video import VideoFrames
from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel, Stage


def untrained(path: Path, stage: Stage) -> Path:
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta(stage, "matching", num_planes=6)))
    return path


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
