"""The interface of a clip that view synthesis methods use."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from maskvolume.geometry.cameras import Camera


class Clip(Protocol):
    """Pictures of calibrated cameras over time; ``maskvolume.clips.rig.RigClip`` implements it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cameras."""
        ...

    @property
    def num_frames(self) -> int:
        """Number of recorded frames per camera."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the stored pictures."""
        ...

    def cameras(self, size: tuple[int, int] | None = None, time: float = 0.0) -> Camera:
        """The cameras ``[N]``, float32.

        Args:
            size: (h, w) of the pictures; None: the stored size.
            time: in frames; matters only if cameras move.
        """
        ...

    def near_far(self) -> tuple[float, float]:
        """Depths of the nearest and the farthest plane, in scene units."""
        ...

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Read a frame, uint8 ``[H, W, 3]`` RGB, resized to ``size`` (h, w) if given."""
        ...


class StillClip(Clip, Protocol):
    """A clip with fixed cameras, each of which has a single background."""

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Read the picture of the empty scene, uint8 ``[H, W, 3]`` RGB, resized to ``size`` (h, w) if given."""
        ...
