"""Shape checks for arguments of the operations; each raises a ValueError that names the argument."""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera


def check_sweep(sweep: Tensor) -> None:
    """Check the shape of a plane sweep volume ``[B, V, 3, D, H, W]``."""
    if sweep.ndim != 6 or sweep.shape[2] != 3 or sweep.shape[-2] % 2 or sweep.shape[-1] % 2:
        raise ValueError(f"sweep: [B, V, 3, D, H, W] with even H and W expected, got {list(sweep.shape)}")


def check_planes(name: str, rgba: Tensor, depths: Tensor) -> None:
    """Check the shapes of planes ``[..., D, 4, H, W]`` and their depths ``[..., D]``."""
    if rgba.ndim < 4 or rgba.shape[-3] != 4:
        raise ValueError(f"{name}: [..., D, 4, H, W] expected, got {list(rgba.shape)}")
    if depths.shape != rgba.shape[:-3]:
        raise ValueError(f"depths: {list(rgba.shape[:-3])} expected, got {list(depths.shape)}")


def check_mpi(name: str, rgba: Tensor, camera: Camera, depths: Tensor, target: Camera) -> None:
    """Check the shapes of planes, their camera and one or several targets."""
    check_planes(name, rgba, depths)
    if tuple(rgba.shape[-2:]) != tuple(camera.size):
        raise ValueError(f"{name}: the camera's size {camera.size} expected, got {list(rgba.shape[-2:])}")
    check_batch("camera", camera.batch_shape, rgba.shape[:-4])
    batch, views = rgba.shape[:-4], target.batch_shape
    if views[: len(batch)] != batch or len(views) > len(batch) + 1:
        raise ValueError(f"target: batch axes {list(batch)} expected, and at most one more, got {list(views)}")


def check_batch(name: str, got: torch.Size, expected: torch.Size) -> None:
    """Check that the batch axes of an argument are as expected."""
    if got != expected:
        raise ValueError(f"{name}: batch axes {list(expected)} expected, got {list(got)}")
