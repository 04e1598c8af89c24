"""The demo: a video and a sheet of the bundled clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import demo
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
    for _ in range(2):  # the second run creates everything again
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
