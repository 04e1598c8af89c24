"""RealEstate10K's text files, and those of MannequinChallenge, which have the same format.

One file is one scene: a clip of a video. Line 1 is the address of the video. Every other line has 19
numbers: the timestamp of a frame in microseconds; fx, fy, cx, cy divided by the width and the height;
two unused ones; a 3 x 4 world-to-camera matrix, row by row, OpenCV axes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

_ADVICE = "download the text files again"
_NUM_COLUMNS = 19
# Text of nine decimals deviates slightly; a larger deviation means another layout.
_ORTHONORMAL_TOLERANCE = 1e-2
_LAST_TIMESTAMP = 2**63 - 1

_YOUTUBE_HOSTS = ("youtube.com", "youtube-nocookie.com", "youtu.be")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_YOUTUBE_FOLDERS = ("embed", "v", "shorts", "live")
_STEM_LENGTH, _HASH_LENGTH = 40, 10


@dataclass(frozen=True)
class SceneCameras:
    """The cameras of one scene.

    Attributes:
        name: of the scene: the stem of its text file.
        url: address of the video.
        timestamps: ``[N]`` int64, in microseconds from the video's start, ascending.
        intrinsics: ``[N, 4]`` float64 fx fy cx cy, fx and cx divided by the width, fy and cy by the height.
        T_cam_world: ``[N, 3, 4]`` float64 world to camera, OpenCV axes, in the scene's own unit.
    """

    name: str
    url: str
    timestamps: np.ndarray
    intrinsics: np.ndarray
    T_cam_world: np.ndarray

    def __post_init__(self) -> None:
        N = len(self.timestamps)
        for field, shape in (("timestamps", (N,)), ("intrinsics", (N, 4)), ("T_cam_world", (N, 3, 4))):
            if getattr(self, field).shape != shape:
                raise ValueError(f"{field}: {list(shape)} expected, got {list(getattr(self, field).shape)}")

    def __len__(self) -> int:
        return len(self.timestamps)

    def select(self, keep: np.ndarray | slice) -> SceneCameras:
        """The cameras of the selected rows, by index or boolean mask."""
        return replace(
            self,
            timestamps=self.timestamps[keep],
            intrinsics=self.intrinsics[keep],
            T_cam_world=self.T_cam_world[keep],
        )


def list_scene_files(folder: str | Path) -> list[Path]:
    """The text files of a folder, sorted by name.

    Raises:
        InputError: the folder is missing or holds no text file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that holds the scenes' text files")
    files = sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: holds no text file of a scene (*.txt); name the folder that holds them")
    return files


def read_video_url(path: str | Path) -> str:
    """The address of a scene's video; only the first line is read.

    Raises:
        InputError: the file is missing or its first line is not an address.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return _require_url(file.readline(4096), path)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; {_ADVICE}") from None
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file; check the path") from None


def read_scene_cameras(path: str | Path) -> SceneCameras:
    """Read a scene's text file; empty lines are skipped.

    Raises:
        InputError: a missing or damaged file; the message names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; {_ADVICE}") from None
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file; check the path") from None
    url = _require_url(lines[0], path)
    numbers = [number for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if not numbers:
        raise InputError(f"{path}: has no line of a camera; {_ADVICE}")
    rows = [_read_row(lines[number - 1], f"{path}, line {number}") for number in numbers]
    timestamps = np.array([timestamp for timestamp, _ in rows], np.int64)
    values = np.array([row for _, row in rows], np.float64)
    scene = SceneCameras(path.stem, url, timestamps, values[:, :4], values[:, 6:].reshape(-1, 3, 4))
    _check(scene, [f"{path}, line {number}" for number in numbers])
    return scene


def write_scene_cameras(path: str | Path, cameras: SceneCameras) -> None:
    """Write a scene's text file; reading it returns equal cameras with the file's stem as their name.

    Raises:
        ValueError: the cameras are invalid, so the file could not be read.
        OSError: the file cannot be written.
    """
    if not len(cameras):
        raise ValueError("cameras: at least one expected")
    try:
        _require_url(cameras.url, "url")
        _check(cameras, [f"row {i}" for i in range(len(cameras))])
    except InputError as error:
        raise ValueError(str(error)) from None
    lines = [cameras.url]
    for timestamp, K, T in zip(cameras.timestamps, cameras.intrinsics, cameras.T_cam_world, strict=True):
        values = " ".join(repr(value) for value in (*K.tolist(), 0, 0, *T.ravel().tolist()))
        lines.append(f"{int(timestamp)} {values}")
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_bounds(path: str | Path) -> dict[str, tuple[float, float]]:
    """Nearest and farthest depth of scenes by name, from lines ``SCENE NEAR FAR``; # starts a comment.

    Raises:
        InputError: a missing or damaged file; the message names the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; name a file of lines `SCENE NEAR FAR`") from None
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file; check the path") from None
    bounds: dict[str, tuple[float, float]] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            name, near, far = words[0], *map(float, words[1:])
        except ValueError:
            raise InputError(f"{path}, line {number}: `SCENE NEAR FAR` expected, got `{line.strip()}`") from None
        if not 0 < near < far < np.inf:
            raise InputError(f"{path}, line {number}: 0 < NEAR < FAR expected, got {near:g} and {far:g}")
        if name in bounds:
            raise InputError(f"{path}, line {number}: {name} is given again; keep one of the two")
        bounds[name] = near, far
    return bounds


def write_bounds(path: str | Path, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Write the depths of scenes, sorted by name; the inverse of :func:`read_bounds`."""
    lines = ["# SCENE NEAR FAR: nearest and farthest depth that its cameras see, in the unit of its poses"]
    lines += [f"{name} {near!r} {far!r}" for name, (near, far) in sorted(bounds.items())]
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def video_stem(url: str) -> str:
    """The stem of a video's file name; the same address always gives the same stem.

    It is the id of a YouTube video, for any form of its address, and otherwise the name in the address,
    reduced to safe characters, with a hash of the whole address.
    """
    parts = urlsplit(url)
    host = re.sub(r"^(www|m|music)\.", "", (parts.hostname or "").lower())
    folders = [unquote(part) for part in parts.path.split("/") if part]
    if host in _YOUTUBE_HOSTS:
        candidates = parse_qs(parts.query).get("v", [])
        candidates += folders[:1] if host == "youtu.be" else []
        candidates += folders[1:2] if folders[:1] and folders[0] in _YOUTUBE_FOLDERS else []
        for candidate in candidates:
            if _YOUTUBE_ID.fullmatch(candidate):
                return candidate
    name = Path(folders[-1]).stem if folders else host
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:_STEM_LENGTH] or "video"
    return f"{slug}-{hashlib.sha256(url.encode()).hexdigest()[:_HASH_LENGTH]}"


def _require_url(line: str, path: str | Path) -> str:
    url = line.strip()
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and len(url.split()) == 1
    except ValueError:
        is_url = False
    if not is_url:
        excerpt = url if len(url) <= 60 else url[:57] + "..."
        raise InputError(f"{path}, line 1: the address of a video (https://...) expected, got `{excerpt}`; {_ADVICE}")
    return url


def _read_row(line: str, place: str) -> tuple[int, list[float]]:
    """The timestamp and the other 18 numbers of a line."""
    words = line.split()
    if len(words) != _NUM_COLUMNS:
        raise InputError(f"{place}: {_NUM_COLUMNS} numbers expected, got {len(words)}; {_ADVICE}")
    if not (words[0].isascii() and words[0].isdigit() and int(words[0]) <= _LAST_TIMESTAMP):
        raise InputError(f"{place}: a timestamp in whole microseconds expected, got `{words[0]}`; {_ADVICE}")
    try:
        return int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise InputError(f"{place}: {error}; {_ADVICE}") from None


def _check(scene: SceneCameras, places: list[str]) -> None:
    """Check that the rows are valid cameras in ascending order of time."""

    def refuse(wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            raise InputError(f"{places[int(wrong.argmax())]}: {what}; {_ADVICE}")

    finite = np.isfinite(scene.intrinsics).all(1) & np.isfinite(scene.T_cam_world).all((1, 2))
    refuse(~finite, "a number that is not finite")
    refuse(np.diff(scene.timestamps, prepend=-1) <= 0, "the timestamp is not later than the one before")
    refuse(scene.intrinsics[:, :2].min(1) <= 0, "the focal lengths are not above 0")
    R = scene.T_cam_world[:, :, :3]
    # Large numbers would overflow in the products below.
    off = np.abs(R).max((1, 2)) > 2
    R = np.where(off[:, None, None], 0, R)
    off |= np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max((1, 2)) > _ORTHONORMAL_TOLERANCE
    off |= np.linalg.det(R) < 0
    refuse(off, "columns 8 to 19 are not a rotation and a translation, row by row")
