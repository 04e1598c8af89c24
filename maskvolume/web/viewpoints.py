"""The viewpoints that the player offers: offsets from the rig's average pose that look at one point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.paths import (
    Z_REACH,
    average_pose,
    close_depth,
    focus_distance,
    join_paths,
    look_at,
    path_radii,
)
from maskvolume.geometry.poses import RigPoses
from maskvolume.metrics import psnr
from maskvolume.ops import Rendering

DIRECTIONS = 12  # viewpoints sampled around the border
SEEN = 0.985  # required share of covered pixels in every view from the border
ALIKE = 31.5  # required PSNR in dB of layers against planes in every view from the edges
SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # candidate limits, relative to the rig's own reach


@dataclass(frozen=True)
class Viewpoints:
    """The viewpoints around a rig.

    Offsets ``(x, y, z)`` are in the centre's frame (right, down, ahead), in scene units, and all views look at the
    point ``(0, 0, focus)`` of that frame.

    Attributes:
        T_world_center: ``[4, 4]`` the rig's average pose.
        K: ``[3, 3]`` of the views, at ``size``.
        size: (h, w) of the views.
        focus: distance of the point that the views look at.
        down: ``[3]`` direction in the centre's frame that stays downward in the views, as far as possible.
        limits: ``(x, y, z)``: semi-axes of an ellipse in x and y, and the largest distance ahead and back.
    """

    T_world_center: Tensor
    K: Tensor
    size: tuple[int, int]
    focus: float
    down: Tensor
    limits: tuple[float, float, float]

    @classmethod
    def of(cls, poses: RigPoses, size: tuple[int, int]) -> Viewpoints:
        """The viewpoints within the rig's reach: the limits are the radii of ``maskvolume.geometry.paths``."""
        cameras = poses.cameras
        T_world_center = average_pose(cameras)
        focus = focus_distance(poses.bounds)
        down = invert_rigid(cameras.T_cam_world)[:, :3, 1].mean(0) @ T_world_center[:3, :3]
        ahead = min(Z_REACH * close_depth(poses.bounds), 0.5 * focus)
        K = cameras[:1].scaled(size).K[0]
        return cls(T_world_center, K, size, focus, down, (*path_radii(poses, T_world_center), ahead))

    def cameras(self, offsets: Tensor) -> Camera:
        """The cameras ``[N]`` at offsets ``[N, 3]``."""
        T_world_cam = self.T_world_center @ look_at(offsets.to(self.down), self.focus, self.down)
        return Camera(invert_rigid(T_world_cam), self.K.expand(len(offsets), 3, 3), self.size)

    def center(self) -> Camera:
        """The view ``[1]`` from the centre."""
        return self.cameras(torch.zeros(1, 3))

    def border(self) -> Camera:
        """Views ``[2 * DIRECTIONS]`` from the border of the limits, all around it at both ends of z."""
        angles = torch.arange(DIRECTIONS, dtype=torch.float64) * (2 * math.pi / DIRECTIONS)
        x, y, z = self.limits
        ends = [torch.stack([x * angles.cos(), y * angles.sin(), torch.full_like(angles, side)], 1) for side in (-z, z)]
        return self.cameras(torch.cat(ends))

    def edges(self) -> Camera:
        """Views ``[4]`` from the ends of the limits: left, right, above, below."""
        x, y, _ = self.limits
        return self.cameras(torch.tensor([[-x, 0, 0], [x, 0, 0], [0, -y, 0], [0, y, 0]], dtype=torch.float64))

    def all_over(self) -> Camera:
        """Views that represent all within the limits: the centre, some around it and many at the border."""
        inner = self.scaled(0.5).border()[:: DIRECTIONS // 3]
        return join_paths([self.center(), inner, self.border()[::2]])

    def scaled(self, scale: float) -> Viewpoints:
        """The same viewpoints with scaled limits."""
        x, y, z = self.limits
        return replace(self, limits=(x * scale, y * scale, z * scale))

    def good_scale(self, planes: Callable[[Camera], Rendering], layers: Callable[[Camera], Rendering]) -> float:
        """The largest of ``SCALES`` at which the planes cover nearly all of every view and the layers match the planes.

        Args:
            planes: renders the MPI from a camera of these views' size.
            layers: renders the merged MPI.
        """
        for scale in SCALES[:-1]:
            candidate = self.scaled(scale)
            covered = all(float(planes(view).opacity.clamp(0, 1).mean()) >= SEEN for view in candidate.border())
            if covered and all(
                float(psnr(planes(view).color, layers(view).color)) >= ALIKE for view in candidate.edges()
            ):
                return scale
        return SCALES[-1]
