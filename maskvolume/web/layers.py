"""The planes of a multiplane image merged to fewer layers, each of them a few neighbouring planes over-composited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from maskvolume.mpi.image import MultiplaneImage

HIDDEN_SHARE = 0.1  # that a plane shows where others hide it: it does from beside


@dataclass(frozen=True)
class LayerPlan:
    """Which planes become which layer, the farthest first.

    Attributes:
        first: the first plane of each layer; a layer ends where the next begins, the last one at the last plane.
        depths: of the layers, scene units.
        num_planes: how many planes there are.
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
    """How much it matters where each plane ``[D]`` is: what is seen of it, by how much its picture changes.

    To first order the squared error of a picture that is displaced is the square of its gradient, times that of the
    displacement.
    """
    weights = np.zeros(len(mpi.rgba))
    passed = torch.ones_like(mpi.rgba[0, :1], dtype=torch.float32)
    for plane in range(len(weights) - 1, -1, -1):
        color, alpha = mpi.rgba[plane, :3].float(), mpi.rgba[plane, 3:].float().clamp(0, 1)
        color = color if mpi.premultiplied else color * alpha
        slope = (color[..., 1:] - color[..., :-1]).abs().sum(dim=0, keepdim=True)
        shown = (passed + HIDDEN_SHARE * (1 - passed))[..., :-1]
        weights[plane] = float(((slope * shown) ** 2).mean())
        passed *= 1 - alpha
    return weights


def plan_layers(weights: np.ndarray, depths: Sequence[float], count: int) -> LayerPlan:
    """The grouping of neighbouring planes whose content moves least when each takes the depth of its layer.

    Parallax is proportional to inverse depth, so what is minimized is the squared difference of inverse depths, each
    plane by its weight; exactly, by dynamic programming over where layers begin.

    Args:
        weights: how much each plane ``[D]`` counts.
        depths: of the planes, the farthest first.
        count: of the layers, at most D.
    """
    disparity = 1 / np.asarray(depths, dtype=np.float64)
    number = len(disparity)
    if not 1 <= count <= number or len(weights) != number:
        raise ValueError(f"count: 1 to {number} layers of {len(weights)} weights expected, got {count}")
    sure = np.asarray(weights, dtype=np.float64) + 1e-6 * max(float(np.max(weights)), 1e-12)
    sums = np.stack([np.concatenate([[0], np.cumsum(sure * disparity**power)]) for power in range(3)])

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
    """The MPI with the layers of a plan for planes: premultiplied float32 ``[L, 4, H, W]``.

    From the MPI's own camera it looks as before.
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
