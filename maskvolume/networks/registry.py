"""The architectures by name: their interface, requirements and memory. A new one needs a module and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from maskvolume.networks import semiglobal
from maskvolume.networks.matching import MatchingMaskNet, MatchingMPINet
from maskvolume.networks.original import OriginalMaskNet, OriginalMPINet
from maskvolume.networks.semiglobal import SemiglobalMPINet
from maskvolume.networks.volumes import Network
from maskvolume.runtime.devices import Precision

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Halo:
    """How far the networks look beyond a part of the picture, in pixels.

    Attributes:
        grid: the corners of a part must be multiples of this number, the side of the networks' coarsest pixels.
        network: halo of one network: for the planes of a part, or for its mask from both MPIs.
        frame: halo of both networks, for the mask of a part from the pictures: the mask network reads the planes that
            the MPI network predicts.
    """

    grid: int
    network: int
    frame: int


@dataclass(frozen=True)
class PictureContext:
    """How to compute the context: plane costs of the whole picture that an MPI network needs for each part of it.

    Attributes:
        inputs: computes the context inputs of a part from its plane sweep ``[B, V, 3, D, H, W]`` and a backend: tensors
            ``[B, ..., H / 2, W / 2]``, which the caller joins for the whole picture.
        combine: computes the context ``[B, D, H / 2, W / 2]`` from the inputs of the whole picture and a backend. D
            includes the networks' padding. A window of the context is the context of that part of the picture.
        halo: pixels around a part that its inputs depend on.
    """

    inputs: Callable[[Tensor, str | None], tuple[Tensor, ...]]
    combine: Callable[[tuple[Tensor, ...], str | None], Tensor]
    halo: int

    def of(self, sweep: Tensor, backend: str | None = None) -> Tensor:
        """Compute the context ``[B, D, H / 2, W / 2]`` of a sweep ``[B, V, 3, D, H, W]`` of a whole picture."""
        return self.combine(self.inputs(sweep, backend), backend)


@dataclass(frozen=True)
class Work:
    """Peak memory of a network while it runs, in bytes per voxel: ``fixed + per_view * V``."""

    fixed: float
    per_view: float

    def of(self, views: int) -> float:
        """Bytes per voxel for a number of views."""
        return self.fixed + self.per_view * views


@dataclass(frozen=True)
class NetworkWork:
    """Memory of the networks of an architecture, measured by benchmarks/memory.py and rounded up.

    Attributes:
        mpi: from pictures to planes, including the sweep and the planes.
        mask: from sweeps and planes to the mask, including the mask but not its inputs.
    """

    mpi: Work
    mask: Work


@dataclass(frozen=True)
class Architecture:
    """How to build the two networks of an architecture, and the properties of their inputs and outputs.

    Attributes:
        mpi: builds the MPI network: ``forward(sweep [B, V, 3, D, H, W], context) -> rgba [B, D, 4, H, W]``.
        mask: builds the mask network: ``forward(sweep, background_sweep, dynamic_rgba, background_rgba) -> mask
            [B, 1, D, H, W]``.
        premultiplied: whether the MPI network returns colours multiplied by their opacity.
        max_views: largest number of source views that the networks accept; None for no limit.
        uses_margin: whether the MPI's frustum may be wider than the reference view.
        gives_logits: whether the MPI network has ``with_logits``: rgba and logits ``[B, D, H, W]`` of the planes.
        halo: how far the networks look in the picture plane; None if every pixel depends on all others.
        work: memory of the networks, by precision.
        context: what the MPI network needs from the whole picture; None if a part with its halo is enough.
        starts_from: architectures whose MPI weights training may start from, with functions that translate them. The
            mask networks must be the same.
    """

    mpi: Callable[[], Network]
    mask: Callable[[], Network]
    premultiplied: bool
    max_views: int | None
    uses_margin: bool
    gives_logits: bool
    halo: Halo | None
    work: Mapping[Precision, NetworkWork]
    context: PictureContext | None = None
    starts_from: Mapping[str, Callable[[StateDict], StateDict]] = field(default_factory=dict)

    def adopt(self, state: StateDict, arch: str) -> StateDict | None:
        """Translate the state dict of another architecture's MPI network to this one.

        Args:
            state: the state dict.
            arch: name of the other architecture.

        Returns:
            The translated state dict; None if training can't start from that architecture.
        """
        translate = self.starts_from.get(arch)
        return None if translate is None else translate(state)


# The receptive field from the result back to the pictures, in pixels beyond the edge of a part, on the wider side: 4
# for the last block, 8 for the one before, 4 to the next coarsest pixel, 32 for the two coarsest blocks, 4 + 8 + 2 for
# the halvings and the block between them, 2 for the stem: 64, as far as the mask network reads opacities. The widest
# window adds 4: 68 for one network, 64 + 68 for both. Rounded up to the grid.
_MATCHING_HALO = Halo(grid=8, network=72, frame=136)

_MATCHING = Architecture(
    MatchingMPINet,
    MatchingMaskNet,
    premultiplied=True,
    max_views=None,
    uses_margin=True,
    gives_logits=True,
    halo=_MATCHING_HALO,
    work={
        "fp32": NetworkWork(Work(110, 11), Work(86, 0)),
        "bf16": NetworkWork(Work(70, 7), Work(55, 0)),
    },
)

_SEMIGLOBAL = replace(
    _MATCHING,
    mpi=SemiglobalMPINet,
    work={
        "fp32": NetworkWork(Work(130, 11), Work(86, 0)),
        "bf16": NetworkWork(Work(90, 7), Work(55, 0)),
    },
    context=PictureContext(semiglobal.context_inputs, semiglobal.aggregated_costs, semiglobal.CONTEXT_HALO),
    starts_from={"matching": semiglobal.widened},
)

_ORIGINAL = Architecture(
    OriginalMPINet,
    OriginalMaskNet,
    premultiplied=False,
    max_views=2,
    uses_margin=False,
    gives_logits=False,
    halo=None,  # the norm layers average over the whole volume
    work={
        "fp32": NetworkWork(Work(450, 0), Work(490, 0)),
        "bf16": NetworkWork(Work(195, 0), Work(215, 0)),
    },
)

ARCHITECTURES: dict[str, Architecture] = {
    "semiglobal": _SEMIGLOBAL,
    "matching": _MATCHING,
    "original": _ORIGINAL,
}
