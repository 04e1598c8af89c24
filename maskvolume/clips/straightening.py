"""Removes lens distortion from pictures when they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maskvolume.clips.layouts import FrameSource
from maskvolume.geometry.lenses import Lens, RemapTables, undistort_maps
from maskvolume.runtime.errors import InputError


@dataclass(frozen=True, eq=False)
class StraightPictures:
    """Frames of another source, resampled as an ideal camera with the same pose would record them.

    Attributes:
        source: the stored pictures.
        numbers: number of each camera in ``source``.
        lenses: lens of the stored pictures, per camera.
        targets: lens of the pictures returned, per camera; if it is the same object as the stored pictures' lens, the
            pictures are returned unchanged.
    """

    source: FrameSource
    numbers: tuple[int, ...]
    lenses: tuple[Lens, ...]
    targets: tuple[Lens, ...]
    _tables: dict[int, RemapTables] = field(default_factory=dict, init=False, repr=False)

    def file(self, camera: int, frame: int) -> Path:
        return self.source.file(self.numbers[camera], frame)

    def read(self, camera: int, frame: int) -> np.ndarray:
        picture = read_of_lens(self.source, self.numbers[camera], frame, self.lenses[camera])
        tables = self._tables_of(camera)
        return picture if tables is None else tables.apply(picture)

    def release(self, camera: int) -> None:
        self.source.release(self.numbers[camera])
        self._tables.pop(camera, None)

    def _tables_of(self, camera: int) -> RemapTables | None:
        lens, target = self.lenses[camera], self.targets[camera]
        if target is lens:
            return None
        tables = self._tables.get(camera)
        if tables is None:  # two threads may both compute them, with equal results
            tables = self._tables[camera] = undistort_maps(lens, target.K, target.size)
        return tables


def read_of_lens(source: FrameSource, camera: int, frame: int, lens: Lens) -> np.ndarray:
    """Read a frame as stored, uint8 ``[H, W, 3]`` RGB.

    Raises:
        InputError: the frame can't be decoded, or its size differs from the lens's.
    """
    picture = source.read(camera, frame)
    if picture.shape[:2] != lens.size:
        (h, w), (expected_h, expected_w) = picture.shape[:2], lens.size
        raise InputError(
            f"{source.file(camera, frame)}: {w} x {h} pixels, but its camera has {expected_w} x {expected_h}; bring "
            f"the pictures of a camera to one size"
        )
    return picture
