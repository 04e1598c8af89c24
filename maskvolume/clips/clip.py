"""What renderers need of a clip."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from maskvolume.geometry.cameras import Camera


class Clip(Protocol):
    """What a renderer needs of a clip; ``maskvolume.clips.rig.RigClip`` is one."""

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the stored pictures."""
        ...

    def cameras(self, size: tuple[int, int] | None = None) -> Camera:
        """The cameras ``[N]``, float32, at a picture size."""
        ...

    def near_far(self) -> tuple[float, float]:
        """Depths of the nearest and the farthest plane."""
        ...

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """A frame, uint8 ``[H, W, 3]`` RGB."""
        ...

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """The empty scene, uint8 ``[H, W, 3]`` RGB."""
        ...
