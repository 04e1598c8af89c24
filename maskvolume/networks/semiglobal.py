"""The matching network with semi-global evidence: what the surroundings say where a window says nothing.

The cost of a plane averaged over a window can't tell how deep a surface without texture is. Semi-global matching
(Hirschmueller, "Stereo Processing by Semiglobal Matching and Mutual Information", 2008) can: it carries the costs along
straight paths through the picture and lets depth change little by little for a small price, and at once for a larger
one, which is less where the picture has an edge. Here the planes of a sweep volume of any number of views take the
place of disparities. The aggregated costs are a second prior beside the windows', and the U-Net reads them.

Costs compare brightness and its gradient, and of the differences from the first view that sees a point only the smaller
half counts, so that a view in which something hides the point has no say. The U-Net starts from there, as in
``maskvolume.networks.matching``; the mask network is that of the matching architecture.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskvolume.networks.matching import (
    COST_CAP,
    WINDOW_FINE,
    MatchingMPINet,
    box_mean,
    compiled_loops,
    halve,
    loops_for_floats,
    matching_evidence,
    pad_views,
    plane_chunk,
)
from maskvolume.networks.views import valid_views
from maskvolume.ops import operators as fused
from maskvolume.ops import triton as triton_kernels

GRADIENT_CAP, GRADIENT_GAIN = 0.25, 2.0  # of the differences of gradients
ROBUST_UNSURE = 0.45  # where fewer than two views see a point, see COST_UNSURE
STEP_PRICE = 0.05  # of a path that goes to the next plane from a pixel to the next
JUMP_PRICE = 0.8  # of one that goes to any other
EDGE = 20.0  # how much an edge lowers the price of a jump, which is never below the least
LEAST_JUMP_PRICE = 1.5 * STEP_PRICE
PRIOR_GAIN = 10.0  # of the aggregated costs in the logits, when training starts
TRUST = 3.0  # how fast a view's colour loses weight as it differs from that of the view next to it, at the start


class SemiglobalMPINet(MatchingMPINet):
    """Plane sweep volume of any number of views to premultiplied RGBA planes."""

    # Those of the matching network, then aggregated cost, robust cost, and difference of the views that are most alike.
    FEATURES = MatchingMPINet.FEATURES + 3

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__(channels)
        self.log_gain = nn.Parameter(torch.tensor(PRIOR_GAIN).log())
        self.log_trust = nn.Parameter(torch.tensor(TRUST).log())

    def trust(self) -> Tensor:
        """See ``MatchingMPINet``."""
        return self.log_trust.exp()

    def evidence(self, sweep: Tensor, *around: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The costs over windows, what the U-Net reads, and the aggregated costs ``[B, 1, D, H / 2, W / 2]``.

        Args:
            sweep: ``[B, V, 3, D, H, W]``, padded.
            around: the aggregated costs ``[B, D, H / 2, W / 2]`` of a part of a picture; None: the part is the picture.
        """
        cost, features = matching_evidence(sweep, self.FEATURES)
        robust, nearest = robust_costs(sweep)
        (aggregated,) = around or (aggregate(robust, guide_of(sweep)),)
        best = aggregated.amin(dim=1, keepdim=True)
        for channel, values in enumerate((aggregated - best, robust, nearest)):
            features[:, MatchingMPINet.FEATURES + channel] = values.to(features.dtype)
        return cost, features, aggregated[:, None]

    def penalty(self, cost: Tensor, *more: Tensor) -> Tensor:
        """See ``MatchingMPINet``."""
        (aggregated,) = more
        gain = self.log_gain.exp()
        wide = F.interpolate(aggregated[:, 0], scale_factor=2, mode="bilinear", align_corners=False)
        return super().penalty(cost) + gain * wide[:, None]


def widened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a matching network as those of a semi-global one; its U-Net makes nothing yet of what is new."""
    start = SemiglobalMPINet().state_dict()
    stem = torch.zeros_like(start["unet.stem.weight"])
    stem[:, : MatchingMPINet.FEATURES] = state["unet.stem.weight"]
    return {**start, **state, "unet.stem.weight": stem}


def aggregation_of(sweep: Tensor) -> tuple[Tensor, Tensor]:
    """What ``aggregate`` takes, of a plane sweep volume ``[B, V, 3, D, H, W]`` as the network pads it."""
    padded, _ = pad_views(sweep)
    return robust_costs(padded)[0], guide_of(padded)


def guide_of(sweep: Tensor) -> Tensor:
    """Brightness of the first view, half as large: ``[B, H / 2, W / 2]``; 0 where it sees nothing."""
    return halve(sweep[:, :1, :, :1].float().mean(dim=2).clamp_min(0))[:, 0, 0]


def robust_costs(sweep: Tensor) -> tuple[Tensor, Tensor]:
    """Half as large ``[B, D, H / 2, W / 2]``: the cost that is aggregated, and the difference of the nearest two views.

    Args:
        sweep: ``[B, V, 3, D, H, W]``, H and W even.
    """
    loops = compiled_loops(sweep)
    if loops is not None:
        return loops.robust_costs(sweep)
    robust, nearest = [], []
    for chunk in sweep.split(plane_chunk(sweep.device), dim=3):
        costs, least = _pixel_costs(chunk.float())
        robust.append(halve(box_mean(costs, WINDOW_FINE)[:, None])[:, 0])
        nearest.append(halve(least[:, None])[:, 0])
    return torch.cat(robust, dim=1), torch.cat(nearest, dim=1)


def _pixel_costs(sweep: Tensor) -> tuple[Tensor, Tensor]:
    """Robust cost and smallest difference of two views ``[B, D, H, W]`` of each pixel."""
    views = sweep.shape[1]
    valid = valid_views(sweep)[:, :, 0]
    light = torch.where(valid, sweep.mean(dim=2), 0)
    across = F.pad(light[..., 2:] - light[..., :-2], (1, 1))
    down = F.pad(light[..., 2:, :] - light[..., :-2, :], (0, 0, 1, 1))
    least = torch.full_like(light[:, 0], COST_CAP)
    differences = torch.full_like(light, torch.inf)  # of each view from the first that sees the point
    for i in range(views):
        for j in range(i):
            both = valid[:, i] & valid[:, j]
            color = (sweep[:, i] - sweep[:, j]).abs().sum(dim=1).clamp_max(COST_CAP)
            least = torch.minimum(least, torch.where(both, color, COST_CAP))
            slope = (across[:, i] - across[:, j]).abs() + (down[:, i] - down[:, j]).abs()
            value = color + GRADIENT_GAIN * slope.clamp_max(GRADIENT_CAP)
            from_first = both & ~valid[:, :j].any(dim=1)
            differences[:, i] = torch.where(from_first, value, differences[:, i])
    count = differences.isfinite().sum(dim=1)
    ranked = differences.sort(dim=1).values
    used = (count + 1) // 2
    rank = torch.arange(views, device=sweep.device)[:, None, None, None]
    total = torch.where(rank < used[:, None], ranked, 0).sum(dim=1)
    return torch.where(count > 0, total / used.clamp_min(1), ROBUST_UNSURE), least


def aggregate(cost: Tensor, guide: Tensor) -> Tensor:
    """Costs of planes ``[B, D, h, w]``, aggregated along paths in eight directions; the mean of these.

    A path's cost at a pixel is the pixel's own and the least of the path's at the pixel before: on the same plane, on
    the next for ``STEP_PRICE``, or on any other for the price of a jump (Hirschmueller 2008, eq. 13).

    Args:
        cost: of each plane at each pixel.
        guide: ``[B, h, w]`` brightness: jumps cost less where it changes.
    """
    prices = STEP_PRICE, JUMP_PRICE, EDGE, LEAST_JUMP_PRICE
    loops = loops_for_floats(cost)
    if loops is not None:
        return loops.aggregate(cost, guide, *prices)
    if cost.device.type == "cuda" and triton_kernels.usable(cost.device):
        return fused.aggregate(cost, guide, *prices)
    total = torch.zeros_like(cost)
    for axis, slants in ((2, (-1, 0, 1)), (3, (0,))):
        volume, light = cost.movedim(axis, 0), guide.movedim(axis - 1, 0)  # [steps, B, D, line], [steps, B, line]
        for slant in slants:
            for flip in (False, True):
                steps = (volume.flip(0), light.flip(0)) if flip else (volume, light)
                along = _along_paths(*steps, slant)
                total += (along.flip(0) if flip else along).movedim(0, axis)
    return total / 8


def _along_paths(cost: Tensor, guide: Tensor, slant: int) -> Tensor:
    """Costs ``[steps, B, D, n]`` along paths that go ``slant`` to the side at each step."""
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
        jump = (JUMP_PRICE / (1 + EDGE * edge)).clamp_min(LEAST_JUMP_PRICE)
        cheapest = torch.minimum(last, lowest + jump)
        torch.minimum(cheapest[:, 1:], last[:, :-1] + STEP_PRICE, out=cheapest[:, 1:])
        torch.minimum(cheapest[:, :-1], last[:, 1:] + STEP_PRICE, out=cheapest[:, :-1])
        out[step, ..., here] += cheapest - lowest
    return out
