"""Pull-push over a pyramid, compiled by Numba; see ``maskvolume.ops.reference.filling``."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskvolume.ops.cpu.compiling import compiled

f32 = np.float32
CHANNELS = 4  # colour and disparity; the weight follows


def pull_push(view: np.ndarray) -> None:
    """Fill a view ``[5, h, w]`` in place: four channels multiplied by their weight, then the weight."""
    h, w = view.shape[1:]
    if min(h, w) <= 2:
        mean = view.mean(axis=(1, 2), keepdims=True)
        view[:CHANNELS] += (1 - view[CHANNELS:]) * mean[:CHANNELS] / np.maximum(mean[CHANNELS:], f32(1e-6))
        return
    half = np.empty((CHANNELS + 1, (h + 1) // 2, (w + 1) // 2), np.float32)
    pull(view, half)
    pull_push(half)
    push(half, view)


@compiled("void(float32[:,:,::1], float32[:,:,::1])")
def pull(fine: Any, coarse: Any) -> None:
    """Write 2 x 2 sums of ``fine [5, h, w]``, scaled to a weight of at most 1, to ``coarse [5, h / 2, w / 2]``."""
    h, w = fine.shape[1], fine.shape[2]
    for y in range(coarse.shape[1]):
        top, bottom = 2 * y, min(2 * y + 1, h - 1)
        for x in range(coarse.shape[2]):
            left, right = 2 * x, min(2 * x + 1, w - 1)
            weight = fine[CHANNELS, top, left] + fine[CHANNELS, top, right]
            weight += fine[CHANNELS, bottom, left] + fine[CHANNELS, bottom, right]
            sure = min(weight, f32(1))
            share = sure / max(weight, f32(1e-6))
            for c in range(CHANNELS):
                total = fine[c, top, left] + fine[c, top, right] + fine[c, bottom, left] + fine[c, bottom, right]
                coarse[c, y, x] = total * share
            coarse[CHANNELS, y, x] = sure


@compiled("void(float32[:,:,::1], float32[:,:,::1])")
def push(coarse: Any, fine: Any) -> None:
    """Fill gaps in ``fine [5, h, w]`` from ``coarse [5, h / 2, w / 2]``, bilinear, pixel centres at +0.5."""
    across, down = coarse.shape[2], coarse.shape[1]
    for y in range(fine.shape[1]):
        v = max(f32(0.5) * (f32(y) + f32(0.5)) - f32(0.5), f32(0))
        top = int(v)
        b = v - f32(top)
        bottom = min(top + 1, down - 1)
        for x in range(fine.shape[2]):
            missing = f32(1) - fine[CHANNELS, y, x]
            if missing > 0:
                u = max(f32(0.5) * (f32(x) + f32(0.5)) - f32(0.5), f32(0))
                left = int(u)
                a = u - f32(left)
                right = min(left + 1, across - 1)
                for c in range(CHANNELS):
                    above = coarse[c, top, left] + a * (coarse[c, top, right] - coarse[c, top, left])
                    below = coarse[c, bottom, left] + a * (coarse[c, bottom, right] - coarse[c, bottom, left])
                    fine[c, y, x] += missing * (above + b * (below - above))
