"""Semi-global matching over the planes of a sweep volume, in plain torch.

Costs averaged over a window cannot determine the depth of a textureless surface. Semi-global matching (Hirschmueller,
"Stereo Processing by Semiglobal Matching and Mutual Information", 2008) can: it accumulates costs along straight paths
through the picture. Small depth changes cost little; jumps cost more, but less at edges of the picture. Planes of a
sweep volume, from any number of views, replace disparities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.ops.reference.pixels import box_mean, halved, plane_chunk, valid_views
from maskvolume.ops.types import PathPrices, RobustSettings

PATHS = 8  # directions


def robust_costs(sweep: Tensor, settings: RobustSettings) -> tuple[Tensor, Tensor]:
    """See ``maskvolume.ops``."""
    robust, nearest = [], []
    for chunk in sweep.split(plane_chunk(sweep.device), dim=3):
        costs, least = _pixel_costs(chunk.float(), settings)
        robust.append(halved(box_mean(costs, settings.window)[:, None])[:, 0])
        nearest.append(halved(least[:, None])[:, 0])
    return torch.cat(robust, dim=1), torch.cat(nearest, dim=1)


def _pixel_costs(sweep: Tensor, settings: RobustSettings) -> tuple[Tensor, Tensor]:
    """Return the robust cost and the smallest difference of two views per pixel, each ``[B, D, H, W]``."""
    views = sweep.shape[1]
    valid = valid_views(sweep)[:, :, 0]
    light = torch.where(valid, sweep.mean(dim=2), 0)
    across = F.pad(light[..., 2:] - light[..., :-2], (1, 1))
    down = F.pad(light[..., 2:, :] - light[..., :-2, :], (0, 0, 1, 1))
    least = torch.full_like(light[:, 0], settings.cap)
    differences = torch.full_like(light, torch.inf)  # difference of each view from the first that sees the point
    for i in range(views):
        for j in range(i):
            both = valid[:, i] & valid[:, j]
            color = (sweep[:, i] - sweep[:, j]).abs().sum(dim=1).clamp_max(settings.cap)
            least = torch.minimum(least, torch.where(both, color, settings.cap))
            slope = (across[:, i] - across[:, j]).abs() + (down[:, i] - down[:, j]).abs()
            value = color + settings.gradient_gain * slope.clamp_max(settings.gradient_cap)
            from_first = both & ~valid[:, :j].any(dim=1)
            differences[:, i] = torch.where(from_first, value, differences[:, i])
    count = differences.isfinite().sum(dim=1)
    ranked = differences.sort(dim=1).values
    used = (count + 1) // 2
    rank = torch.arange(views, device=sweep.device)[:, None, None, None]
    total = torch.where(rank < used[:, None], ranked, 0).sum(dim=1)
    return torch.where(count > 0, total / used.clamp_min(1), settings.unsure), least


def aggregate(cost: Tensor, guide: Tensor, prices: PathPrices) -> Tensor:
    """See ``maskvolume.ops``."""
    total = torch.zeros_like(cost)
    for axis, slants in ((2, (-1, 0, 1)), (3, (0,))):
        volume, light = cost.movedim(axis, 0), guide.movedim(axis - 1, 0)  # [steps, B, D, line], [steps, B, line]
        for slant in slants:
            for flip in (False, True):
                steps = (volume.flip(0), light.flip(0)) if flip else (volume, light)
                along = _along_paths(*steps, slant, prices)
                total += (along.flip(0) if flip else along).movedim(0, axis)
    return total / PATHS


def _along_paths(cost: Tensor, guide: Tensor, slant: int, prices: PathPrices) -> Tensor:
    """Accumulate costs ``[steps, B, D, n]`` along paths that shift sideways by ``slant`` at each step."""
    out = torch.empty_like(cost)
    out[0] = cost[0]
    width = cost.shape[-1]
    here = slice(max(slant, 0), width + min(slant, 0))
    before = slice(max(-slant, 0), width + min(-slant, 0))
    for step in range(1, len(cost)):
        out[step] = cost[step]
        last = out[step - 1, ..., before]
        lowest = last.amin(dim=1, keepdim=True)
        edge = (guide[step, :, None, here] - guide[step - 1, :, None, before]).abs()
        jump = (prices.jump / (1 + prices.edge * edge)).clamp_min(prices.least_jump)
        cheapest = torch.minimum(last, lowest + jump)
        torch.minimum(cheapest[:, 1:], last[:, :-1] + prices.step, out=cheapest[:, 1:])
        torch.minimum(cheapest[:, :-1], last[:, 1:] + prices.step, out=cheapest[:, :-1])
        out[step, ..., here] += cheapest - lowest
    return out
