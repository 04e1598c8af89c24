"""Loops that compute evidence from plane sweep volumes, compiled by Numba.

They compute the results of ``maskvolume.ops.reference.evidence`` plane by plane: the data of a plane stays in the
cache, and each result is written once, in the layout that the convolutions read. Loops release the GIL, so threads
share planes or rows. Volumes are flat arrays. Tunable values are arguments, since Numba freezes constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskvolume.ops.cpu.compiling import compiled, inlined
from maskvolume.ops.cpu.vectors import (
    LANES,
    absolute,
    load_where,
    lowest,
    put,
    ramp,
    select,
    splat,
    store_where,
)

f32, i32 = np.float32, np.int32
index = np.uintp  # unsigned: Numba checks signed indices for wraparound, which costs a comparison

# Types of sweeps and features: float16 and bfloat16 as their bits, or float32.
_HALVES, _FULL = ("uint16[::1]", "uint16[::1]"), ("float32[::1]", "float32[::1]")
_MATCH = (
    "void({0}, int64, int64, int64, int64, float32, float32, float32, int64, int64, int64, "
    "float32[::1], float32[::1], {1}, int64)"
)
_COSTS = "void(float32[::1], float32[::1], float32[::1], float32[::1], int64, int64, int64, int64, {1}, int64)"
_CHANGE = (
    "void({0}, {0}, float32[::1], float32[::1], int64, int64, int64, int64, float32, float32, int64, int64, int64, "
    "float32[::1], {1}, int64)"
)
_ALONG = "void(float32[::1], float32[::1], float32[::1], int64, int64, int64, int64, int64, {1}, int64)"
_REMAINING = "void(float32[::1], int64, int64, int64, float32[::1], int64, int64)"


@inlined
def _agreement(sweep: Any, at: int, view: int, channel: int, views: int, valid: Any, there: Any) -> Any:
    """Return mean colour, mean difference and number of views of sixteen pixels, as in the reference."""
    zero, one = splat(f32(0)), splat(f32(1))
    count, red, green, blue = zero, zero, zero, zero
    for v in range(views):
        p = at + v * view
        first = load_where(sweep, index(p), there)
        seen = first > valid
        count = count + select(seen, one, zero)
        red = red + select(seen, first, zero)
        green = green + select(seen, load_where(sweep, index(p + channel), there), zero)
        blue = blue + select(seen, load_where(sweep, index(p + 2 * channel), there), zero)
    share = f32(1) / select(count > f32(1), count, one)
    red, green, blue = red * share, green * share, blue * share
    by_red, by_green, by_blue = zero, zero, zero
    for v in range(views):
        p = at + v * view
        first = load_where(sweep, index(p), there)
        seen = first > valid
        by_red = by_red + select(seen, absolute(first - red), zero)
        by_green = by_green + select(seen, absolute(load_where(sweep, index(p + channel), there) - green), zero)
        by_blue = by_blue + select(seen, absolute(load_where(sweep, index(p + 2 * channel), there) - blue), zero)
    share = share * f32(2)
    return red, green, blue, by_red * share, by_green * share, by_blue * share, count


@inlined
def box_row(plane: Any, h: int, w: int, y: int, half: int, column: Any, out: Any, at: int) -> None:
    """Write one row of means over windows of ``2 * half + 1`` pixels, clipped to the picture."""
    top, bottom = max(y - half, 0), min(y + half, h - 1)
    column[:] = f32(0)
    for j in range(top, bottom + 1):
        for x in range(w):
            column[index(half + x)] += plane[index(j * w + x)]
    share = f32(1) / f32(bottom + 1 - top)
    for x in range(w):
        out[index(at + x)] = f32(0)
    for k in range(2 * half + 1):
        for x in range(w):
            out[index(at + x)] += column[index(x + k)]
    for x in range(w):
        out[index(at + x)] *= share / f32(min(x + half, w - 1) + 1 - max(x - half, 0))


@inlined
def _put_four(features: Any, place: int, values: Any, row: int, next_row: int, x: int) -> None:
    """Write the 2 x 2 pixels that start at ``x`` as four features."""
    put(features, index(place), values[index(row + x)])
    put(features, index(place + 1), values[index(row + x + 1)])
    put(features, index(place + 2), values[index(next_row + x)])
    put(features, index(place + 3), values[index(next_row + x + 1)])


@inlined
def half(values: Any, row: int, next_row: int, x: int) -> Any:
    """Return the mean of 2 x 2 pixels."""
    top = values[index(row + x)] + values[index(row + x + 1)]
    return f32(0.25) * (top + values[index(next_row + x)] + values[index(next_row + x + 1)])


@inlined
def _match(
    sweep: Any, views: int, count: int, h: int, w: int, cap: Any, unsure: Any, valid: Any, window: int,
    window_fine: int, d: int,
    cost: Any, fine: Any, features: Any, channels: int,
) -> None:  # fmt: skip
    plane, volume = h * w, count * h * w
    raw = np.empty(plane, f32)
    rows = np.empty((9, 2 * w), f32)  # luminance, its difference, colour, difference, views; two rows each
    column = np.empty(w + window, f32)
    lanes = ramp(i32(0))
    third = f32(1) / f32(3)
    for y in range(0, h, 2):
        for j in range(2):
            for x in range(0, w, LANES):
                there = lanes < i32(w - x)
                at = (y + j) * w + x
                red, green, blue, by_red, by_green, by_blue, seen = _agreement(
                    sweep, d * plane + at, 3 * volume, volume, views, valid, there
                )
                differs = by_red + by_green + by_blue
                match = lowest(differs, splat(cap))
                store_where(raw, index(at), select(seen > f32(1.5), match, splat(unsure)), there)
                to = index(j * w + x)
                store_where(rows[0], to, (red + green + blue) * third, there)
                store_where(rows[1], to, differs * third, there)
                store_where(rows[2], to, red, there)
                store_where(rows[3], to, green, there)
                store_where(rows[4], to, blue, there)
                store_where(rows[5], to, by_red, there)
                store_where(rows[6], to, by_green, there)
                store_where(rows[7], to, by_blue, there)
                store_where(rows[8], to, seen, there)
        for x in range(0, w, 2):
            place = ((d * h + y) // 2 * (w // 2) + x // 2) * channels
            _put_four(features, place, rows[0], 0, w, x)
            _put_four(features, place + 4, rows[1], 0, w, x)
            for c in range(6):
                put(features, index(place + 16 + c), half(rows[2 + c], 0, w, x))
            put(features, index(place + 22), half(rows[8], 0, w, x) / f32(views))
    for y in range(h):
        box_row(raw, h, w, y, window // 2, column, cost, d * plane + y * w)
        box_row(raw, h, w, y, window_fine // 2, column, fine, d * plane + y * w)


@inlined
def _costs(
    cost: Any, fine: Any, best: Any, best_fine: Any, count: int, h: int, w: int, d: int, features: Any, channels: int
) -> None:
    for y in range(0, h, 2):
        for x in range(0, w, 2):
            place = ((d * h + y) // 2 * (w // 2) + x // 2) * channels + 8
            for j in range(2):
                for i in range(2):
                    at = (y + j) * w + x + i
                    by = cost[index(d * h * w + at)] - best[index(at)]
                    put(features, index(place + 2 * j + i), by)
                    by_fine = fine[index(d * h * w + at)] - best_fine[index(at)]
                    put(features, index(place + 4 + 2 * j + i), by_fine)


@inlined
def _change(
    sweep: Any, background: Any, opacities: Any, left: Any, views: int, count: int, h: int, w: int, cap: Any,
    valid: Any, window: int, window_fine: int, d: int, evidence: Any, features: Any, channels: int,
) -> None:  # fmt: skip
    plane, volume = h * w, count * h * w
    smallest = np.empty(plane, f32)
    rows = np.empty((4, 2 * w), f32)  # mean change, change of the first view, difference between views, views
    windows = np.empty(2 * w, f32)
    column = np.empty(w + window, f32)
    lanes, zero, one = ramp(i32(0)), splat(f32(0)), splat(f32(1))
    third = f32(1) / f32(3)
    for y in range(0, h, 2):
        for j in range(2):
            for x in range(0, w, LANES):
                there = lanes < i32(w - x)
                at = (y + j) * w + x
                _, _, _, by_red, by_green, by_blue, seen = _agreement(
                    sweep, d * plane + at, 3 * volume, volume, views, valid, there
                )
                least, total, reference = splat(cap), zero, zero
                for v in range(views):
                    p = 3 * v * volume + d * plane + at
                    first = load_where(sweep, index(p), there)
                    change = absolute(first - load_where(background, index(p), there))
                    for c in range(1, 3):
                        q = index(p + c * volume)
                        change = change + absolute(load_where(sweep, q, there) - load_where(background, q, there))
                    change = select(first > valid, lowest(change, splat(cap)), zero)
                    total = total + change
                    least = select(first > valid, lowest(change, least), least)
                    if v == 0:
                        reference = change
                least = select(seen > f32(0.5), least, zero)
                store_where(smallest, index(at), least, there)
                to = index(j * w + x)
                store_where(rows[0], to, total / select(seen > f32(1), seen, one), there)
                store_where(rows[1], to, reference, there)
                store_where(rows[2], to, (by_red + by_green + by_blue) * third, there)
                store_where(rows[3], to, seen, there)
        for x in range(0, w, 2):
            place = ((d * h + y) // 2 * (w // 2) + x // 2) * channels
            at = d * plane + y * w
            _put_four(features, place, smallest, y * w, y * w + w, x)
            _put_four(features, place + 4, rows[0], 0, w, x)
            _put_four(features, place + 12, opacities, at, at + w, x)
            _put_four(features, place + 16, opacities, volume + at, volume + at + w, x)
            put(features, index(place + 20), half(rows[2], 0, w, x))
            put(features, index(place + 21), half(rows[3], 0, w, x) / f32(views))
            put(features, index(place + 23), half(rows[1], 0, w, x))
            put(features, index(place + 25), half(left, at, at + w, x))
    for y in range(0, h, 2):
        at = d * plane + y * w
        for j in range(2):
            box_row(smallest, h, w, y + j, window_fine // 2, column, evidence, at + j * w)
            box_row(smallest, h, w, y + j, window // 2, column, windows, j * w)
        for x in range(0, w, 2):
            place = ((d * h + y) // 2 * (w // 2) + x // 2) * channels
            _put_four(features, place + 8, evidence, at, at + w, x)
            put(features, index(place + 22), half(windows, 0, w, x))


@inlined
def _along(
    opacities: Any, left: Any, evidence: Any, count: int, h: int, w: int, first: int, last: int,
    features: Any, channels: int,
) -> None:  # fmt: skip
    plane = h * w
    along = np.empty(2 * w, f32)
    for y in range(first, last, 2):
        along[:] = f32(0)
        for d in range(count):
            at = d * plane + y * w
            for x in range(2 * w):
                p = index(at + x)
                along[index(x)] += evidence[p] * opacities[p] * left[p]
        for d in range(count):
            at = d * plane + y * w
            for x in range(2 * w):
                p = index(at + x)
                evidence[p] = max(evidence[p], along[index(x)])
            for x in range(0, w, 2):
                place = ((d * h + y) // 2 * (w // 2) + x // 2) * channels
                put(features, index(place + 24), half(along, 0, w, x))


@compiled(_REMAINING)
def remaining(
    opacity: Any,  # [D * H * W]
    count: int,  # D
    h: int,
    w: int,
    left: Any,  # [D * H * W]: transmittance in front of each plane
    first: int,
    last: int,
) -> None:
    """Compute rows ``first`` to ``last`` (exclusive) of all planes."""
    through = np.empty(w, f32)
    for y in range(first, last):
        through[:] = f32(1)
        for behind in range(count):
            at = ((count - 1 - behind) * h + y) * w
            for x in range(w):
                left[index(at + x)] = through[index(x)]
                through[index(x)] *= f32(1) - opacity[index(at + x)]


@compiled(_MATCH.format(*_HALVES))
def match_halves(
    sweep: Any,  # [V * 3 * D * H * W]
    views: int,  # V
    count: int,  # D
    h: int,  # even, as w
    w: int,
    cap: Any,  # settings, as in types.CostSettings
    unsure: Any,
    valid: Any,  # VALID_ABOVE
    window: int,
    window_fine: int,
    d: int,
    cost: Any,  # [D * H * W] over the wide window
    fine: Any,  # [D * H * W] over the fine window
    features: Any,  # [D * H / 2 * W / 2 * F]
    channels: int,  # F
) -> None:
    """Compute the costs of plane ``d``, and its features that do not depend on costs."""
    _match(sweep, views, count, h, w, cap, unsure, valid, window, window_fine, d, cost, fine, features, channels)


@compiled(_MATCH.format(*_FULL))
def match_full(
    sweep: Any, views: int, count: int, h: int, w: int, cap: Any, unsure: Any, valid: Any, window: int,
    window_fine: int, d: int,
    cost: Any, fine: Any, features: Any, channels: int,
) -> None:  # fmt: skip
    """Do the same as the loop above in float32."""
    _match(sweep, views, count, h, w, cap, unsure, valid, window, window_fine, d, cost, fine, features, channels)


@compiled(_COSTS.format(*_HALVES))
def costs_halves(
    cost: Any,  # [D * H * W]
    fine: Any,
    best: Any,  # [H * W] lowest cost over all planes
    best_fine: Any,
    count: int,
    h: int,
    w: int,
    d: int,
    features: Any,  # [D * H / 2 * W / 2 * F]
    channels: int,
) -> None:
    """Compute the features of plane ``d`` that depend on costs."""
    _costs(cost, fine, best, best_fine, count, h, w, d, features, channels)


@compiled(_COSTS.format(*_FULL))
def costs_full(
    cost: Any, fine: Any, best: Any, best_fine: Any, count: int, h: int, w: int, d: int, features: Any, channels: int
) -> None:
    """Do the same as the loop above in float32."""
    _costs(cost, fine, best, best_fine, count, h, w, d, features, channels)


@compiled(_CHANGE.format(*_HALVES))
def change_halves(
    sweep: Any,  # [V * 3 * D * H * W]
    background: Any,  # [V * 3 * D * H * W]
    opacities: Any,  # [2 * D * H * W] of both MPIs
    left: Any,  # [D * H * W]: transmittance through the first MPI
    views: int,
    count: int,
    h: int,
    w: int,
    cap: Any,  # settings, as in types.CostSettings
    valid: Any,  # VALID_ABOVE
    window: int,
    window_fine: int,
    d: int,
    evidence: Any,  # [D * H * W]: the smallest change over the fine window
    features: Any,  # [D * H / 2 * W / 2 * F]
    channels: int,
) -> None:
    """Compute the change on plane ``d``, and its features except the change along the ray."""
    _change(
        sweep,
        background,
        opacities,
        left,
        views,
        count,
        h,
        w,
        cap,
        valid,
        window,
        window_fine,
        d,
        evidence,
        features,
        channels,
    )


@compiled(_CHANGE.format(*_FULL))
def change_full(
    sweep: Any, background: Any, opacities: Any, left: Any, views: int, count: int, h: int, w: int, cap: Any,
    valid: Any, window: int, window_fine: int, d: int, evidence: Any, features: Any, channels: int,
) -> None:  # fmt: skip
    """Do the same as the loop above in float32."""
    _change(
        sweep,
        background,
        opacities,
        left,
        views,
        count,
        h,
        w,
        cap,
        valid,
        window,
        window_fine,
        d,
        evidence,
        features,
        channels,
    )


@compiled(_ALONG.format(*_HALVES))
def along_halves(
    opacities: Any, left: Any, evidence: Any, count: int, h: int, w: int, first: int, last: int,
    features: Any, channels: int,
) -> None:  # fmt: skip
    """Write the change along the ray for rows ``first`` to ``last``: the feature, and the evidence if it is larger."""
    _along(opacities, left, evidence, count, h, w, first, last, features, channels)


@compiled(_ALONG.format(*_FULL))
def along_full(
    opacities: Any, left: Any, evidence: Any, count: int, h: int, w: int, first: int, last: int,
    features: Any, channels: int,
) -> None:  # fmt: skip
    """Do the same as the loop above in float32."""
    _along(opacities, left, evidence, count, h, w, first, last, features, channels)
