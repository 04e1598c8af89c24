"""Pinhole cameras: pose, intrinsics and picture size, batched over leading axes.

Convention: OpenCV axes (x right, y down, z forward); ``T_cam_world`` maps world to camera;
``K`` is in pixels with pixel centres at (i + 0.5, j + 0.5); sizes are (h, w).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One or more pinhole cameras of one picture size.

    Attributes:
        T_cam_world: ``[..., 4, 4]`` world-to-camera rigid transforms, in scene units.
        K: ``[..., 3, 3]`` intrinsics in pixels; the top left corner of the picture is (0, 0).
        size: ``(h, w)`` of the picture in pixels, shared by all cameras of the batch.
    """

    T_cam_world: Tensor
    K: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.T_cam_world.shape[-2:] != (4, 4):
            raise ValueError(f"T_cam_world: [..., 4, 4] expected, got {list(self.T_cam_world.shape)}")
        if self.K.shape[-2:] != (3, 3):
            raise ValueError(f"K: [..., 3, 3] expected, got {list(self.K.shape)}")
        if self.K.shape[:-2] != self.T_cam_world.shape[:-2]:
            raise ValueError(
                f"K and T_cam_world: batch axes differ, {list(self.K.shape[:-2])} and "
                f"{list(self.T_cam_world.shape[:-2])}"
            )
        if min(self.size) < 1:
            raise ValueError(f"size: at least 1 x 1 expected, got {self.size}")

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes."""
        return self.K.shape[:-2]

    @property
    def center(self) -> Tensor:
        """``[..., 3]`` camera centres in the world."""
        R, t = self.T_cam_world[..., :3, :3], self.T_cam_world[..., :3, 3:]
        return -(R.mT @ t)[..., 0]

    def __getitem__(self, index: object) -> Camera:
        """Index the leading axes, as with a tensor."""
        return replace(self, T_cam_world=self.T_cam_world[index], K=self.K[index])  # type: ignore[index]

    def __len__(self) -> int:
        return self.K.shape[0]

    def __iter__(self) -> Iterator[Camera]:
        """The cameras along the first batch axis."""
        return (self[index] for index in range(len(self)))

    def to(self, *args: object, **kwargs: object) -> Camera:
        """Move or convert as ``Tensor.to`` does."""
        return replace(
            self,
            T_cam_world=self.T_cam_world.to(*args, **kwargs),  # type: ignore[call-overload]
            K=self.K.to(*args, **kwargs),  # type: ignore[call-overload]
        )

    def scaled(self, size: tuple[int, int]) -> Camera:
        """The same view at another picture size (h, w): K is scaled per axis."""
        sy, sx = size[0] / self.size[0], size[1] / self.size[1]
        K = torch.stack([self.K[..., 0, :] * sx, self.K[..., 1, :] * sy, self.K[..., 2, :]], dim=-2)
        return replace(self, K=K, size=size)

    def cropped(self, top: int, left: int, size: tuple[int, int]) -> Camera:
        """The window of ``size`` (h, w) whose top left pixel is (top, left); it may extend outside the picture."""
        shift = torch.zeros(3, 3, dtype=self.K.dtype, device=self.K.device)
        shift[0, 2].fill_(-left)  # assigning a number can copy it from the host, which synchronizes a GPU
        shift[1, 2].fill_(-top)
        return replace(self, K=self.K + shift, size=size)

    def padded(self, margin: int | tuple[int, int]) -> Camera:
        """A wider frustum: ``margin`` pixels (or (vertical, horizontal)) more on every side."""
        my, mx = (margin, margin) if isinstance(margin, int) else margin
        return self.cropped(-my, -mx, (self.size[0] + 2 * my, self.size[1] + 2 * mx))


def stack_cameras(cameras: Sequence[Camera]) -> Camera:
    """Stack cameras of one size along a new first axis."""
    sizes = {camera.size for camera in cameras}
    if len(sizes) != 1:
        raise ValueError(f"cameras: one picture size expected, got {sorted(sizes)}")
    return Camera(
        torch.stack([camera.T_cam_world for camera in cameras]),
        torch.stack([camera.K for camera in cameras]),
        cameras[0].size,
    )


def invert_rigid(T: Tensor) -> Tensor:
    """Inverse of rigid transforms ``[..., 4, 4]``."""
    R, t = T[..., :3, :3], T[..., :3, 3:]
    top = torch.cat([R.mT, -(R.mT @ t)], dim=-1)
    bottom = torch.zeros_like(T[..., 3:, :])
    bottom[..., 3].fill_(1)  # no assignment, as in Camera.cropped
    return torch.cat([top, bottom], dim=-2)


def relative_pose(dst: Camera, src: Camera) -> Tensor:
    """``T_dst_src [..., 4, 4]``: from the source camera's frame to the destination camera's."""
    return dst.T_cam_world @ invert_rigid(src.T_cam_world)


def nearest_cameras(
    cameras: Camera,  # [N]
    targets: Camera,  # [...]
    count: int,
) -> tuple[int, ...]:
    """Indices of the ``count`` cameras whose centres are nearest to the mean of the targets' centres, nearest first."""
    middle = targets.center.double().reshape(-1, 3).mean(dim=0)
    distances = (cameras.center.double() - middle).norm(dim=-1)
    # Rounded, so that ties go to the first camera on every machine.
    order = torch.argsort((distances / distances.max().clamp_min(1e-12)).round(decimals=4), stable=True)
    return tuple(order[:count].tolist())
