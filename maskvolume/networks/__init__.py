"""The networks, by architecture name. The name is recorded in every checkpoint.

An architecture is a pair of modules:

- MPI network: ``forward(sweep [B, V, 3, D, H, W]) -> rgba [B, D, 4, H, W]``
- mask network: ``forward(sweep, background_sweep, dynamic_rgba, background_rgba) -> mask [B, 1, D, H, W]``

Both take any H, W and D: they pad inside and crop after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from maskvolume.networks.matching import MatchingMaskNet, MatchingMPINet
from maskvolume.networks.original import OriginalMaskNet, OriginalMPINet

__all__ = ["ARCHITECTURES", "Architecture", "MatchingMPINet", "MatchingMaskNet", "OriginalMPINet", "OriginalMaskNet"]


@dataclass(frozen=True)
class Architecture:
    """How to build the two networks of an architecture, and what their output means.

    Attributes:
        mpi: makes the MPI network.
        mask: makes the mask network.
        premultiplied: whether the MPI network returns colours multiplied by their opacity.
        max_views: the number of source views that the networks take at most; None for any.
        uses_margin: whether the MPI's frustum may be wider than the reference view.
        gives_logits: whether the MPI network has ``with_logits``: rgba and logits ``[B, D, H, W]`` of the planes.
    """

    mpi: Callable[[], nn.Module]
    mask: Callable[[], nn.Module]
    premultiplied: bool
    max_views: int | None
    uses_margin: bool
    gives_logits: bool


ARCHITECTURES: dict[str, Architecture] = {
    "matching": Architecture(
        MatchingMPINet, MatchingMaskNet, premultiplied=True, max_views=None, uses_margin=True, gives_logits=True
    ),
    "original": Architecture(
        OriginalMPINet, OriginalMaskNet, premultiplied=False, max_views=2, uses_margin=False, gives_logits=False
    ),
}
