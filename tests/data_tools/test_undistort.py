"""undistort: calibrations in, clips of each layout out, calibration from rendered chessboards, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from board_helpers import write_boards
from lens_helpers import SIZE, make_lens, take_picture, waves

from data_tools.undistort import main
from maskvolume.clips.layouts import open_layout
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import (
    Lens,
    RemapTables,
    is_distorted,
    pinhole,
)
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.calibrations import read_calibration, write_calibration
from maskvolume.io.images import read_image, write_image
from maskvolume.io.llff import read_poses_bounds, write_poses_bounds
from maskvolume.io.video import VideoWriter
from maskvolume.runtime.errors import InputError

NAMES = ("cam00", "cam02")
LENSES = {"cam00": make_lens("barrel"), "cam02": make_lens("fisheye")}
FRAMES = 2


def camera_pose(number: int) -> np.ndarray:
    """World to camera: in a row, looking along +z."""
    T = np.eye(4)
    T[0, 3] = -0.2 * number
    return T


def frame_of(number: int, frame: int, lens: Lens) -> np.ndarray:
    """What a camera sees in a frame: the waves run on."""
    return take_picture(lens, camera_pose(number), lambda points: waves(points + 0.1 * frame))


PICTURES = {(n, f): frame_of(n, f, LENSES[name]) for n, name in enumerate(NAMES) for f in range(FRAMES)}


def write_poses(path: Path, focals: list[float], size: tuple[int, int] = SIZE) -> None:
    K = torch.tensor([[[f, 0, size[1] / 2], [0, f, size[0] / 2], [0, 0, 1]] for f in focals], dtype=torch.float64)
    T = torch.from_numpy(np.stack([camera_pose(n) for n in range(len(focals))]))
    write_poses_bounds(
        path, RigPoses(Camera(T, K, size), torch.tensor([[1.0, 9.0]] * len(focals), dtype=torch.float64))
    )


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    for name, lens in LENSES.items():
        write_calibration(tmp_path / "lenses" / f"{name}.json", lens)
    return tmp_path / "lenses"


def write_clip(root: Path, kind: str) -> Path:
    for (n, f), picture in PICTURES.items():
        if kind == "frames":
            write_image(root / NAMES[n] / f"{f:05d}.png", picture)
        elif kind == "collected":
            write_image(root / f"{f:05d}" / "images" / f"{n:03d}.png", picture)
    if kind == "collected":
        (root / ".collected.json").write_text('{"cameras": ["cam00", "cam02"]}')
    for n, name in enumerate(NAMES if kind == "videos" else ()):
        with VideoWriter(root / f"{name}.mp4", SIZE, 25, 0) as writer:
            for f in range(FRAMES):
                writer.append(PICTURES[n, f])
    focals = [float(lens.K[:2, :2].sum() / 2) for lens in LENSES.values()]
    write_poses((root / "00000" if kind == "collected" else root) / "poses_bounds.npy", focals)
    return root


def undistort(clip: Path, calibration: Path, out: Path, *options: object) -> None:
    main([str(clip), "--calibration", str(calibration), "--out_dir", str(out), *map(str, options)])


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("kind", ["frames", "videos", "collected"])
def test_new_clip_is_what_ideal_cameras_see(tmp_path, calibration, kind, capsys):
    undistort(write_clip(tmp_path / "clip", kind), calibration, tmp_path / "out")
    layout, clip = open_layout(tmp_path / "out"), RigClip.open(tmp_path / "out")
    assert (layout.kind, layout.names, layout.frame_names, layout.size) == (kind, NAMES, ("00000", "00001"), SIZE)
    K = clip.poses.cameras.K.numpy()
    for n, name in enumerate(NAMES):
        ideal = read_calibration(tmp_path / "out" / "calibration" / f"{name}.json")
        assert not is_distorted(ideal)
        np.testing.assert_allclose(ideal.K, K[n], rtol=1e-12)
        assert ideal.K[:2, 2].tolist() == [SIZE[1] / 2, SIZE[0] / 2]
        for f in range(FRAMES):
            difference = np.abs(clip.read(n, f).astype(int) - frame_of(n, f, pinhole(K[n], SIZE)))
            assert difference.mean() < (6 if kind == "videos" else 0.5)
            assert difference.max() <= (40 if kind == "videos" else 4)
    np.testing.assert_allclose(clip.poses.cameras.T_cam_world, np.stack([camera_pose(n) for n in range(2)]), atol=1e-12)
    assert clip.bounds.tolist() == [[1, 9]] * 2
    out = capsys.readouterr().out
    assert "2 frames of 2 cameras, 128 x 96" in out
    assert "warning" not in out


def test_keep_all_and_focal(tmp_path, calibration):
    clip = write_clip(tmp_path / "clip", "frames")
    undistort(clip, calibration, tmp_path / "crop")
    undistort(clip, calibration, tmp_path / "all", "--keep_all")
    undistort(clip, calibration, tmp_path / "focal", "--focal", 77)
    focals = {
        name: read_poses_bounds(tmp_path / name / "poses_bounds.npy").cameras.K[:, 0, 0].tolist()
        for name in ("crop", "all", "focal")
    }
    assert focals["focal"] == [77, 77]
    assert all(a < b for a, b in zip(focals["all"], focals["crop"], strict=True))
    assert (read_image(tmp_path / "all/cam02/00000.png") == 0).all(axis=-1).any()
    assert not (read_image(tmp_path / "crop/cam02/00000.png") == 0).all(axis=-1).any()


def test_focal_length_of_the_poses_that_does_not_fit(tmp_path, calibration, capsys):
    clip = write_clip(tmp_path / "clip", "frames")
    fitting = float(LENSES["cam00"].K[:2, :2].sum() / 2)
    write_poses(clip / "poses_bounds.npy", [fitting, 100.0])
    undistort(clip, calibration, tmp_path / "out")
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "cam02: focal length 100.0 pixels, calibration 71.0 (+41%)" in warnings[0]


def test_clip_without_poses(tmp_path, calibration, capsys):
    clip = write_clip(tmp_path / "clip", "frames")
    (clip / "poses_bounds.npy").unlink()
    undistort(clip, calibration, tmp_path / "out")
    assert open_layout(tmp_path / "out").names == NAMES
    assert not (tmp_path / "out/poses_bounds.npy").exists()
    assert "poses_bounds.npy: missing" in capsys.readouterr().out


def test_calibration_of_another_size(tmp_path):
    for name, lens in LENSES.items():
        write_calibration(tmp_path / "large" / f"{name}.yml", lens.scaled((2 * SIZE[0], 2 * SIZE[1])))
        write_calibration(tmp_path / "own" / f"{name}.yml", lens)
        write_calibration(tmp_path / "wide" / f"{name}.yml", lens.scaled((SIZE[0], 2 * SIZE[1])))
    clip = write_clip(tmp_path / "clip", "frames")
    undistort(clip, tmp_path / "large", tmp_path / "a")
    undistort(clip, tmp_path / "own", tmp_path / "b")
    for name in NAMES:
        a, b = (read_image(tmp_path / folder / name / "00001.png") for folder in "ab")
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match=r"cam00\.yml: made for pictures of 256 x 96 pixels, these have 128 x 96"):
        undistort(clip, tmp_path / "wide", tmp_path / "c")


def test_one_calibration_for_all_and_excluded_cameras(tmp_path, calibration):
    clip = write_clip(tmp_path / "clip", "frames")
    undistort(clip, calibration / "cam02.json", tmp_path / "one")
    first = read_poses_bounds(tmp_path / "one/poses_bounds.npy").cameras.K
    assert first[0].equal(first[1])
    undistort(clip, calibration, tmp_path / "less", "--exclude", "cam00")
    assert RigClip.open(tmp_path / "less").names == ("cam02",)
    assert RigClip.open(tmp_path / "less").poses.cameras.T_cam_world[0, 0, 3] == pytest.approx(-0.2)
    (calibration / "cam00.json").unlink()
    with pytest.raises(InputError, match=r"cam00\.json: no such calibration; .* --exclude"):
        undistort(clip, calibration, tmp_path / "other")
    with pytest.raises(InputError, match="no camera cam07; --exclude takes some of cam00, cam02"):
        undistort(clip, calibration, tmp_path / "other", "--exclude", "cam07")
    with pytest.raises(InputError, match="every camera is excluded"):
        undistort(clip, calibration, tmp_path / "other", "--exclude", "cam00", "cam02")
    assert not (tmp_path / "other").exists()


def test_cameras_without_distortion_stay_as_they_are(tmp_path, make_rig):
    clip = make_rig(tmp_path / "clip", num_frames=2, suffix=".jpg")
    lens = pinhole(np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), (48, 64))
    write_calibration(tmp_path / "lens.xml", lens)
    undistort(clip, tmp_path / "lens.xml", tmp_path / "out")
    assert (tmp_path / "out/cam01/00001.jpg").read_bytes() == (clip / "cam01/00001.jpg").read_bytes()
    old, new = (read_poses_bounds(folder / "poses_bounds.npy") for folder in (clip, tmp_path / "out"))
    torch.testing.assert_close(new.cameras.T_cam_world, old.cameras.T_cam_world, rtol=0, atol=1e-12)
    assert new.cameras.K.equal(old.cameras.K)


def test_second_run_keeps_all_and_goes_on_where_something_is_missing(tmp_path, calibration):
    clip, out = write_clip(tmp_path / "clip", "frames"), tmp_path / "out"
    undistort(clip, calibration, out)
    first = tree(out)
    (out / "cam00/00001.png").unlink()
    undistort(clip, calibration, out)
    second = tree(out)
    assert {name: data for name, (_, data) in first.items()} == {name: data for name, (_, data) in second.items()}
    pictures = [name for name in first if name.endswith(".png") and name != "cam00/00001.png"]
    assert all(first[name] == second[name] for name in pictures)
    assert len(pictures) == 3
    picture = clip / "cam02/00000.png"
    write_image(picture, PICTURES[1, 1])  # a newer source
    undistort(clip, calibration, out)
    assert (out / "cam02/00000.png").read_bytes() == first["cam02/00001.png"][1]


def test_second_run_keeps_videos(tmp_path, calibration):
    clip, out = write_clip(tmp_path / "clip", "videos"), tmp_path / "out"
    undistort(clip, calibration, out)
    first = tree(out)
    (out / "cam02.mp4").unlink()
    undistort(clip, calibration, out)
    assert tree(out)["cam00.mp4"] == first["cam00.mp4"]
    assert tree(out)["cam02.mp4"][1] == first["cam02.mp4"][1]
    assert open_layout(out).source.videos[0].fps == pytest.approx(25)


def test_folder_of_other_settings_is_refused(tmp_path, calibration):
    clip, out = write_clip(tmp_path / "clip", "frames"), tmp_path / "out"
    undistort(clip, calibration, out)
    with pytest.raises(InputError, match="out: was made of other cameras, frames or settings"):
        undistort(clip, calibration, out, "--exclude", "cam00")
    undistort(clip, calibration, out, "--exclude", "cam00", "--overwrite")
    assert RigClip.open(out).names == ("cam02",)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    for flags in ([], ["--overwrite"]):
        with pytest.raises(InputError, match=r"full: holds notes\.txt, which this program did not write"):
            undistort(clip, calibration, tmp_path / "full", *flags)
    with pytest.raises(InputError, match="clip: holds cam00, which this program did not write"):
        undistort(clip, calibration, clip)


@pytest.mark.parametrize("kind", ["frames", "videos"])
def test_interrupted_run_leaves_whole_files_and_goes_on(tmp_path, calibration, kind, monkeypatch):
    clip, out = write_clip(tmp_path / "clip", kind), tmp_path / "out"
    apply, count = RemapTables.apply, 0

    def interrupted(self: RemapTables, picture: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return apply(self, picture)

    monkeypatch.setattr(RemapTables, "apply", interrupted)
    with pytest.raises(KeyboardInterrupt):
        undistort(clip, calibration, out)
    files = {name for name in tree(out) if name.endswith((".png", ".mp4"))}
    assert files == ({"cam00/00000.png", "cam00/00001.png", "cam02/00000.png"} if kind == "frames" else {"cam00.mp4"})
    undistort(clip, calibration, out)
    assert count == (5 if kind == "frames" else 6)  # what was there was not made again
    assert RigClip.open(out).num_frames == FRAMES


def test_boards_of_one_folder_hold_for_all_cameras(tmp_path):
    write_boards(tmp_path / "boards", make_lens("barrel", (180, 240)), count=6)
    main([str(tmp_path / "boards"), "--board", "7", "5", "--out_dir", str(tmp_path / "out")])
    calibration = tmp_path / "out/calibration"
    assert [path.name for path in calibration.iterdir()] == ["all.json"]
    undistort(write_clip(tmp_path / "clip", "frames"), calibration, tmp_path / "straight")
    assert RigClip.open(tmp_path / "straight").names == NAMES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --calibration to undistort a clip, or --board"),
        (["--calibration", "a.json", "--board", "7", "5"], "give --calibration to undistort a clip, or --board"),
        (["--board", "7", "2"], "--board: 3 or more expected, got 2"),
        (["--board", "7", "5", "--square", "0"], "--square: above 0 expected, got 0"),
        (["--calibration", "a.json", "--focal", "-1"], "--focal: above 0 expected, got -1"),
        (["--calibration", "a.json", "--focal", "5", "--keep_all"], "--focal 5: no --keep_all with it"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        main([str(tmp_path), "--out_dir", str(tmp_path / "out"), *options])


def test_wrong_number_of_poses(tmp_path, calibration):
    clip = write_clip(tmp_path / "clip", "frames")
    write_poses(clip / "poses_bounds.npy", [70.0])
    with pytest.raises(InputError, match="1 poses for 2 cameras"):
        undistort(clip, calibration, tmp_path / "out")


@pytest.mark.slow
def test_as_a_program(run_program, tmp_path, calibration):
    clip = write_clip(tmp_path / "clip", "frames")
    (calibration / "cam00.json").write_text("{")
    done = run_program("data_tools/undistort.py", clip, "--calibration", "lenses", "--out_dir", "out", cwd=tmp_path)
    done.check_input_error("cam00.json: damaged")
    assert not (tmp_path / "out").exists()
