"""Evidence of surfaces and of motion in plane sweep volumes, as network input; in plain torch.

All evidence is symmetric in the views and averages over them, so any V >= 2 works.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.ops.reference.pixels import (
    box_mean,
    halved,
    memory_format,
    plane_chunk,
    remaining_transmittance,
    unshuffled,
    valid_views,
)
from maskvolume.ops.types import MASK_FEATURES, MATCHING_FEATURES, CostSettings


def matching_evidence(
    sweep: Tensor, settings: CostSettings, channels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See ``maskvolume.ops``."""
    cost, cost_fine = matching_costs(sweep, settings)
    features = matching_features(sweep, cost, cost_fine, dtype)
    if channels > MATCHING_FEATURES:
        features = torch.cat([features, torch.zeros_like(features[:, : channels - MATCHING_FEATURES])], dim=1)
    return cost, features


def matching_costs(sweep: Tensor, settings: CostSettings) -> tuple[Tensor, Tensor]:
    """Return the costs over the wide and the fine window, each ``[B, 1, D, H, W]``."""
    wide, fine = [], []
    for chunk in sweep.split(plane_chunk(sweep.device), dim=3):
        _, difference, count = _agreement(chunk.float())
        cost = difference.sum(dim=1).clamp_max(settings.cap)
        cost = torch.where(count[:, 0] >= 2, cost, settings.unsure)
        wide.append(box_mean(cost, settings.window))
        fine.append(box_mean(cost, settings.window_fine))
    return torch.cat(wide, dim=1)[:, None], torch.cat(fine, dim=1)[:, None]


def matching_features(sweep: Tensor, cost: Tensor, cost_fine: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the input of the MPI network's U-Net, ``[B, MATCHING_FEATURES, D, H / 2, W / 2]``.

    Channels: 2x2 pixels of luminance, luminance difference and both costs, then means of colour, difference and views.
    """
    views = sweep.shape[1]
    best, best_fine = cost.amin(dim=2, keepdim=True), cost_fine.amin(dim=2, keepdim=True)
    parts = []
    at_once = plane_chunk(sweep.device)
    for index, chunk in enumerate(sweep.split(at_once, dim=3)):
        planes = slice(index * at_once, index * at_once + chunk.shape[3])
        mean, difference, count = _agreement(chunk.float())
        full = torch.cat(
            [
                mean.mean(dim=1, keepdim=True),
                difference.mean(dim=1, keepdim=True),
                cost[:, :, planes] - best,
                cost_fine[:, :, planes] - best_fine,
            ],
            dim=1,
        )
        half = halved(torch.cat([mean, difference, count / views], dim=1))
        parts.append(torch.cat([unshuffled(full), half], dim=1).to(dtype))
    return torch.cat(parts, dim=2)


def mask_evidence(
    sweep: Tensor, background: Tensor, opacities: Tensor, settings: CostSettings, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See ``maskvolume.ops``."""
    views = sweep.shape[1]
    left = remaining_transmittance(opacities[:, 0])
    along = torch.zeros_like(left[:, :1])
    evidence = torch.empty_like(left)
    batch, planes, h, w = left.shape
    features = torch.empty(
        batch, MASK_FEATURES, planes, h // 2, w // 2, dtype=dtype, device=sweep.device,
        memory_format=memory_format(sweep.device),
    )  # fmt: skip
    for start in range(0, planes, plane_chunk(sweep.device)):
        chunk = slice(start, start + plane_chunk(sweep.device))
        frame, still, opacity = sweep[:, :, :, chunk], background[:, :, :, chunk], opacities[:, :, chunk]
        valid = valid_views(frame)[:, :, 0]
        count = valid.sum(dim=1)
        change = (frame.float() - still.float()).abs().sum(dim=2).clamp_max(settings.cap) * valid
        smallest = change.masked_fill(~valid, settings.cap).amin(dim=1) * (count > 0)
        mean = change.sum(dim=1) / count.clamp_min(1)
        window = box_mean(smallest, settings.window_fine)
        evidence[:, chunk] = window
        along += (window * opacity[:, 0] * left[:, chunk]).sum(dim=1, keepdim=True)
        _, difference, _ = _agreement(frame.float())
        full = torch.cat([torch.stack([smallest, mean, window], dim=1), opacity], dim=1)
        wide = box_mean(smallest, settings.window)
        half = torch.stack([difference.mean(dim=1), count / views, wide, change[:, 0]], dim=1)
        features[:, :-2, chunk] = torch.cat([unshuffled(full), halved(half)], dim=1)
        features[:, -1:, chunk] = halved(left[:, None, chunk])
    features[:, -2:-1] = halved(along[:, None])
    return features, torch.maximum(evidence, along)[:, None]


def _agreement(sweep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean colour and mean difference ``[B, 3, D, H, W]``, and the number of views ``[B, 1, D, H, W]``.

    The difference is twice the mean absolute deviation, |v0 - v1| for two views.
    """
    valid = valid_views(sweep)
    count = valid.sum(dim=1).to(sweep.dtype)
    divisor = count.clamp_min(1).reciprocal_()
    mean = torch.zeros_like(sweep[:, 0])
    for view, seen in zip(sweep.unbind(1), valid.unbind(1), strict=True):
        mean.addcmul_(view, seen.to(view.dtype))
    mean *= divisor
    difference = torch.zeros_like(mean)
    for view, seen in zip(sweep.unbind(1), valid.unbind(1), strict=True):
        difference.addcmul_((view - mean).abs_(), seen.to(view.dtype))
    difference *= divisor * 2
    return mean, difference, count
