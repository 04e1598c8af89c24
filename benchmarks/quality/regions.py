"""The pixel regions of a novel view for its measures: disoccluded and static pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid

MATTE_LEVEL = 0.5  # share of a pixel that movers must cover to hide it
STILL_WINDOW = 5  # pixels
STILL_LEVEL = 4 / 255  # mean change over the window below which it counts as compression noise


def disoccluded(
    depth: Tensor,  # [1, h, w] of the static scene in the target
    target: Camera,  # []
    sources: Camera,  # [V]
    mattes: Tensor,  # [V, 1, H, W] of moving objects in the sources
) -> Tensor:
    """``[1, h, w]`` bool: whether a mover hides the static point of a pixel in at least one of the sources."""
    h, w = depth.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).view(3, -1).double()
    points = torch.linalg.inv(target.K.double()) @ pixels * depth.double().view(1, -1)
    T = sources.T_cam_world.double() @ invert_rigid(target.T_cam_world.double())
    seen = sources.K.double() @ (T[:, :3, :3] @ points + T[:, :3, 3:])
    H, W = mattes.shape[-2:]
    pixels_src = seen[:, :2] / seen[:, 2:].clamp_min(1e-9)
    grid = torch.stack([pixels_src[:, 0] * (2 / W) - 1, pixels_src[:, 1] * (2 / H) - 1], dim=-1).view(-1, h, w, 2)
    hidden = F.grid_sample(mattes.float(), grid.float(), "nearest", "zeros", align_corners=False)
    in_front = (seen[:, 2] > 0).view(-1, 1, h, w)
    return ((hidden >= MATTE_LEVEL) & in_front).any(dim=0)


def static_pixels(
    before: Tensor,  # [3, h, w] the truth at an instant
    after: Tensor,  # [3, h, w] and at the next
    moving: Tensor,  # [1, h, w] bool, where something moves in one of the two
) -> Tensor:
    """``[1, h, w]`` bool: whether a pixel is static: nothing moves there, and no shadow passes."""
    change = (after - before).mean(dim=0, keepdim=True)[None]
    smooth = F.avg_pool2d(change, STILL_WINDOW, stride=1, padding=STILL_WINDOW // 2, count_include_pad=False)[0]
    return ~moving & (smooth.abs() < STILL_LEVEL)


def flicker(before: Tensor, after: Tensor, still: Tensor) -> float:
    """Mean absolute change from one instant to the next in static pixels, in levels of 255."""
    change = (after - before).abs().mean(dim=0, keepdim=True)[still]
    return float(change.mean()) * 255 if change.numel() else float("nan")
