"""The backend for CUDA and ROCm GPUs, and its operator kernels.

Importing this module raises ImportError without Triton or with a version that is too old.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.ops import operators
from maskvolume.ops import triton as kernels
from maskvolume.ops.operators import OperatorBackend

DEVICE = "cuda"

if not kernels.usable(torch.device(DEVICE)):
    raise ImportError("it needs Triton 3.3 or later, which comes with PyTorch on Linux")


@operators.render_planes.register_kernel(DEVICE)
def _(rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, h: int, w: int, premultiplied: bool) -> Tensor:
    return kernels.render_planes(rgba, homographies, inverse_depths, (h, w), premultiplied)


@operators.render_blended.register_kernel(DEVICE)
def _(
    mask: Tensor, dynamic: Tensor, background: Tensor, homographies: Tensor, inverse_depths: Tensor,
    h: int, w: int, premultiplied: bool,
) -> Tensor:  # fmt: skip
    return kernels.render_blended(mask, dynamic, background, homographies, inverse_depths, (h, w), premultiplied)


@operators.render_blended_backward.register_kernel(DEVICE)
def _(
    grad: Tensor, mask: Tensor, dynamic: Tensor, background: Tensor, homographies: Tensor, inverse_depths: Tensor,
    premultiplied: bool, needs: list[bool],
) -> list[Tensor]:  # fmt: skip
    inputs = grad, mask, dynamic, background, homographies, inverse_depths, premultiplied
    return operators.needed_or_empty(kernels.render_blended_backward(*inputs, tuple(needs)), grad)


@operators.sweep.register_kernel(DEVICE)
def _(images: Tensor, homographies: Tensor, h: int, w: int, original: bool) -> Tensor:
    return kernels.sweep(images, homographies, (h, w), original)


@operators.sweep_backward.register_kernel(DEVICE)
def _(grad: Tensor, homographies: Tensor, source_h: int, source_w: int, original: bool) -> Tensor:
    return kernels.sweep_backward(grad, homographies, (source_h, source_w), original)


operators.render_planes_backward.register_kernel(DEVICE)(kernels.render_planes_backward)
operators.aggregate.register_kernel(DEVICE)(kernels.aggregate)


class TritonBackend(OperatorBackend):
    """Triton kernels of the operators, with gradients; the rest is inherited from the reference."""

    @property
    def stored_dtype(self) -> torch.dtype:
        return kernels.STORED


BACKEND = TritonBackend()
