"""Plane access in the Triton kernels: one MPI, or two that a mask blends texel by texel on reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from maskvolume.ops.triton.common import (
    NUM_WARPS,
    NUM_WARPS_BLENDED,
    Block,
    Pointer,
    Scalar,
    Tuple,
    columns_of,
    four,
    launch_options,
    load_homography,
    make_taps,
    map_pixels,
    may_see,
    narrow,
    read_four,
    sample,
    weigh,
)


@dataclass(frozen=True)
class PlaneSource:
    """The planes that a kernel reads: one MPI, or two with a mask that blends them.

    Kernels receive a tuple ``(dynamic, steps, background, steps, mask, steps)`` of pointers and strides.

    Attributes:
        dynamic: ``[B, D, 4, H, W]``, the only MPI if there is no mask.
        background: ``[B, D, 4, H, W]``.
        mask: ``[B, D, H, W]`` in 0..1, or None.
    """

    dynamic: Tensor
    background: Tensor
    mask: Tensor | None

    @staticmethod
    def of(dynamic: Tensor, background: Tensor | None = None, mask: Tensor | None = None) -> PlaneSource:
        """Build a source from planes, copied if kernels cannot read their layout."""
        dynamic = narrow(dynamic)
        background = dynamic if background is None else narrow(background)
        return PlaneSource(dynamic, background, None if mask is None else narrow(mask))

    def arguments(self) -> tuple[Any, ...]:
        """The leading arguments of each kernel that reads planes."""
        mask = self.dynamic if self.mask is None else self.mask
        mask_steps = (0, 0, 0, 0) if self.mask is None else self.mask.stride()
        tensors = (self.dynamic, self.background, mask)
        return (*tensors, *self.dynamic.stride(), *self.background.stride(), *mask_steps)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of each kernel that reads planes."""
        blended = self.mask is not None
        common = launch_options(self.dynamic, NUM_WARPS_BLENDED if blended else NUM_WARPS)
        return {"BLENDED": blended, **common}

    def vectors(self) -> bool:
        """Return whether the four channels of each texel form one vector."""
        return texels_are_vectors(self.dynamic) and texels_are_vectors(self.background)


def texels_are_vectors(planes: Tensor) -> bool:
    """Return whether the four channels of a texel of ``[B, D, 4, H, W]`` form one aligned vector (channels last)."""
    batch, depth, channel, y, x = planes.stride()
    aligned = planes.data_ptr() % (4 * planes.element_size()) == 0
    return channel == 1 and x == 4 and all(step % 4 == 0 for step in (y, depth, batch)) and aligned


@triton.jit
def first_texels(planes: Pointer, steps: Tuple, batch: Scalar, plane: Scalar, channel: Scalar, taps: Tuple) -> Any:
    """Return pointers ``[P]`` to one channel of the upper left taps in a plane of ``[B, D, 4, H, W]``."""
    start = batch.to(tl.int64) * steps[0] + plane.to(tl.int64) * steps[1] + tl.cast(steps[2], tl.int64) * channel
    return planes + start + (taps[1] * steps[3] + taps[0] * steps[4])


@triton.jit
def first_vectors(planes: Pointer, steps: Tuple, batch: Scalar, plane: Scalar, taps: Tuple) -> Any:
    """Return pointers ``[P, 4]`` to the channels of the upper left taps. Factors of 4 show the compiler alignment."""
    start = (batch.to(tl.int64) * (steps[0] // 4) + plane.to(tl.int64) * (steps[1] // 4)) * 4
    texel = (taps[1] * (steps[3] // 4) + taps[0]) * 4
    return planes + start + texel[:, None] + tl.arange(0, 4)[None, :]


@triton.jit
def mask_pointers(mask: Pointer, mask_steps: Tuple, batch: Scalar, plane: Scalar, taps: Tuple) -> Any:
    """Return pointers to the four taps in a plane of a mask ``[B, D, H, W]``."""
    start = batch.to(tl.int64) * mask_steps[0] + plane.to(tl.int64) * mask_steps[1]
    first = mask + start + (taps[1] * mask_steps[2] + taps[0] * mask_steps[3])
    return four(first, mask_steps[2], mask_steps[3])


@triton.jit
def mix_four(near: Tuple, far: Tuple, weight: Tuple) -> Any:
    """Return ``weight * near + (1 - weight) * far`` at four taps."""
    return (
        weight[0] * near[0] + (1.0 - weight[0]) * far[0],
        weight[1] * near[1] + (1.0 - weight[1]) * far[1],
        weight[2] * near[2] + (1.0 - weight[2]) * far[2],
        weight[3] * near[3] + (1.0 - weight[3]) * far[3],
    )


@triton.jit
def sample_channel(
    source: Tuple, batch: Scalar, plane: Scalar, channel: Scalar, taps: Tuple, BLENDED: tl.constexpr, WORK: tl.constexpr
) -> Any:
    """Sample one channel ``[P]`` of a plane at the taps."""
    dynamic, steps, background, background_steps, mask, mask_steps = source
    exists, weight = taps[2], taps[3]
    first = first_texels(dynamic, steps, batch, plane, channel, taps)
    if BLENDED:
        near = read_four(four(first, steps[3], steps[4]), exists, WORK)
        other = first_texels(background, background_steps, batch, plane, channel, taps)
        far = read_four(four(other, background_steps[3], background_steps[4]), exists, WORK)
        share = read_four(mask_pointers(mask, mask_steps, batch, plane, taps), exists, WORK)
        value = weigh(mix_four(near, far, share), weight)
    else:
        value = sample(first, steps[3], steps[4], exists, weight, WORK)
    return value


@triton.jit
def sample_vectors(
    source: Tuple, batch: Scalar, plane: Scalar, taps: Tuple, BLENDED: tl.constexpr, WORK: tl.constexpr
) -> Any:
    """Sample the four channels ``[P]`` of a plane at the taps; the channels of a texel must form one vector."""
    dynamic, steps, background, background_steps, mask, mask_steps = source
    exists, weight = columns_of(taps[2]), columns_of(taps[3])
    first = first_vectors(dynamic, steps, batch, plane, taps)
    if BLENDED:
        near = read_four(four(first, (steps[3] // 4) * 4, 4), exists, WORK)
        other = first_vectors(background, background_steps, batch, plane, taps)
        far = read_four(four(other, (background_steps[3] // 4) * 4, 4), exists, WORK)
        share = read_four(mask_pointers(mask, mask_steps, batch, plane, taps), taps[2], WORK)
        value = weigh(mix_four(near, far, columns_of(share)), weight)
    else:
        value = sample(first, (steps[3] // 4) * 4, 4, exists, weight, WORK)
    even, odd = tl.split(tl.reshape(value, (value.shape[0], 2, 2)))
    red, blue = tl.split(even)
    green, alpha = tl.split(odd)
    return red, green, blue, alpha


@triton.jit
def sample_rgba(
    source: Tuple,
    batch: Scalar,
    plane: Scalar,
    taps: Tuple,
    BLENDED: tl.constexpr,
    VECTORS: tl.constexpr,
    WORK: tl.constexpr,
) -> Any:
    """Sample red, green, blue and opacity ``[P]`` of a plane at the taps."""
    if VECTORS:
        red, green, blue, alpha = sample_vectors(source, batch, plane, taps, BLENDED, WORK)
    else:
        red = sample_channel(source, batch, plane, 0, taps, BLENDED, WORK)
        green = sample_channel(source, batch, plane, 1, taps, BLENDED, WORK)
        blue = sample_channel(source, batch, plane, 2, taps, BLENDED, WORK)
        alpha = sample_channel(source, batch, plane, 3, taps, BLENDED, WORK)
    return red, green, blue, alpha


@triton.jit
def pass_plane(
    left: Block,
    source: Tuple,
    homographies: Pointer,
    batch: Scalar,
    plane: Scalar,
    place: Tuple,
    H: Scalar,
    W: Scalar,
    BLENDED: tl.constexpr,
    WORK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> Any:
    """Return the transmittance behind a plane from the transmittance ``left`` in front of it."""
    first_row, first_column, row, column, valid = place
    homography = load_homography(homographies + plane * 9)
    if may_see(homography, first_row, first_column, H, W, WORK, TILE_H, TILE_W):
        x, y, front = map_pixels(homography, row, column, WORK)
        taps = make_taps(x - 0.5, y - 0.5, front & valid, H, W)
        left -= sample_channel(source, batch, plane, 3, taps, BLENDED, WORK) * left
    return left
