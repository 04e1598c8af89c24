"""Loops that render multiplane images and warp pictures for plane sweeps, compiled by Numba.

Each function computes some rows of a picture and releases the GIL, so threads share the work by rows. Sixteen pixels of
a row are computed together, over all planes in order, so that colour, opacity and transmittance stay in registers;
planes are read once, and no warped plane is written. Adjacent pixels nearly always map to adjacent texels: then (a run)
one load reads a tap of all sixteen. Planes are far apart in memory, which defeats the hardware prefetcher, so the loops
prefetch a few rows ahead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskvolume.ops.cpu.compiling import compiled, inlined
from maskvolume.ops.cpu.vectors import (
    LANES,
    bits,
    floats,
    lane,
    load,
    load_where,
    lowest_bit,
    prefetch,
    ramp,
    select,
    splat,
    store_where,
    truncate,
)

Floats = NDArray[np.float32]
f32, i32 = np.float32, np.int32
index = np.uintp  # unsigned: Numba checks signed indices for wraparound, which costs a comparison

SATURATED = f32(1e-4)  # transmittance below which planes behind are skipped
UNSEEN = f32(5e-4)  # colours are skipped where their weight is below this, divided among all planes
AHEAD = 3  # rows to prefetch
_RENDER = (
    "void({0}[::1], {1}int64, int64, int64, float32[:,:,::1], float32[::1], boolean, int64, int64, float32[:,:,::1])"
)
_SWEEP = "void(float32[:,:,::1], float32[:,:,::1], boolean, int64, int64, {0}[:,:,:,::1])"


@inlined
def _map(H: Floats, x: int, y: int) -> Any:
    """Map sixteen pixels of a row: coordinates (centres at +0.5), and which of them are in front."""
    px, py = ramp(f32(x) + f32(0.5)), f32(y) + f32(0.5)
    z = px * H[2, 0] + (H[2, 1] * py + H[2, 2])
    inverse = f32(1) / z
    u = (px * H[0, 0] + (H[0, 1] * py + H[0, 2])) * inverse
    v = (px * H[1, 0] + (H[1, 1] * py + H[1, 2])) * inverse
    return u, v, z > f32(0)


@inlined
def _mix(t00: Any, t01: Any, t10: Any, t11: Any, a: Any, b: Any) -> Any:
    """Interpolate four taps; ``a`` and ``b`` are the fractions to the right and down."""
    top, bottom = t00 + a * (t01 - t00), t10 + a * (t11 - t10)
    return top + b * (bottom - top)


@inlined
def _taps(flat: Any, p: int, height: int, width: int, edge: bool, run: Any, iu: Any, iv: Any) -> Any:
    """Load the four taps of a run whose first lane is at ``p``; at an edge, taps outside the picture are 0."""
    here, below, one = index(p), index(p + width), index(1)
    if edge:
        m00, m01, m10, m11 = _masks(run, iu, iv, height, width)
        return (
            load_where(flat, here, m00), load_where(flat, here + one, m01),
            load_where(flat, below, m10), load_where(flat, below + one, m11),
        )  # fmt: skip
    return load(flat, here), load(flat, here + one), load(flat, below), load(flat, below + one)


@inlined
def _masks(run: Any, iu: Any, iv: Any, height: int, width: int) -> Any:
    """Masks of the lanes of a run whose taps are in the picture, one per tap."""
    left, right = run & (iu >= i32(0)), run & (iu < i32(width - 1))
    above, below = iv >= i32(0), iv < i32(height - 1)
    return left & above, right & above, left & below, right & below


@inlined
def _sample(
    planes: Any, background: Any, mask: Any, p: int, k: int, height: int, width: int,
    a: Any, b: Any, edge: bool, run: Any, iu: Any, iv: Any,
) -> Any:  # fmt: skip
    """Sample a channel of a run; for a blend, whose mask is at ``k``, blend each tap first."""
    t00, t01, t10, t11 = _taps(planes, p, height, width, edge, run, iu, iv)
    prefetch(planes, index(p + AHEAD * width))
    if background is not None:
        k00, k01, k10, k11 = _taps(mask, k, height, width, edge, run, iu, iv)
        s00, s01, s10, s11 = _taps(background, p, height, width, edge, run, iu, iv)
        prefetch(mask, index(k + AHEAD * width))
        prefetch(background, index(p + AHEAD * width))
        t00, t01 = s00 + k00 * (t00 - s00), s01 + k01 * (t01 - s01)
        t10, t11 = s10 + k10 * (t10 - s10), s11 + k11 * (t11 - s11)
    return _mix(t00, t01, t10, t11, a, b)


@inlined
def _render(
    planes: Any, background: Any, mask: Any, count: int, height: int, width: int,
    homographies: Floats, inverse_depths: Floats, premultiplied: bool, first: int, last: int, out: Floats,
) -> None:  # fmt: skip
    h, w = out.shape[1], out.shape[2]
    views, area, size = out.reshape(-1), h * w, height * width
    nothing, lanes = splat(f32(0)), ramp(i32(0))
    right, bottom, unseen = f32(width - 1), f32(height - 1), UNSEEN / f32(count)
    for y in range(first, last):
        for x in range(0, w, LANES):
            red, green, blue, disparity, left = nothing, nothing, nothing, nothing, splat(f32(1))
            for behind in range(count):
                d = count - 1 - behind
                u, v, front = _map(homographies[d], x, y)
                u, v = u - f32(0.5), v - f32(0.5)
                touched = front & (u > f32(-1)) & (v > f32(-1)) & (u < f32(width)) & (v < f32(height))
                pending = bits(touched)
                if pending == 0:
                    continue
                clear = bits(front & (u >= f32(0)) & (v >= f32(0)) & (u < right) & (v < bottom)) == pending
                u, v = select(touched, u, nothing), select(touched, v, nothing)
                iu, iv = truncate(u + f32(1)) - i32(1), truncate(v + f32(1)) - i32(1)  # floor, since both are above -1
                a, b = u - floats(iu), v - floats(iv)
                offsets = iv * i32(width) + (iu - lanes)
                texels = 4 * d * size
                alpha, rest = nothing, pending
                while rest != 0:
                    start = lane(offsets, lowest_bit(rest))
                    run = (offsets == start) & touched
                    edge = not clear or _leaves(texels + start, 3 * size + width, planes.size)
                    value = _sample(
                        planes, background, mask, texels + 3 * size + start, d * size + start, height, width, a, b,
                        edge, run, iu, iv,
                    )  # fmt: skip
                    alpha = select(run, value, alpha)
                    rest &= ~bits(run)
                weight = alpha * left
                if bits(weight > unseen) != 0:
                    gain, rest = left if premultiplied else weight, pending
                    while rest != 0:
                        start = lane(offsets, lowest_bit(rest))
                        run = (offsets == start) & touched
                        edge = not clear or _leaves(texels + start, 3 * size + width, planes.size)
                        shown = select(run, gain, nothing)
                        p, k = texels + start, d * size + start
                        values = _sample(planes, background, mask, p, k, height, width, a, b, edge, run, iu, iv)
                        red = red + shown * values
                        values = _sample(planes, background, mask, p + size, k, height, width, a, b, edge, run, iu, iv)
                        green = green + shown * values
                        p += 2 * size
                        values = _sample(planes, background, mask, p, k, height, width, a, b, edge, run, iu, iv)
                        blue = blue + shown * values
                        rest &= ~bits(run)
                disparity = disparity + weight * inverse_depths[d]
                left = left - weight
                if bits(left > SATURATED) == 0:
                    break
            at, there = y * w + x, lanes < i32(w - x)
            store_where(views, index(at), red, there)
            store_where(views, index(at + area), green, there)
            store_where(views, index(at + 2 * area), blue, there)
            store_where(views, index(at + 3 * area), f32(1) - left, there)
            store_where(views, index(at + 4 * area), disparity, there)


@inlined
def _leaves(start: int, reach: int, size: int) -> bool:
    """Return whether full vector loads from ``start`` up to ``reach`` may leave the array."""
    return start < 0 or start + reach + LANES >= size


@compiled(_RENDER.format("float32", ""))
def render_rows(
    planes: Any,  # [D * 4 * H * W]
    count: int,  # D
    height: int,  # H
    width: int,  # W
    homographies: Floats,  # [D, 3, 3] target pixel to plane pixel
    inverse_depths: Floats,  # [D]
    premultiplied: bool,
    first: int,
    last: int,
    out: Floats,  # [5, h, w]: colour, opacity, disparity
) -> None:
    """Render rows ``first`` to ``last`` (exclusive) of a view."""
    _render(
        planes, None, None, count, height, width, homographies, inverse_depths, premultiplied, first, last, out
    )  # fmt: skip


@compiled(_RENDER.format("uint16", ""))
def render_rows_of_halves(
    planes: Any, count: int, height: int, width: int, homographies: Floats, inverse_depths: Floats,
    premultiplied: bool, first: int, last: int, out: Floats,
) -> None:  # fmt: skip
    """Render planes in half precision; available if ``vectors.HALVES``."""
    _render(
        planes, None, None, count, height, width, homographies, inverse_depths, premultiplied, first, last, out
    )  # fmt: skip


@compiled(_RENDER.format("uint8", ""))
def render_rows_of_bytes(
    planes: Any, count: int, height: int, width: int, homographies: Floats, inverse_depths: Floats,
    premultiplied: bool, first: int, last: int, out: Floats,
) -> None:  # fmt: skip
    """Render planes of bytes, which store value * 255."""
    _render(
        planes, None, None, count, height, width, homographies, inverse_depths, premultiplied, first, last, out
    )  # fmt: skip


@compiled(_RENDER.format("float32", "float32[::1], float32[::1], "))
def blend_rows(
    planes: Any, background: Any, mask: Any, count: int, height: int, width: int, homographies: Floats,
    inverse_depths: Floats, premultiplied: bool, first: int, last: int, out: Floats,
) -> None:  # fmt: skip
    """Render mask * planes + (1 - mask) * background; the mask is ``[D * H * W]``."""
    _render(
        planes, background, mask, count, height, width, homographies, inverse_depths, premultiplied, first, last, out
    )  # fmt: skip


@inlined
def _sweep(image: Floats, homographies: Floats, original: bool, first: int, last: int, out: Any) -> None:
    channels, height, width = image.shape
    h, w = out.shape[2], out.shape[3]
    flat, swept = image.reshape(-1), out.reshape(-1)
    size, area = height * width, out.shape[1] * h * w
    nothing, lanes = splat(f32(0)), ramp(i32(0))
    right, bottom = f32(width), f32(height)
    for number in range(first, last):
        d, y = number // h, number % h
        for x in range(0, w, LANES):
            u, v, front = _map(homographies[d], x, y)
            if original:
                u, v = u * ((right - f32(1)) / right), v * ((bottom - f32(1)) / bottom)
                seen = front & (u > f32(-1)) & (v > f32(-1)) & (u < right) & (v < bottom)
                iu, iv = truncate(select(seen, u, nothing) + f32(1)), truncate(select(seen, v, nothing) + f32(1))
                iu, iv = iu - i32(1), iv - i32(1)
            else:
                seen = front & (u >= f32(0)) & (v >= f32(0)) & (u <= right) & (v <= bottom)
                u, v = u - f32(0.5), v - f32(0.5)
                u, v = select(u > f32(0), u, nothing), select(v > f32(0), v, nothing)
                u = select(u < right - f32(1), u, splat(right - f32(1)))
                v = select(v < bottom - f32(1), v, splat(bottom - f32(1)))
                iu, iv = truncate(select(seen, u, nothing)), truncate(select(seen, v, nothing))
                # At the last texel, step back by one with weight 0 so that both taps exist.
                iu = select(iu < i32(width - 1), iu, iu - i32(1))
                iv = select(iv < i32(height - 1), iv, iv - i32(1))
            a, b = u - floats(iu), v - floats(iv)
            offsets = iv * i32(width) + (iu - lanes)
            at, there = index((d * h + y) * w + x), lanes < i32(w - x)
            pending = bits(seen)
            for c in range(channels):
                value = splat(f32(-1))
                rest = pending
                while rest != 0:
                    start = lane(offsets, lowest_bit(rest))
                    run = (offsets == start) & seen
                    edge = original or _leaves(start, width, size)
                    t00, t01, t10, t11 = _taps(flat, c * size + start, height, width, edge, run, iu, iv)
                    if original:  # the picture is surrounded by -1
                        m00, m01, m10, m11 = _masks(run, iu, iv, height, width)
                        t00, t01 = select(m00, t00, splat(f32(-1))), select(m01, t01, splat(f32(-1)))
                        t10, t11 = select(m10, t10, splat(f32(-1))), select(m11, t11, splat(f32(-1)))
                    value = select(run, _mix(t00, t01, t10, t11, a, b), value)
                    rest &= ~bits(run)
                store_where(swept, at + index(c * area), value, there)


@compiled(_SWEEP.format("float32"))
def sweep_rows(
    image: Floats,  # [C, Hs, Ws], at least 2 x 2
    homographies: Floats,  # [D, 3, 3] reference pixel to source pixel over each plane
    original: bool,  # sample as the original does
    first: int,
    last: int,
    out: Any,  # [C, D, h, w], -1 where there is no data
) -> None:
    """Warp a picture to planes: rows ``first`` to ``last`` (exclusive), counted over all planes."""
    _sweep(image, homographies, original, first, last, out)


@compiled(_SWEEP.format("uint16"))
def sweep_rows_to_halves(image: Floats, homographies: Floats, original: bool, first: int, last: int, out: Any) -> None:
    """Do the same as ``sweep_rows`` with output in half precision; available if ``vectors.HALVES``."""
    _sweep(image, homographies, original, first, last, out)
