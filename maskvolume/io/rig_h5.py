"""Training data of a rig: a scene is ``NAME.h5`` with pictures, mattes and backgrounds, and ``NAME_pb.npy`` with poses.

There are two variants, detected from the file. V cameras, T frames, all uint8, colours RGB:

The original's:
    rgb: ``(V, T, H, W, 3)`` pictures.
    fg_rgb: ``(V, T, H, W, 4)`` pictures and, as alpha, the matte (255 where something moves).
    bg_rgb: ``(V, H, W, 3)`` backgrounds.

Compact, with the attributes ``format``, ``version`` and ``size`` (h, w):
    rgb, matte, bg: concatenated encoded pictures, ``(bytes,)``: JPEG, grey PNG and PNG.
    rgb_index, matte_index: int64 ``(V, T, 3)`` first byte, number of bytes and crc32 of each picture.
    bg_index: the same, ``(V, 3)``.

``NAME_pb.npy`` is ``(V, 17)``, LLFF, and applies to pictures of any size: K is scaled per axis. The writer is
``maskvolume.io.rig_h5_writer``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from maskvolume.geometry.poses import RigPoses
from maskvolume.io.files import natural_key
from maskvolume.io.llff import read_poses_bounds
from maskvolume.io.original_h5 import PICTURES_NAME
from maskvolume.runtime.errors import InputError

COMPACT_FORMAT = "maskvolume compact rig scene"
COMPACT_VERSION = 1
POSES_SUFFIX = "_pb.npy"
CAMERAS_ATTRIBUTE = "cameras"  # names of the cameras; the original's files lack it

_RAW_AXES = {"rgb": (5, 3), "fg_rgb": (5, 4), "bg_rgb": (4, 3)}  # number of axes, channels
_COMPACT_AXES = {"rgb": 3, "matte": 3, "bg": 2}  # axes of the index
_COPY_AGAIN = "copy or make it again"
# What h5py raises, besides OSError, for a file whose inner structure is damaged.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


class RigScene:
    """One scene, read picture by picture on demand.

    Memory does not grow with the scene. Threads may share one. Every process opens the file itself at its first read,
    also after a fork, and pickling keeps only the header.

    Args:
        path: ``NAME.h5``.
        name: of the scene; the file's stem by default.

    Attributes:
        path: the file.
        name: its name.
        num_cameras: V.
        num_frames: T.
        size: (h, w) of all pictures.
        poses: the V cameras, K at ``size``, and their depths.
        camera_names: of the V cameras; ``cam00`` and so on if the file names none.
        is_compact: whether the file is of the compact variant.

    Raises:
        InputError: a file is missing, damaged or in another format, or the poses belong to another rig.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self.path = Path(path)
        self.name = name if name is not None else self.path.stem
        self._open_file: tuple[int, h5py.File, dict[str, h5py.Dataset]] | None = None
        with _open(self.path) as file, _reporting(self.path, "damaged"):
            self.is_compact = _is_compact(file, self.path)
            header = _compact_header(file, self.path) if self.is_compact else _raw_header(file, self.path)
            self.num_cameras, self.num_frames, self.size = header
            names = file.attrs.get(CAMERAS_ATTRIBUTE)
            self.camera_names = tuple(map(str, names)) if names is not None else _default_names(self.num_cameras)
        if len(self.camera_names) != self.num_cameras:
            raise InputError(
                f"{self.path}: names {len(self.camera_names)} cameras, but holds {self.num_cameras}; {_COPY_AGAIN}"
            )
        poses_path = poses_file(self.path)
        if not poses_path.is_file():
            raise InputError(f"{poses_path}: no such file; copy the poses of {self.path.name} there")
        poses = read_poses_bounds(poses_path)
        if len(poses) != self.num_cameras:
            raise InputError(
                f"{poses_path}: {len(poses)} poses for the {self.num_cameras} cameras of {self.path.name}; take files "
                f"that belong together"
            )
        self.poses = RigPoses(poses.cameras.scaled(self.size), poses.bounds)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open_file": None}

    def picture(self, camera: int, frame: int) -> np.ndarray:
        """A picture, uint8 ``[H, W, 3]`` RGB.

        Raises:
            InputError: the file is missing or the picture is damaged.
        """
        if self.is_compact:
            return self._decode("rgb", cv2.IMREAD_COLOR_RGB, *self._require(camera, frame))
        return self._read("rgb", *self._require(camera, frame))

    def matte(self, camera: int, frame: int) -> np.ndarray:
        """The matte, uint8 ``[H, W]``, 255 where something surely moves; raises as ``picture``."""
        if self.is_compact:
            return self._decode("matte", cv2.IMREAD_GRAYSCALE, *self._require(camera, frame))
        # The four channels are interleaved: selecting one while reading is slower than reading all.
        return np.ascontiguousarray(self._read("fg_rgb", *self._require(camera, frame))[..., 3])

    def background(self, camera: int) -> np.ndarray:
        """A camera's view without moving objects, uint8 ``[H, W, 3]`` RGB; raises as ``picture``."""
        if self.is_compact:
            return self._decode("bg", cv2.IMREAD_COLOR_RGB, range(self.num_cameras)[camera])
        return self._read("bg_rgb", range(self.num_cameras)[camera])

    def attribute(self, key: str) -> str | None:
        """A text attribute of the file; None if it is missing."""
        with _open(self.path) as file, _reporting(self.path, "damaged"):
            value = file.attrs.get(key)
        return None if value is None else str(value)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._open_file is not None:
            self._open_file[1].close()
        self._open_file = None

    def _require(self, camera: int, frame: int) -> tuple[int, int]:
        return range(self.num_cameras)[camera], range(self.num_frames)[frame]

    def _dataset(self, key: str) -> h5py.Dataset:
        if self._open_file is None or self._open_file[0] != os.getpid():
            self.close()  # a handle inherited by a fork shares its file position with the parent
            file = _open(self.path)
            self._open_file = os.getpid(), file, {name: file[name] for name in file}
        return self._open_file[2][key]

    def _read(self, key: str, *where: int) -> np.ndarray:
        with _reporting(self.path, f"{_place(key, where)} can't be read"):
            return self._dataset(key)[where]

    def _decode(self, key: str, flags: int, *where: int) -> np.ndarray:
        start, count, checksum = (int(value) for value in self._read(f"{key}_index", *where))
        damaged = f"{self.path}: {_place(key, where)} is damaged; {_COPY_AGAIN}"
        with _reporting(self.path, f"{_place(key, where)} can't be read"):
            encoded = self._dataset(key)
            if not 0 < count <= len(encoded) - start or start < 0:
                raise InputError(damaged)
            data = encoded[start : start + count]
        if zlib.crc32(data) != checksum:
            raise InputError(damaged)
        picture = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None or picture.shape[:2] != self.size:
            raise InputError(damaged)
        return picture


def open_rig_scenes(folder: str | Path) -> list[RigScene]:
    """All scenes in a folder and up to two levels below it, sorted, in either variant.

    A scene's name is its path below the folder without suffix, such as ``scene000`` or ``train/scene000``. Files
    named like RealEstate10K data (``640x360.h5``) and hidden files are skipped.

    Raises:
        InputError: the folder is missing or holds no scene, or one of them can't be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}; give the folder that holds scene000.h5, or one above it")
    paths = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for pattern in ("*.h5", "*/*.h5", "*/*/*.h5")
        for path in folder.glob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not PICTURES_NAME.fullmatch(path.name)
    }
    if not paths:
        raise InputError(
            f"{folder}: holds no rig training data; scene000.h5 and scene000{POSES_SUFFIX} expected there or one or "
            f"two folders down (data_tools/compress_rig.py makes them)"
        )
    return [RigScene(paths[name], name) for name in sorted(paths, key=natural_key)]


def poses_file(path: Path) -> Path:
    """Path of the poses of a scene."""
    return path.with_name(f"{path.stem}{POSES_SUFFIX}")


def _open(path: Path) -> h5py.File:
    try:
        # No lock, so that several programs can read on any file system; no chunk cache, as no chunk is read twice.
        return h5py.File(path, "r", locking=False, rdcc_nbytes=0)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; choose a file that you may read") from error
    except OSError as error:
        raise InputError(f"{path}: damaged or not an HDF5 file ({error}); {_COPY_AGAIN}") from error


@contextmanager
def _reporting(path: Path, what: str) -> Iterator[None]:
    """Turn h5py's errors for a damaged file into an InputError."""
    try:
        yield
    except _DAMAGE as error:
        raise InputError(f"{path}: {what} ({error}); {_COPY_AGAIN}") from error


def _is_compact(file: h5py.File, path: Path) -> bool:
    form = file.attrs.get("format")
    if form is None:
        return False
    if form != COMPACT_FORMAT:
        raise InputError(f"{path}: has the format {form!r}, which is not rig training data; check the path")
    version = int(file.attrs["version"])
    if version > COMPACT_VERSION:
        raise InputError(
            f"{path}: version {version}, this program knows up to {COMPACT_VERSION}; use a newer version of the project"
        )
    return True


def _raw_header(file: h5py.File, path: Path) -> tuple[int, int, tuple[int, int]]:
    """V, T and (h, w) of a file in the original's format."""
    for key, (axes, channels) in _RAW_AXES.items():
        data = _require_dataset(file, key, path)
        if data.dtype != np.uint8 or data.ndim != axes or data.shape[-1] != channels:
            raise InputError(
                f"{path}: {key}: {data.dtype} {data.shape}, uint8 with {axes} axes and {channels} channels expected; "
                f"{_COPY_AGAIN}"
            )
    V, T, h, w = file["rgb"].shape[:4]
    for key, expected in (("fg_rgb", (V, T, h, w)), ("bg_rgb", (V, h, w))):
        if file[key].shape[:-1] != expected:
            raise InputError(
                f"{path}: {key}: {file[key].shape}, but rgb has {file['rgb'].shape}; cameras, frames and sizes must "
                f"agree, {_COPY_AGAIN}"
            )
    _require_filled((V, T, h, w), path)
    return V, T, (h, w)


def _compact_header(file: h5py.File, path: Path) -> tuple[int, int, tuple[int, int]]:
    """V, T and (h, w) of a compact file."""
    for key, axes in _COMPACT_AXES.items():
        data, index = _require_dataset(file, key, path), _require_dataset(file, f"{key}_index", path)
        if data.dtype != np.uint8 or data.ndim != 1 or index.ndim != axes or index.shape[-1] != 3:
            raise InputError(f"{path}: {key}: {data.shape} and {index.shape} have unexpected shapes; {_COPY_AGAIN}")
    V, T = file["rgb_index"].shape[:2]
    if file["matte_index"].shape[:2] != (V, T) or file["bg_index"].shape[0] != V:
        raise InputError(f"{path}: pictures, mattes and backgrounds differ in number; {_COPY_AGAIN}")
    h, w = (int(value) for value in file.attrs["size"])
    _require_filled((V, T, h, w), path)
    return V, T, (h, w)


def _require_dataset(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise InputError(
            f"{path}: has no data set {key!r}; rig training data has rgb, fg_rgb and bg_rgb, check that this is the "
            f"right file"
        )
    return data


def _require_filled(shape: tuple[int, ...], path: Path) -> None:
    if min(shape) < 1:
        raise InputError(f"{path}: {shape[0]} cameras, {shape[1]} frames of {shape[3]} x {shape[2]}; {_COPY_AGAIN}")


def _default_names(count: int) -> tuple[str, ...]:
    return tuple(f"cam{number:02d}" for number in range(count))


def _place(key: str, where: tuple[int, ...]) -> str:
    frame = f", frame {where[1]}" if len(where) > 1 else ""
    return f"{key.removesuffix('_index')} of camera {where[0]}{frame}"
