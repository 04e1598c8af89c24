"""Loops that compute planes and masks from U-Net output, compiled by Numba.

They match ``maskvolume.ops.reference.planes`` except for rounding. Sixteen pixels are computed at once, over all planes
of their rays in order, so that the data of a ray stays in the cache. Volumes are flat arrays. U-Net output is at half
resolution, channels last: channel ``4 * c + 2 * dy + dx`` is value c of pixel (dy, dx) in a 2 x 2 block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskvolume.ops.cpu.compiling import compiled, inlined
from maskvolume.ops.cpu.vectors import (
    LANES,
    absolute,
    floats,
    get,
    load,
    load_where,
    lowest,
    power_of_two,
    prefetch,
    ramp,
    select,
    splat,
    store_where,
    truncate,
)

f32, i32 = np.float32, np.int32
index = np.uintp  # unsigned: Numba checks signed indices for wraparound, which costs a comparison

AHEAD = 2  # rows to prefetch; planes are far apart in memory
_HALVES, _FULL = ("uint16[::1]", "uint16[::1]"), ("float32[::1]", "float32[::1]")  # sweeps, U-Net output
_PLANES = (
    "void({1}, float32[::1], {0}, int64, int64, int64, int64, float32, float32, float32, float32, float32, "
    "int64, int64, float32[:,:,:,::1])"
)
_MASK = (
    "void({1}, float32[::1], float32[::1], int64, int64, int64, float32, float32, float32, int64, int64, "
    "float32[:,:,::1])"
)


@inlined
def exponential(x: Any) -> Any:
    """Return exp(x) for x up to 88, clamped below -87, to seven digits (Cephes, expf)."""
    x = select(x > f32(-87), x, splat(f32(-87)))
    whole = x * f32(1.44269504) + f32(0.5)
    n = truncate(whole + f32(256)) - i32(256)  # floor
    r = x - floats(n) * f32(0.693359375)
    r = r - floats(n) * f32(-2.12194440e-4)
    y = r * f32(1.9875691500e-4) + f32(1.3981999507e-3)
    y = y * r + f32(8.3334519073e-3)
    y = y * r + f32(4.1665795894e-2)
    y = y * r + f32(1.6666665459e-1)
    y = y * r + f32(5.0000001201e-1)
    return (y * (r * r) + (r + f32(1))) * power_of_two(n)


@inlined
def _spread(unet_output: Any, c: int, channels: int, count: int, h: int, w: int, y: int, row: Any) -> None:
    """Write value c of the U-Net output for a row of pixels, ``[D * W]``."""
    for d in range(count):
        place = (d * (h // 2) + y // 2) * (w // 2) * channels + 4 * c + 2 * (y % 2)
        for x in range(w // 2):
            row[index(d * w + 2 * x)] = get(unet_output, index(place + x * channels))
            row[index(d * w + 2 * x + 1)] = get(unet_output, index(place + x * channels + 1))


@inlined
def _disagreement(sweep: Any, view: int, views: int, volume: int, at: int, cap: Any, valid: Any, inside: Any) -> Any:
    """Return the difference between a view and the most similar view, as in the reference."""
    own = 3 * view * volume + at
    red, green = load_where(sweep, index(own), inside), load_where(sweep, index(own + volume), inside)
    blue = load_where(sweep, index(own + 2 * volume), inside)
    least = splat(cap)
    for other in range(views):
        if other != view:
            p = 3 * other * volume + at
            value = load_where(sweep, index(p), inside)
            differs = absolute(red - value) + absolute(green - load_where(sweep, index(p + volume), inside))
            differs = differs + absolute(blue - load_where(sweep, index(p + 2 * volume), inside))
            differs = lowest(differs, least)
            least = select(value > valid, differs, least)
    return least


@inlined
def _planes(
    unet_output: Any, cost: Any, sweep: Any, views: int, count: int, h: int, w: int,
    logit_cap: float, view_cap: float, trust: float, cost_cap: float, valid: float, first: int, last: int, out: Any,
) -> None:  # fmt: skip
    shown, _, _, across = out.shape
    plane, volume = h * w, count * h * w
    residual, preference = np.empty(count * w + LANES, f32), np.empty(count * w + LANES, f32)
    logits = np.empty(count * LANES, f32)
    planes, area = out.reshape(-1), out.shape[2] * across
    lanes, zero, one = ramp(i32(0)), splat(f32(0)), splat(f32(1))
    for y in range(first, last):
        _spread(unet_output, 0, 8, count, h, w, y, residual)
        _spread(unet_output, 1, 8, count, h, w, y, preference)
        for x in range(0, across, LANES):
            inside, there = lanes < i32(w - x), lanes < i32(across - x)
            highest = splat(f32(-1e30))
            for d in range(count):
                at = index(d * plane + y * w + x)
                logit = load(residual, index(d * w + x)) - load_where(cost, at, inside)
                prefetch(cost, at + index(AHEAD * w))
                highest = select(logit > highest, logit, highest)
                store_where(logits, index(d * LANES), logit, inside)
            total = zero
            for d in range(shown):
                weight = load(logits, index(d * LANES)) - highest
                weight = exponential(select(weight > f32(-logit_cap), weight, splat(f32(-logit_cap))))
                total = total + weight
                prior = load(preference, index(d * w + x))
                prior = select(prior > f32(-view_cap), prior, splat(f32(-view_cap)))
                share = exponential(lowest(prior, splat(f32(view_cap))))
                red, green, blue, by = zero, zero, zero, zero
                for v in range(views):
                    p = 3 * v * volume + d * plane + y * w + x
                    value = load_where(sweep, index(p), inside)
                    if trust > f32(0) and views > 2:
                        differs = _disagreement(sweep, v, views, volume, d * plane + y * w + x, cost_cap, valid, inside)
                        share = share * exponential(splat(-trust) * differs)
                    share = select(value > valid, share, zero)
                    red, by = red + share * value, by + share
                    green = green + share * load_where(sweep, index(p + volume), inside)
                    blue = blue + share * load_where(sweep, index(p + 2 * volume), inside)
                    for c in range(3):
                        prefetch(sweep, index(p + c * volume + AHEAD * w))
                    share = one
                alpha = select(by > f32(0), weight / total, zero)
                gain = alpha / select(by > f32(1e-8), by, splat(f32(1e-8)))
                to = 4 * d * area + y * across + x
                store_where(planes, index(to), red * gain, there)
                store_where(planes, index(to + area), green * gain, there)
                store_where(planes, index(to + 2 * area), blue * gain, there)
                store_where(planes, index(to + 3 * area), alpha, there)


@inlined
def _mask(
    unet_output: Any, evidence: Any, opacity: Any, count: int, h: int, w: int,
    slope: float, threshold: float, hidden: float, first: int, last: int, out: Any,
) -> None:  # fmt: skip
    shown, across = out.shape[0], out.shape[2]
    residual = np.empty(count * w + LANES, f32)
    masks, area = out.reshape(-1), out.shape[1] * across
    lanes, one = ramp(i32(0)), splat(f32(1))
    share = f32(1) / hidden
    for y in range(first, last):
        _spread(unet_output, 0, 4, count, h, w, y, residual)
        for x in range(0, across, LANES):
            inside, there = lanes < i32(w - x), lanes < i32(across - x)
            left = one
            for behind in range(count):
                d = count - 1 - behind
                at = index((d * h + y) * w + x)
                logit = load(residual, index(d * w + x))
                logit = logit + (load_where(evidence, at, inside) - threshold) * slope
                mask = one / (exponential(lowest(splat(f32(0)) - logit, splat(f32(80)))) + f32(1))
                if d < shown:
                    value = mask * lowest(left * share, one)
                    store_where(masks, index(d * area + y * across + x), value, there)
                left = left * (one - mask * load_where(opacity, at, inside))
                prefetch(evidence, at + index(AHEAD * w))
                prefetch(opacity, at + index(AHEAD * w))


@compiled(_PLANES.format(*_HALVES))
def planes_halves(
    unet_output: Any,  # [D * H / 2 * W / 2 * 8]
    cost: Any,  # [D * H * W]
    sweep: Any,  # [V * 3 * D * H * W]
    views: int,  # V
    count: int,  # D
    h: int,
    w: int,
    logit_cap: float,
    view_cap: float,
    trust: float,
    cost_cap: float,
    valid: float,  # VALID_ABOVE
    first: int,
    last: int,
    out: Any,  # [d, 4, h, w]: cropped from D, H and W
) -> None:
    """Compute rows ``first`` to ``last`` (exclusive) of the premultiplied planes; see ``MatchingMPINet``."""
    _planes(unet_output, cost, sweep, views, count, h, w, logit_cap, view_cap, trust, cost_cap, valid, first, last, out)


@compiled(_PLANES.format(*_FULL))
def planes_full(
    unet_output: Any, cost: Any, sweep: Any, views: int, count: int, h: int, w: int,
    logit_cap: float, view_cap: float, trust: float, cost_cap: float, valid: float, first: int, last: int, out: Any,
) -> None:  # fmt: skip
    """Do the same as the loop above in float32."""
    _planes(unet_output, cost, sweep, views, count, h, w, logit_cap, view_cap, trust, cost_cap, valid, first, last, out)


@compiled(_MASK.format(*_HALVES))
def mask_halves(
    unet_output: Any,  # [D * H / 2 * W / 2 * 4]
    evidence: Any,  # [D * H * W]
    opacity: Any,  # [D * H * W] of the frame MPI
    count: int,  # D
    h: int,
    w: int,
    slope: float,
    threshold: float,
    hidden: float,
    first: int,
    last: int,
    out: Any,  # [d, h, w]: cropped from D, H and W
) -> None:
    """Compute rows ``first`` to ``last`` (exclusive) of the mask; see ``MatchingMaskNet``."""
    _mask(unet_output, evidence, opacity, count, h, w, slope, threshold, hidden, first, last, out)


@compiled(_MASK.format(*_FULL))
def mask_full(
    unet_output: Any, evidence: Any, opacity: Any, count: int, h: int, w: int,
    slope: float, threshold: float, hidden: float, first: int, last: int, out: Any,
) -> None:  # fmt: skip
    """Do the same as the loop above in float32."""
    _mask(unet_output, evidence, opacity, count, h, w, slope, threshold, hidden, first, last, out)
