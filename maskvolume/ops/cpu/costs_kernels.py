"""Loops that compute plane costs and accumulate them along paths through the picture, compiled by Numba.

``maskvolume.ops.reference.costs`` does the same in plain torch. Costs are computed plane by plane. For the paths, the
planes of a pixel are adjacent in memory, so that a step is a few vector operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskvolume.ops.cpu.compiling import compiled, inlined
from maskvolume.ops.cpu.evidence_kernels import box_row, half
from maskvolume.ops.cpu.vectors import (
    LANES,
    absolute,
    load_where,
    lowest,
    ramp,
    select,
    splat,
    store_where,
)

f32, i32 = np.float32, np.int32
index = np.uintp  # unsigned: Numba checks signed indices for wraparound, which costs a comparison

_COSTS = (
    "void({}, int64, int64, int64, int64, float32, float32, float32, float32, float32, int64, int64, "
    "float32[:,:,::1], float32[:,:,::1])"
)


@inlined
def _lights(sweep: Any, views: int, count: int, h: int, w: int, valid: Any, d: int, lights: Any) -> None:
    """Write the brightness of the pixels of a plane, view by view, starting at index 1; 0 where a view sees nothing."""
    plane, volume = h * w, count * h * w
    lanes, third, zero = ramp(i32(0)), f32(1) / f32(3), splat(f32(0))
    for v in range(views):
        for x in range(0, plane, LANES):
            there = lanes < i32(plane - x)
            p = 3 * v * volume + d * plane + x
            first = load_where(sweep, index(p), there)
            light = first + load_where(sweep, index(p + volume), there)
            light = (light + load_where(sweep, index(p + 2 * volume), there)) * third
            store_where(lights, index(1 + v * plane + x), select(first > valid, light, zero), there)


@inlined
def _costs(
    sweep: Any, views: int, count: int, h: int, w: int, cap: Any, unsure: Any, valid: Any, gradient_cap: Any,
    gradient_gain: Any, window: int, d: int, robust: Any, nearest: Any,
) -> None:  # fmt: skip
    plane, volume = h * w, count * h * w
    lights = np.empty(1 + views * plane, f32)
    _lights(sweep, views, count, h, w, valid, d, lights)
    raw, least, smooth = np.empty(plane, f32), np.empty(plane, f32), np.empty(2 * w, f32)
    column = np.empty(w + window, f32)
    ranked = np.empty(views * LANES, f32)
    slopes = np.empty(2 * views * LANES, f32)  # horizontal and vertical slopes of each view
    lanes, zero, one, many = ramp(i32(0)), splat(f32(0)), splat(f32(1)), splat(f32(1e30))
    for y in range(h):
        upper, lower = max(y - 1, 0), min(y + 1, h - 1)
        for x in range(0, w, LANES):
            there = lanes < i32(w - x)
            within = lanes < i32(w - 1 - x)  # the outer columns have no horizontal gradient
            at = d * plane + y * w + x
            for v in range(views):
                row = 1 + v * plane + y * w + x
                before = load_where(lights, index(row - 1), there)
                across = select(within, load_where(lights, index(row + 1), within) - before, zero)
                if x == 0:
                    across = select(lanes > i32(0), across, zero)
                down = zero
                if lower - upper == 2:
                    down = load_where(lights, index(row + w), there) - load_where(lights, index(row - w), there)
                store_where(slopes, index(2 * v * LANES), across, there)
                store_where(slopes, index((2 * v + 1) * LANES), down, there)
                store_where(ranked, index(v * LANES), many, there)
            smallest, found, found_none = splat(cap), zero, one
            anchor_red, anchor_green, anchor_blue, anchor_across, anchor_down = zero, zero, zero, zero, zero
            for v in range(views):
                p = 3 * v * volume + at
                red = load_where(sweep, index(p), there)
                green = load_where(sweep, index(p + volume), there)
                blue = load_where(sweep, index(p + 2 * volume), there)
                across = load_where(slopes, index(2 * v * LANES), there)
                down = load_where(slopes, index((2 * v + 1) * LANES), there)
                seen = red > valid
                for other in range(v):
                    q = 3 * other * volume + at
                    value = load_where(sweep, index(q), there)
                    differs = absolute(red - value) + absolute(green - load_where(sweep, index(q + volume), there))
                    differs = differs + absolute(blue - load_where(sweep, index(q + 2 * volume), there))
                    differs = select(value > valid, lowest(differs, smallest), smallest)
                    smallest = select(seen, differs, smallest)
                color = absolute(red - anchor_red) + absolute(green - anchor_green) + absolute(blue - anchor_blue)
                slope = absolute(across - anchor_across) + absolute(down - anchor_down)
                value = lowest(color, splat(cap))
                value = value + lowest(slope, splat(gradient_cap)) * gradient_gain
                value = select(seen, select(found_none > f32(0.5), many, value), many)
                found = found + select(value < f32(1e29), one, zero)
                for k in range(v):  # insertion into the sorted differences, smallest first
                    ahead = load_where(ranked, index(k * LANES), there)
                    store_where(ranked, index(k * LANES), lowest(ahead, value), there)
                    value = select(ahead > value, ahead, value)
                store_where(ranked, index(v * LANES), value, there)
                is_first = select(seen, found_none, zero) > f32(0.5)
                anchor_red, anchor_green = select(is_first, red, anchor_red), select(is_first, green, anchor_green)
                anchor_blue = select(is_first, blue, anchor_blue)
                anchor_across = select(is_first, across, anchor_across)
                anchor_down = select(is_first, down, anchor_down)
                found_none = select(seen, zero, found_none)
            used, total = zero, zero  # of the smaller half, rounded up
            for k in range(views):
                counts = splat(f32(2 * k)) < found
                used = used + select(counts, one, zero)
                total = total + select(counts, load_where(ranked, index(k * LANES), there), zero)
            cost = total / select(used > f32(1), used, one)
            cost = select(found > f32(0.5), cost, splat(unsure))
            store_where(raw, index(y * w + x), cost, there)
            store_where(least, index(y * w + x), smallest, there)
    for y in range(0, h, 2):
        for j in range(2):
            box_row(raw, h, w, y + j, window // 2, column, smooth, j * w)
        for x in range(0, w, 2):
            robust[d, y // 2, x // 2] = half(smooth, 0, w, x)
            nearest[d, y // 2, x // 2] = half(least, y * w, y * w + w, x)


@compiled(_COSTS.format("uint16[::1]"))
def costs_halves(
    sweep: Any,  # [V * 3 * D * H * W]
    views: int,  # V
    count: int,  # D
    h: int,  # even, as w
    w: int,
    cap: Any,  # settings, as in types.RobustSettings
    unsure: Any,
    valid: Any,  # VALID_ABOVE
    gradient_cap: Any,
    gradient_gain: Any,
    window: int,
    d: int,
    robust: Any,  # [D, H / 2, W / 2]: the cost to aggregate
    nearest: Any,  # [D, H / 2, W / 2]: the difference of the two most similar views
) -> None:
    """Compute the costs of plane ``d`` from a 16-bit sweep."""
    _costs(sweep, views, count, h, w, cap, unsure, valid, gradient_cap, gradient_gain, window, d, robust, nearest)


@compiled(_COSTS.format("float32[::1]"))
def costs_full(
    sweep: Any, views: int, count: int, h: int, w: int, cap: Any, unsure: Any, valid: Any, gradient_cap: Any,
    gradient_gain: Any, window: int, d: int, robust: Any, nearest: Any,
) -> None:  # fmt: skip
    """Do the same as ``costs_halves`` in float32."""
    _costs(sweep, views, count, h, w, cap, unsure, valid, gradient_cap, gradient_gain, window, d, robust, nearest)


@compiled("void(float32[:,:,::1], float32[:,::1], int64, float32, float32, float32, float32, float32[:,:,::1])")
def add_along(
    cost: Any,  # [h, w, D]
    guide: Any,  # [h, w]
    path: int,  # direction: 0 to 2 down, 3 to 5 up, each left, straight and right; 6 right, 7 left
    step: float,
    jump: float,
    edge: float,
    least_jump: float,
    total: Any,  # [h, w, D]
) -> None:
    """Add the costs along the paths of one direction to ``total``."""
    h, w, count = cost.shape
    down, across = (0, 1) if path == 6 else (0, -1)
    if path < 6:
        down, across = (1, path - 1) if path < 3 else (-1, path - 4)
    # The previous row and the current one, padded at both ends of the planes with a higher cost than any other.
    rows = np.empty((2, w, count + 2), f32)
    rows[:] = f32(1e9)
    least = np.empty((2, w), f32)
    for j in range(h):
        y = j if down >= 0 else h - 1 - j
        now = j % 2
        for i in range(w):
            x = i if across >= 0 else w - 1 - i
            before_y, before_x = y - down, x - across
            own, here, sums = cost[y, x], rows[now, x], total[y, x]
            lowest = f32(1e9)
            if before_y < 0 or before_y >= h or before_x < 0 or before_x >= w:
                for d in range(count):
                    here[d + 1] = own[d]
                    lowest = min(lowest, own[d])
            else:
                before = now if down == 0 else 1 - now
                last, best = rows[before, before_x], least[before, before_x]
                change = abs(guide[y, x] - guide[before_y, before_x])
                price = best + max(least_jump, jump / (f32(1) + edge * change))
                for d in range(count):
                    beside = min(last[d], last[d + 2]) + step
                    value = own[d] + (min(min(last[d + 1], beside), price) - best)
                    here[d + 1] = value
                    lowest = min(lowest, value)
            least[now, x] = lowest
            for d in range(count):
                sums[d] += here[d + 1]
