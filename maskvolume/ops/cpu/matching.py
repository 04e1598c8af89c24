"""What the matching networks do beside convolutions, by loops that Numba compiles, without gradients.

See ``maskvolume.networks.matching``, which does the same in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from maskvolume.ops.cpu import aggregation_kernels as semiglobal_kernels
from maskvolume.ops.cpu import evidence_kernels as kernels
from maskvolume.ops.cpu import planes_kernels
from maskvolume.ops.cpu.loops import HALVES, share

PATHS = 8  # directions in which costs are aggregated
ROWS = 8  # that a thread takes at once; even

# The types of sweeps and of features that there are loops for.
TYPES = {torch.float32: torch.float32} | ({torch.float16: torch.bfloat16} if HALVES else {})


def matching_evidence(sweep: Tensor, channels: int, cap: float, unsure: float) -> tuple[Tensor, Tensor]:
    """What ``matching.matching_evidence`` returns.

    Args:
        sweep: ``[B, V, 3, D, H, W]`` of a type of ``TYPES``; H and W are even.
        channels: number of features.
        cap: the highest cost.
        unsure: that of a point that fewer than two views see.
    """
    (batch, views), (count, h, w) = sweep.shape[:2], sweep.shape[-3:]
    cost, fine = sweep.new_empty(2, batch, 1, count, h, w, dtype=torch.float32)
    features = _features(sweep, channels)
    first, then = _of_type(sweep, kernels.match_full, kernels.costs_full, kernels.match_halves, kernels.costs_halves)
    for b in range(batch):
        flat = [_flat(x[b]) for x in (sweep, cost, fine, features.permute(0, 2, 3, 4, 1))]

        def match(d: int, flat: list[np.ndarray] = flat) -> None:
            first(flat[0], views, count, h, w, cap, unsure, d, *flat[1:], channels)

        share(match, range(count))
        best, best_fine = (_flat(x[b].amin(dim=1)) for x in (cost, fine))

        def relate(d: int, flat: list[np.ndarray] = flat, best: tuple[np.ndarray, ...] = (best, best_fine)) -> None:
            then(*flat[1:3], *best, count, h, w, d, flat[3], channels)

        share(relate, range(count))
    return cost, features


def mask_evidence(
    sweep: Tensor, background: Tensor, opacities: Tensor, channels: int, cap: float
) -> tuple[Tensor, Tensor]:
    """What ``matching.mask_evidence`` returns.

    Args:
        sweep: of the frame, ``[B, V, 3, D, H, W]`` of a type of ``TYPES``; H and W are even.
        background: of the background, the same.
        opacities: of both MPIs, ``[B, 2, D, H, W]``, float32.
        channels: number of features.
        cap: the highest change.
    """
    (batch, views), (count, h, w) = sweep.shape[:2], sweep.shape[-3:]
    evidence = opacities.new_empty(batch, 1, count, h, w)
    features = _features(sweep, channels)
    first, then = _of_type(sweep, kernels.change_full, kernels.along_full, kernels.change_halves, kernels.along_halves)
    for b in range(batch):
        left = _flat(remaining(opacities[b : b + 1, 0]))
        frame, still, opacity = (_flat(x[b]) for x in (sweep, background, opacities))
        written = _flat(evidence[b]), _flat(features.permute(0, 2, 3, 4, 1)[b])
        given = frame, still, opacity, left

        def change(d: int, given: tuple[np.ndarray, ...] = given, written: tuple[np.ndarray, ...] = written) -> None:
            first(*given, views, count, h, w, cap, d, *written, channels)

        share(change, range(count))

        def along(y: int, given: tuple[np.ndarray, ...] = given, written: tuple[np.ndarray, ...] = written) -> None:
            then(*given[2:], written[0], count, h, w, y, min(y + ROWS, h), written[1], channels)

        share(along, range(0, h, ROWS))
    return features, evidence


def remaining(opacity: Tensor) -> Tensor:
    """What ``matching.remaining`` returns, of float32 ``[B, D, H, W]``."""
    count, h, w = opacity.shape[1:]
    left = torch.empty_like(opacity, memory_format=torch.contiguous_format)
    for given, made in zip(opacity, left, strict=True):
        flat, to = _flat(given), _flat(made)

        def rows(y: int, flat: np.ndarray = flat, to: np.ndarray = to) -> None:
            kernels.remaining(flat, count, h, w, to, y, min(y + ROWS, h))

        share(rows, range(0, h, ROWS))
    return left


def aggregate(cost: Tensor, guide: Tensor, step: float, jump: float, edge: float, least_jump: float) -> Tensor:
    """What ``semiglobal.aggregate`` returns, with its prices.

    Args:
        cost: ``[B, D, h, w]``, float32.
        guide: ``[B, h, w]``, float32.
        step: price of a path that goes to the next plane.
        jump: that of one that goes to any other.
        edge: how much an edge lowers that.
        least_jump: what it is at least.
    """
    made = torch.empty_like(cost, memory_format=torch.contiguous_format)
    count, h, w = cost.shape[1:]
    for b, volume in enumerate(cost):
        given = np.ascontiguousarray(volume.numpy().transpose(1, 2, 0)), np.ascontiguousarray(guide[b].numpy())
        sums = np.zeros((PATHS // 2, h, w, count), np.float32)  # of two paths each, so that they add up in one order

        def two(part: int, given: tuple[np.ndarray, ...] = given, sums: np.ndarray = sums) -> None:
            for path in (part, PATHS - 1 - part):
                semiglobal_kernels.add_along(*given, path, step, jump, edge, least_jump, sums[part])

        share(two, range(len(sums)))
        made[b] = torch.from_numpy(sums.sum(axis=0)).permute(2, 0, 1) / PATHS
    return made


def robust_costs(sweep: Tensor) -> tuple[Tensor, Tensor]:
    """What ``semiglobal.robust_costs`` returns, of a type of ``TYPES``."""
    (batch, views), (count, h, w) = sweep.shape[:2], sweep.shape[-3:]
    robust, nearest = sweep.new_empty(2, batch, count, h // 2, w // 2, dtype=torch.float32)
    (loop,) = _of_type(sweep, semiglobal_kernels.costs_full, semiglobal_kernels.costs_halves)
    for given, *made in zip(sweep, robust.numpy(), nearest.numpy(), strict=True):
        flat = _flat(given)

        def plane(d: int, flat: np.ndarray = flat, made: list[np.ndarray] = made) -> None:
            loop(flat, views, count, h, w, d, *made)

        share(plane, range(count))
    return robust, nearest


def make_planes(
    said: Tensor,  # [B, 8, D, H / 2, W / 2]
    penalty: Tensor,  # [B, 1, D, H, W]
    sweep: Tensor,  # [B, V, 3, D, H, W]
    logit_cap: float,
    view_cap: float,
    trust: float,
    size: tuple[int, int, int],
) -> Tensor:
    """Premultiplied planes ``[B, d, 4, h, w]`` from what the U-Net says of each 2 x 2 pixels.

    Args:
        said: residuals, and weights of the first view.
        penalty: of the planes, in their logits.
        sweep: of a type of ``TYPES``.
        logit_cap: how far below a ray's highest logit the others may be.
        view_cap: how far from 0 a weight of the first view may be.
        trust: how fast a view's colour loses weight as it differs from that of the view next to it.
        size: d, h, w of the result: what is left of the padded volume.
    """
    (views, (count, h, w)), (shown, rows, across) = (sweep.shape[1], sweep.shape[-3:]), size
    made = penalty.new_empty(sweep.shape[0], shown, 4, rows, across)
    (loop,) = _of_type(sweep, planes_kernels.planes_full, planes_kernels.planes_halves)
    for b, out in enumerate(made.numpy()):
        given = _flat(said[b].permute(1, 2, 3, 0)), _flat(penalty[b]), _flat(sweep[b])

        def some(y: int, given: tuple[np.ndarray, ...] = given, out: np.ndarray = out) -> None:
            last = min(y + ROWS, rows)
            loop(*given, views, count, h, w, logit_cap, view_cap, trust, y, last, out)

        share(some, range(0, rows, ROWS))
    return made


def make_mask(
    said: Tensor,  # [B, 4, D, H / 2, W / 2]
    evidence: Tensor,  # [B, 1, D, H, W]
    opacity: Tensor,  # [B, D, H, W]
    slope: float,
    threshold: float,
    hidden: float,
    size: tuple[int, int, int],
) -> Tensor:
    """The mask ``[B, 1, d, h, w]`` from residuals that the U-Net says of each 2 x 2 pixels.

    Args:
        said: residuals; float32, or bfloat16.
        evidence: of what moves.
        opacity: of the frame's MPI.
        slope: of the prior.
        threshold: of the prior.
        hidden: what is left of a ray where it begins to be the background's.
        size: d, h, w of the result: what is left of the padded volume.
    """
    (count, h, w), (shown, rows, across) = evidence.shape[-3:], size
    made = evidence.new_empty(said.shape[0], 1, shown, rows, across)
    (loop,) = _of_type(said, planes_kernels.mask_full, planes_kernels.mask_halves)
    for b, out in enumerate(made[:, 0].numpy()):
        given = _flat(said[b].permute(1, 2, 3, 0)), _flat(evidence[b]), _flat(opacity[b])

        def some(y: int, given: tuple[np.ndarray, ...] = given, out: np.ndarray = out) -> None:
            loop(*given, count, h, w, slope, threshold, hidden, y, min(y + ROWS, rows), out)

        share(some, range(0, rows, ROWS))
    return made


def _features(sweep: Tensor, channels: int) -> Tensor:
    """``[B, F, D, H / 2, W / 2]``, not yet written, with the features of a voxel side by side."""
    batch, (count, h, w) = sweep.shape[0], sweep.shape[-3:]
    made = sweep.new_empty(batch, count, h // 2, w // 2, channels, dtype=TYPES[sweep.dtype])
    return made.permute(0, 4, 1, 2, 3)


def _of_type(x: Tensor, *loops: Callable[..., None]) -> tuple[Callable[..., None], ...]:
    """The first half of the loops for float32, the second one for 16 bits."""
    middle = len(loops) // 2
    return loops[:middle] if x.dtype == torch.float32 else loops[middle:]


def _flat(x: Tensor) -> np.ndarray:
    """Numbers as a row of memory; halves as their bits."""
    row = x.detach().contiguous().view(-1)
    return (row.view(torch.uint16) if row.element_size() == 2 else row).numpy()
