"""The operations of the matching networks apart from convolutions, as loops compiled by Numba, without gradients.

``maskvolume.ops`` documents arguments and results; ``maskvolume.ops.reference`` does the same in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from maskvolume.ops import types
from maskvolume.ops.cpu import costs_kernels, planes_kernels
from maskvolume.ops.cpu import evidence_kernels as kernels
from maskvolume.ops.cpu.threads import share
from maskvolume.ops.cpu.vectors import HALVES
from maskvolume.ops.reference.costs import PATHS
from maskvolume.ops.types import CostSettings, PlaneSettings, RobustSettings

ROWS = 8  # rows that a thread takes at once; even

# The supported dtypes: sweep dtype to feature dtype.
TYPES = {torch.float32: torch.float32} | ({torch.float16: torch.bfloat16} if HALVES else {})


def matching_evidence(sweep: Tensor, settings: CostSettings, channels: int) -> tuple[Tensor, Tensor]:
    """Compute costs and features from a sweep with a dtype in ``TYPES``."""
    windows = settings.window, settings.window_fine
    numbers = settings.cap, settings.unsure, types.VALID_ABOVE, *windows
    (batch, views), (count, h, w) = sweep.shape[:2], sweep.shape[-3:]
    cost, fine = sweep.new_empty(2, batch, 1, count, h, w, dtype=torch.float32)
    features = _features(sweep, channels)
    first, then = _of_type(sweep, kernels.match_full, kernels.costs_full, kernels.match_halves, kernels.costs_halves)
    for b in range(batch):
        flat = [_flat(x[b]) for x in (sweep, cost, fine, features.permute(0, 2, 3, 4, 1))]

        def match(d: int, flat: list[np.ndarray] = flat) -> None:
            first(flat[0], views, count, h, w, *numbers, d, *flat[1:], channels)

        share(match, range(count))
        best, best_fine = (_flat(x[b].amin(dim=1)) for x in (cost, fine))

        def relate(d: int, flat: list[np.ndarray] = flat, best: tuple[np.ndarray, ...] = (best, best_fine)) -> None:
            then(*flat[1:3], *best, count, h, w, d, flat[3], channels)

        share(relate, range(count))
    return cost, features


def mask_evidence(
    sweep: Tensor, background: Tensor, opacities: Tensor, settings: CostSettings
) -> tuple[Tensor, Tensor]:
    """Compute features and evidence from sweeps with a dtype in ``TYPES`` and float32 opacities."""
    channels = types.MASK_FEATURES
    numbers = settings.cap, types.VALID_ABOVE, settings.window, settings.window_fine
    (batch, views), (count, h, w) = sweep.shape[:2], sweep.shape[-3:]
    evidence = opacities.new_empty(batch, 1, count, h, w)
    features = _features(sweep, channels)
    first, then = _of_type(sweep, kernels.change_full, kernels.along_full, kernels.change_halves, kernels.along_halves)
    for b in range(batch):
        left = _flat(remaining_transmittance(opacities[b : b + 1, 0]))
        frame, still, opacity = (_flat(x[b]) for x in (sweep, background, opacities))
        written = _flat(evidence[b]), _flat(features.permute(0, 2, 3, 4, 1)[b])
        inputs = frame, still, opacity, left

        def change(d: int, inputs: tuple[np.ndarray, ...] = inputs, written: tuple[np.ndarray, ...] = written) -> None:
            first(*inputs, views, count, h, w, *numbers, d, *written, channels)

        share(change, range(count))

        def along(y: int, inputs: tuple[np.ndarray, ...] = inputs, written: tuple[np.ndarray, ...] = written) -> None:
            then(*inputs[2:], written[0], count, h, w, y, min(y + ROWS, h), written[1], channels)

        share(along, range(0, h, ROWS))
    return features, evidence


def remaining_transmittance(opacity: Tensor) -> Tensor:
    """Compute the transmittance from float32 opacities ``[B, D, H, W]``."""
    count, h, w = opacity.shape[1:]
    left = torch.empty_like(opacity, memory_format=torch.contiguous_format)
    for inputs, values in zip(opacity, left, strict=True):
        flat, to = _flat(inputs), _flat(values)

        def rows(y: int, flat: np.ndarray = flat, to: np.ndarray = to) -> None:
            kernels.remaining(flat, count, h, w, to, y, min(y + ROWS, h))

        share(rows, range(0, h, ROWS))
    return left


def aggregate(cost: Tensor, guide: Tensor, step: float, jump: float, edge: float, least_jump: float) -> Tensor:
    """Aggregate float32 ``cost [B, D, h, w]`` with ``guide [B, h, w]``; prices as in ``types.PathPrices``."""
    aggregated = torch.empty_like(cost, memory_format=torch.contiguous_format)
    count, h, w = cost.shape[1:]
    for b, volume in enumerate(cost):
        inputs = np.ascontiguousarray(volume.numpy().transpose(1, 2, 0)), np.ascontiguousarray(guide[b].numpy())
        sums = np.zeros((PATHS // 2, h, w, count), np.float32)  # one sum per pair of paths: a fixed order

        def two(part: int, inputs: tuple[np.ndarray, ...] = inputs, sums: np.ndarray = sums) -> None:
            for path in (part, PATHS - 1 - part):
                costs_kernels.add_along(*inputs, path, step, jump, edge, least_jump, sums[part])

        share(two, range(len(sums)))
        aggregated[b] = torch.from_numpy(sums.sum(axis=0)).permute(2, 0, 1) / PATHS
    return aggregated


def robust_costs(sweep: Tensor, settings: RobustSettings) -> tuple[Tensor, Tensor]:
    """Compute robust costs from a sweep with a dtype in ``TYPES``."""
    gradients = settings.gradient_cap, settings.gradient_gain
    numbers = settings.cap, settings.unsure, types.VALID_ABOVE, *gradients, settings.window
    (batch, views), (count, h, w) = sweep.shape[:2], sweep.shape[-3:]
    robust, nearest = sweep.new_empty(2, batch, count, h // 2, w // 2, dtype=torch.float32)
    (loop,) = _of_type(sweep, costs_kernels.costs_full, costs_kernels.costs_halves)
    for volume, *planes in zip(sweep, robust.numpy(), nearest.numpy(), strict=True):
        flat = _flat(volume)

        def plane(d: int, flat: np.ndarray = flat, outputs: list[np.ndarray] = planes) -> None:
            loop(flat, views, count, h, w, *numbers, d, *outputs)

        share(plane, range(count))
    return robust, nearest


def make_planes(
    unet_output: Tensor,  # [B, 8, D, H / 2, W / 2]
    penalty: Tensor,  # [B, 1, D, H, W]
    sweep: Tensor,  # [B, V, 3, D, H, W]
    settings: PlaneSettings,
    size: tuple[int, int, int],
) -> Tensor:
    """Compute planes ``[B, d, 4, h, w]`` from a sweep and U-Net output whose dtypes are a pair in ``TYPES``."""
    (views, (count, h, w)), (shown, rows, across) = (sweep.shape[1], sweep.shape[-3:]), size
    trust = 0.0 if settings.trust is None else float(settings.trust)
    numbers = settings.logit_cap, settings.view_cap, trust, settings.cost_cap, types.VALID_ABOVE
    planes = penalty.new_empty(sweep.shape[0], shown, 4, rows, across)
    (loop,) = _of_type(sweep, planes_kernels.planes_full, planes_kernels.planes_halves)
    for b, out in enumerate(planes.numpy()):
        inputs = _flat(unet_output[b].permute(1, 2, 3, 0)), _flat(penalty[b]), _flat(sweep[b])

        def some(y: int, inputs: tuple[np.ndarray, ...] = inputs, out: np.ndarray = out) -> None:
            loop(*inputs, views, count, h, w, *numbers, y, min(y + ROWS, rows), out)

        share(some, range(0, rows, ROWS))
    return planes


def make_mask(
    unet_output: Tensor,  # [B, 4, D, H / 2, W / 2]
    evidence: Tensor,  # [B, 1, D, H, W]
    opacity: Tensor,  # [B, D, H, W]
    slope: float,
    threshold: float,
    hidden: float,
    size: tuple[int, int, int],
) -> Tensor:
    """Compute the mask ``[B, 1, d, h, w]`` from U-Net output in float32 or bfloat16."""
    (count, h, w), (shown, rows, across) = evidence.shape[-3:], size
    mask = evidence.new_empty(unet_output.shape[0], 1, shown, rows, across)
    (loop,) = _of_type(unet_output, planes_kernels.mask_full, planes_kernels.mask_halves)
    for b, out in enumerate(mask[:, 0].numpy()):
        inputs = _flat(unet_output[b].permute(1, 2, 3, 0)), _flat(evidence[b]), _flat(opacity[b])

        def some(y: int, inputs: tuple[np.ndarray, ...] = inputs, out: np.ndarray = out) -> None:
            loop(*inputs, count, h, w, slope, threshold, hidden, y, min(y + ROWS, rows), out)

        share(some, range(0, rows, ROWS))
    return mask


def _features(sweep: Tensor, channels: int) -> Tensor:
    """Allocate features ``[B, F, D, H / 2, W / 2]``, uninitialized, channels last."""
    batch, (count, h, w) = sweep.shape[0], sweep.shape[-3:]
    values = sweep.new_empty(batch, count, h // 2, w // 2, channels, dtype=TYPES[sweep.dtype])
    return values.permute(0, 4, 1, 2, 3)


def _of_type(x: Tensor, *loops: Callable[..., None]) -> tuple[Callable[..., None], ...]:
    """Select the loops for a dtype: the first half for float32, the second half for 16 bits."""
    middle = len(loops) // 2
    return loops[:middle] if x.dtype == torch.float32 else loops[middle:]


def _flat(x: Tensor) -> np.ndarray:
    """View a tensor as a flat array; 16-bit floats as their bits."""
    row = x.detach().contiguous().view(-1)
    return (row.view(torch.uint16) if row.element_size() == 2 else row).numpy()
