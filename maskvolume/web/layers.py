"""Merges the planes of a multiplane image into fewer layers: each over-composites a few neighbouring planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from maskvolume.mpi.image import MultiplaneImage

HIDDEN_SHARE = 0.1  # weight of the occluded parts of a plane, which other viewpoints see


@dataclass(frozen=True)
class LayerPlan:
    """The assignment of planes to layers, the farthest first.

    Attributes:
        first: the first plane of each layer; a layer ends before the next one's first plane.
        depths: of the layers, in scene units.
        num_planes: number of planes.
    """

    first: tuple[int, ...]
    depths: tuple[float, ...]
    num_planes: int

    def __len__(self) -> int:
        return len(self.first)

    def planes(self) -> list[range]:
        """The planes of each layer."""
        return [range(*ends) for ends in zip(self.first, (*self.first[1:], self.num_planes), strict=True)]


def visible_weights(mpi: MultiplaneImage) -> np.ndarray:
    """Weights ``[D]`` for the depth error of each plane: its visible image gradient, squared.

    To first order, the squared error of a displaced picture is its squared gradient times the squared displacement.
    """
    weights = np.zeros(len(mpi.rgba))
    transmittance = torch.ones_like(mpi.rgba[0, :1], dtype=torch.float32)
    for plane in range(len(weights) - 1, -1, -1):
        color, alpha = mpi.rgba[plane, :3].float(), mpi.rgba[plane, 3:].float().clamp(0, 1)
        color = color if mpi.premultiplied else color * alpha
        gradient = (color[..., 1:] - color[..., :-1]).abs().sum(dim=0, keepdim=True)
        visibility = (transmittance + HIDDEN_SHARE * (1 - transmittance))[..., :-1]
        weights[plane] = float(((gradient * visibility) ** 2).mean())
        transmittance *= 1 - alpha
    return weights


def plan_layers(weights: np.ndarray, depths: Sequence[float], count: int) -> LayerPlan:
    """Group neighbouring planes so that their content moves least when each takes the depth of its layer.

    Parallax is proportional to inverse depth, so the minimum is that of the weighted squared differences of inverse
    depths. It is exact, by dynamic programming over the first planes of the layers.

    Args:
        weights: of the planes, ``[D]``.
        depths: of the planes, the farthest first.
        count: number of layers, at most D.

    Raises:
        ValueError: ``count`` is not in 1..D, or the numbers of weights and depths differ.
    """
    disparity = 1 / np.asarray(depths, dtype=np.float64)
    number = len(disparity)
    if not 1 <= count <= number or len(weights) != number:
        raise ValueError(f"count: 1 to {number} layers of {len(weights)} weights expected, got {count}")
    positive = np.asarray(weights, dtype=np.float64) + 1e-6 * max(float(np.max(weights)), 1e-12)
    sums = np.stack([np.concatenate([[0], np.cumsum(positive * disparity**power)]) for power in range(3)])

    def mean_and_cost(begin: int, end: int) -> tuple[float, float]:
        mass, first, second = sums[:, end] - sums[:, begin]
        return first / mass, second - first * first / mass

    best = np.full((count + 1, number + 1), np.inf)
    begin_of = np.zeros((count + 1, number + 1), dtype=int)
    best[0, 0] = 0
    for layers in range(1, count + 1):
        for end in range(layers, number + 1):
            for begin in range(layers - 1, end):
                cost = best[layers - 1, begin] + mean_and_cost(begin, end)[1]
                if cost < best[layers, end]:
                    best[layers, end], begin_of[layers, end] = cost, begin
    first, end = [], number
    for layers in range(count, 0, -1):
        first.append(int(begin_of[layers, end]))
        end = first[-1]
    first.reverse()
    ends = [*first[1:], number]
    means = [mean_and_cost(*pair)[0] for pair in zip(first, ends, strict=True)]
    return LayerPlan(tuple(first), tuple(1 / mean for mean in means), number)


def merge_planes(mpi: MultiplaneImage, plan: LayerPlan) -> MultiplaneImage:
    """An MPI whose planes are the layers of a plan: premultiplied float32 ``[L, 4, H, W]``.

    From the MPI's own camera it looks the same.
    """
    layers = []
    for planes in plan.planes():
        layer = torch.zeros_like(mpi.rgba[0], dtype=torch.float32)
        for plane in planes:
            rgba = mpi.rgba[plane].float()
            if not mpi.premultiplied:
                rgba = torch.cat([rgba[:3] * rgba[3:], rgba[3:]])
            layer.mul_(1 - rgba[3:]).add_(rgba)
        layers.append(layer)
    depths = torch.tensor(plan.depths, dtype=mpi.depths.dtype, device=mpi.depths.device)
    return replace(mpi, rgba=torch.stack(layers), depths=depths, premultiplied=True)


def to_layer_bytes(mpi: MultiplaneImage) -> np.ndarray:
    """Premultiplied layers as uint8 ``[L, H, W, 4]``."""
    layers = ((layer.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy() for layer in mpi.rgba)
    return np.stack([np.ascontiguousarray(layer) for layer in layers])
