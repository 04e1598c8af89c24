"""The reference backend in plain torch: any device, any float dtype, differentiable. Tests compare others with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.ops.reference import costs, evidence, filling, pixels, planes, warps
from maskvolume.ops.types import (
    CostSettings,
    PathPrices,
    PlaneSettings,
    Rendering,
    RobustSettings,
    Sampling,
)


class ReferenceBackend:
    """The operations of ``maskvolume.ops`` in plain torch, and the base class of the other backends."""

    @property
    def stored_dtype(self) -> torch.dtype:
        return torch.float32

    def runs(self, operation: str, inputs: Sequence[Tensor], dtype: torch.dtype | None = None) -> bool:
        return True

    def sweep_planes(
        self, images: Tensor, sources: Camera, reference: Camera, depths: Tensor, sampling: Sampling
    ) -> Tensor:
        return warps.sweep_planes(images, sources, reference, depths, sampling)

    def render_mpi(
        self, rgba: Tensor, camera: Camera, depths: Tensor, target: Camera, premultiplied: bool
    ) -> Rendering:
        return warps.render_mpi(rgba, camera, depths, target, premultiplied)

    def render_blended(
        self,
        mask: Tensor,
        dynamic: Tensor,
        background: Tensor,
        camera: Camera,
        depths: Tensor,
        target: Camera,
        premultiplied: bool,
    ) -> Rendering:
        return warps.render_blended(mask, dynamic, background, camera, depths, target, premultiplied)

    def blend_planes(self, mask: Tensor, dynamic: Tensor, background: Tensor) -> Tensor:
        return warps.blend_planes(mask, dynamic, background)

    def composite(self, rgba: Tensor, depths: Tensor, premultiplied: bool) -> Rendering:
        return warps.composite(rgba, depths, premultiplied)

    def fill_unseen(self, rendering: Rendering) -> Rendering:
        return filling.fill_unseen(rendering)

    def matching_evidence(
        self, sweep: Tensor, settings: CostSettings, channels: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        return evidence.matching_evidence(sweep, settings, channels, dtype)

    def mask_evidence(
        self, sweep: Tensor, background: Tensor, opacities: Tensor, settings: CostSettings, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        return evidence.mask_evidence(sweep, background, opacities, settings, dtype)

    def robust_costs(self, sweep: Tensor, settings: RobustSettings) -> tuple[Tensor, Tensor]:
        return costs.robust_costs(sweep, settings)

    def aggregate(self, cost: Tensor, guide: Tensor, prices: PathPrices) -> Tensor:
        return costs.aggregate(cost, guide, prices)

    def make_planes(
        self,
        unet_output: Tensor,
        penalty: Tensor,
        sweep: Tensor,
        settings: PlaneSettings,
        size: tuple[int, int, int],
    ) -> Tensor:
        return planes.make_planes_with_logits(unet_output, penalty, sweep, settings, size)[0]

    def make_planes_with_logits(
        self,
        unet_output: Tensor,
        penalty: Tensor,
        sweep: Tensor,
        settings: PlaneSettings,
        size: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor]:
        return planes.make_planes_with_logits(unet_output, penalty, sweep, settings, size)

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
        return planes.make_mask(unet_output, evidence, opacity, slope, threshold, hidden, size)

    def remaining_transmittance(self, opacity: Tensor) -> Tensor:
        return pixels.remaining_transmittance(opacity)
