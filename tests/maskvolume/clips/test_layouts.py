"""Layouts on disk: detected from the contents of a folder, checked by names and headers only."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskvolume.clips import layouts as frames_module
from maskvolume.clips.layouts import list_pictures, open_layout
from maskvolume.io.files import natural_key
from maskvolume.io.images import write_image
from maskvolume.io.video import VideoFrames, VideoWriter
from maskvolume.runtime.errors import InputError

SIZE = (24, 32)
NAMES = ("cam00", "cam02", "cam10")
COUNT = 3


def picture(camera: int, frame: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A flat colour that tells camera and frame."""
    return np.full((*size, 3), (40 + 60 * camera, 40 + 60 * frame, 120), np.uint8)


def frame_folder(root: Path, suffix: str = ".png") -> Path:
    for camera, name in enumerate(NAMES):
        for frame in range(COUNT):
            write_image(root / name / f"{frame:05d}{suffix}", picture(camera, frame))
    return root


def collected_clip(root: Path) -> Path:
    for frame in range(COUNT):
        for camera in range(len(NAMES)):
            write_image(root / f"{frame:05d}" / "images" / f"{camera:03d}.png", picture(camera, frame))
    return root


def write_video(path: Path, camera: int, count: int = COUNT, size: tuple[int, int] = SIZE) -> None:
    with VideoWriter(path, size, 30, 4) as writer:
        for frame in range(count):
            writer.append(picture(camera, frame, size))


def video_folder(root: Path) -> Path:
    for camera, name in enumerate(NAMES):
        write_video(root / f"{name}.mp4", camera)
    return root


MAKERS = {"frames": frame_folder, "collected": collected_clip, "videos": video_folder}


def test_natural_order() -> None:
    names = ["cam10", "cam2", "cam02", "cam1", "a", "10", "9", "b2c10", "b2c9"]
    expected = ["9", "10", "a", "b2c9", "b2c10", "cam1", "cam02", "cam2", "cam10"]
    assert sorted(names, key=natural_key) == expected


@pytest.mark.parametrize("kind", MAKERS)
def test_layout_is_told_by_looking(tmp_path: Path, kind: str) -> None:
    layout = open_layout(MAKERS[kind](tmp_path))
    assert layout.kind == kind
    assert layout.names == (("cam00", "cam01", "cam02") if kind == "collected" else NAMES)
    assert layout.frame_names == ("00000", "00001", "00002")
    assert layout.size == SIZE
    parent = tmp_path / "00000" if kind == "collected" else tmp_path
    assert layout.poses_path == parent / "poses_bounds.npy"
    for camera in range(len(NAMES)):
        for frame in range(COUNT):
            difference = layout.source.read(camera, frame).astype(int) - picture(camera, frame)
            assert np.abs(difference).max() <= (4 if kind == "videos" else 0)


def test_jpeg_frames(tmp_path: Path) -> None:
    layout = open_layout(frame_folder(tmp_path, ".jpg"))
    assert np.abs(layout.source.read(2, 1).astype(int) - picture(2, 1)).max() <= 4
    assert layout.source.file(2, 1) == tmp_path / "cam10" / "00001.jpg"


def test_what_else_lies_in_a_frame_folder(tmp_path: Path) -> None:
    """Backgrounds, a collected clip, results and hidden files are no cameras."""
    root = frame_folder(tmp_path)
    write_image(root / "background" / "cam00.png", picture(0, 0))
    write_image(root / "masks" / "00000.png", picture(0, 0))
    write_image(root / ".cam03" / "00000.png", picture(0, 0))
    write_image(root / "cam00" / ".00000.tmp.png", picture(0, 0, (2, 2)))
    (root / "cam00" / "notes.txt").write_text("")
    collected_clip(root / "qual")
    write_video(root / "result.mp4", 0)
    assert open_layout(root).names == NAMES


def test_cameras_of_other_names(tmp_path: Path) -> None:
    for name in ("target2", "target10"):
        write_image(tmp_path / name / "00000.png", picture(0, 0))
    (tmp_path / "notes").mkdir()
    assert open_layout(tmp_path).names == ("target2", "target10")


def test_frame_names_are_kept(tmp_path: Path) -> None:
    for name in NAMES:
        for frame in ("frame_9", "frame_10", "frame_12"):
            write_image(tmp_path / name / f"{frame}.png", picture(0, 0))
    assert open_layout(tmp_path).frame_names == ("frame_9", "frame_10", "frame_12")


@pytest.mark.parametrize("kind", ["frames", "collected"])
def test_opening_decodes_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    root = MAKERS[kind](tmp_path)
    decoded: list[Path] = []
    read_image = frames_module.read_image
    monkeypatch.setattr(frames_module, "read_image", lambda path: decoded.append(path) or read_image(path))
    layout = open_layout(root)
    assert decoded == []
    layout.source.read(1, 2)
    assert decoded == [layout.source.file(1, 2)]


def test_opening_decodes_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = video_folder(tmp_path)
    decoded: list[tuple[str, int]] = []
    decode = VideoFrames._decode

    def record(self: VideoFrames, index: int) -> np.ndarray:
        decoded.append((self.path.stem, index))
        return decode(self, index)

    monkeypatch.setattr(VideoFrames, "_decode", record)
    layout = open_layout(root)
    assert decoded == []
    layout.source.read(1, 2)
    assert decoded == [("cam02", 2)]
    assert isinstance(layout.source, frames_module.Videos)
    assert [video._decoder is not None for video in layout.source.videos] == [False, True, False]


def test_folder_that_is_missing_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no such folder; check the path"):
        open_layout(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: is not a folder; check the path"):
        open_layout(tmp_path / "file")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder is empty; a folder per camera"):
        open_layout(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"holds no clip; a folder per camera .* expected"):
        open_layout(tmp_path)


def test_frame_of_a_collected_clip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"00000: is one frame of a collected clip; give the folder above"):
        open_layout(collected_clip(tmp_path) / "00000")


def without(*parts: str) -> Callable[[Path], object]:
    def remove(root: Path) -> None:
        path = root.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def replaced(*parts: str) -> Callable[[Path], object]:
    return lambda root: write_image(root.joinpath(*parts), picture(0, 0, (48, 32)))


def emptied(*parts: str) -> Callable[[Path], object]:
    def empty(root: Path) -> None:
        without(*parts)(root)
        root.joinpath(*parts).mkdir()

    return empty


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


SIZES = "32 x 48 pixels, but .* has 32 x 24; bring all cameras to one size"
UNEQUAL: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "camera with fewer frames": (
        "frames",
        without("cam02", "00001.png"),
        r"cam02: 2 pictures, but cam00 has 3 \(00001 is missing\); give the same frames",
    ),
    "camera with more frames": (
        "frames",
        without("cam00", "00001.png"),
        r"cam02: 3 pictures, but cam00 has 2 \(00001 is only here\); give the same frames",
    ),
    "camera with other frame names": (
        "frames",
        renamed("cam10/00002.png", "cam10/00003.png"),
        r"cam10: 3 pictures, but cam00 has 3 \(00002 is missing\)",
    ),
    "empty camera": ("frames", emptied("cam02"), "cam02: no picture in it; put the frames"),
    "camera of another size": ("frames", replaced("cam02", "00000.png"), rf"cam02/00000\.png: {SIZES}"),
    "frame with fewer cameras": (
        "collected",
        without("00001", "images", "002.png"),
        r"00001/images: 2 pictures, but 00000 has 3 \(002 is missing\); give the same cameras",
    ),
    "frame without pictures": (
        "collected",
        without("00001", "images"),
        "00001/images: no such folder; check",
    ),
    "first frame empty": (
        "collected",
        emptied("00000", "images"),
        "00000/images: no picture in it; one picture per camera",
    ),
    "picture of another size": (
        "collected",
        replaced("00000", "images", "001.png"),
        rf"001\.png: {SIZES}",
    ),
    "video of another length": (
        "videos",
        lambda root: write_video(root / "cam02.mp4", 0, count=2),
        r"cam02\.mp4: 2 frames, but cam00\.mp4 has 3; cut the videos to the same frames",
    ),
    "video of another size": (
        "videos",
        lambda root: write_video(root / "cam02.mp4", 0, size=(48, 32)),
        rf"cam02\.mp4: {SIZES}",
    ),
    "truncated video": (
        "videos",
        lambda root: (root / "cam02.mp4").write_bytes((root / "cam02.mp4").read_bytes()[:-40]),
        r"cam02\.mp4: the video is cut short; copy or record it again",
    ),
    "two videos of a name": (
        "videos",
        lambda root: shutil.copy(root / "cam02.mp4", root / "cam02.mov"),
        r"cam02\.m\w+: two videos have this name; keep one",
    ),
    "two pictures of a name": (
        "frames",
        lambda root: write_image(root / "cam02" / "00000.jpg", picture(0, 0)),
        r"00000\.\w+: 00000\.\w+ has the same name; keep one",
    ),
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_unequal_cameras(tmp_path: Path, name: str) -> None:
    kind, spoil, message = UNEQUAL[name]
    root = MAKERS[kind](tmp_path / "clip")
    spoil(root)
    with pytest.raises(InputError, match=message):
        open_layout(root)


def test_later_frame_of_another_size(tmp_path: Path) -> None:
    root = frame_folder(tmp_path)
    replaced("cam02", "00002.png")(root)
    layout = open_layout(root)
    layout.source.read(1, 1)
    with pytest.raises(InputError, match=rf"cam02/00002\.png: {SIZES}"):
        layout.source.read(1, 2)


def test_list_pictures_sorts_by_number(tmp_path: Path) -> None:
    for name in ("10.png", "9.jpg", ".8.png", "7.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list(list_pictures(tmp_path)) == ["9", "10"]


def test_videos_of_cameras_go_before_folders_of_other_names(tmp_path: Path) -> None:
    for name in ("cam00", "cam01"):
        write_video(tmp_path / f"{name}.mp4", int(name[-1]))
    (tmp_path / "held_out").mkdir()
    write_image(tmp_path / "held_out" / "00000.png", np.zeros((48, 64, 3), np.uint8))
    layout = open_layout(tmp_path)
    assert layout.kind == "videos"
    assert layout.names == ("cam00", "cam01")
