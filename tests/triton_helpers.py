"""Scenes for tests of the Triton kernels, with the results of the reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from helpers import make_camera
from torch import Tensor

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.homography import render_homographies, sweep_homographies
from maskvolume.geometry.planes import disparity_planes
from maskvolume.ops.reference import ReferenceBackend
from maskvolume.ops.types import Sampling

REFERENCE = ReferenceBackend()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# For sums of some hundred products in another order.
EXACT = 1e-11
# Coordinates are rounded to float32, and noise has full contrast between neighbouring pixels; at the edge of a plane
# seen from behind a division amplifies the error. A ray may stop at a transmittance of 1e-4.
CLOSE = 1e-3
# The same for maps that are exact except for the division, which a GPU rounds twice: ten pixels times 1e-7.
ROUNDED = 1e-5


def layouts(planes: Tensor, layout: str) -> Tensor:
    """Return the values ``[B, D, 4, H, W]`` in a memory layout: "planar", "last" (channels last) or strided."""
    if layout == "planar":
        return planes.contiguous()
    if layout == "last":
        return planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    wide = planes.new_zeros(*planes.shape[:-1], 2 * planes.shape[-1] + 1)  # every second column, rows apart
    wide[..., 1::2] = planes
    return wide[..., 1::2]


class Scene:
    """Multiplane images, and targets around them that see some planes partly, from behind or not at all.

    Opacities are random, with patches of exactly 0 and 1.
    """

    def __init__(
        self,
        batch: int,
        views: int,
        count: int = 5,
        plane_size: tuple[int, int] = (13, 17),
        size: tuple[int, int] = (11, 15),
        seed: int = 0,
        shift: float = 0.5,
    ) -> None:
        torch.manual_seed(seed)
        h, w = plane_size
        self.size = size
        self.camera = stack_cameras([make_camera(seed + b, plane_size) for b in range(batch)])
        rows = [[make_camera(seed + 50 + 7 * b + n, size, shift, 0.3) for n in range(views)] for b in range(batch)]
        self.targets = [stack_cameras([row[n] for row in rows]) for n in range(views)]
        self.depths = torch.stack([disparity_planes(0.6 + b, 9.0, count, dtype=torch.float64) for b in range(batch)])
        self.rgba = self.planes(batch, count, h, w)
        self.homographies = torch.stack(
            [render_homographies(self.camera, self.depths, target) for target in self.targets], dim=1
        )
        self.views = views

    @staticmethod
    def planes(batch: int, count: int, h: int, w: int) -> Tensor:
        rgba = torch.rand(batch, count, 4, h, w, dtype=torch.float64)
        rgba[:, :, 3] *= torch.randint(0, 2, (batch, count, h, w))
        rgba[:, count // 2, 3, : h // 2] = 1
        rgba[:, -1, 3, :, : w // 3] = 1
        rgba[:, -1, 3, :, -(w // 2) :] *= 0.3
        return rgba

    def expected(self, rgba: Tensor, premultiplied: bool) -> Tensor:
        """Render with the reference in float64: ``[B, N, 5, h, w]`` of colour, opacity and disparity."""
        views = []
        for target in self.targets:
            made = REFERENCE.render_mpi(rgba.double(), self.camera, self.depths, target, premultiplied)
            views.append(torch.cat([made.color, made.opacity, made.disparity], dim=-3))
        return torch.stack(views, dim=1)

    def arguments(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return homographies and inverse depths on the device, for planes of a dtype."""
        work = torch.float64 if dtype == torch.float64 else torch.float32
        return self.homographies.to(DEVICE, work), (1 / self.depths).to(DEVICE, work)


def as_type(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Convert values in 0..1 to a dtype; return them and the float64 values that they represent."""
    if dtype == torch.uint8:
        planes = (values * 255).round().to(torch.uint8)
        return planes, planes.double() / 255
    return values.to(dtype), values.to(dtype).double()


def assert_close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got.cpu().double(), expected, atol=tolerance, rtol=tolerance)


SWEPT = (11, 34)  # four tiles


class Sweep:
    """Pictures of one source for each reference, in general position."""

    def __init__(self, channels: int, seed: int = 5, batch: int = 2, count: int = 3) -> None:
        torch.manual_seed(seed)
        sources = [make_camera(seed + b, (13, 17), 0.4, 0.3) for b in range(batch)]
        self.sources = stack_cameras(sources)
        self.references = stack_cameras([make_camera(seed + 20 + b, SWEPT) for b in range(batch)])
        self.depths = torch.stack([disparity_planes(0.4 + b, 9.0, count, dtype=torch.float64) for b in range(batch)])
        self.images = torch.rand(batch, channels, 13, 17, dtype=torch.float64)

    def expected(self, images: Tensor, sampling: Sampling) -> Tensor:
        """Compute the sweep with the reference in float64, ``[B, C, D, h, w]``."""
        views = Camera(self.sources.T_cam_world[:, None], self.sources.K[:, None], self.sources.size)
        return REFERENCE.sweep_planes(images.double()[:, None], views, self.references, self.depths, sampling)[:, 0]

    def homographies(self, dtype: torch.dtype) -> Tensor:
        H = sweep_homographies(self.sources, self.references, self.depths)
        return H.to(DEVICE, torch.float64 if dtype == torch.float64 else torch.float32)


def differentiable(forward: Callable[..., Tensor], backward: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return an autograd function from a kernel and its gradient, which takes ``grad`` and then the inputs."""

    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return backward(grad, *ctx.saved_tensors)

    return Kernel.apply


# A GPU sums gradients in varying order.
gradcheck = partial(torch.autograd.gradcheck, fast_mode=True, nondet_tol=1e-12)
