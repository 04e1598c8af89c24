"""What the operations take and return, and what an implementation of them offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera

Sampling = Literal["exact", "original"]
NO_DATA = -1.0  # every channel of a view that doesn't see a point
VALID_ABOVE = -0.5  # colours are in 0..1: what lies below this is NO_DATA
MATCHING_FEATURES = 4 * 4 + 7  # channels of what ``matching_evidence`` and ``mask_evidence`` write
MASK_FEATURES = 5 * 4 + 6


@dataclass(frozen=True)
class Rendering:
    """A rendered view.

    Attributes:
        color: ``[..., 3, h, w]`` over black (multiplied by the opacity).
        opacity: ``[..., 1, h, w]`` in 0..1.
        disparity: ``[..., 1, h, w]`` 1 / depth in the MPI's camera, multiplied by the opacity.
    """

    color: Tensor
    opacity: Tensor
    disparity: Tensor


@dataclass(frozen=True)
class CostSettings:
    """How views are compared over windows. Differences are summed over the three colours, which are in 0..1.

    Attributes:
        cap: the largest difference that counts.
        unsure: the cost of a point that fewer than two views see.
        window: side of the wide averaging window in pixels, odd.
        window_fine: side of the fine one.
    """

    cap: float
    unsure: float
    window: int
    window_fine: int


@dataclass(frozen=True)
class RobustSettings:
    """How views are compared where some of them may be hidden; colours as in ``CostSettings``.

    Attributes:
        cap: the largest difference of colours that counts.
        unsure: the cost of a point that fewer than two views see.
        window: side of the averaging window in pixels, odd.
        gradient_cap: the largest difference of brightness gradients that counts.
        gradient_gain: its weight.
    """

    cap: float
    unsure: float
    window: int
    gradient_cap: float
    gradient_gain: float


@dataclass(frozen=True)
class PathPrices:
    """What a path of semi-global matching pays from a pixel to the next, in units of cost.

    Attributes:
        step: for the next plane.
        jump: for any other plane.
        edge: how much an edge of the guide lowers the price of a jump.
        least_jump: what a jump costs at least.
    """

    step: float
    jump: float
    edge: float
    least_jump: float


@dataclass(frozen=True)
class PlaneSettings:
    """How planes are colored.

    Attributes:
        logit_cap: how far below a ray's highest logit the others count.
        view_cap: how far from 0 the logit of the first view counts.
        cost_cap: the largest difference between views that counts, as in ``CostSettings``.
        trust: ``[]`` how fast a view's colour loses weight as it differs from that of the view most like it; None: it
            doesn't.
    """

    logit_cap: float
    view_cap: float
    cost_cap: float
    trust: Tensor | None = None


class Backend(Protocol):
    """One implementation of the operations; arguments have been checked. See ``maskvolume.ops``."""

    @property
    def stored_dtype(self) -> torch.dtype:
        """The type of planes that it renders many views of fastest."""
        ...

    def runs(self, operation: str, inputs: Sequence[Tensor], dtype: torch.dtype | None = None) -> bool:
        """Whether it runs one of its methods on inputs of these types, with a gradient where one is needed.

        Args:
            operation: name of the method.
            inputs: its tensors; the sweep of a frame comes first.
            dtype: the type of what the U-Net reads or has written, where the operation has to do with it.
        """
        ...

    def sweep_planes(
        self, images: Tensor, sources: Camera, reference: Camera, depths: Tensor, sampling: Sampling
    ) -> Tensor: ...

    def render_mpi(
        self, rgba: Tensor, camera: Camera, depths: Tensor, target: Camera, premultiplied: bool
    ) -> Rendering: ...

    def render_blended(
        self,
        mask: Tensor,
        dynamic: Tensor,
        background: Tensor,
        camera: Camera,
        depths: Tensor,
        target: Camera,
        premultiplied: bool,
    ) -> Rendering: ...

    def blend_planes(self, mask: Tensor, dynamic: Tensor, background: Tensor) -> Tensor: ...

    def composite(self, rgba: Tensor, depths: Tensor, premultiplied: bool) -> Rendering: ...

    def fill_unseen(self, rendering: Rendering) -> Rendering: ...

    def matching_evidence(
        self, sweep: Tensor, settings: CostSettings, channels: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]: ...

    def mask_evidence(
        self, sweep: Tensor, background: Tensor, opacities: Tensor, settings: CostSettings, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]: ...

    def robust_costs(self, sweep: Tensor, settings: RobustSettings) -> tuple[Tensor, Tensor]: ...

    def aggregate(self, cost: Tensor, guide: Tensor, prices: PathPrices) -> Tensor: ...

    def make_planes(
        self,
        unet_output: Tensor,
        penalty: Tensor,
        sweep: Tensor,
        settings: PlaneSettings,
        size: tuple[int, int, int],
    ) -> Tensor: ...

    def make_planes_with_logits(
        self,
        unet_output: Tensor,
        penalty: Tensor,
        sweep: Tensor,
        settings: PlaneSettings,
        size: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor]: ...

    def make_mask(
        self,
        unet_output: Tensor,
        evidence: Tensor,
        opacity: Tensor,
        slope: Tensor,
        threshold: Tensor,
        hidden: Tensor,
        size: tuple[int, int, int],
    ) -> Tensor: ...

    def remaining_transmittance(self, opacity: Tensor) -> Tensor: ...
