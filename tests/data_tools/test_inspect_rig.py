"""inspect_rig: figures of rigs that are known, what it warns of, what it draws, and bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.inspect_rig import (
    PICTURE_NAME,
    REPORT_NAME,
    inspect,
    main,
    warnings,
)
from data_tools.inspection.signals import find_offsets, read_signals
from maskvolume.clips.layouts import open_layout
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.images import read_image, write_image
from maskvolume.io.llff import write_poses_bounds
from maskvolume.io.video import VideoWriter

NUM_FRAMES = 36
CAMERAS = ("cam00", "cam01", "cam02", "cam03", "cam04")


@pytest.fixture(scope="module")
def recording(tmp_path_factory, make_rig) -> Path:
    """Five cameras, 36 frames and four more; the square goes and leaps, so that no two moments are alike."""
    steady = make_rig(tmp_path_factory.mktemp("steady") / "frames", cameras=CAMERAS, num_frames=60, size=(72, 144))
    folder = tmp_path_factory.mktemp("recording") / "frames"
    steps = np.random.default_rng(4).integers(1, 6, NUM_FRAMES + 4)
    place = np.cumsum(steps) % 60
    for name in CAMERAS:
        for frame in range(NUM_FRAMES + 4):
            write_image(folder / name / f"{frame:05d}.png", read_image(steady / name / f"{place[frame]:05d}.png"))
    shutil.copy(steady / "poses_bounds.npy", folder)
    return folder


@pytest.fixture
def clip(recording, tmp_path) -> Path:
    """A copy of the recording without the last four frames."""
    shutil.copytree(recording, tmp_path / "frames")
    for name in CAMERAS:
        for frame in range(NUM_FRAMES, NUM_FRAMES + 4):
            (tmp_path / "frames" / name / f"{frame:05d}.png").unlink()
    return tmp_path / "frames"


def edit(clip: Path, camera: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in (clip / camera).iterdir():
        write_image(path, np.round(change(read_image(path).astype(np.float64))).clip(0, 255).astype(np.uint8))


def warned(clip: Path) -> list[str]:
    found = RigClip.open(clip)
    return warnings(inspect(found, range(found.num_frames), 32))


@pytest.mark.slow
def test_nothing_to_warn_of(clip, capsys):
    main([str(clip), "--out_dir", str(clip / "look")])
    out = capsys.readouterr().out
    text = (clip / "look" / REPORT_NAME).read_text()
    assert text in out
    assert "no warnings" in text
    assert "5 cameras, 36 frames of 144 x 72 pixels (frames), 36 of them read" in text
    assert text.count("in sync with the others") == 5
    picture = read_image(clip / "look" / PICTURE_NAME)
    assert picture.shape[0] > 800
    assert picture.shape[1] > 1200
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("shift", [-3, 2])
def test_a_camera_that_is_not_in_time(recording, clip, shift):
    for frame in range(NUM_FRAMES):
        source = min(max(frame - shift, 0), NUM_FRAMES + 3)
        shutil.copyfile(recording / "cam02" / f"{source:05d}.png", clip / "cam02" / f"{frame:05d}.png")
    lines = warned(clip)
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"cam02: {abs(shift)}.")
    assert ("late" if shift > 0 else "early") in lines[0]
    signals = read_signals(open_layout(clip), range(NUM_FRAMES))
    offsets = find_offsets([signal.motion for signal in signals])
    assert [offset.is_off for offset in offsets] == [False, False, True, False, False]
    assert offsets[2].frames == pytest.approx(shift, abs=0.4)
    assert all(abs(offsets[i].frames) < 0.3 for i in (0, 1, 3, 4))


def test_too_little_motion_says_so(clip, capsys):
    for path in clip.glob("cam*/*.png"):
        if path.name != "00000.png":
            shutil.copyfile(path.parent / "00000.png", path)
    main([str(clip)])
    assert capsys.readouterr().out.count("too little motion") == 5
    assert (clip / PICTURE_NAME).is_file()
    assert RigClip.open(clip).names == CAMERAS  # what was written is no camera


def test_exposure_and_colour(clip):
    edit(clip, "cam01", lambda picture: 0.8 * picture)
    edit(clip, "cam03", lambda picture: picture * [1, 1, 0.85])
    found = RigClip.open(clip)
    gains = inspect(found, range(found.num_frames), 32).gains
    expected = np.array([[1, 1, 1], [0.8, 0.8, 0.8], [1, 1, 1], [1, 1, 0.85], [1, 1, 1]])
    np.testing.assert_allclose(gains, expected, atol=0.015)
    lines = warned(clip)
    assert [line.split(":")[0] for line in lines if "light relative to the rig" in line] == ["cam01", "cam03"]


def test_geometry_that_is_poor(clip):
    poses = RigClip.open(clip).poses
    T = poses.cameras.T_cam_world.clone()
    T[:, 0, 3] *= 20
    turn = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]], dtype=torch.float64)
    T[3, :3, :3] = turn
    write_poses_bounds(
        clip / "poses_bounds.npy", RigPoses(Camera(T, poses.cameras.K, poses.cameras.size), poses.bounds)
    )
    text = "\n".join(warned(clip))
    assert "planes are " in text
    assert "take " in text
    assert "cam03: shares 0% of its picture" in text
    assert "cam03: looks " in text


def test_few_frames_and_motion_everywhere(clip):
    rng = np.random.default_rng(0)
    for name in CAMERAS:
        for frame in range(NUM_FRAMES):
            path = clip / name / f"{frame:05d}.png"
            if frame >= 8:
                path.unlink()
            elif name == "cam00":
                write_image(path, rng.integers(0, 256, (72, 144, 3), np.uint8))
    text = "\n".join(warned(clip))
    assert "8 frames: too few for a median" in text
    assert "cam00: " in text
    assert "differs from the median on average" in text


def test_videos_and_a_part_of_the_frames(clip, tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in CAMERAS:
        with VideoWriter(videos / f"{name}.mp4", (72, 144), fps=30) as writer:
            for path in sorted((clip / name).iterdir()):
                writer.append(read_image(path))
    shutil.copy(clip / "poses_bounds.npy", videos)
    main([str(videos), "--first", "2", "--count", "16"])
    out = capsys.readouterr().out
    assert "(videos), 16 of them read" in out
    assert "in sync with the others" in out
    assert (videos / PICTURE_NAME).is_file()


def test_bad_input_ends_with_one_line(tiny_rig, run_program, call_program, tmp_path):
    poses = np.load(tiny_rig / "poses_bounds.npy")
    poses[1, 15] = -1
    np.save(tiny_rig / "poses_bounds.npy", poses)
    out = tmp_path / "out"
    run_program("data_tools/inspect_rig.py", tiny_rig, "--out_dir", out).check_input_error("row 1", "near -1")
    (tiny_rig / "poses_bounds.npy").unlink()
    call_program("data_tools/inspect_rig.py", tiny_rig, "--out_dir", out).check_input_error("poses_bounds.npy")
    assert not out.exists()


def test_one_camera(make_rig, tmp_path, capsys):
    main([str(make_rig(tmp_path / "frames", cameras=["cam00"]))])
    assert "only one camera" in capsys.readouterr().out
