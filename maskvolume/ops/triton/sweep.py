"""Plane sweeps and their gradients. See ``maskvolume.ops.triton``."""

from __future__ import annotations

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
    launch_options,
    load_homography,
    make_taps,
    map_pixels,
    narrow,
    sample,
    tile_count,
    tile_pixels,
    times,
    work_dtype,
)


def sweep(
    images: Tensor,  # [B, C, Hs, Ws]
    homographies: Tensor,  # [B, D, 3, 3]
    size: tuple[int, int],
    original: bool,
) -> Tensor:
    """Warp each picture to D planes of a reference camera.

    Args:
        images: pictures of any float dtype and strides; float16 and bfloat16 are warped in float32.
        homographies: from reference pixels to picture pixels over each plane (centres at +0.5);
            float32, or float64 for float64 pictures.
        size: ``(h, w)`` of the reference.
        original: repeat the half-pixel error of the original: ``align_corners=True`` on coordinates for
            ``align_corners=False``, and a border mixed with -1.

    Returns:
        ``[B, C, D, h, w]``, contiguous, in the dtype of ``images``; -1 in every channel where the point is behind the
        camera or outside the picture.

    Convention: inverse warp, bilinear. The outermost pixel is repeated within half a pixel of the border.
    """
    images = narrow(images)
    (batch, channels, H, W), count, (h, w) = images.shape, homographies.shape[1], size
    out = torch.empty(batch, channels, count, h, w, dtype=images.dtype, device=images.device)
    with torch.cuda.device_of(images):
        _sweep_kernel[(batch * count * tile_count(size),)](
            images,
            *images.stride(),
            homographies.to(work_dtype(images)).contiguous(),
            out,
            count,
            H,
            W,
            h,
            w,
            CHANNELS=channels,
            ORIGINAL=original,
            **launch_options(images),
        )
    return out


def sweep_backward(
    grad: Tensor,  # [B, C, D, h, w]
    homographies: Tensor,  # [B, D, 3, 3]
    source_size: tuple[int, int],
    original: bool,
) -> Tensor:
    """Return the gradient of the pictures of ``sweep``, summed over the planes.

    Args:
        grad: gradient of the result of ``sweep``; any float dtype and strides.
        homographies: as in ``sweep``.
        source_size: ``(Hs, Ws)`` of the pictures.
        original: as in ``sweep``.

    Returns:
        ``[B, C, Hs, Ws]``, contiguous, float32 (float64 for float64 ``grad``). The order of summation varies: so do the
        last bits.
    """
    work = work_dtype(grad)
    (batch, channels, count, h, w), (H, W) = grad.shape, source_size
    gradient = torch.zeros(batch, channels, H, W, dtype=work, device=grad.device)
    with torch.cuda.device_of(grad):
        _sweep_backward_kernel[(batch * count * tile_count((h, w)),)](
            gradient,
            homographies.to(work).contiguous(),
            grad.contiguous(),
            count,
            H,
            W,
            h,
            w,
            CHANNELS=channels,
            ORIGINAL=original,
            **launch_options(grad),
        )
    return gradient


@triton.jit
def sweep_place(count: Scalar, h: Scalar, w: Scalar, TILE_H: tl.constexpr, TILE_W: tl.constexpr) -> Any:
    """Return batch and plane of this program, rows and columns of its pixels, and which pixels are in the picture."""
    tiles = ((h + TILE_H - 1) // TILE_H) * ((w + TILE_W - 1) // TILE_W)
    program = tl.program_id(0)
    rest = program // tiles
    _, _, row, column, valid = tile_pixels(program % tiles, h, w, TILE_H, TILE_W)
    return rest // count, rest % count, row, column, valid


@triton.jit
def sweep_taps(
    homography: Tuple,
    row: Block,
    column: Block,
    valid: Block,
    H: Scalar,
    W: Scalar,
    ORIGINAL: tl.constexpr,
    WORK: tl.constexpr,
) -> Any:
    """Return the four parts of the taps of pixels, and which pixels have data (all of them with ORIGINAL)."""
    x, y, front = map_pixels(homography, row, column, WORK)
    last_x = tl.cast(W - 1, WORK)
    last_y = tl.cast(H - 1, WORK)
    seen = front & valid
    if ORIGINAL:
        taps = make_taps(x * (last_x / W), y * (last_y / H), seen, H, W)
    else:
        seen = seen & (x >= 0) & (x <= W) & (y >= 0) & (y <= H)
        x = tl.minimum(tl.maximum(x - 0.5, 0.0), last_x)
        y = tl.minimum(tl.maximum(y - 0.5, 0.0), last_y)
        taps = make_taps(x, y, seen, H, W)
    return taps[0], taps[1], taps[2], taps[3], seen  # flat: Triton 3.3 returns tuples of one level


@triton.jit
def _sweep_kernel(
    images: Pointer,
    image_b: Scalar,
    image_c: Scalar,
    image_y: Scalar,
    image_x: Scalar,
    homographies: Pointer,
    out: Pointer,
    count: Scalar,
    H: Scalar,
    W: Scalar,
    h: Scalar,
    w: Scalar,
    CHANNELS: tl.constexpr,
    ORIGINAL: tl.constexpr,
    WORK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> None:
    batch, plane, row, column, valid = sweep_place(count, h, w, TILE_H, TILE_W)
    homography = load_homography(homographies + (batch * count + plane) * 9)
    left, top, exists, weight, seen = sweep_taps(homography, row, column, valid, H, W, ORIGINAL, WORK)
    batch = batch.to(tl.int64)
    first = images + batch * image_b + (top * image_y + left * image_x)
    if ORIGINAL:  # sample colours + 1 with zero padding, then subtract 1
        data = tl.where(exists[0], weight[0], 0.0) + tl.where(exists[1], weight[1], 0.0)
        data += tl.where(exists[2], weight[2], 0.0) + tl.where(exists[3], weight[3], 0.0)
    else:
        data = tl.where(seen, 1.0, 0.0).to(WORK)
    pixel = tl.where(valid, row * w + column, 0)  # see _render_kernel of render.py
    for c in tl.static_range(CHANNELS):
        value = sample(first + tl.cast(image_c, tl.int64) * c, image_y, image_x, exists, weight, WORK)
        value += data - 1.0
        place = out + ((batch * CHANNELS + c) * count + plane) * h * w + pixel
        tl.store(place, value.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _sweep_backward_kernel(
    gradient: Pointer,
    homographies: Pointer,
    grad: Pointer,
    count: Scalar,
    H: Scalar,
    W: Scalar,
    h: Scalar,
    w: Scalar,
    CHANNELS: tl.constexpr,
    ORIGINAL: tl.constexpr,
    WORK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> None:
    batch, plane, row, column, valid = sweep_place(count, h, w, TILE_H, TILE_W)
    homography = load_homography(homographies + (batch * count + plane) * 9)
    left, top, exists, weight, seen = sweep_taps(homography, row, column, valid, H, W, ORIGINAL, WORK)
    batch = batch.to(tl.int64)
    first = gradient + batch * CHANNELS * H * W + (top * W + left)
    pixel = tl.where(valid, row * w + column, 0)  # see _render_kernel of render.py
    for c in tl.static_range(CHANNELS):
        place = grad + ((batch * CHANNELS + c) * count + plane) * h * w + pixel
        value = tl.load(place, mask=valid, other=0).to(WORK)
        values = times(weight, (value, value, value, value))
        add_four(four(first + tl.cast(H * W, tl.int64) * c, W, 1), values, exists, seen)
