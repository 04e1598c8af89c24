"""Each operation in one pass over the data: as torch operators, on the processor and on GPUs.

``maskvolume::render_planes``, ``render_blended`` and ``sweep`` are custom operators with shapes for tracing and with
gradients, so they work under ``torch.compile`` and autograd. On a GPU the kernels are Triton's, on the processor they
are loops that Numba compiles; gradients on the processor are the reference's. Cameras become homographies here.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.homography import sweep_homographies
from maskvolume.ops import reference as plain
from maskvolume.ops.reference import ReferenceBackend, flatten_cameras, work_dtype
from maskvolume.ops.types import Rendering, Sampling


def kernels(device: torch.device) -> ModuleType:
    """The implementation for a device.

    Raises:
        ImportError: what it is written in can't be had.
    """
    if device.type == "cpu":
        from maskvolume.ops.cpu import warps as compiled  # takes a second, and is not needed where there is a GPU

        return compiled
    from maskvolume.ops import triton as triton_kernels

    if not triton_kernels.usable(device):
        raise ImportError("it needs Triton 3.3 or later, which comes with PyTorch on Linux")
    return triton_kernels


@cache
def _missing(device_type: str) -> str | None:
    """Why there are no kernels for a type of device, if there are none."""
    try:
        kernels(torch.device(device_type))
    except (ImportError, RuntimeError) as error:  # the latter where there is no place to keep compiled loops
        return str(error)
    return None


# --- operators ------------------------------------------------------------------------------------


@torch.library.custom_op("maskvolume::render_planes", mutates_args=())
def render_planes(
    rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, h: int, w: int, premultiplied: bool
) -> Tensor:
    """Views of multiplane images; see ``maskvolume.ops.cpu.warps.render_planes``."""
    return kernels(rgba.device).render_planes(rgba, homographies, inverse_depths, (h, w), premultiplied)


@torch.library.custom_op("maskvolume::render_planes_backward", mutates_args=())
def render_planes_backward(
    grad: Tensor, rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, premultiplied: bool
) -> Tensor:
    """Gradient of the planes, ``[B, D, 4, H, W]``, from that of the views, ``[B, N, 5, h, w]``."""
    module = plain if grad.device.type == "cpu" else kernels(grad.device)
    return module.render_planes_backward(grad, rgba, homographies, inverse_depths, premultiplied)


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
    """Views of blended multiplane images; see ``maskvolume.ops.cpu.warps.render_blended``."""
    arguments = mask, dynamic, background, homographies, inverse_depths, (h, w), premultiplied
    return kernels(dynamic.device).render_blended(*arguments)


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
    """Gradients of mask, dynamic and background; empty where not needed."""
    module = plain if grad.device.type == "cpu" else kernels(grad.device)
    grads = module.render_blended_backward(
        grad, mask, dynamic, background, homographies, inverse_depths, premultiplied, tuple(needs)
    )
    return [grad.new_empty(0) if value is None else value for value in grads]


@torch.library.custom_op("maskvolume::sweep", mutates_args=())
def sweep(images: Tensor, homographies: Tensor, h: int, w: int, original: bool) -> Tensor:
    """Pictures warped to planes; see ``maskvolume.ops.cpu.warps.sweep``."""
    return kernels(images.device).sweep(images, homographies, (h, w), original)


@torch.library.custom_op("maskvolume::sweep_backward", mutates_args=())
def sweep_backward(grad: Tensor, homographies: Tensor, source_h: int, source_w: int, original: bool) -> Tensor:
    """Gradient of the pictures, ``[B, C, Hs, Ws]``, from that of the planes, ``[B, C, D, h, w]``."""
    module = plain if grad.device.type == "cpu" else kernels(grad.device)
    return module.sweep_backward(grad, homographies, (source_h, source_w), original)


@torch.library.custom_op("maskvolume::aggregate", mutates_args=())
def aggregate(cost: Tensor, guide: Tensor, step: float, jump: float, edge: float, least_jump: float) -> Tensor:
    """Costs of planes along paths, on a GPU; see ``maskvolume.ops.triton.aggregation.aggregate``. Without gradients."""
    return kernels(cost.device).aggregate(cost, guide, step, jump, edge, least_jump)


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
    made = render_planes_backward(grad, rgba, homographies, inverse_depths, ctx.premultiplied)
    return made.to(rgba.dtype), None, None, None, None, None


def _keep_blended(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, _, _, ctx.premultiplied = inputs
    ctx.save_for_backward(*tensors)


def _blended_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *blended, homographies, inverse_depths = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:3])
    made = render_blended_backward(grad, *blended, homographies, inverse_depths, ctx.premultiplied, needs)
    grads = [value.to(x.dtype) if need else None for value, x, need in zip(made, blended, needs, strict=True)]
    return (*grads, None, None, None, None, None)


def _keep_sweep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, homographies, _, _, ctx.original = inputs
    ctx.size, ctx.kind = images.shape[-2:], images.dtype
    ctx.save_for_backward(homographies)


def _sweep_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (homographies,) = ctx.saved_tensors
    made = sweep_backward(grad, homographies, *ctx.size, ctx.original)
    return made.to(ctx.kind), None, None, None, None


render_planes.register_autograd(_planes_gradient, setup_context=_keep_planes)
render_blended.register_autograd(_blended_gradient, setup_context=_keep_blended)
sweep.register_autograd(_sweep_gradient, setup_context=_keep_sweep)


# --- with cameras ---------------------------------------------------------------------------------


class FusedBackend(ReferenceBackend):
    """See ``maskvolume.ops``. Sampled values are within 1e-3 of the reference's.

    Args:
        device_type: the devices that it is for: "cpu" or "cuda".
    """

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type

    def supports(self, device: torch.device) -> bool:
        return device.type == self.device_type and self.missing() is None

    def missing(self) -> str | None:
        """Why it can't be had, if it can't."""
        return _missing(self.device_type)

    @property
    def stored_dtype(self) -> torch.dtype:  # see types.Backend
        return kernels(torch.device(self.device_type)).STORED

    def renders(self, rgba: Tensor) -> bool:
        if self.device_type == "cpu":  # there the gradient is the reference's, and float64 would be rounded
            return rgba.dtype != torch.float64 and not (rgba.requires_grad and torch.is_grad_enabled())
        return True

    def sweep_planes(
        self, images: Tensor, sources: Camera, reference: Camera, depths: Tensor, sampling: Sampling
    ) -> Tensor:
        if not self.renders(images):
            return super().sweep_planes(images, sources, reference, depths, sampling)
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
        H, inverse = plain.mpi_homographies(rgba, camera, depths, target)
        planes = rgba.reshape(-1, *rgba.shape[-4:])
        views = render_planes(planes, H, inverse, *target.size, premultiplied)
        return plain.rendering_of(views, target)

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
        H, inverse = plain.mpi_homographies(dynamic, camera, depths, target)
        planes = [x.reshape(-1, *x.shape[-4:]) for x in (dynamic, background)]
        views = render_blended(
            mask.reshape(-1, *mask.shape[-3:]), *planes, H, inverse, *target.size, premultiplied
        )  # fmt: skip
        return plain.rendering_of(views, target)
