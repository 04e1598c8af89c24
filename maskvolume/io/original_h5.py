"""RealEstate10K in the original implementation's format: ``640x360.h5``, ``int.npy`` and ``ext.npy``.

The HDF5 file has one uint8 dataset ``(N, H, W, 3)`` RGB per scene, whose key is the number of the scene. The arrays
hold, by that number, normalized K ``(N, 3, 3)`` and world-to-camera ``(N, 4, 4)``. They are pickled object arrays, and
loading a pickle can run code, so the caller must allow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from maskvolume.io.realestate10k import SceneCameras
from maskvolume.runtime.errors import InputError

PICTURES_NAME = re.compile(r"\d+x\d+\.h5")
_ORTHONORMAL_TOLERANCE = 1e-2
_LARGEST_NORMALIZED = 10.0  # a focal length in pixels is far above, one in widths far below
_COPY_AGAIN = "copy or make it again"


def find_original(folder: str | Path) -> Path | None:
    """The HDF5 file in a folder of this format; None if there is none.

    Raises:
        InputError: there are several.
    """
    paths = sorted(path for path in Path(folder).glob("*.h5") if PICTURES_NAME.fullmatch(path.name))
    if len(paths) > 1:
        raise InputError(f"{folder}: holds {paths[0].name} and {paths[1].name}; keep one of them there")
    return paths[0] if paths else None


@dataclass(frozen=True)
class OriginalScene:
    """One scene: the file with its pictures, and its matrices as stored.

    Attributes:
        path: the HDF5 file.
        name: its key, the number of the scene.
        K: ``[N, 3, 3]`` normalized by width and height.
        T_cam_world: ``[N, 4, 4]``.
    """

    path: Path
    name: str
    K: np.ndarray
    T_cam_world: np.ndarray

    def cameras(self) -> SceneCameras:
        """The cameras, with frame numbers as timestamps, which this format lacks.

        Raises:
            InputError: wrong shapes, or rows that are not cameras.
        """
        K, T = np.asarray(self.K, np.float64), np.asarray(self.T_cam_world, np.float64)
        N = len(K) if K.ndim == 3 else 0
        if not N or K.shape != (N, 3, 3) or T.shape not in ((N, 4, 4), (N, 3, 4)):
            raise InputError(
                f"{self.path.parent}: scene {self.name}: (N, 3, 3) and (N, 4, 4) expected in int.npy and ext.npy, got "
                f"{K.shape} and {T.shape}; {_COPY_AGAIN}"
            )
        intrinsics = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], axis=1)
        R = T[:, :3, :3]
        good = np.isfinite(K).all((1, 2)) & np.isfinite(T).all((1, 2))
        good &= (intrinsics[:, :2] > 0).all(1) & (intrinsics < _LARGEST_NORMALIZED).all(1)
        with np.errstate(over="ignore", invalid="ignore"):
            good &= np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max((1, 2)) < _ORTHONORMAL_TOLERANCE
            good &= np.linalg.det(np.where(np.isfinite(R), R, 0)) > 0
        if not good.all():
            raise InputError(
                f"{self.path.parent}: scene {self.name}: row {int(good.argmin())} of int.npy and ext.npy is no camera "
                f"with normalized K and a rotation; {_COPY_AGAIN}"
            )
        return SceneCameras(self.name, "", np.arange(N, dtype=np.int64), intrinsics, T[:, :3])

    def pictures(self) -> Iterator[np.ndarray | None]:
        """Yield the pictures in order, uint8 ``[H, W, 3]`` RGB, or None for one that can't be read.

        Raises:
            InputError: the number of pictures differs from that of cameras, or the dataset has another shape or type.
        """
        with _open(self.path) as file:
            pictures = file[self.name]
            if pictures.ndim != 4 or pictures.shape[0] != len(self.K) or pictures.shape[3] != 3:
                raise InputError(
                    f"{self.path}: scene {self.name}: shape {pictures.shape}, but {len(self.K)} cameras in int.npy; "
                    f"{_COPY_AGAIN}"
                )
            if pictures.dtype != np.uint8:
                raise InputError(f"{self.path}: scene {self.name}: {pictures.dtype}, uint8 expected; {_COPY_AGAIN}")
            # A chunk spans several pictures and is decompressed as a whole.
            step = pictures.chunks[0] if pictures.chunks else 1
            for start in range(0, len(pictures), step):
                stop = min(start + step, len(pictures))
                try:
                    yield from pictures[start:stop]
                except OSError:
                    yield from [None] * (stop - start)


class OriginalData:
    """All scenes of a folder in this format.

    Args:
        folder: with the HDF5 file, ``int.npy`` and ``ext.npy``.
        allow_pickle: load pickled arrays, which can run code.

    Raises:
        InputError: a file is missing or damaged, a pickle is not allowed, or they do not belong together.
    """

    def __init__(self, folder: str | Path, *, allow_pickle: bool = False) -> None:
        path = find_original(folder)
        if path is None:
            raise InputError(f"{folder}: holds no pictures in the original's format (640x360.h5); check the path")
        self.path = path
        with _open(path) as file:
            keys = list(file)
        if not keys:
            raise InputError(f"{path}: holds no scene; {_COPY_AGAIN}")
        if foreign := [key for key in keys if not (key.isascii() and key.isdigit())]:
            raise InputError(f"{path}: key {foreign[0]!r}, scene numbers expected; check that this is the right file")
        self.names = sorted(keys, key=int)
        self._K = _load_matrices(path.parent / "int.npy", allow_pickle)
        self._T = _load_matrices(path.parent / "ext.npy", allow_pickle)
        if len(self._K) != len(self._T) or int(self.names[-1]) >= len(self._K):
            raise InputError(
                f"{path.parent}: int.npy has {len(self._K)} scenes, ext.npy {len(self._T)}, and {path.name} has scenes "
                f"up to {self.names[-1]}; take files that belong together"
            )

    def __len__(self) -> int:
        return len(self.names)

    def scene(self, name: str) -> OriginalScene:
        """A scene by its key."""
        return OriginalScene(self.path, name, self._K[int(name)], self._T[int(name)])


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: damaged or not an HDF5 file ({error}); {_COPY_AGAIN}") from error


def _load_matrices(path: Path, allow_pickle: bool) -> np.ndarray:
    """Load an array with the matrices of one scene per row; rows may have different lengths."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it belongs beside the pictures") from None
    except (ValueError, EOFError) as error:
        if "pickle" not in str(error).lower():
            raise InputError(f"{path}: damaged or not a .npy file; {_COPY_AGAIN}") from error
    if not allow_pickle:
        raise InputError(
            f"{path}: holds pickled objects, and loading them can run any code; if you trust the author "
            f"of this file, give --allow_pickle"
        )
    try:
        array = np.load(path, allow_pickle=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path}: damaged ({type(error).__name__}); {_COPY_AGAIN}") from error
    return np.asarray(array)
