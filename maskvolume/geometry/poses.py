"""Poses of rigs and of single pictures: the types that file readers return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import Lens


@dataclass(frozen=True)
class RigPoses:
    """The cameras of a rig and the depth range of each.

    Attributes:
        cameras: ``[N]`` float64, K at the picture size given in the file.
        bounds: ``[N, 2]`` float64, nearest and farthest depth, in scene units.
    """

    cameras: Camera
    bounds: Tensor

    def __post_init__(self) -> None:
        if self.cameras.batch_shape != self.bounds.shape[:1] or self.bounds.shape[1:] != (2,):
            raise ValueError(
                f"bounds: [N, 2] for cameras [N] expected, got {list(self.bounds.shape)} for "
                f"{list(self.cameras.batch_shape)}"
            )

    def __len__(self) -> int:
        return len(self.cameras)


@dataclass(frozen=True, eq=False)
class PosedImage:
    """A picture and the camera that took it.

    Attributes:
        name: the file, relative to the folder of the pictures, with forward slashes.
        lens: of the camera.
        T_cam_world: ``[4, 4]`` float64.
        time: when it was taken, in any unit; None if unknown.
        bounds: depths of the nearest and the farthest visible thing; None if unknown.
    """

    name: str
    lens: Lens
    T_cam_world: np.ndarray
    time: float | None = None
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class PosedCamera:
    """A static camera and its pictures.

    Attributes:
        name: of the camera.
        lens: of the camera.
        T_cam_world: ``[4, 4]`` float64.
        files: its pictures by frame, relative to the folder of the pictures, with forward slashes.
        bounds: depths of the nearest and the farthest visible thing; None if unknown.
    """

    name: str
    lens: Lens
    T_cam_world: np.ndarray
    files: tuple[str, ...]
    bounds: tuple[float, float] | None = None
