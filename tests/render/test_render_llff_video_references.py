"""render_llff_video with several references: what is made and printed, and the kinds of clips and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.io.images import read_image
from maskvolume.io.llff import write_path
from maskvolume.mpi.session import make_backgrounds

NAMES = ("cam00", "cam01", "cam02", "cam03")


@pytest.fixture(scope="module")
def clip(make_rig: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> RigClip:
    opened = RigClip.open(make_rig(tmp_path_factory.mktemp("rig") / "frames", NAMES))
    make_backgrounds(opened, range(4), opened.background_dir, keep=True)
    return opened


def walk(clip: RigClip, number: int) -> Camera:
    """From the first camera of the row to the last."""
    cameras = clip.cameras()
    steps = torch.linspace(0, 1, number)[:, None]
    T = cameras.T_cam_world[:1].repeat(number, 1, 1)
    T[:, :3, 3] = torch.lerp(cameras.T_cam_world[0, :3, 3], cameras.T_cam_world[-1, :3, 3], steps)
    return Camera(T, cameras.K[:1].expand(number, 3, 3), cameras.size)


def test_through_the_program(render, clip: RigClip, tmp_path: Path) -> None:
    path = tmp_path / "path.txt"
    write_path(path, Camera(*(x.double() for x in (walk(clip, 6).T_cam_world, walk(clip, 6).K)), clip.size))
    out = tmp_path / "out"
    options = ("--path", path, "--references", 2, "--save_mask", "--save_disparity", "--memory_gb", 50)
    outcome = render(clip.root_dir, out, *options).check()
    assert "references (and their sources): cam01 (" in outcome.stdout
    assert "; 4 references, " in outcome.stdout
    record = json.loads((out / "options.json").read_text())["made_of"]
    assert record["references"][0] == 2
    assert len(record["references"]) == 5
    files = {file: file.read_bytes() for file in sorted(out.rglob("*.png"))}
    assert len(files) == 18
    for name in ("frames/00001.png", "mask/00003.png", "disparity/00004.png"):
        (out / name).unlink()
    assert "3 pictures rendered, 3 kept" in render(clip.root_dir, out, *options).check().stdout
    assert {file: file.read_bytes() for file in sorted(out.rglob("*.png"))} == files
    render(clip.root_dir, out, *options, "--references", 1).check_input_error("options.json", "references")
    for pose, camera in ((0, 0), (5, 3)):  # the path begins and ends in cameras
        made = read_image(out / f"frames/{pose:05d}.png").astype(float)
        assert np.abs(made - clip.read(camera, pose % 3)).mean() < 20


def test_references_among_named_cameras_and_kinds_of_checkpoints(
    render, clip: RigClip, tmp_path: Path, stage_one_weights: Path
) -> None:
    options = ("--path", "circle", "--num_frames", 3, "--time", "fix:1", "--references", 3)
    outcome = render(clip.root_dir, tmp_path / "a", *options, "--indices", 3, 0, 1).check()
    record = json.loads((tmp_path / "a/options.json").read_text())["made_of"]
    assert sorted(record["indices"]) == ["cam00", "cam01", "cam03"]
    assert "cam02" not in outcome.stdout
    render(clip.root_dir, tmp_path / "b", *options, ckpt=stage_one_weights).check()
    fixed = ("--view", "fix:cam01", "--indices", "cam00", "cam02", "--references", 2)
    render(clip.root_dir, tmp_path / "c", *fixed).check()
    assert len(json.loads((tmp_path / "c/options.json").read_text())["made_of"]["references"]) == 3


def test_impossible_numbers_of_references(render, clip: RigClip, tmp_path: Path) -> None:
    for number in (0, 5, -1):
        outcome = render(clip.root_dir, tmp_path / "out", "--path", "circle", "--references", number)
        outcome.check_input_error("--references", "1 to 4")
    twice = ("--references", 2, "--indices", 1, 1)
    render(clip.root_dir, tmp_path / "out", "--path", "circle", *twice).check_input_error("--indices")
    one = ("--references", 2, "--indices", 1)
    render(clip.root_dir, tmp_path / "out", "--path", "circle", *one).check_input_error("indices")
