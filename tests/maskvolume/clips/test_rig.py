"""RigClip: one face for all layouts, reading only what is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoWriter
from maskvolume.runtime.errors import InputError

PARITY = Path(__file__).parents[2] / "data" / "original_parity"
SIZE = (24, 32)
NAMES = ("cam00", "cam02", "cam03")
COUNT = 3
KINDS = ("frames", "collected", "videos")


def picture(camera: int, frame: int) -> np.ndarray:
    """A flat colour that tells camera and frame."""
    return np.full((*SIZE, 3), (40 + 60 * camera, 40 + 60 * frame, 120), np.uint8)


def rows(count: int = len(NAMES), size: tuple[int, int] = (48, 128)) -> np.ndarray:
    """Poses in a row along x, for pictures twice as high and four times as wide."""
    matrix = np.zeros((count, 3, 5))
    matrix[:, 1, 0] = matrix[:, 0, 1] = 1
    matrix[:, 2, 2] = -1
    matrix[:, 0, 3] = np.arange(count) * 0.1
    matrix[:, :, 4] = [*size, 100]
    bounds = np.stack([2.0 - 0.1 * np.arange(count), 5.0 + np.arange(count)], axis=1)
    return np.concatenate([matrix.reshape(count, 15), bounds], axis=1)


def make_clip(root: Path, kind: str) -> Path:
    for camera, name in enumerate(NAMES):
        if kind == "videos":
            with VideoWriter(root / f"{name}.mp4", SIZE, 30, 4) as writer:
                for frame in range(COUNT):
                    writer.append(picture(camera, frame))
        for frame in range(COUNT):
            if kind == "frames":
                write_image(root / name / f"{frame:05d}.png", picture(camera, frame))
            if kind == "collected":
                write_image(root / f"{frame:05d}" / "images" / f"{camera:03d}.png", picture(camera, frame))
    np.save(poses_path(root, kind), rows())
    return root


def poses_path(root: Path, kind: str) -> Path:
    return (root / "00000" if kind == "collected" else root) / "poses_bounds.npy"


def write_backgrounds(folder: Path, names: tuple[str, ...] = NAMES, suffix: str = ".png") -> None:
    for camera, name in enumerate(names):
        write_image(folder / f"{name}{suffix}", np.full((*SIZE, 3), 10 + 20 * camera, np.uint8))


@pytest.fixture
def clip(tmp_path: Path) -> RigClip:
    return RigClip.open(make_clip(tmp_path / "clip", "frames"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_layouts_show_the_same_clip(tmp_path: Path, kind: str) -> None:
    clip = RigClip.open(make_clip(tmp_path / "clip", kind))
    assert clip.root_dir == tmp_path / "clip"
    assert clip.names == (NAMES if kind != "collected" else ("cam00", "cam01", "cam02"))
    assert (clip.num_frames, clip.frame_names) == (COUNT, ("00000", "00001", "00002"))
    assert clip.size == SIZE
    assert torch.equal(clip.bounds, torch.from_numpy(rows()[:, 15:]))
    for camera in range(len(NAMES)):
        for frame in range(COUNT):
            read = clip.read(camera, frame)
            assert (read.dtype, read.shape) == (np.uint8, (*SIZE, 3))
            assert np.abs(read.astype(int) - picture(camera, frame)).max() <= 4
            assert clip.read(camera, frame, (12, 40)).shape == (12, 40, 3)
    centers = clip.cameras().center
    torch.testing.assert_close(centers[:, 0], torch.tensor([0.0, 0.1, 0.2]))


def test_near_and_far_planes(clip: RigClip) -> None:
    assert clip.near_far() == (pytest.approx(0.9 * 1.8), pytest.approx(2 * 7.0))


def test_intrinsics_follow_the_pictures(clip: RigClip) -> None:
    """The poses name 128 x 48, the pictures have 32 x 24: each axis has its own scale."""
    assert clip.poses.cameras.size == (48, 128)
    cameras = clip.cameras()
    assert cameras.size == SIZE
    assert cameras.K.dtype == cameras.T_cam_world.dtype == torch.float32
    torch.testing.assert_close(cameras.K[1], torch.tensor([[25.0, 0, 16], [0, 50, 12], [0, 0, 1]]))
    assert torch.equal(clip.cameras((48, 128)).K, clip.poses.cameras.K.float())


@pytest.mark.parametrize("size", [None, (36, 100), (360, 640)])
def test_a_point_stays_at_the_same_part_of_the_picture(clip: RigClip, size: tuple[int, int] | None) -> None:
    point = torch.tensor([0.3, -0.2, 3.0, 1.0], dtype=torch.float64)
    positions = []
    for cameras in (clip.poses.cameras, clip.cameras(size).to(torch.float64)):
        u = cameras.K @ (cameras.T_cam_world @ point)[:, :3, None]
        h, w = cameras.size
        positions.append(u[:, :2, 0] / u[:, 2:, 0] / torch.tensor([w, h]))
    torch.testing.assert_close(positions[0], positions[1], atol=1e-6, rtol=0)


def test_clip_of_the_original() -> None:
    clip = RigClip.open(PARITY / "frames")
    assert clip.layout.kind == "collected"
    assert clip.names == tuple(f"cam{i:02d}" for i in range(10))
    assert clip.frame_names == ("00000", "00001")
    assert clip.size == (72, 128)
    torch.testing.assert_close(clip.cameras().K[0], torch.tensor([[104.0, 0, 64], [0, 104, 36], [0, 0, 1]]))
    assert clip.background_dir == PARITY / "background"
    np.testing.assert_array_equal(clip.read(4, 1), read_image(PARITY / "frames" / "00001" / "images" / "004.png"))
    np.testing.assert_array_equal(clip.read_background(5), read_image(PARITY / "background" / "cam05.png"))


@pytest.mark.parametrize(("camera", "index"), [("cam00", 0), ("cam03", 2), (1, 1), ("2", 2)])
def test_index(clip: RigClip, camera: str | int, index: int) -> None:
    assert clip.index(camera) == index


@pytest.mark.parametrize("camera", ["cam01", "cam", "", 3, "3", -1, "-1", "1.5"])
def test_no_such_camera(clip: RigClip, camera: str | int) -> None:
    with pytest.raises(InputError, match=r"clip: no camera .*; choose one of cam00, cam02, cam03, or a num"):
        clip.index(camera)


@pytest.mark.parametrize("read", [RigClip.read, RigClip.file])
def test_no_such_camera_or_frame_to_read(clip: RigClip, read: Callable[[RigClip, int, int], object]) -> None:
    for camera in (-1, 3):
        with pytest.raises(InputError, match=rf"clip: no camera {camera}; choose"):
            read(clip, camera, 0)
    for frame in (-1, 3):
        with pytest.raises(InputError, match=rf"clip: no frame {frame}; the clip has 3, choose one of 0 to 2"):
            read(clip, 0, frame)
    with pytest.raises(InputError, match="no camera 3"):
        clip.read_background(3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_poses(tmp_path: Path, kind: str, count: int) -> None:
    root = make_clip(tmp_path / "clip", kind)
    np.save(poses_path(root, kind), rows(count))
    message = rf"poses_bounds\.npy: {count} poses for 3 cameras \(cam00, .*\); one row for each camera"
    with pytest.raises(InputError, match=message):
        RigClip.open(root)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_or_missing_poses(tmp_path: Path, kind: str) -> None:
    root = make_clip(tmp_path / "clip", kind)
    bad = rows()
    bad[1, 3] = np.nan
    np.save(poses_path(root, kind), bad)
    with pytest.raises(InputError, match=r"poses_bounds\.npy: row 1 holds NaN"):
        RigClip.open(root)
    poses_path(root, kind).unlink()
    with pytest.raises(
        InputError, match=r"poses_bounds\.npy: no such file; make it .* put the LLFF poses of the 3 cam"
    ):
        RigClip.open(root)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no such folder; check the path"):
        RigClip.open(tmp_path / "gone")


@pytest.mark.parametrize("kind", ["frames", "collected"])
def test_only_what_is_asked_for_is_opened(tmp_path: Path, kind: str) -> None:
    """Everything but the headers of the first frame may be spoiled as long as nobody asks for it."""
    root = make_clip(tmp_path / "clip", kind)
    first = RigClip.open(root)
    for camera in range(3):
        for frame in range(COUNT):
            path = first.file(camera, frame)
            if (camera, frame) == (1, 2):
                continue
            path.write_bytes(path.read_bytes()[:-20])
    clip = RigClip.open(root)
    np.testing.assert_array_equal(clip.read(1, 2), picture(1, 2))
    with pytest.raises(InputError, match=r"\.png: the picture is cut short; make or download"):
        clip.read(1, 1)


def test_videos_that_nobody_asks_for_are_not_decoded(tmp_path: Path) -> None:
    root = make_clip(tmp_path / "clip", "videos")
    for name in ("cam00", "cam03"):
        data = bytearray((root / f"{name}.mp4").read_bytes())
        start = data.index(b"mdat") + 4
        data[start:] = bytes(len(data) - start)
        (root / f"{name}.mp4").write_bytes(data)
    clip = RigClip.open(root)
    assert np.abs(clip.read(1, 2).astype(int) - picture(1, 2)).max() <= 4
    with pytest.raises(InputError, match=r"cam00\.mp4: frame \d of 3 cannot be decoded"):
        clip.read(0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_from_several_threads(tmp_path: Path, kind: str) -> None:
    clip = RigClip.open(make_clip(tmp_path / "clip", kind))
    wanted = np.random.default_rng(0).integers(0, 3, (60, 2)).tolist()
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda pair: clip.read(*pair), wanted))
    for (camera, frame), read in zip(wanted, pictures, strict=True):
        assert np.abs(read.astype(int) - picture(camera, frame)).max() <= 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_backgrounds_inside_the_clip(tmp_path: Path, kind: str, suffix: str) -> None:
    root = make_clip(tmp_path / "clip", kind)
    write_backgrounds(root / "background", RigClip.open(root).names, suffix)
    clip = RigClip.open(root)
    assert clip.background_dir == root / "background"
    for camera in range(3):
        assert np.abs(clip.read_background(camera).astype(int) - 10 - 20 * camera).max() <= 2
    assert clip.read_background(0, (12, 20)).shape == (12, 20, 3)


def test_backgrounds_come_at_the_size_of_the_clip(tmp_path: Path) -> None:
    root = make_clip(tmp_path / "clip", "frames")
    for name in NAMES:
        write_image(tmp_path / "bg" / f"{name}.png", np.zeros((48, 64, 3), np.uint8))
    assert RigClip.open(root, tmp_path / "bg").read_background(0).shape == (*SIZE, 3)


def test_backgrounds_beside_a_collected_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera names have gaps, which the numbers of the collected pictures do not."""
    make_clip(tmp_path / "qual", "collected")
    write_backgrounds(tmp_path / "background", NAMES)
    monkeypatch.chdir(tmp_path / "qual")
    for root in (tmp_path / "qual", Path()):
        clip = RigClip.open(root)
        assert clip.background_dir == tmp_path / "background"
        assert [int(clip.read_background(i)[0, 0, 0]) for i in range(3)] == [10, 30, 50]


def test_backgrounds_missing(tmp_path: Path) -> None:
    root = make_clip(tmp_path / "clip", "frames")
    advice = r"make the backgrounds with data_tools/collect_data\.py, or give their folder as --bg_dir"
    with pytest.raises(InputError, match=rf"clip/background: no folder of background pictures; {advice}"):
        RigClip.open(root).read_background(0)
    write_backgrounds(root / "background", ("cam00", "cam03"))
    clip = RigClip.open(root)
    assert clip.read_background(2)[0, 0, 0] == 30
    with pytest.raises(InputError, match=rf"cam02\.png: no background picture of this camera; {advice}"):
        clip.read_background(1)
    shutil.rmtree(root / "background")
    with pytest.raises(InputError, match=r"elsewhere: no folder of background pictures"):
        RigClip.open(root, tmp_path / "elsewhere").read_background(0)


def test_background_cut_short(tmp_path: Path) -> None:
    root = make_clip(tmp_path / "clip", "frames")
    write_backgrounds(root / "background")
    path = root / "background" / "cam02.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cam02\.png: the picture is cut short"):
        RigClip.open(root).read_background(1)
