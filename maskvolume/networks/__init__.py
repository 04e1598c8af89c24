"""The networks, by architecture name. The name is recorded in every checkpoint.

An architecture is a pair of modules:

- MPI network: ``forward(sweep [B, V, 3, D, H, W]) -> rgba [B, D, 4, H, W]``
- mask network: ``forward(sweep, background_sweep, dynamic_rgba, background_rgba) -> mask [B, 1, D, H, W]``

Both take any H, W and D: they pad inside and crop after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from maskvolume.networks.matching import MatchingMaskNet, MatchingMPINet
from maskvolume.networks.original import OriginalMaskNet, OriginalMPINet
from maskvolume.networks.semiglobal import SemiglobalMPINet

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Halo",
    "MatchingMPINet",
    "MatchingMaskNet",
    "OriginalMPINet",
    "OriginalMaskNet",
    "SemiglobalMPINet",
]


@dataclass(frozen=True)
class Halo:
    """How far around a part of the picture the networks look, in pixels, where the part lies on their grid.

    Attributes:
        grid: corners of parts are multiples of this, as the networks' coarsest pixels are.
        network: around a part, for its planes or for its mask from both MPIs.
        frame: around a part, for its mask from the pictures: the mask network reads the MPI network's planes.
    """

    grid: int
    network: int
    frame: int


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
        halo: how local the networks are in the picture plane; None where every pixel depends on all.
        aggregates: whether the MPI network carries costs through the whole picture and has to be told them of a part
            (``maskvolume.networks.semiglobal``).
    """

    mpi: Callable[[], nn.Module]
    mask: Callable[[], nn.Module]
    premultiplied: bool
    max_views: int | None
    uses_margin: bool
    gives_logits: bool
    halo: Halo | None
    aggregates: bool = False


# From the result back to the pictures, in pixels beyond the edge of a part, at the side where it is more: 4 of the last
# block, 8 of the one before, 4 to the next coarsest pixel, 32 of the two coarsest blocks, 4 + 8 + 2 of the halvings and
# the block between them, 2 of the stem: 64, as far as the mask network reads opacities. The widest window is 4 more: 68
# for a network, 64 + 68 for both. Rounded up to the grid.
_MATCHING_HALO = Halo(grid=8, network=72, frame=136)

_MATCHING = Architecture(
    MatchingMPINet,
    MatchingMaskNet,
    premultiplied=True,
    max_views=None,
    uses_margin=True,
    gives_logits=True,
    halo=_MATCHING_HALO,
)

ARCHITECTURES: dict[str, Architecture] = {
    "matching": _MATCHING,
    "semiglobal": replace(_MATCHING, mpi=SemiglobalMPINet, aggregates=True),
    "original": Architecture(
        OriginalMPINet,
        OriginalMaskNet,
        premultiplied=False,
        max_views=2,
        uses_margin=False,
        gives_logits=False,
        halo=None,  # its norms are over the whole volume
    ),
}
