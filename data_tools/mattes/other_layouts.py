"""Mattes from elsewhere: checked against the clip and converted to this project's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskvolume.clips.layouts import Layout, open_layout
from maskvolume.runtime.errors import InputError


@dataclass(frozen=True)
class OtherMattes:
    """Mattes in a folder of any layout; create with :meth:`open`.

    Attributes:
        other: layout of the folder.
        cameras: positions in ``other`` by position of the selected cameras in the clip.
        frames: the same for frames.
    """

    other: Layout
    cameras: dict[int, int]
    frames: dict[int, int]

    @classmethod
    def open(cls, folder: str | Path, layout: Layout, cameras: Sequence[int], frames: Sequence[int]) -> OtherMattes:
        """Find the mattes of the chosen cameras and frames of a clip.

        Raises:
            InputError: a camera or frame has no matte, or the sizes differ.
        """
        other = open_layout(folder)
        if other.size != layout.size:
            raise InputError(
                f"{folder}: mattes of {other.size[1]} x {other.size[0]} pixels, but the pictures have "
                f"{layout.size[1]} x {layout.size[0]}; make them for these pictures"
            )
        return cls(
            other,
            _match_names(layout.names, other.names, cameras, f"{folder}: no mattes of camera"),
            _match_names(layout.frame_names, other.frame_names, frames, f"{folder}: no mattes of frame"),
        )

    def sources(self, camera: int, frame: int) -> Sequence[Path]:
        return [self.other.source.file(self.cameras[camera], self.frames[frame])]

    def of_camera(self, camera: int) -> Callable[[int], np.ndarray]:
        return lambda frame: self._read(self.cameras[camera], self.frames[frame])

    def _read(self, camera: int, frame: int) -> np.ndarray:
        """Read a matte: alpha if the picture has it, else brightness; values 0 and 1 become 0 and 255."""
        source = self.other.source
        matte = cv2.cvtColor(source.read(camera, frame), cv2.COLOR_RGB2GRAY)
        alpha = None if self.other.kind == "videos" else _read_alpha(source.file(camera, frame))
        matte = matte if alpha is None else alpha
        return matte * np.uint8(255) if matte.max() == 1 else matte


def _read_alpha(path: Path) -> np.ndarray | None:
    """The alpha of a complete picture, uint8 ``[H, W]``; None if it has none or is opaque."""
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        return None
    alpha = np.ascontiguousarray(picture[..., 3])
    if alpha.dtype == np.uint16:
        alpha = (alpha // 257).astype(np.uint8)
    return None if alpha.min() == 255 else alpha


def _match_names(names: Sequence[str], others: Sequence[str], chosen: Sequence[int], what: str) -> dict[int, int]:
    numbers = {name: number for number, name in enumerate(others)}
    for number in chosen:
        if names[number] not in numbers:
            raise InputError(f"{what} {names[number]}, which the clip has; there are {others[0]} to {others[-1]}")
    return {number: numbers[names[number]] for number in chosen}
