"""Pixels that no plane covers get the colour of their surroundings."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.ops import Rendering

COVERED = 1 - 1e-3  # opacity of a view that is left as it is, if all its pixels have at least this


def fill_unseen(rendering: Rendering) -> Rendering:
    """Give pixels that no plane covers the colour of their surroundings (pull-push over a pyramid).

    Colour and disparity are divided by the opacity where there is some; what is missing comes from ever
    coarser levels. A view that is covered everywhere stays what it is. Gortler et al., "The Lumigraph", 1996, section
    3.6.
    """
    covered = (rendering.opacity > COVERED).flatten(-3).all(dim=-1)
    on_cpu = covered.device.type == "cpu"
    if on_cpu and bool(covered.all()):  # elsewhere the host would wait for the answer
        return rendering
    layers = torch.cat([rendering.color, rendering.disparity, rendering.opacity.clamp(0, 1)], dim=-3).float()
    flat = layers.reshape(-1, *layers.shape[-3:])
    loops = _loops() if on_cpu else None
    if loops is not None:
        for view, whole in zip(flat, covered.reshape(-1), strict=True):
            if not whole:
                loops.pull_push(view.numpy())
        filled = flat[:, :4]
    else:
        values, weight = flat[:, :4], flat[:, 4:]
        filled = torch.where(covered.reshape(-1, 1, 1, 1), values, _pull_push(values, weight))
    filled = filled.reshape(*layers.shape[:-3], 4, *layers.shape[-2:])
    return Rendering(filled[..., :3, :, :], rendering.opacity, filled[..., 3:, :, :])


def _pull_push(values: Tensor, weight: Tensor) -> Tensor:
    """``values`` premultiplied by ``weight``; returns values as if the weight were 1 everywhere."""
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


@cache
def _loops() -> ModuleType | None:
    try:
        from maskvolume.ops.cpu import filling_kernels
    except (ImportError, RuntimeError):  # no Numba, or no place for what it compiles; the backends say so
        return None
    return filling_kernels
