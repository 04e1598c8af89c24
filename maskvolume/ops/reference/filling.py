"""Filling of pixels that no plane covers with the colour of their surroundings; in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.ops.types import Rendering

COVERED = 1 - 1e-3  # a view whose opacities are all at least this is left unchanged


def fill_unseen(rendering: Rendering) -> Rendering:
    """See ``maskvolume.ops``."""
    covered = covered_views(rendering)
    if covered.device.type == "cpu" and bool(covered.all()):  # on other devices this would synchronize
        return rendering
    layers = layers_of(rendering)
    values, weight = layers[:, :4], layers[:, 4:]
    filled = torch.where(covered.reshape(-1, 1, 1, 1), values, _pull_push(values, weight))
    return filled_rendering(rendering, filled)


def covered_views(rendering: Rendering) -> Tensor:
    """Return which views are fully covered, ``[...]``."""
    return (rendering.opacity > COVERED).flatten(-3).all(dim=-1)


def layers_of(rendering: Rendering) -> Tensor:
    """Stack colour, disparity and opacity of all views: ``[N, 5, h, w]`` in float32."""
    layers = torch.cat([rendering.color, rendering.disparity, rendering.opacity.clamp(0, 1)], dim=-3).float()
    return layers.reshape(-1, *layers.shape[-3:])


def filled_rendering(rendering: Rendering, filled: Tensor) -> Rendering:
    """Replace colours and disparities of a rendering by ``filled [N, 4, h, w]``."""
    filled = filled.reshape(*rendering.color.shape[:-3], 4, *filled.shape[-2:])
    return Rendering(filled[..., :3, :, :], rendering.opacity, filled[..., 3:, :, :])


def _pull_push(values: Tensor, weight: Tensor) -> Tensor:
    """Return values as if the weight were 1 everywhere, from ``values`` premultiplied by ``weight``."""
    h, w = values.shape[-2:]
    if min(h, w) <= 2:
        total = weight.mean(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
        coarse = (values.mean(dim=(-2, -1), keepdim=True) / total).expand_as(values)
    else:
        padded = F.pad(torch.cat([values, weight], dim=1), (0, w % 2, 0, h % 2), mode="replicate")
        half = F.avg_pool2d(padded, 2) * 4
        sure = half[:, -1:].clamp_max(1)
        lower = _pull_push(half[:, :-1] / half[:, -1:].clamp_min(1e-6) * sure, sure)
        size = (2 * lower.shape[-2], 2 * lower.shape[-1])
        coarse = F.interpolate(lower, size=size, mode="bilinear", align_corners=False)[..., :h, :w]
    return values + (1 - weight) * coarse
