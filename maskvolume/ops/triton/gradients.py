"""Gradients of rendered multiplane images. See ``maskvolume.ops.triton``.

The gradient of an opacity depends on the transmittance of the planes in front, a product from near to far, and on the
view from behind the plane, a recurrence from far to near. Neither can be inverted where an opacity is 1. A first kernel
therefore walks near to far, reads only opacities and stores the transmittance before every SEGMENT-th plane. A second
one walks far to near and, within a segment, recomputes the transmittance from the stored value. This needs no division
and is exact for opaque planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskvolume.ops.triton.common import (
    Block,
    Pointer,
    Scalar,
    Tuple,
    add_four,
    four,
    larger,
    load_homography,
    make_taps,
    map_pixels,
    may_see,
    program_place,
    read_four,
    saturation,
    tile_count,
    tile_pixels,
    times,
    work_dtype,
)
from maskvolume.ops.triton.planes import (
    PlaneSource,
    first_texels,
    mask_pointers,
    pass_plane,
    sample_rgba,
)

# Planes between two stored transmittances. A value of 4 costs 1.5 extra opacity reads per plane, and a sixteenth of the
# memory of the planes (in float32, for a view of their size).
SEGMENT = 4


def render_planes_backward(
    grad: Tensor,  # [B, N, 5, h, w]
    rgba: Tensor,  # [B, D, 4, H, W]
    homographies: Tensor,  # [B, N, D, 3, 3]
    inverse_depths: Tensor,  # [B, D]
    premultiplied: bool,
) -> Tensor:
    """Return the gradient of the planes of ``render_planes``, summed over the N views.

    Args:
        grad: gradient of the result of ``render_planes``; any float dtype and strides.
        rgba: the planes, in a float dtype.
        homographies: as in ``render_planes``.
        inverse_depths: as in ``render_planes``.
        premultiplied: as in ``render_planes``.

    Returns:
        ``[B, D, 4, H, W]``, contiguous, float32 (float64 for float64 planes). Planes behind the end of a ray
        (``SATURATED``) get no gradient; in float64 all do. The order of summation varies: so do the last bits.
    """
    gradient = torch.zeros(rgba.shape, dtype=work_dtype(rgba), device=rgba.device)
    source = PlaneSource.of(rgba)
    _backward(grad, source, homographies, inverse_depths, premultiplied, (None, gradient, None))
    return gradient


def render_blended_backward(
    grad: Tensor,  # [B, N, 5, h, w]
    mask: Tensor,  # [B, D, H, W]
    dynamic: Tensor,  # [B, D, 4, H, W]
    background: Tensor,  # [B, D, 4, H, W]
    homographies: Tensor,  # [B, N, D, 3, 3]
    inverse_depths: Tensor,  # [B, D]
    premultiplied: bool,
    needs: Sequence[bool],  # of mask, dynamic, background
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of mask, dynamic planes and background planes of ``render_blended``.

    Args:
        grad: gradient of the result of ``render_blended``; any float dtype and strides.
        mask: as in ``render_blended``, like the next five arguments.
        needs: which of the three gradients to compute. uint8 planes have none.

    Returns:
        The gradients with the shapes of ``mask``, ``dynamic`` and ``background``, contiguous, float32 (float64 for
        float64 ``dynamic``); None where not needed. Otherwise as in ``render_planes_backward``.
    """
    work = work_dtype(dynamic)
    inputs = zip((mask, dynamic, background), needs, strict=True)
    gradients = [torch.zeros(x.shape, dtype=work, device=x.device) if need else None for x, need in inputs]
    source = PlaneSource.of(dynamic, background, mask)
    made = (gradients[0], gradients[1], gradients[2])
    if any(needs):
        _backward(grad, source, homographies, inverse_depths, premultiplied, made)
    return made


def _backward(
    grad: Tensor,
    source: PlaneSource,
    homographies: Tensor,
    inverse_depths: Tensor,
    premultiplied: bool,
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:
    """Add to the gradients (mask, dynamic, background) in place."""
    planes, work = source.dynamic, work_dtype(source.dynamic)
    (batch, views, count), (H, W), (h, w) = homographies.shape[:3], planes.shape[-2:], grad.shape[-2:]
    segments = -(-count // SEGMENT)
    start = torch.empty(batch, views, segments, h, w, dtype=work, device=planes.device)
    homographies = homographies.to(work).contiguous()
    grid = (batch * views * tile_count((h, w)),)
    sizes = (views, count, segments, H, W, h, w)
    options = {"SEGMENT": SEGMENT, **source.options()}
    with torch.cuda.device_of(planes):
        _start_kernel[grid](*source.arguments(), homographies, start, *sizes, **options)
        _backward_kernel[grid](
            *source.arguments(),
            homographies,
            start,
            *sizes,
            inverse_depths.to(work).contiguous(),
            grad.to(work).contiguous(),
            *(planes if gradient is None else gradient for gradient in gradients),
            NEEDS_MASK=gradients[0] is not None,
            NEEDS_DYNAMIC=gradients[1] is not None,
            NEEDS_BACKGROUND=gradients[2] is not None,
            VECTORS=source.mask is None and source.vectors(),  # three tensors would spill registers
            PREMULTIPLIED=premultiplied,
            SATURATED=saturation(planes),
            **options,
        )


@triton.jit
def add_channel(
    value: Block,
    shares: Tuple,
    source: Tuple,
    gradients: Tuple,
    batch: Scalar,
    plane: Scalar,
    first: Block,
    channel: tl.constexpr,
    texels: Scalar,
    W: Scalar,
    taps: Tuple,
    shown: Block,
    BLENDED: tl.constexpr,
    NEEDS_MASK: tl.constexpr,
    NEEDS_DYNAMIC: tl.constexpr,
    NEEDS_BACKGROUND: tl.constexpr,
    WORK: tl.constexpr,
) -> Any:
    """Add the gradient ``value`` of one sampled channel to its texels; return the mask gradient at the four taps."""
    dynamic, dynamic_steps, background, background_steps, _, _ = source
    _, gradient, background_gradient = gradients
    exists, weight = taps[2], taps[3]
    values = times(weight, (value, value, value, value))
    for_mask = values
    offset = first + tl.cast(texels, tl.int64) * channel
    if BLENDED:
        if NEEDS_DYNAMIC:
            add_four(four(gradient + offset, W, 1), times(values, shares), exists, shown)
        if NEEDS_BACKGROUND:
            rest = (1.0 - shares[0], 1.0 - shares[1], 1.0 - shares[2], 1.0 - shares[3])
            add_four(four(background_gradient + offset, W, 1), times(values, rest), exists, shown)
        if NEEDS_MASK:
            p = first_texels(dynamic, dynamic_steps, batch, plane, channel, taps)
            near = read_four(four(p, dynamic_steps[3], dynamic_steps[4]), exists, WORK)
            p = first_texels(background, background_steps, batch, plane, channel, taps)
            far = read_four(four(p, background_steps[3], background_steps[4]), exists, WORK)
            change = (near[0] - far[0], near[1] - far[1], near[2] - far[2], near[3] - far[3])
            for_mask = times(values, change)
    else:
        add_four(four(gradient + offset, W, 1), values, exists, shown)
    return for_mask


@triton.jit
def add_plane(
    values: Tuple,
    source: Tuple,
    gradients: Tuple,
    batch: Scalar,
    plane: Scalar,
    count: Scalar,
    H: Scalar,
    W: Scalar,
    taps: Tuple,
    shown: Block,
    BLENDED: tl.constexpr,
    NEEDS_MASK: tl.constexpr,
    NEEDS_DYNAMIC: tl.constexpr,
    NEEDS_BACKGROUND: tl.constexpr,
    WORK: tl.constexpr,
) -> Any:
    """Add the gradients of the four sampled channels of a plane to its texels and to its mask."""
    _, _, _, _, mask, mask_steps = source
    texels = H * W
    index = (batch * count + plane).to(tl.int64)
    texel = taps[1] * W + taps[0]
    first = index * 4 * texels + texel
    shares = taps[3]  # weights of the dynamic planes; unused with one MPI
    if BLENDED:
        shares = read_four(mask_pointers(mask, mask_steps, batch, plane, taps), taps[2], WORK)
    red = add_channel(
        values[0], shares, source, gradients, batch, plane, first, 0, texels, W, taps, shown,
        BLENDED, NEEDS_MASK, NEEDS_DYNAMIC, NEEDS_BACKGROUND, WORK,
    )  # fmt: skip
    green = add_channel(
        values[1], shares, source, gradients, batch, plane, first, 1, texels, W, taps, shown,
        BLENDED, NEEDS_MASK, NEEDS_DYNAMIC, NEEDS_BACKGROUND, WORK,
    )  # fmt: skip
    blue = add_channel(
        values[2], shares, source, gradients, batch, plane, first, 2, texels, W, taps, shown,
        BLENDED, NEEDS_MASK, NEEDS_DYNAMIC, NEEDS_BACKGROUND, WORK,
    )  # fmt: skip
    alpha = add_channel(
        values[3], shares, source, gradients, batch, plane, first, 3, texels, W, taps, shown,
        BLENDED, NEEDS_MASK, NEEDS_DYNAMIC, NEEDS_BACKGROUND, WORK,
    )  # fmt: skip
    if NEEDS_MASK:
        total = (
            red[0] + green[0] + blue[0] + alpha[0],
            red[1] + green[1] + blue[1] + alpha[1],
            red[2] + green[2] + blue[2] + alpha[2],
            red[3] + green[3] + blue[3] + alpha[3],
        )
        add_four(four(gradients[0] + index * texels + texel, W, 1), total, taps[2], shown)


@triton.jit
def _start_kernel(
    dynamic: Pointer,
    background: Pointer,
    mask: Pointer,
    dynamic_b: Scalar,
    dynamic_d: Scalar,
    dynamic_c: Scalar,
    dynamic_y: Scalar,
    dynamic_x: Scalar,
    background_b: Scalar,
    background_d: Scalar,
    background_c: Scalar,
    background_y: Scalar,
    background_x: Scalar,
    mask_b: Scalar,
    mask_d: Scalar,
    mask_y: Scalar,
    mask_x: Scalar,
    homographies: Pointer,
    start: Pointer,
    views: Scalar,
    count: Scalar,
    segments: Scalar,
    H: Scalar,
    W: Scalar,
    h: Scalar,
    w: Scalar,
    SEGMENT: tl.constexpr,
    BLENDED: tl.constexpr,
    WORK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> None:
    """Store the transmittance before each segment, the nearest first: ``[B, N, S, h, w]``."""
    dynamic_steps = (dynamic_b, dynamic_d, dynamic_c, dynamic_y, dynamic_x)
    background_steps = (background_b, background_d, background_c, background_y, background_x)
    source = (dynamic, dynamic_steps, background, background_steps, mask, (mask_b, mask_d, mask_y, mask_x))
    batch, view, tile = program_place(views, h, w, TILE_H, TILE_W)
    place = tile_pixels(tile, h, w, TILE_H, TILE_W)
    _, _, row, column, valid = place
    homographies += (batch * views + view) * count * 9
    start += (batch * views + view).to(tl.int64) * segments * h * w
    pixel = tl.where(valid, row * w + column, 0)  # see _render_kernel
    left = tl.where(valid, 1.0, 0.0).to(WORK)
    for segment in range(0, segments):
        tl.store(start + tl.cast(segment, tl.int64) * h * w + pixel, left, mask=valid)
        nearest = count - 1 - segment * SEGMENT
        for i in range(0, tl.minimum(nearest + 1, SEGMENT)):
            plane = nearest - i
            left = pass_plane(left, source, homographies, batch, plane, place, H, W, BLENDED, WORK, TILE_H, TILE_W)


@triton.jit
def _backward_kernel(
    dynamic: Pointer,
    background: Pointer,
    mask: Pointer,
    dynamic_b: Scalar,
    dynamic_d: Scalar,
    dynamic_c: Scalar,
    dynamic_y: Scalar,
    dynamic_x: Scalar,
    background_b: Scalar,
    background_d: Scalar,
    background_c: Scalar,
    background_y: Scalar,
    background_x: Scalar,
    mask_b: Scalar,
    mask_d: Scalar,
    mask_y: Scalar,
    mask_x: Scalar,
    homographies: Pointer,
    start: Pointer,
    views: Scalar,
    count: Scalar,
    segments: Scalar,
    H: Scalar,
    W: Scalar,
    h: Scalar,
    w: Scalar,
    inverse_depths: Pointer,
    grad: Pointer,
    mask_gradient: Pointer,
    dynamic_gradient: Pointer,
    background_gradient: Pointer,
    NEEDS_MASK: tl.constexpr,
    NEEDS_DYNAMIC: tl.constexpr,
    NEEDS_BACKGROUND: tl.constexpr,
    VECTORS: tl.constexpr,
    PREMULTIPLIED: tl.constexpr,
    SATURATED: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLENDED: tl.constexpr,
    WORK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> None:
    dynamic_steps = (dynamic_b, dynamic_d, dynamic_c, dynamic_y, dynamic_x)
    background_steps = (background_b, background_d, background_c, background_y, background_x)
    source = (dynamic, dynamic_steps, background, background_steps, mask, (mask_b, mask_d, mask_y, mask_x))
    gradients = (mask_gradient, dynamic_gradient, background_gradient)
    batch, view, tile = program_place(views, h, w, TILE_H, TILE_W)
    place = tile_pixels(tile, h, w, TILE_H, TILE_W)
    first_row, first_column, row, column, valid = place
    index = (batch * views + view).to(tl.int64)
    homographies += index * count * 9
    inverse_depths += batch * count
    pixel = tl.where(valid, row * w + column, 0)  # see _render_kernel
    start += index * segments * h * w + pixel
    grad += index * 5 * h * w + pixel
    grad_red = tl.load(grad, mask=valid, other=0)
    grad_green = tl.load(grad + h * w, mask=valid, other=0)
    grad_blue = tl.load(grad + 2 * h * w, mask=valid, other=0)
    grad_opacity = tl.load(grad + 3 * h * w, mask=valid, other=0)
    grad_disparity = tl.load(grad + 4 * h * w, mask=valid, other=0)

    behind = tl.full((TILE_H * TILE_W,), 0.0, WORK)  # gradient-weighted view from behind a plane, at full transmittance
    for i in range(0, segments):
        segment = segments - 1 - i
        nearest = count - 1 - segment * SEGMENT
        left_before = tl.load(start + tl.cast(segment, tl.int64) * h * w, mask=valid, other=0)
        lit = tl.reduce(left_before, 0, larger) > SATURATED
        for j in range(0, tl.minimum(nearest + 1, SEGMENT)):
            plane = tl.maximum(nearest - SEGMENT + 1, 0) + j
            homography = load_homography(homographies + plane * 9)
            if may_see(homography, first_row, first_column, H, W, WORK, TILE_H, TILE_W):
                left = left_before
                if lit:
                    for k in range(0, nearest - plane):
                        left = pass_plane(
                            left, source, homographies, batch, nearest - k, place, H, W, BLENDED, WORK, TILE_H, TILE_W
                        )
                x, y, front = map_pixels(homography, row, column, WORK)
                taps = make_taps(x - 0.5, y - 0.5, front & valid, H, W)
                r, g, b, alpha = sample_rgba(source, batch, plane, taps, BLENDED, VECTORS, WORK)
                color = grad_red * r + grad_green * g + grad_blue * b
                shade = grad_opacity + grad_disparity * tl.load(inverse_depths + plane)
                if PREMULTIPLIED:
                    share, value = left, color + alpha * shade
                else:
                    shade += color
                    share, value = left * alpha, alpha * shade
                values = (share * grad_red, share * grad_green, share * grad_blue, left * (shade - behind))
                behind = value + (1.0 - alpha) * behind
                add_plane(
                    values, source, gradients, batch, plane, count, H, W, taps, left > SATURATED,
                    BLENDED, NEEDS_MASK, NEEDS_DYNAMIC, NEEDS_BACKGROUND, WORK,
                )  # fmt: skip
