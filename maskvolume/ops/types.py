"""Types of the operations' arguments and results, and the backend protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera

Sampling = Literal["exact", "original"]
NO_DATA = -1.0  # value of every channel of a view that does not see a point
VALID_ABOVE = -0.5  # colours are in 0..1; lower values are NO_DATA
MATCHING_FEATURES = 4 * 4 + 7  # channels that ``matching_evidence`` and ``mask_evidence`` write
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
    """How to compare views over windows. Differences are sums over three colours in 0..1.

    Attributes:
        cap: upper limit of a difference.
        unsure: cost of a point that fewer than two views see.
        window: side of the wide averaging window in pixels, odd.
        window_fine: side of the fine averaging window in pixels, odd.
    """

    cap: float
    unsure: float
    window: int
    window_fine: int


@dataclass(frozen=True)
class RobustSettings:
    """How to compare views when the point may be hidden in some; differences as in ``CostSettings``.

    Attributes:
        cap: upper limit of a colour difference.
        unsure: cost of a point that fewer than two views see.
        window: side of the averaging window in pixels, odd.
        gradient_cap: upper limit of a difference of brightness gradients.
        gradient_gain: weight of that difference.
    """

    cap: float
    unsure: float
    window: int
    gradient_cap: float
    gradient_gain: float


@dataclass(frozen=True)
class PathPrices:
    """Prices that a path of semi-global matching pays from one pixel to the next, in cost units.

    Attributes:
        step: price of moving to a neighbouring plane.
        jump: price of moving to any other plane.
        edge: how much an edge of the guide lowers the price of a jump.
        least_jump: lower limit of the price of a jump.
    """

    step: float
    jump: float
    edge: float
    least_jump: float


@dataclass(frozen=True)
class PlaneSettings:
    """How to colour planes.

    Attributes:
        logit_cap: upper limit of the distance of a logit from the highest logit of its ray.
        view_cap: upper limit of the magnitude of the first view's logit.
        cost_cap: upper limit of a difference between views, as in ``CostSettings``.
        trust: ``[]`` rate at which a view loses weight as it differs from the most similar view; None disables this.
    """

    logit_cap: float
    view_cap: float
    cost_cap: float
    trust: Tensor | None = None


class Backend(Protocol):
    """An implementation of the operations in ``maskvolume.ops``; its arguments are already checked."""

    @property
    def stored_dtype(self) -> torch.dtype:
        """The dtype in which it renders many views of the same planes fastest."""
        ...

    def runs(self, operation: str, inputs: Sequence[Tensor], dtype: torch.dtype | None = None) -> bool:
        """Return whether a method runs on inputs of these dtypes, with a gradient if one is needed.

        Args:
            operation: name of the method.
            inputs: tensor arguments; the sweep of a frame comes first.
            dtype: dtype of the U-Net's input or output, if the operation produces or reads it.
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
