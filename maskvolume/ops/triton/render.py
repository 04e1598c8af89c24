"""Rendering of multiplane images in one Triton kernel, without storing warped planes. See ``maskvolume.ops.triton``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskvolume.ops.triton.common import (
    Pointer,
    Scalar,
    larger,
    load_homography,
    make_taps,
    map_pixels,
    may_see,
    program_place,
    saturation,
    tile_count,
    tile_pixels,
    work_dtype,
)
from maskvolume.ops.triton.planes import PlaneSource, sample_rgba

# Planes between two checks whether a whole tile is saturated: each check synchronizes the warps of a program.
CHECK_EVERY = 4


def render_planes(
    rgba: Tensor,  # [B, D, 4, H, W]
    homographies: Tensor,  # [B, N, D, 3, 3]
    inverse_depths: Tensor,  # [B, D]
    size: tuple[int, int],
    premultiplied: bool,
) -> Tensor:
    """Render N views of each of B multiplane images in one launch.

    Args:
        rgba: planes, plane 0 the farthest; float32, float16, bfloat16, float64, or uint8 (value * 255); any strides,
            fastest if contiguous or channels last.
        homographies: from pixels of a view to pixels of a plane (centres at +0.5); float32, or float64 for float64
            planes. Points with a non-positive third coordinate are not seen.
        inverse_depths: 1 / depth of the planes, in 1 / scene unit.
        size: ``(h, w)`` of the views.
        premultiplied: whether the colours of ``rgba`` are multiplied by their opacity.

    Returns:
        ``[B, N, 5, h, w]`` in float32 (float64): colour over black, opacity, disparity (``inverse_depths`` weighted
        by opacity).

    Convention: inverse warp, bilinear, ``align_corners=False``, zero padding. A tile stops once all its rays have ended
    (``SATURATED``); in float64 it never stops early.
    """
    return _render(PlaneSource.of(rgba), homographies, inverse_depths, size, premultiplied)


def render_blended(
    mask: Tensor,  # [B, D, H, W]
    dynamic: Tensor,  # [B, D, 4, H, W]
    background: Tensor,  # [B, D, 4, H, W]
    homographies: Tensor,  # [B, N, D, 3, 3]
    inverse_depths: Tensor,  # [B, D]
    size: tuple[int, int],
    premultiplied: bool,
) -> Tensor:
    """Render ``mask * dynamic + (1 - mask) * background`` without storing the blend.

    Args:
        mask: share of ``dynamic`` in each texel, 0..1; any float dtype.
        dynamic: planes as in ``render_planes``.
        background: planes on the same depths.
        homographies: as in ``render_planes``; float64 where ``dynamic`` is float64.
        inverse_depths: as in ``render_planes``.
        size: ``(h, w)`` of the views.
        premultiplied: whether colours of both MPIs are multiplied by their opacity.

    Returns:
        ``[B, N, 5, h, w]`` as in ``render_planes``.
    """
    return _render(PlaneSource.of(dynamic, background, mask), homographies, inverse_depths, size, premultiplied)


def _render(
    source: PlaneSource, homographies: Tensor, inverse_depths: Tensor, size: tuple[int, int], premultiplied: bool
) -> Tensor:
    planes, work = source.dynamic, work_dtype(source.dynamic)
    (batch, views, count), (H, W), (h, w) = homographies.shape[:3], planes.shape[-2:], size
    out = torch.empty(batch, views, 5, h, w, dtype=work, device=planes.device)
    with torch.cuda.device_of(planes):
        _render_kernel[(batch * views * tile_count(size),)](
            *source.arguments(),
            homographies.to(work).contiguous(),
            inverse_depths.to(work).contiguous(),
            out,
            views,
            count,
            H,
            W,
            h,
            w,
            VECTORS=source.vectors(),
            PREMULTIPLIED=premultiplied,
            SATURATED=saturation(planes),
            CHECK_EVERY=CHECK_EVERY,
            **source.options(),
        )
    return out


@triton.jit
def _render_kernel(
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
    inverse_depths: Pointer,
    out: Pointer,
    views: Scalar,
    count: Scalar,
    H: Scalar,
    W: Scalar,
    h: Scalar,
    w: Scalar,
    BLENDED: tl.constexpr,
    VECTORS: tl.constexpr,
    PREMULTIPLIED: tl.constexpr,
    SATURATED: tl.constexpr,
    CHECK_EVERY: tl.constexpr,
    WORK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> None:
    dynamic_steps = (dynamic_b, dynamic_d, dynamic_c, dynamic_y, dynamic_x)
    background_steps = (background_b, background_d, background_c, background_y, background_x)
    source = (dynamic, dynamic_steps, background, background_steps, mask, (mask_b, mask_d, mask_y, mask_x))
    batch, view, tile = program_place(views, h, w, TILE_H, TILE_W)
    first_row, first_column, row, column, valid = tile_pixels(tile, h, w, TILE_H, TILE_W)
    homographies += (batch * views + view) * count * 9
    inverse_depths += batch * count

    left = tl.where(valid, 1.0, 0.0).to(WORK)  # transmittance
    red = tl.full((TILE_H * TILE_W,), 0.0, WORK)
    green, blue, disparity = red, red, red
    nearest = count - 1
    while nearest >= 0:
        for i in range(0, tl.minimum(nearest + 1, CHECK_EVERY)):
            plane = nearest - i
            homography = load_homography(homographies + plane * 9)
            if may_see(homography, first_row, first_column, H, W, WORK, TILE_H, TILE_W):
                x, y, front = map_pixels(homography, row, column, WORK)
                taps = make_taps(x - 0.5, y - 0.5, front & valid, H, W)
                r, g, b, alpha = sample_rgba(source, batch, plane, taps, BLENDED, VECTORS, WORK)
                weight = alpha * left
                if PREMULTIPLIED:
                    share = left
                else:
                    share = weight
                red += share * r
                green += share * g
                blue += share * b
                disparity += weight * tl.load(inverse_depths + plane)
                left -= weight
        nearest = tl.where(tl.reduce(left, 0, larger) > SATURATED, nearest - CHECK_EVERY, -1)

    # Hides from the compiler that these are neighbours. Otherwise it assigns pairs of them to a thread and exchanges
    # samples between threads for each tap of each plane.
    pixel = tl.where(valid, row * w + column, 0)
    place = out + (batch * views + view).to(tl.int64) * 5 * h * w + pixel
    channel = h * w
    tl.store(place, red, mask=valid)
    tl.store(place + channel, green, mask=valid)
    tl.store(place + 2 * channel, blue, mask=valid)
    tl.store(place + 3 * channel, 1.0 - left, mask=valid)
    tl.store(place + 4 * channel, disparity, mask=valid)
