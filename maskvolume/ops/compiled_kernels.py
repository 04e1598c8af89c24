"""Loops over the pixels of multiplane images and plane sweeps, compiled for this processor by Numba.

Each function makes some rows of a picture and holds no lock, so threads share the work by rows. A picture is made in
tiles, plane by plane within a tile: what a tile sees of a plane is brought into a small buffer that stays in the
cache, four channels side by side, and sampled from there; the planes are read once, and no warped plane is ever
written. Where the planes lie in memory as the buffer would, they are sampled directly.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import njit
from numpy.typing import NDArray

# The four channels of a tap become one vector instruction by this pass, which Numba leaves out by default.
numba.config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]

Floats = NDArray[np.float32]
f32 = np.float32
index = np.uintp  # unsigned: a negative index would count from the end, and that costs a comparison

TILE = 128  # pixels of a row that are made together
ROWS = 8  # rows of a tile
BUFFER = 4 * TILE * ROWS  # texels that a tile may see of a plane; of one that is seen from afar it sees more
SATURATED = f32(1e-4)  # what shines through less opaque planes in front than this is not looked for
# Everything but "there are no infinities and no NaNs".
FAST = {"contract", "reassoc", "arcp", "nsz", "afn"}
# One signature each, and any strides in it: processes that compile different ones at the same time would overwrite
# each other's files in Numba's cache.
RENDER = (
    "void(float32[:,:,:,:], float32[:,:,:,:], float32[:,:,:], boolean, float32[::1], float32[:,:,::1], float32[::1], "
    "boolean, int64, int64, float32[:,:,::1])"
)
SWEEP = "void(float32[:,:,::1], float32[:,:,::1], boolean, int64, int64, float32[:,:,:,:])"


@njit(nogil=True, fastmath=FAST, error_model="numpy")
def _extent(H: Floats, y: int, rows: int, x: int, columns: int) -> Any:
    """The texels, counted from the first one's centre, that a tile's corners fall on; how many are in front."""
    u_min, u_max, v_min, v_max = f32(1e30), f32(-1e30), f32(1e30), f32(-1e30)
    front = 0
    for corner in range(4):
        px = f32(x + (columns - 1) * (corner & 1)) + f32(0.5)
        py = f32(y + (rows - 1) * (corner >> 1)) + f32(0.5)
        z = H[2, 0] * px + (H[2, 1] * py + H[2, 2])
        if z > 0:
            front += 1
            inverse = f32(1) / z
            u = (H[0, 0] * px + (H[0, 1] * py + H[0, 2])) * inverse - f32(0.5)
            v = (H[1, 0] * px + (H[1, 1] * py + H[1, 2])) * inverse - f32(0.5)
            u, v = min(max(u, f32(-1e9)), f32(1e9)), min(max(v, f32(-1e9)), f32(1e9))
            u_min, u_max = min(u_min, u), max(u_max, u)
            v_min, v_max = min(v_min, v), max(v_max, v)
    return u_min, u_max, v_min, v_max, front


@njit(nogil=True, fastmath=FAST, error_model="numpy")
def _fill(
    planes: Any, background: Any, mask: Any, blended: bool,
    d: int, v0: int, down: int, u0: int, across: int, buffer: Floats,
) -> bool:  # fmt: skip
    """Bring texels of a plane into the buffer, 0 outside of it; returns whether any of them is opaque at all."""
    height, width = planes.shape[2], planes.shape[3]
    inside = u0 >= 0 and v0 >= 0 and u0 + across <= width and v0 + down <= height
    most = f32(0)
    for j in range(down):
        v = v0 + j
        row = j * across * 4
        if not inside and (v < 0 or v >= height):
            buffer[row : row + across * 4] = 0
            continue
        begin, end = max(0, -u0), min(across, width - u0)
        if not inside:
            buffer[row : row + across * 4] = 0
        if blended:
            for i in range(begin, end):
                m = mask[d, v, u0 + i]
                for c in range(4):
                    still = background[d, c, v, u0 + i]
                    buffer[row + 4 * i + c] = still + m * (planes[d, c, v, u0 + i] - still)
                most = max(most, buffer[row + 4 * i + 3])
        else:
            for i in range(begin, end):
                for c in range(4):
                    buffer[row + 4 * i + c] = planes[d, c, v, u0 + i]
                most = max(most, buffer[row + 4 * i + 3])
    return most > 0


@njit(nogil=True, fastmath=FAST, error_model="numpy")
def _sample(
    texels: Floats, base: int, across: int, u0: float, v0: float, H: Floats, inverse_depth: float,
    premultiplied: bool, y: int, rows: int, x: int, columns: int,
    color: Floats, left: Floats, disparity: Floats, offsets: Any, weights: Floats, alphas: Floats, first: int,
) -> float:  # fmt: skip
    """Sample a plane at a tile's pixels, all of them inside, and composite it behind what they have."""
    most = f32(0)
    start, line = index(base), index(4 * across)
    for j in range(rows):
        py = f32(y + j) + f32(0.5)
        along_x, along_y, along_z = H[0, 1] * py + H[0, 2], H[1, 1] * py + H[1, 2], H[2, 1] * py + H[2, 2]
        for i in range(columns):
            px = f32(x + i) + f32(0.5)
            inverse = f32(1) / (H[2, 0] * px + along_z)
            # Rounding may put a pixel a hair before the tile's corner.
            u = max((H[0, 0] * px + along_x) * inverse - f32(0.5) - u0, f32(0))
            v = max((H[1, 0] * px + along_y) * inverse - f32(0.5) - v0, f32(0))
            iu, iv = np.int32(u), np.int32(v)
            a, b = u - f32(iu), v - f32(iv)
            offsets[i] = 4 * (iv * np.int32(across) + iu)
            weights[0, i] = (f32(1) - a) * (f32(1) - b)
            weights[1, i] = a * (f32(1) - b)
            weights[2, i] = (f32(1) - a) * b
            weights[3, i] = a * b
        row = first + j * TILE
        for i in range(columns):
            p = start + index(offsets[i])
            q = p + line
            w00, w01, w10, w11 = weights[0, i], weights[1, i], weights[2, i], weights[3, i]
            s0 = w00 * texels[p] + w01 * texels[p + index(4)] + w10 * texels[q] + w11 * texels[q + index(4)]
            s1 = (
                w00 * texels[p + index(1)] + w01 * texels[p + index(5)]
                + w10 * texels[q + index(1)] + w11 * texels[q + index(5)]
            )  # fmt: skip
            s2 = (
                w00 * texels[p + index(2)] + w01 * texels[p + index(6)]
                + w10 * texels[q + index(2)] + w11 * texels[q + index(6)]
            )  # fmt: skip
            s3 = (
                w00 * texels[p + index(3)] + w01 * texels[p + index(7)]
                + w10 * texels[q + index(3)] + w11 * texels[q + index(7)]
            )  # fmt: skip
            gain = left[index(row + i)]
            if not premultiplied:
                gain *= s3
            o = index(4 * (row + i))
            color[o] += gain * s0
            color[o + index(1)] += gain * s1
            color[o + index(2)] += gain * s2
            color[o + index(3)] += gain * s3
            alphas[i] = s3
        for i in range(columns):
            at = index(row + i)
            weight = left[at] * alphas[i]
            disparity[at] += weight * inverse_depth
            left[at] -= weight
            most = max(most, left[at])
    return most


@njit(nogil=True, fastmath=FAST, error_model="numpy")
def _add_plane(
    planes: Any, background: Any, mask: Any, blended: bool, flat: Floats,
    d: int, H: Floats, inverse_depth: float, premultiplied: bool, y: int, rows: int, x: int, columns: int,
    color: Floats, left: Floats, disparity: Floats, buffer: Floats, offsets: Any, weights: Floats, alphas: Floats,
) -> float:  # fmt: skip
    """Composite a plane behind what a tile has so far; returns the most that is left of any of its pixels."""
    height, width = planes.shape[2], planes.shape[3]
    u_min, u_max, v_min, v_max, front = _extent(H, y, rows, x, columns)
    if front == 0 or (front == 4 and (u_max <= -1 or v_max <= -1 or u_min >= width or v_min >= height)):
        return f32(1)
    if front == 4 and flat.size > 0 and u_min >= 0 and v_min >= 0 and u_max < width - 1 and v_max < height - 1:
        base = d * height * width * 4
        return _sample(
            flat, base, width, f32(0), f32(0), H, inverse_depth, premultiplied,
            y, rows, x, columns, color, left, disparity, offsets, weights, alphas, 0,
        )  # fmt: skip
    if front == 4:
        u0, v0 = int(np.floor(u_min)), int(np.floor(v_min))
        across, down = int(np.floor(u_max)) + 2 - u0, int(np.floor(v_max)) + 2 - v0
        if across * down <= BUFFER:
            if not _fill(planes, background, mask, blended, d, v0, down, u0, across, buffer):
                return f32(1)
            return _sample(
                buffer, 0, across, f32(u0), f32(v0), H, inverse_depth, premultiplied,
                y, rows, x, columns, color, left, disparity, offsets, weights, alphas, 0,
            )  # fmt: skip
    # Partly behind the target, or seen from afar: pixel by pixel.
    for j in range(rows):
        for i in range(columns):
            u, _, v, _, front = _extent(H, y + j, 1, x + i, 1)
            if front and u > -1 and v > -1 and u < width and v < height:
                u0, v0 = int(np.floor(u)), int(np.floor(v))
                if _fill(planes, background, mask, blended, d, v0, 2, u0, 2, buffer):
                    _sample(
                        buffer, 0, 2, f32(u0), f32(v0), H, inverse_depth, premultiplied,
                        y + j, 1, x + i, 1, color, left, disparity, offsets, weights, alphas, j * TILE + i,
                    )  # fmt: skip
    return f32(1)


@njit(nogil=True, fastmath=FAST, error_model="numpy")
def _sweep_taps(
    H: Floats, original: bool, height: int, width: int, y: int, x: int, columns: int, taps: Any, weights: Floats
) -> None:
    """Where the pixels of a part of a row are in the source: four texels, their weights, and that of no data."""
    py = f32(y) + f32(0.5)
    along_x, along_y, along_z = H[0, 1] * py + H[0, 2], H[1, 1] * py + H[1, 2], H[2, 1] * py + H[2, 2]
    right, bottom = f32(width), f32(height)
    for i in range(columns):
        px = f32(x + i) + f32(0.5)
        z = H[2, 0] * px + along_z
        inverse = f32(1) / z if z > 0 else f32(0)
        u, v = (H[0, 0] * px + along_x) * inverse, (H[1, 0] * px + along_y) * inverse
        if original:
            seen = z > 0 and u > -right and v > -bottom and u < 2 * right and v < 2 * bottom
            u, v = u * ((right - 1) / right), v * ((bottom - 1) / bottom)
        else:
            seen = z > 0 and u >= 0 and v >= 0 and u <= right and v <= bottom
            u, v = min(max(u - f32(0.5), f32(0)), right - 1), min(max(v - f32(0.5), f32(0)), bottom - 1)
        if not seen:
            u, v = f32(0), f32(0)
        u0, v0 = np.floor(u), np.floor(v)
        a, b = u - u0, v - v0
        left, top = np.int32(u0), np.int32(v0)
        # A texel outside of the picture has no weight, and stands for one inside.
        a0, a1 = (f32(1) - a) if 0 <= left < width else f32(0), a if -1 <= left < width - 1 else f32(0)
        b0, b1 = (f32(1) - b) if 0 <= top < height else f32(0), b if -1 <= top < height - 1 else f32(0)
        x0, x1 = min(max(left, 0), width - 1), min(max(left + 1, 0), width - 1)
        y0, y1 = min(max(top, 0), height - 1) * width, min(max(top + 1, 0), height - 1) * width
        gain = f32(1) if seen else f32(0)
        taps[0, i], taps[1, i], taps[2, i], taps[3, i] = y0 + x0, y0 + x1, y1 + x0, y1 + x1
        weights[0, i], weights[1, i] = gain * a0 * b0, gain * a1 * b0
        weights[2, i], weights[3, i] = gain * a0 * b1, gain * a1 * b1
        weights[4, i] = f32(1) - gain * (a0 + a1) * (b0 + b1) if original else f32(1) - gain


@njit(RENDER, nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def render_rows(
    planes: Any,  # [D, 4, H, W] any strides
    background: Any,  # the same; read where blended
    mask: Any,  # [D, H, W] float32; read where blended
    blended: bool,  # planes are mask * planes + (1 - mask) * background
    flat: Floats,  # planes as one row of memory, where they are float32 with their channels side by side; else empty
    homographies: Floats,  # [D, 3, 3] target pixel to pixel of a plane
    inverse_depths: Floats,  # [D]
    premultiplied: bool,
    first: int,
    last: int,
    out: Floats,  # [5, h, w]: colour, opacity, disparity
) -> None:
    """Rows ``first`` to ``last`` (without it) of a view."""
    w = out.shape[2]
    color = np.empty(ROWS * TILE * 4, f32)
    left = np.empty(ROWS * TILE, f32)
    disparity = np.empty(ROWS * TILE, f32)
    buffer = np.empty(BUFFER * 4, f32)
    offsets = np.empty(TILE, np.int32)
    weights = np.empty((4, TILE), f32)
    alphas = np.empty(TILE, f32)
    for y in range(first, last, ROWS):
        rows = min(ROWS, last - y)
        for x in range(0, w, TILE):
            columns = min(TILE, w - x)
            color[:] = 0
            left[:] = 1
            disparity[:] = 0
            for behind in range(planes.shape[0]):
                d = planes.shape[0] - 1 - behind
                alive = _add_plane(
                    planes, background, mask, blended, flat, d, homographies[d], inverse_depths[d],
                    premultiplied, y, rows, x, columns, color, left, disparity, buffer, offsets, weights, alphas,
                )  # fmt: skip
                if alive <= SATURATED:
                    break
            for j in range(rows):
                for i in range(columns):
                    at = j * TILE + i
                    for c in range(3):
                        out[c, y + j, x + i] = color[4 * at + c]
                    out[3, y + j, x + i] = f32(1) - left[at]
                    out[4, y + j, x + i] = disparity[at]


@njit(SWEEP, nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def sweep_rows(
    image: Floats,  # [C, Hs, Ws] contiguous
    homographies: Floats,  # [D, 3, 3] reference pixel to source pixel over each plane
    original: bool,  # the original's sampling
    first: int,
    last: int,
    out: Floats,  # [C, D, h, w], -1 where there is no data
) -> None:
    """Rows ``first`` to ``last`` (without it) of a picture on planes, counted over all planes."""
    channels, height, width = image.shape
    h, w = out.shape[2], out.shape[3]
    flat = image.reshape(-1)
    taps = np.empty((4, TILE), np.int32)
    weights = np.empty((5, TILE), f32)
    for line in range(first, last):
        d, y = line // h, line % h
        H = homographies[d]
        for x in range(0, w, TILE):
            columns = min(TILE, w - x)
            _sweep_taps(H, original, height, width, y, x, columns, taps, weights)
            for c in range(channels):
                base = c * height * width
                for i in range(columns):
                    w0, w1, w2, w3 = weights[0, i], weights[1, i], weights[2, i], weights[3, i]
                    value = w0 * flat[index(base + taps[0, i])] + w1 * flat[index(base + taps[1, i])]
                    value += w2 * flat[index(base + taps[2, i])] + w3 * flat[index(base + taps[3, i])]
                    # All weights are 0 where there is no data; the original mixes data and none.
                    out[c, d, y, x + i] = value + (
                        w0 + w1 + w2 + w3 - f32(1) if original or w0 + w1 + w2 + w3 == 0 else 0
                    )
