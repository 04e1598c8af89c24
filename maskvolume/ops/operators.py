"""Torch operators for the operations, so that they work with ``torch.compile`` and autograd.

``maskvolume::render_planes``, ``render_blended``, ``sweep`` (with gradients) and ``aggregate`` (without) exist on every
device. They run the reference by default; importing a backend registers its kernels for a device type. Cameras are
converted to homographies here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.homography import sweep_homographies
from maskvolume.ops.reference import ReferenceBackend, costs, warps
from maskvolume.ops.reference.warps import (
    flatten_cameras,
    mpi_homographies,
    rendering_of,
    work_dtype,
)
from maskvolume.ops.types import PathPrices, Rendering, Sampling

# --- operators ------------------------------------------------------------------------------------


@torch.library.custom_op("maskvolume::render_planes", mutates_args=())
def render_planes(
    rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, h: int, w: int, premultiplied: bool
) -> Tensor:
    """Render multiplane images; see ``maskvolume.ops.reference.warps.render_planes``."""
    return warps.render_planes(rgba, homographies, inverse_depths, (h, w), premultiplied)


@torch.library.custom_op("maskvolume::render_planes_backward", mutates_args=())
def render_planes_backward(
    grad: Tensor, rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, premultiplied: bool
) -> Tensor:
    """Return the gradient of planes ``[B, D, 4, H, W]`` from that of views ``[B, N, 5, h, w]``."""
    return warps.render_planes_backward(grad, rgba, homographies, inverse_depths, premultiplied)


@torch.library.custom_op("maskvolume::render_blended", mutates_args=())
def render_blended(
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    h: int,
    w: int,
    premultiplied: bool,
) -> Tensor:
    """Render blended multiplane images; see ``maskvolume.ops.reference.warps.render_blended_planes``."""
    arguments = mask, dynamic, background, homographies, inverse_depths, (h, w), premultiplied
    return warps.render_blended_planes(*arguments)


@torch.library.custom_op("maskvolume::render_blended_backward", mutates_args=())
def render_blended_backward(
    grad: Tensor,
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    premultiplied: bool,
    needs: list[bool],
) -> list[Tensor]:
    """Return the gradients of mask, dynamic and background; empty tensors where not needed."""
    planes = mask, dynamic, background
    return needed_or_empty(
        warps.render_blended_backward(grad, *planes, homographies, inverse_depths, premultiplied, tuple(needs)), grad
    )


@torch.library.custom_op("maskvolume::sweep", mutates_args=())
def sweep(images: Tensor, homographies: Tensor, h: int, w: int, original: bool) -> Tensor:
    """Warp pictures to planes; see ``maskvolume.ops.reference.warps.sweep``."""
    return warps.sweep(images, homographies, (h, w), original)


@torch.library.custom_op("maskvolume::sweep_backward", mutates_args=())
def sweep_backward(grad: Tensor, homographies: Tensor, source_h: int, source_w: int, original: bool) -> Tensor:
    """Return the gradient of pictures ``[B, C, Hs, Ws]`` from that of planes ``[B, C, D, h, w]``."""
    return warps.sweep_backward(grad, homographies, (source_h, source_w), original)


@torch.library.custom_op("maskvolume::aggregate", mutates_args=())
def aggregate(cost: Tensor, guide: Tensor, step: float, jump: float, edge: float, least_jump: float) -> Tensor:
    """Accumulate plane costs along paths; see ``maskvolume.ops.aggregate``. Without gradients."""
    return costs.aggregate(cost, guide, PathPrices(step, jump, edge, least_jump)).contiguous()


def needed_or_empty(grads: Sequence[Tensor | None], like: Tensor) -> list[Tensor]:
    """Replace each None by an empty tensor, since operators cannot return None."""
    return [like.new_empty(0) if grad is None else grad for grad in grads]


@render_planes.register_fake
def _(rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, h: int, w: int, premultiplied: bool) -> Tensor:
    return rgba.new_empty((*homographies.shape[:2], 5, h, w), dtype=work_dtype(rgba))


@render_planes_backward.register_fake
def _(grad: Tensor, rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, premultiplied: bool) -> Tensor:
    return rgba.new_empty(rgba.shape, dtype=work_dtype(rgba))


@render_blended.register_fake
def _(
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    h: int,
    w: int,
    premultiplied: bool,
) -> Tensor:
    return dynamic.new_empty((*homographies.shape[:2], 5, h, w), dtype=work_dtype(dynamic))


@render_blended_backward.register_fake
def _(
    grad: Tensor,
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    premultiplied: bool,
    needs: list[bool],
) -> list[Tensor]:
    inputs = zip((mask, dynamic, background), needs, strict=True)
    return [grad.new_empty(x.shape if need else 0, dtype=work_dtype(x)) for x, need in inputs]


@sweep.register_fake
def _(images: Tensor, homographies: Tensor, h: int, w: int, original: bool) -> Tensor:
    return images.new_empty((*images.shape[:2], homographies.shape[1], h, w))


@aggregate.register_fake
def _(cost: Tensor, guide: Tensor, step: float, jump: float, edge: float, least_jump: float) -> Tensor:
    return torch.empty_like(cost, memory_format=torch.contiguous_format)


@sweep_backward.register_fake
def _(grad: Tensor, homographies: Tensor, source_h: int, source_w: int, original: bool) -> Tensor:
    return grad.new_empty((*grad.shape[:2], source_h, source_w), dtype=work_dtype(grad))


def _keep_planes(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rgba, homographies, inverse_depths, _, _, ctx.premultiplied = inputs
    ctx.save_for_backward(rgba, homographies, inverse_depths)


def _planes_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rgba, homographies, inverse_depths = ctx.saved_tensors
    grads = render_planes_backward(grad, rgba, homographies, inverse_depths, ctx.premultiplied)
    return grads.to(rgba.dtype), None, None, None, None, None


def _keep_blended(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, _, _, ctx.premultiplied = inputs
    ctx.save_for_backward(*tensors)


def _blended_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *blended, homographies, inverse_depths = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:3])
    grads = render_blended_backward(grad, *blended, homographies, inverse_depths, ctx.premultiplied, needs)
    needed = [value.to(x.dtype) if need else None for value, x, need in zip(grads, blended, needs, strict=True)]
    return (*needed, None, None, None, None, None)


def _keep_sweep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, homographies, _, _, ctx.original = inputs
    ctx.size, ctx.dtype = images.shape[-2:], images.dtype
    ctx.save_for_backward(homographies)


def _sweep_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (homographies,) = ctx.saved_tensors
    grads = sweep_backward(grad, homographies, *ctx.size, ctx.original)
    return grads.to(ctx.dtype), None, None, None, None


render_planes.register_autograd(_planes_gradient, setup_context=_keep_planes)
render_blended.register_autograd(_blended_gradient, setup_context=_keep_blended)
sweep.register_autograd(_sweep_gradient, setup_context=_keep_sweep)


# --- with cameras ---------------------------------------------------------------------------------


class OperatorBackend(ReferenceBackend):
    """Base class of device backends: runs the operators. Samples are within 1e-3 of the reference.

    Overrides ``sweep_planes``, ``render_mpi``, ``render_blended`` and ``aggregate``.
    """

    def sweep_planes(
        self, images: Tensor, sources: Camera, reference: Camera, depths: Tensor, sampling: Sampling
    ) -> Tensor:
        batch, views = images.shape[:-4], images.shape[-4]
        flat = images.reshape(-1, *images.shape[-3:])
        cameras = flatten_cameras(sources, len(batch) + 1)
        middle = flatten_cameras(reference, len(batch))
        repeated = Camera(
            middle.T_cam_world.repeat_interleave(views, 0), middle.K.repeat_interleave(views, 0), middle.size
        )
        planes = depths.reshape(-1, depths.shape[-1]).repeat_interleave(views, 0)
        H = sweep_homographies(cameras.to(torch.float64), repeated.to(torch.float64), planes.double())
        swept = sweep(flat, H.to(work_dtype(images)), *reference.size, sampling == "original")
        return swept.reshape(*batch, views, *swept.shape[1:])

    def render_mpi(
        self, rgba: Tensor, camera: Camera, depths: Tensor, target: Camera, premultiplied: bool
    ) -> Rendering:
        H, inverse = mpi_homographies(rgba, camera, depths, target)
        planes = rgba.reshape(-1, *rgba.shape[-4:])
        views = render_planes(planes, H, inverse, *target.size, premultiplied)
        return rendering_of(views, target)

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
        H, inverse = mpi_homographies(dynamic, camera, depths, target)
        planes = [x.reshape(-1, *x.shape[-4:]) for x in (dynamic, background)]
        views = render_blended(
            mask.reshape(-1, *mask.shape[-3:]), *planes, H, inverse, *target.size, premultiplied
        )  # fmt: skip
        return rendering_of(views, target)

    def aggregate(self, cost: Tensor, guide: Tensor, prices: PathPrices) -> Tensor:
        return aggregate(cost, guide, prices.step, prices.jump, prices.edge, prices.least_jump)
