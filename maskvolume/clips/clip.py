"""What methods of view synthesis need of a clip."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from maskvolume.geometry.cameras import Camera


class Clip(Protocol):
    """Pictures of known cameras over time; ``maskvolume.clips.rig.RigClip`` is one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras."""
        ...

    @property
    def num_frames(self) -> int:
        """Recorded frames of each camera."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the stored pictures."""
        ...

    def cameras(self, size: tuple[int, int] | None = None, time: float = 0.0) -> Camera:
        """The cameras ``[N]``, float32.

        Args:
            size: (h, w) of their pictures; None: that of the stored ones.
            time: in frames, where cameras move.
        """
        ...

    def near_far(self) -> tuple[float, float]:
        """Depths of the nearest and the farthest plane."""
        ...

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """A frame, uint8 ``[H, W, 3]`` RGB; ``size`` (h, w) resizes it."""
        ...


class StillClip(Clip, Protocol):
    """A clip whose cameras stand still, so that each of them has one background."""

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """The empty scene, uint8 ``[H, W, 3]`` RGB; ``size`` (h, w) resizes it."""
        ...
