"""Volumes, planes and cameras for tests of operations and networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from helpers import make_camera
from torch import Tensor

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.ops import Rendering

FIELDS = ("color", "opacity", "disparity")


def smooth_planes(*shape: int, seed: int = 0) -> Tensor:
    """Return random planes that change by less than 0.1 per pixel."""
    generator = torch.Generator().manual_seed(seed)
    *batch, h, w = shape
    noise = torch.rand(*batch, h + 8, w + 8, generator=generator)
    return F.avg_pool2d(noise.reshape(-1, 1, h + 8, w + 8), 9, 1).reshape(shape)


def turned_cameras(seed: int) -> tuple[Camera, Camera, Tensor]:
    """Return cameras and depths of two MPIs, and targets with planes that are partly or wholly behind them."""
    cameras = stack_cameras([make_camera(seed + b, size=(61, 83)).to(torch.float32) for b in range(2)])
    targets = [make_camera(seed + 90 + b, (45, 70), shift=1.5, turn=0.5).to(torch.float32) for b in range(2)]
    return cameras, stack_cameras(targets), torch.stack([disparity_planes(0.5, 9.0, 7), disparity_planes(1.0, 20.0, 7)])


def check_close(fast: Rendering, slow: Rendering, atol: float) -> None:
    assert fast.opacity.max() > 0.5  # something is seen
    for name in FIELDS:
        torch.testing.assert_close(getattr(fast, name), getattr(slow, name), atol=atol, rtol=0)


def random_sweep(views: int, *size: int, seed: int = 0) -> Tensor:
    """Return a sweep ``[2, V, 3, D, H, W]`` with smooth colours, gaps in each view, and gaps common to all views."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2 * views, 3, *(max(side // 3, 2) for side in size), generator=generator)
    sweep = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear").unflatten(0, (2, views))
    holes = torch.rand(2, views, 1, *size, generator=generator) < 0.2
    holes |= torch.rand(2, 1, 1, *size, generator=generator) < 0.05
    return sweep.masked_fill(holes, -1.0)


def random_planes(size: tuple[int, ...], seed: int) -> Tensor:
    """Return planes ``[2, D, 4, H, W]`` with some opaque and some empty texels."""
    generator = torch.Generator().manual_seed(seed)
    rgba = torch.rand(2, size[0], 4, *size[1:], generator=generator)
    rgba[:, :, 3] = ((rgba[:, :, 3] - 0.5) * 4).clamp(0, 1)
    return rgba


def trained(make_net: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Return a network with fixed random weights; fixed, since a gradient at a kink of an activation is ambiguous."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = make_net()
    head = net.unet.head  # type: ignore[union-attr]
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))  # type: ignore[union-attr, operator, arg-type]
    return net.eval()
