"""Planes and masks from U-Net output, in plain torch, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.ops.reference.pixels import (
    plane_chunk,
    remaining_transmittance,
    shuffled,
    valid_views,
)
from maskvolume.ops.types import PlaneSettings


def make_planes_with_logits(
    unet_output: Tensor, penalty: Tensor, sweep: Tensor, settings: PlaneSettings, size: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """See ``maskvolume.ops``."""
    residual, view_logit = shuffled(unet_output.float()).unbind(1)
    view_logit = view_logit.clamp(-settings.view_cap, settings.view_cap)
    logits = residual[:, None] - penalty
    weights = (logits - logits.amax(dim=2, keepdim=True)).clamp_min(-settings.logit_cap).exp()
    alpha = weights / weights.cumsum(dim=2)
    del weights
    at_once = plane_chunk(sweep.device)
    chunks = zip(
        sweep.split(at_once, dim=3),
        view_logit[:, None].split(at_once, dim=2),
        alpha.split(at_once, dim=2),
        strict=True,
    )
    planes = [_colored_planes(*chunk, settings) for chunk in chunks]
    d, h, w = size
    return torch.cat(planes, dim=1)[:, :d, :, :h, :w], logits[:, 0, :d, :h, :w]


def make_mask(
    unet_output: Tensor,
    evidence: Tensor,
    opacity: Tensor,
    slope: Tensor,
    threshold: Tensor,
    hidden: Tensor,
    size: tuple[int, int, int],
) -> Tensor:
    """See ``maskvolume.ops``."""
    residual = shuffled(unet_output.float())
    prior = slope * (evidence - threshold)
    mask = torch.sigmoid(residual + prior)
    left = remaining_transmittance(mask[:, 0] * opacity)[:, None]
    d, h, w = size
    return (mask * (left / hidden).clamp_max(1))[..., :d, :h, :w]


def _colored_planes(sweep: Tensor, view_logit: Tensor, alpha: Tensor, settings: PlaneSettings) -> Tensor:
    """Return premultiplied planes ``[B, D, 4, H, W]`` with colours blended from the views that have data.

    The weights are a softmax over [view_logit, 0, 0, ...]. With ``trust``, a view that disagrees with all others, for
    example because the point is hidden in it, has less weight.
    """
    weights = valid_views(sweep).to(alpha.dtype)
    if settings.trust is not None:
        weights = weights * (-settings.trust * _disagreement(sweep, settings.cost_cap)).exp()
    first = weights[:, 0] * view_logit.exp()
    color = first * sweep[:, 0]
    total = first
    for view in range(1, sweep.shape[1]):
        color = color + weights[:, view] * sweep[:, view]
        total = total + weights[:, view]
    seen = alpha * (total > 0)
    return torch.cat([color * (seen / total.clamp_min(1e-8)), seen], dim=1).transpose(1, 2)


def _disagreement(sweep: Tensor, cap: float) -> Tensor:
    """Return the difference of each view from the most similar one, ``[B, V, 1, D, H, W]``, at most ``cap``."""
    valid, views = valid_views(sweep), sweep.shape[1]
    least = [torch.full_like(sweep[:, 0, :1], cap, dtype=torch.float32) for _ in range(views)]
    for i in range(views):
        for j in range(i):
            both = valid[:, i] & valid[:, j]
            difference = (sweep[:, i].float() - sweep[:, j].float()).abs().sum(dim=1, keepdim=True)
            difference = torch.where(both, difference.clamp_max(cap), cap)
            least[i], least[j] = torch.minimum(least[i], difference), torch.minimum(least[j], difference)
    return torch.stack(least, dim=1)
