"""Clips on disk: the layout of a folder, and the frames of each camera.

Layouts:
    collected: ``00000/images/000.jpg ...``, one folder per frame, one picture per camera;
        ``00000/poses_bounds.npy`` applies to all frames.
    frames: ``cam00/00000.jpg ...``, one folder per camera (jpg or png), and ``poses_bounds.npy``.
    videos: ``cam00.mp4 ...``, one video per camera, and ``poses_bounds.npy``.

Names may have gaps. They are sorted naturally, numbers by value, and the rows of the poses follow the same order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from maskvolume.io.files import natural_key
from maskvolume.io.images import PICTURE_SUFFIXES, read_image, read_image_size
from maskvolume.io.video import VideoFrames
from maskvolume.runtime.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov")
POSES_NAME = "poses_bounds.npy"
PATH_NAME = "qual_path.txt"  # the clip's own camera path, beside its poses
BACKGROUND_NAME = "background"
COLLECTED_NAME = ".collected.json"  # written by data_tools/collect_data.py into the clips that it collects

_CAMERA_NAME = re.compile(r"cam(era)?[ _-]?\d+", re.IGNORECASE)
_NOT_CAMERAS = (BACKGROUND_NAME, "images", "masks", "mattes")
_EXPECTED = (
    "a folder per camera (cam00/00000.jpg ...), a video per camera (cam00.mp4 ...) or a collected clip "
    "(00000/images/000.jpg ...) expected"
)


class FrameSource(Protocol):
    """Frames by camera and frame number, decoded on demand."""

    def read(self, camera: int, frame: int) -> np.ndarray:
        """Read a frame as stored, uint8 ``[H, W, 3]`` RGB; raises InputError if it cannot be decoded."""
        ...

    def file(self, camera: int, frame: int) -> Path:
        """The file that holds a frame: a picture, or the video that contains it."""
        ...

    def release(self, camera: int) -> None:
        """Free the decoder of a camera: a rig has many of them, and each holds many pictures."""
        ...


@dataclass(frozen=True)
class Pictures:
    """Frames stored as one picture each.

    Attributes:
        files: the pictures of each camera, in order.
        size: (h, w) required of each picture.
    """

    files: tuple[tuple[Path, ...], ...]
    size: tuple[int, int]

    def file(self, camera: int, frame: int) -> Path:
        return self.files[camera][frame]

    def read(self, camera: int, frame: int) -> np.ndarray:
        picture = read_image(self.files[camera][frame])
        if picture.shape[:2] != self.size:
            raise _size_error(self.files[camera][frame], picture.shape[:2], "the clip", self.size)
        return picture

    def release(self, camera: int) -> None:
        pass


@dataclass(frozen=True)
class Videos:
    """Frames stored as one video per camera; a video is decoded when one of its frames is read."""

    videos: tuple[VideoFrames, ...]

    def file(self, camera: int, frame: int) -> Path:
        return self.videos[camera].path

    def read(self, camera: int, frame: int) -> np.ndarray:
        return self.videos[camera].read(frame)

    def release(self, camera: int) -> None:
        self.videos[camera].close()


@dataclass(frozen=True)
class Layout:
    """The contents of a folder.

    Attributes:
        kind: ``collected``, ``frames`` or ``videos``, or a form of ``maskvolume.clips.recordings``.
        root: the folder.
        names: names of the cameras, sorted.
        frame_names: names of the frames, sorted.
        size: (h, w) of all stored pictures.
        poses_path: the file of the cameras' LLFF poses, which may not exist; the clip's own path lies beside it.
        source: the frames.
        notes: lines for the user about how the clip is read.
    """

    kind: str
    root: Path
    names: tuple[str, ...]
    frame_names: tuple[str, ...]
    size: tuple[int, int]
    poses_path: Path
    source: FrameSource
    notes: tuple[str, ...] = ()

    @property
    def path_file(self) -> Path:
        """The file of the clip's own camera path, which may not exist."""
        return self.poses_path.with_name(PATH_NAME)

    def index(self, camera: str | int) -> int:
        """The position of a camera given by its name or its position.

        Raises:
            InputError: there is no such camera; the message lists the cameras.
        """
        if camera in self.names:
            return self.names.index(str(camera))
        try:
            index = int(camera)
        except ValueError:
            index = -1
        if not 0 <= index < len(self.names):
            raise InputError(
                f"{self.root}: no camera {camera}; choose one of {', '.join(self.names)}, "
                f"or a number from 0 to {len(self.names) - 1}"
            )
        return index


def list_pictures(folder: str | Path) -> dict[str, Path]:
    """The pictures of a folder by file name without suffix, sorted; hidden files are skipped.

    Raises:
        InputError: the folder is missing, or two of its pictures differ only in their suffix.
    """
    pictures: dict[str, Path] = {}
    for path in _entries(Path(folder)):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if path.stem in pictures:
            raise InputError(f"{path}: {pictures[path.stem].name} has the same name; keep one of the two pictures")
        pictures[path.stem] = path
    return pictures


def open_layout(root: str | Path) -> Layout:
    """Detect and check the layout of ``root``; reads only names and headers.

    Raises:
        InputError: the folder is missing, empty or of no known layout, or its cameras differ in the number
            or names of frames or in picture size.
    """
    root = Path(root)
    entries = _entries(root)
    if not entries:
        raise InputError(f"{root}: the folder is empty; {_EXPECTED}")
    folders = [path for path in entries if path.is_dir() and path.name not in _NOT_CAMERAS]
    numbered = [path for path in folders if path.name.isdecimal()]
    if any((path / "images").is_dir() for path in numbered):
        return _open_collected(root, numbered)
    cameras = _choose_cameras(folders, lambda folder: bool(list_pictures(folder)))
    videos = _choose_cameras([path for path in entries if path.suffix.lower() in VIDEO_SUFFIXES])
    # Videos named like cameras take precedence over folders that aren't, which hold other pictures.
    if cameras and (_is_named(cameras[0]) or not (videos and _is_named(videos[0]))):
        return _open_frames(root, cameras)
    if videos:
        return _open_videos(root, videos)
    if (root / "images").is_dir():
        raise InputError(f"{root}: is one frame of a collected clip; give the folder above it")
    raise InputError(f"{root}: holds no clip; {_EXPECTED}")


def background_folder(layout: Layout) -> Path:
    """The folder of the background pictures: inside the clip; for a collected clip possibly beside it."""
    inside, beside = layout.root / BACKGROUND_NAME, layout.root.resolve().parent / BACKGROUND_NAME
    if layout.kind == "collected" and beside.is_dir() and not inside.is_dir():
        return beside
    return inside


def find_background(layout: Layout, camera: int, folder: Path, maker: str) -> Path:
    """Find the background picture of a camera.

    Args:
        layout: the clip.
        camera: position of the camera.
        folder: the folder with the background pictures of all cameras.
        maker: the program that creates them, for the error message.

    Returns:
        The file of the picture.

    Raises:
        InputError: the folder is missing, or holds no picture of this camera.
    """
    advice = f"make the backgrounds with {maker}, or give their folder as --bg_dir"
    if not folder.is_dir():
        raise InputError(f"{folder}: no folder of background pictures; {advice}")
    name, pictures = layout.names[camera], list_pictures(folder)
    if set(layout.names) <= set(pictures):
        return pictures[name]
    # Clips of the original implementation number cameras from 0, while backgrounds keep names with gaps.
    if layout.kind == "collected" and len(pictures) == len(layout.names):
        return list(pictures.values())[camera]
    if name in pictures:
        return pictures[name]
    raise InputError(f"{folder / name}.png: no background picture of this camera; {advice}")


def _is_named(path: Path) -> bool:
    return _CAMERA_NAME.fullmatch(path.stem) is not None


def _choose_cameras(paths: Sequence[Path], holds: Callable[[Path], bool] = lambda path: True) -> list[Path]:
    """The paths named like cameras (even if empty, so that errors report them), otherwise all that hold frames."""
    named = [path for path in paths if _is_named(path)]
    return named or [path for path in paths if holds(path)]


def _open_collected(root: Path, folders: list[Path]) -> Layout:
    pictures = [list_pictures(folder / "images") for folder in folders]
    cameras = list(pictures[0])
    if not cameras:
        raise InputError(f"{folders[0] / 'images'}: no picture in it; one picture per camera expected")
    for folder, row in zip(folders, pictures, strict=True):
        _require_same(cameras, row, folder / "images", folders[0].name, "cameras")
    files = tuple(tuple(row[camera] for row in pictures) for camera in cameras)
    names = _collected_names(root / COLLECTED_NAME, len(cameras)) or tuple(
        f"cam{int(camera):02d}" if camera.isdecimal() else camera for camera in cameras
    )
    size = _common_size(row[0] for row in files)
    frame_names = tuple(folder.name for folder in folders)
    source = Pictures(files, size)
    return Layout("collected", root, names, frame_names, size, folders[0] / POSES_NAME, source)


def _collected_names(record: Path, count: int) -> tuple[str, ...] | None:
    """The names of the cameras before they were numbered; None if not recorded."""
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["cameras"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
    return tuple(names) if known else None


def _open_frames(root: Path, folders: list[Path]) -> Layout:
    pictures = [list_pictures(folder) for folder in folders]
    for folder, row in zip(folders, pictures, strict=True):
        if not row:
            raise InputError(f"{folder}: no picture in it; put the frames of this camera there (jpg or png)")
        _require_same(list(pictures[0]), row, folder, folders[0].name, "frames")
    files = tuple(tuple(row.values()) for row in pictures)
    size = _common_size(row[0] for row in files)
    names = tuple(folder.name for folder in folders)
    return Layout("frames", root, names, tuple(pictures[0]), size, root / POSES_NAME, Pictures(files, size))


def _open_videos(root: Path, paths: list[Path]) -> Layout:
    stems = [path.stem for path in paths]
    for path in paths:
        if stems.count(path.stem) > 1:
            raise InputError(f"{path}: two videos have this name; keep one of them")
    videos = tuple(VideoFrames(path) for path in paths)
    for video in videos:
        if video.size != videos[0].size:
            raise _size_error(video.path, video.size, videos[0].path.name, videos[0].size)
        if video.count != videos[0].count:
            raise InputError(
                f"{video.path}: {video.count} frames, but {videos[0].path.name} has {videos[0].count}; cut "
                f"the videos to the same frames"
            )
    frame_names = tuple(f"{i:05d}" for i in range(videos[0].count))
    return Layout("videos", root, tuple(stems), frame_names, videos[0].size, root / POSES_NAME, Videos(videos))


def _require_same(expected: list[str], found: dict[str, Path], folder: Path, first: str, what: str) -> None:
    if list(found) == expected:
        return
    missing = next((name for name in expected if name not in found), None)
    extra = next((name for name in found if name not in expected), None)
    difference = f"{missing} is missing" if missing is not None else f"{extra} is only here"
    raise InputError(
        f"{folder}: {len(found)} pictures, but {first} has {len(expected)} ({difference}); give the same "
        f"{what} everywhere"
    )


def _common_size(paths: Iterable[Path]) -> tuple[int, int]:
    paths = list(paths)
    first = read_image_size(paths[0])
    for path in paths[1:]:
        size = read_image_size(path)
        if size != first:
            raise _size_error(path, size, paths[0], first)
    return first


def _size_error(path: Path, size: tuple[int, ...], other: str | Path, expected: tuple[int, int]) -> InputError:
    return InputError(
        f"{path}: {size[1]} x {size[0]} pixels, but {other} has {expected[1]} x {expected[0]}; bring all "
        f"cameras to one size"
    )


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder in natural order, without hidden ones."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; check the path")
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(paths, key=lambda path: natural_key(path.name))
