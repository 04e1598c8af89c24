"""Writes the training data of a rig; ``maskvolume.io.rig_h5`` describes the files and reads them."""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import h5py
import numpy as np

from maskvolume.geometry.poses import RigPoses
from maskvolume.io.files import atomic_path
from maskvolume.io.llff import write_poses_bounds
from maskvolume.io.rig_h5 import COMPACT_FORMAT, COMPACT_VERSION, poses_file
from maskvolume.io.shards import encode_jpeg

_APPEND_BYTES = 2**18


class SceneSource(Protocol):
    """The contents of a scene to write, one picture at a time."""

    @property
    def num_cameras(self) -> int:
        """V."""
        ...

    @property
    def num_frames(self) -> int:
        """T."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of all pictures."""
        ...

    def picture(self, camera: int, frame: int) -> np.ndarray:
        """Uint8 ``[H, W, 3]`` RGB."""
        ...

    def jpeg(self, camera: int, frame: int) -> bytes | None:
        """The picture's JPEG bytes if its source is a JPEG, so that it is not encoded again; else None."""
        ...

    def matte(self, camera: int, frame: int) -> np.ndarray:
        """Uint8 ``[H, W]``, 255 where something moves."""
        ...

    def background(self, camera: int) -> np.ndarray:
        """Uint8 ``[H, W, 3]`` RGB."""
        ...


@dataclass(frozen=True)
class SceneForm:
    """The format of a scene to write.

    Attributes:
        compact: whether to write the compact variant instead of the original's.
        quality: of the JPEGs that a compact scene encodes, 1 to 100.
    """

    compact: bool = False
    quality: int = 92


def write_rig_scene(
    path: Path,
    source: SceneSource,
    poses: RigPoses,
    form: SceneForm,
    *,
    attributes: Mapping[str, Any],
    on_picture: Callable[[], object] = lambda: None,
) -> None:
    """Write a scene and its poses, camera by camera; both files appear when they are complete.

    Args:
        path: ``NAME.h5``.
        source: the pictures, read in another thread, one at a time.
        poses: of the cameras of ``source``, K at any picture size.
        form: which variant.
        attributes: texts and lists of texts to store in the file.
        on_picture: called after each picture of a camera and frame, in that thread.

    Raises:
        OSError: a file can't be written.
    """
    stop = threading.Event()

    def step() -> None:
        if stop.is_set():
            raise _StoppedError
        on_picture()

    with atomic_path(path) as temporary:
        # An interruption inside the HDF5 library would corrupt its state; it only reaches the main thread.
        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(_write_file, temporary, source, form, attributes, step)
            try:
                job.result()
            except BaseException:
                stop.set()
                raise
        write_poses_bounds(poses_file(path), poses)


class _StoppedError(Exception):
    """Ends the writing thread."""


def _write_file(
    path: Path, source: SceneSource, form: SceneForm, attributes: Mapping[str, Any], on_picture: Callable[[], object]
) -> None:
    with _Sink(path, "w+b") as sink:

        def step() -> None:
            sink.check()
            on_picture()

        # From this version of the format on, HDF5's own structures have checksums.
        with h5py.File(sink, "w", libver=("v110", "v110")) as file:
            file.attrs.update(attributes)
            write = _write_compact if form.compact else _write_raw
            write(file, source, form, step)
        sink.check()


class _Sink(io.FileIO):
    """A file whose writes never fail for the HDF5 library, which can crash if one does; ``check`` raises instead."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raise the first error so far."""
        if self.error is not None:
            raise self.error


def _write_raw(file: h5py.File, source: SceneSource, form: SceneForm, on_picture: Callable[[], object]) -> None:
    V, T, (h, w) = source.num_cameras, source.num_frames, source.size

    def create(name: str, *axes: int) -> h5py.Dataset:
        # One chunk per read; fletcher32 detects damage that lzf does not notice.
        chunk = (1,) * (len(axes) - 3) + axes[-3:]
        return file.create_dataset(name, axes, np.uint8, chunks=chunk, compression="lzf", fletcher32=True)

    rgb, foreground = create("rgb", V, T, h, w, 3), create("fg_rgb", V, T, h, w, 4)
    background = create("bg_rgb", V, h, w, 3)
    for camera in range(V):
        background[camera] = source.background(camera)
        for frame in range(T):
            picture = source.picture(camera, frame)
            rgb[camera, frame] = picture
            foreground[camera, frame] = np.dstack([picture, source.matte(camera, frame)])
            on_picture()


def _write_compact(file: h5py.File, source: SceneSource, form: SceneForm, on_picture: Callable[[], object]) -> None:
    V, T = source.num_cameras, source.num_frames
    file.attrs.update({"format": COMPACT_FORMAT, "version": COMPACT_VERSION, "size": source.size})
    pictures, mattes = _Encoded(file, "rgb", (V, T)), _Encoded(file, "matte", (V, T))
    backgrounds = _Encoded(file, "bg", (V,))
    for camera in range(V):
        backgrounds.append((camera,), _encode_png(cv2.cvtColor(source.background(camera), cv2.COLOR_RGB2BGR)))
        for frame in range(T):
            jpeg = source.jpeg(camera, frame)
            if jpeg is None:
                jpeg = encode_jpeg(source.picture(camera, frame), form.quality)
            pictures.append((camera, frame), jpeg)
            mattes.append((camera, frame), _encode_png(source.matte(camera, frame)))
            on_picture()


class _Encoded:
    """A growing array of encoded pictures, and its index."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
        # Without a filter a part of a chunk can be read, so chunks don't have to match pictures.
        self._bytes = file.create_dataset(name, (0,), np.uint8, maxshape=(None,), chunks=(_APPEND_BYTES,))
        self._index = file.create_dataset(f"{name}_index", (*shape, 3), np.int64)
        self._end = 0

    def append(self, where: tuple[int, ...], data: bytes) -> None:
        start, self._end = self._end, self._end + len(data)
        self._bytes.resize((self._end,))
        self._bytes[start:] = np.frombuffer(data, np.uint8)
        self._index[where] = start, len(data), zlib.crc32(data)


def _encode_png(picture: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".png", picture)
    if not ok:
        raise ValueError(f"picture: cannot be encoded as PNG, got {picture.dtype} {list(picture.shape)}")
    return data.tobytes()
