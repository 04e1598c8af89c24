"""A checkpoint of the original renders what the original renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskvolume.clips.rig import RigClip
from maskvolume.io.images import read_image
from maskvolume.io.llff import read_path
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.renderer import ClipRenderer

# The original computes in float32 too; measured differences are below 2e-5.
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def parity(repo_root: Path) -> Path:
    return repo_root / "tests/data/original_parity"


def expected(parity: Path, pose: int) -> np.ndarray:
    return np.load(parity / f"expected/{pose:05d}.npy")


def test_library_matches_the_originals_float_frames_everywhere(parity: Path) -> None:
    clip = RigClip.open(parity / "frames", parity / "background")
    targets = read_path(parity / "frames/00000/qual_path.txt", clip.size)
    model = load_model(parity / "checkpoint.ckpt")
    renderer = ClipRenderer(clip, model, (4, 5), targets=targets)
    for pose in (0, 2, 1, 3):
        view = renderer.render(pose % 2, targets[pose])
        error = np.abs(view.color.numpy() - expected(parity, pose)).max()
        assert error < TOLERANCE, f"pose {pose}: {error}"


def test_program_writes_the_originals_frames(render, parity: Path, tmp_path: Path) -> None:
    options = ["--bg_dir", parity / "background", "--indices", 4, 5, "--num_frames", 2]
    render(parity / "frames", tmp_path / "out", *options, ckpt=parity / "checkpoint.ckpt").check()
    for pose in range(2):
        picture = read_image(tmp_path / f"out/frames/{pose:05d}.png")
        wanted = expected(parity, pose).transpose(1, 2, 0).clip(0, 1) * 255
        assert np.abs(picture - wanted).max() < 0.5 + 255 * TOLERANCE
