"""The matching network with semi-global evidence, for pixels whose windows carry no information.

Costs aggregated along paths through the picture (``maskvolume.ops.aggregate``) are a second prior beside the window
costs, and inputs of the U-Net. They compare brightness, its gradient and colour. Only the smaller half of the
differences from the first view that sees a point counts, so that views in which the point is hidden are ignored. The
U-Net learns a residual as in ``maskvolume.networks.matching``; the mask network is that of the matching architecture.
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

GRADIENT_CAP, GRADIENT_GAIN = 0.25, 2.0  # upper limit and weight of a difference of gradients
ROBUST_UNSURE = 0.45  # cost of a point that fewer than two views see; see COST_UNSURE
STEP_PRICE = 0.05  # price of a path's move to a neighbouring plane, from one pixel to the next
JUMP_PRICE = 0.8  # price of a move to any other plane
EDGE = 20.0  # how much an edge lowers the price of a jump
LEAST_JUMP_PRICE = 1.5 * STEP_PRICE  # lower limit of the price of a jump
PRIOR_GAIN = 10.0  # initial weight of the aggregated costs in the logits
TRUST = 3.0  # initial rate at which a view loses weight as it differs from the most similar view
CONTEXT_HALO = 8  # pixels around a part that its costs depend on, for gradients and small windows; a grid multiple


class SemiglobalMPINet(MatchingMPINet):
    """``MatchingMPINet`` with semi-global evidence."""

    # The features of the matching network, then the aggregated cost, robust cost, and difference of most similar views.
    FEATURES = MatchingMPINet.FEATURES + 3

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__(channels)
        self.log_gain = nn.Parameter(torch.tensor(PRIOR_GAIN).log())
        self.log_trust = nn.Parameter(torch.tensor(TRUST).log())

    def trust(self) -> Tensor:
        """See ``MatchingMPINet``."""
        return self.log_trust.exp()

    def evidence(self, sweep: Tensor, context: Tensor | None) -> Evidence:
        """See ``MatchingMPINet``; the context holds the aggregated costs ``[B, D, H / 2, W / 2]`` of this part."""
        cost, features = self._matching_evidence(sweep)
        robust, nearest = ops.robust_costs(sweep, robust_settings(), backend=self.backend)
        aggregated = context
        if aggregated is None:
            aggregated = aggregated_costs((robust, guide_of(sweep)), self.backend)
        lowest = aggregated.amin(dim=1, keepdim=True)
        for channel, values in enumerate((aggregated - lowest, robust, nearest)):
            features[:, MatchingMPINet.FEATURES + channel] = values.to(features.dtype)
        return Evidence(cost, features, aggregated[:, None])

    def penalty(self, evidence: Evidence) -> Tensor:
        """See ``MatchingMPINet``."""
        assert evidence.aggregated is not None
        gain = self.log_gain.exp()
        upsampled = F.interpolate(evidence.aggregated[:, 0], scale_factor=2, mode="bilinear", align_corners=False)
        return super().penalty(evidence) + gain * upsampled[:, None]


def widened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state dict of a matching network to a semi-global one.

    The U-Net initially gives the additional features zero weight.

    Args:
        state: the state dict of a ``MatchingMPINet``.

    Returns:
        The state dict of a ``SemiglobalMPINet``.
    """
    initial = SemiglobalMPINet().state_dict()
    stem = torch.zeros_like(initial["unet.stem.weight"])
    stem[:, : MatchingMPINet.FEATURES] = state["unet.stem.weight"]
    return {**initial, **state, "unet.stem.weight": stem}


def context_inputs(sweep: Tensor, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Compute the inputs of ``aggregated_costs``: the costs and the guide of a padded sweep.

    Args:
        sweep: ``[B, V, 3, D, H, W]``, the plane sweep volume.
        backend: implementation of the operations; None for the best.

    Returns:
        Costs ``[B, D, H / 2, W / 2]`` and guide ``[B, H / 2, W / 2]``, of the padded D, H and W.
    """
    padded, _ = pad_views(sweep)
    return ops.robust_costs(padded, robust_settings(), backend=backend)[0], guide_of(padded)


def aggregated_costs(inputs: tuple[Tensor, ...], backend: str | None = None) -> Tensor:
    """Aggregate the costs of ``context_inputs`` along paths through the picture: ``[B, D, H / 2, W / 2]``."""
    cost, guide = inputs
    prices = PathPrices(STEP_PRICE, JUMP_PRICE, EDGE, LEAST_JUMP_PRICE)
    return ops.aggregate(cost, guide, prices, backend=backend)


def guide_of(sweep: Tensor) -> Tensor:
    """Brightness ``[B, H / 2, W / 2]`` of the first view of a sweep ``[B, V, 3, D, H, W]``; 0 where it sees nothing."""
    return F.avg_pool2d(sweep[:, 0, :, 0].float().mean(dim=1).clamp_min(0), 2)


def robust_settings() -> RobustSettings:
    """Return how this network compares views if the point may be hidden in some."""
    return RobustSettings(COST_CAP, ROBUST_UNSURE, WINDOW_FINE, GRADIENT_CAP, GRADIENT_GAIN)
