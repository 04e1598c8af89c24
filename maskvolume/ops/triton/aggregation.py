"""Plane costs accumulated along paths. See ``maskvolume.ops.aggregate`` and ``maskvolume.ops.triton``."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskvolume.ops.triton.common import Pointer, Scalar

LINES = 4  # adjacent paths per program
DIRECTIONS = ((1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (0, -1))  # (down, across)


def aggregate(cost: Tensor, guide: Tensor, step: float, jump: float, edge: float, least_jump: float) -> Tensor:
    """Average plane costs accumulated along paths in eight directions.

    Args:
        cost: ``[B, D, h, w]``, float32.
        guide: ``[B, h, w]``, float32.
        step: price of moving to a neighbouring plane.
        jump: price of moving to any other plane.
        edge: how much an edge of the guide lowers the price of a jump.
        least_jump: lower limit of the price of a jump.

    Returns:
        ``[B, D, h, w]``, float32.
    """
    cost, guide = cost.contiguous(), guide.contiguous()
    batch, count, h, w = cost.shape
    along, total = torch.empty_like(cost), torch.zeros_like(cost)
    with torch.cuda.device_of(cost):
        for down, across in DIRECTIONS:
            lines, steps = (h, w) if down == 0 else (w + (h - 1) * abs(across), h)
            _along_kernel[(triton.cdiv(lines, LINES), batch)](
                *(cost, guide, along, total, count, h, w, lines, steps, step, jump, edge, least_jump),
                DOWN=down,
                ACROSS=across,
                LINES=LINES,
                PLANES=triton.next_power_of_2(count),
                num_warps=4,
            )
    return total / len(DIRECTIONS)


@triton.jit
def _lower(x: Scalar, y: Scalar) -> Any:
    return tl.minimum(x, y)


@triton.jit
def _along_kernel(
    cost: Pointer, guide: Pointer, along: Pointer, total: Pointer,
    count: Scalar, h: Scalar, w: Scalar, lines: Scalar, steps: Scalar,
    step_price: Scalar, jump: Scalar, edge: Scalar, least_jump: Scalar,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, LINES: tl.constexpr, PLANES: tl.constexpr,
) -> Any:  # fmt: skip
    """Walk along some paths of one direction; each step reads the output of the previous one."""
    item = tl.program_id(1).to(tl.int64)
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    plane = tl.arange(0, PLANES)[None, :]
    area = h * w
    cost += item * count * area
    along += item * count * area
    total += item * count * area
    guide += item * area
    # Starting points; paths that enter from a side start outside the picture.
    y, x = line, line
    if DOWN == 0:
        x = line * 0 + (0 if ACROSS > 0 else w - 1)
    else:
        y = line * 0 + (0 if DOWN > 0 else h - 1)
        if ACROSS > 0:
            x = line - (h - 1)
    for step in range(steps):
        here = (line < lines) & (x >= 0) & (x < w)
        before_x = x - ACROSS
        goes_on = here & (before_x >= 0) & (before_x < w) & (step > 0)
        place = y * w + x
        before = place - DOWN * w - ACROSS
        own = tl.load(cost + plane * area + place[:, None], here[:, None] & (plane < count), 1e9)
        known = goes_on[:, None] & (plane < count)
        behind = along + plane * area + before[:, None]
        same = tl.load(behind, known, 1e9)
        farther = tl.load(behind - area, known & (plane > 0), 1e9)
        nearer = tl.load(behind + area, known & (plane + 1 < count), 1e9)
        change = tl.abs(tl.load(guide + place, goes_on, 0.0) - tl.load(guide + before, goes_on, 0.0))
        best = tl.reduce(same, 1, _lower)
        price = best + tl.maximum(jump / (1 + edge * change), least_jump)
        cheapest = tl.minimum(tl.minimum(same, tl.minimum(farther, nearer) + step_price), price[:, None])
        value = tl.where(goes_on[:, None], own + (cheapest - best[:, None]), own)
        written = here[:, None] & (plane < count)
        to = plane * area + place[:, None]
        tl.store(along + to, value, written)
        tl.store(total + to, tl.load(total + to, written, 0.0) + value, written)
        tl.debug_barrier()  # other threads of this program read the cost in the next step
        y += DOWN
        x += ACROSS
