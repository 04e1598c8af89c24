"""The CPU backend of compiled loops, and its operator kernels.

Importing this module raises ImportError without Numba, and RuntimeError without a writable cache for compiled loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskvolume.ops import operators
from maskvolume.ops.cpu import evidence as loops
from maskvolume.ops.cpu import filling_kernels, warps
from maskvolume.ops.operators import OperatorBackend
from maskvolume.ops.reference import ReferenceBackend, filling
from maskvolume.ops.types import CostSettings, PlaneSettings, Rendering, RobustSettings

DEVICE = "cpu"


@operators.render_planes.register_kernel(DEVICE)
def _(rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, h: int, w: int, premultiplied: bool) -> Tensor:
    return warps.render_planes(rgba, homographies, inverse_depths, (h, w), premultiplied)


@operators.render_blended.register_kernel(DEVICE)
def _(
    mask: Tensor, dynamic: Tensor, background: Tensor, homographies: Tensor, inverse_depths: Tensor,
    h: int, w: int, premultiplied: bool,
) -> Tensor:  # fmt: skip
    return warps.render_blended(mask, dynamic, background, homographies, inverse_depths, (h, w), premultiplied)


@operators.sweep.register_kernel(DEVICE)
def _(images: Tensor, homographies: Tensor, h: int, w: int, original: bool) -> Tensor:
    return warps.sweep(images, homographies, (h, w), original)


operators.aggregate.register_kernel(DEVICE)(loops.aggregate)


class CompiledBackend(OperatorBackend):
    """Loops compiled by Numba. They compute in float32 and have no gradients.

    Inherits ``composite``, ``blend_planes`` and ``make_planes_with_logits`` from the reference.
    """

    @property
    def stored_dtype(self) -> torch.dtype:
        return warps.STORED

    def runs(self, operation: str, inputs: Sequence[Tensor], dtype: torch.dtype | None = None) -> bool:
        if getattr(CompiledBackend, operation) is getattr(ReferenceBackend, operation):
            return True
        needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        if needs_gradient or any(x.dtype == torch.float64 for x in inputs):
            return False
        if operation in vars(OperatorBackend):
            return True
        if torch.compiler.is_compiling():  # only operators can be part of a graph
            return False
        if operation == "robust_costs":
            return inputs[0].dtype in loops.TYPES
        if operation == "make_mask":
            return dtype in loops.TYPES.values()
        return dtype is None or loops.TYPES.get(inputs[0].dtype) == dtype

    def fill_unseen(self, rendering: Rendering) -> Rendering:
        covered = filling.covered_views(rendering)
        if bool(covered.all()):
            return rendering
        layers = filling.layers_of(rendering)
        for view, whole in zip(layers, covered.reshape(-1), strict=True):
            if not whole:
                filling_kernels.pull_push(view.numpy())
        return filling.filled_rendering(rendering, layers[:, :4])

    def matching_evidence(
        self, sweep: Tensor, settings: CostSettings, channels: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        return loops.matching_evidence(sweep, settings, channels)

    def mask_evidence(
        self, sweep: Tensor, background: Tensor, opacities: Tensor, settings: CostSettings, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        return loops.mask_evidence(sweep, background, opacities, settings)

    def robust_costs(self, sweep: Tensor, settings: RobustSettings) -> tuple[Tensor, Tensor]:
        return loops.robust_costs(sweep, settings)

    def make_planes(
        self,
        unet_output: Tensor,
        penalty: Tensor,
        sweep: Tensor,
        settings: PlaneSettings,
        size: tuple[int, int, int],
    ) -> Tensor:
        return loops.make_planes(unet_output, penalty, sweep, settings, size)

    def make_mask(
        self,
        unet_output: Tensor,
        evidence: Tensor,
        opacity: Tensor,
        slope: Tensor,
        threshold: Tensor,
        hidden: Tensor,
        size: tuple[int, int, int],
    ) -> Tensor:
        prior = float(slope), float(threshold), float(hidden)
        return loops.make_mask(unet_output, evidence, opacity, *prior, size)

    def remaining_transmittance(self, opacity: Tensor) -> Tensor:
        return loops.remaining_transmittance(opacity)


BACKEND = CompiledBackend()
