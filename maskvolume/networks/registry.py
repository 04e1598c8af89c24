"""The architectures by name: what each is, needs and costs. To add one: its module, and its entry here."""

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
class PictureContext:
    """What an MPI network looks at of the whole picture when it sees a part of it: costs of planes at half resolution.

    Attributes:
        inputs: what it is made from, of a plane sweep ``[B, V, 3, D, H, W]`` of a part; tensors ``[B, ..., H / 2,
            W / 2]`` that are joined to those of the whole picture. Takes the backend of the operations too.
        combine: from these of the whole picture the context ``[B, D, H / 2, W / 2]``, of as many planes as the networks
            pad to; a part of it is the context of that part of the picture. Takes the backend too.
        halo: pixels around a part for its inputs.
    """

    inputs: Callable[[Tensor, str | None], tuple[Tensor, ...]]
    combine: Callable[[tuple[Tensor, ...], str | None], Tensor]
    halo: int

    def of(self, sweep: Tensor, backend: str | None = None) -> Tensor:
        """The context of a sweep ``[B, V, 3, D, H, W]`` of a whole picture."""
        return self.combine(self.inputs(sweep, backend), backend)


@dataclass(frozen=True)
class Work:
    """Bytes a voxel that a network takes at most while it runs: ``fixed + per_view * V``."""

    fixed: float
    per_view: float

    def of(self, views: int) -> float:
        """Bytes a voxel for so many views."""
        return self.fixed + self.per_view * views


@dataclass(frozen=True)
class NetworkWork:
    """What the networks of an architecture take of memory; measured by benchmarks/memory.py, rounded up.

    Attributes:
        mpi: from pictures to planes, with the sweep that is made and the planes that are left.
        mask: from sweeps and planes to the mask that is left, beside those.
    """

    mpi: Work
    mask: Work


@dataclass(frozen=True)
class Architecture:
    """How to build the two networks of an architecture, what their output means and what they take.

    Attributes:
        mpi: makes the MPI network: ``forward(sweep [B, V, 3, D, H, W], context) -> rgba [B, D, 4, H, W]``.
        mask: makes the mask network: ``forward(sweep, background_sweep, dynamic_rgba, background_rgba) -> mask
            [B, 1, D, H, W]``.
        premultiplied: whether the MPI network returns colours multiplied by their opacity.
        max_views: the number of source views that the networks take at most; None for any.
        uses_margin: whether the MPI's frustum may be wider than the reference view.
        gives_logits: whether the MPI network has ``with_logits``: rgba and logits ``[B, D, H, W]`` of the planes.
        halo: how local the networks are in the picture plane; None where every pixel depends on all.
        work: memory of the networks, by precision.
        context: what the MPI network needs of the whole picture beside a part; None for nothing.
        starts_from: architectures whose MPI networks training may start from, and how to translate their weights. The
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
        """Weights of an MPI network of another architecture as weights of this one's; None where there is no way."""
        translate = self.starts_from.get(arch)
        return None if translate is None else translate(state)


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
    halo=None,  # its norms are over the whole volume
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
