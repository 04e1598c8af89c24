"""The matching network with semi-global evidence: what the surroundings tell where a window tells nothing.

Costs that are carried along paths through the picture (``maskvolume.ops.aggregate``) are a second prior beside the
windows', and the U-Net reads them. They compare brightness and its gradient, and of the differences from the first view
that sees a point only the smaller half counts, so that a view in which something hides the point has no say. The U-Net
starts from there, as in ``maskvolume.networks.matching``; the mask network is that of the matching architecture.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskvolume import ops
from maskvolume.networks.matching import (
    COST_CAP,
    WINDOW_FINE,
    Evidence,
    MatchingMPINet,
    pad_views,
)
from maskvolume.ops import PathPrices, RobustSettings

GRADIENT_CAP, GRADIENT_GAIN = 0.25, 2.0  # of the differences of gradients
ROBUST_UNSURE = 0.45  # where fewer than two views see a point, see COST_UNSURE
STEP_PRICE = 0.05  # of a path that goes to the next plane from a pixel to the next
JUMP_PRICE = 0.8  # of one that goes to any other
EDGE = 20.0  # how much an edge lowers the price of a jump, which is never below the least
LEAST_JUMP_PRICE = 1.5 * STEP_PRICE
PRIOR_GAIN = 10.0  # of the aggregated costs in the logits, when training starts
TRUST = 3.0  # how fast a view's colour loses weight as it differs from that of the view next to it, at the start
CONTEXT_HALO = 8  # pixels around a part of a picture for its own costs: gradients and small windows; on the grid


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

    def evidence(self, sweep: Tensor, context: Tensor | None) -> Evidence:
        """See ``MatchingMPINet``; the context is the aggregated costs ``[B, D, H / 2, W / 2]`` of this part."""
        cost, features = self._matching_evidence(sweep)
        robust, nearest = ops.robust_costs(sweep, robust_settings(), backend=self.backend)
        aggregated = context
        if aggregated is None:
            aggregated = aggregated_costs((robust, guide_of(sweep)), self.backend)
        best = aggregated.amin(dim=1, keepdim=True)
        for channel, values in enumerate((aggregated - best, robust, nearest)):
            features[:, MatchingMPINet.FEATURES + channel] = values.to(features.dtype)
        return Evidence(cost, features, aggregated[:, None])

    def penalty(self, evidence: Evidence) -> Tensor:
        """See ``MatchingMPINet``."""
        assert evidence.aggregated is not None
        gain = self.log_gain.exp()
        wide = F.interpolate(evidence.aggregated[:, 0], scale_factor=2, mode="bilinear", align_corners=False)
        return super().penalty(evidence) + gain * wide[:, None]


def widened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a matching network as those of a semi-global one; its U-Net makes nothing yet of what is new."""
    start = SemiglobalMPINet().state_dict()
    stem = torch.zeros_like(start["unet.stem.weight"])
    stem[:, : MatchingMPINet.FEATURES] = state["unet.stem.weight"]
    return {**start, **state, "unet.stem.weight": stem}


def context_inputs(sweep: Tensor, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Costs ``[B, D, H / 2, W / 2]`` and guide ``[B, H / 2, W / 2]`` of a sweep ``[B, V, 3, D, H, W]``, padded."""
    padded, _ = pad_views(sweep)
    return ops.robust_costs(padded, robust_settings(), backend=backend)[0], guide_of(padded)


def aggregated_costs(inputs: tuple[Tensor, ...], backend: str | None = None) -> Tensor:
    """The costs of ``context_inputs`` carried through the picture, ``[B, D, H / 2, W / 2]``."""
    cost, guide = inputs
    prices = PathPrices(STEP_PRICE, JUMP_PRICE, EDGE, LEAST_JUMP_PRICE)
    return ops.aggregate(cost, guide, prices, backend=backend)


def guide_of(sweep: Tensor) -> Tensor:
    """Brightness of the first view, half as large: ``[B, H / 2, W / 2]``; 0 where it sees nothing."""
    return F.avg_pool2d(sweep[:, 0, :, 0].float().mean(dim=1).clamp_min(0), 2)


def robust_settings() -> RobustSettings:
    """How this network compares views of which some may be hidden."""
    return RobustSettings(COST_CAP, ROBUST_UNSURE, WINDOW_FINE, GRADIENT_CAP, GRADIENT_GAIN)
