"""Pictures for tests of losses."""

from __future__ import annotations

import torch
from torch import Tensor


def samples(count: int = 3, size: tuple[int, int] = (26, 35)) -> tuple[Tensor, Tensor, Tensor]:
    """Return float64 predictions, targets and weights; the samples differ in error and in the sum of their weights."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(count, 3, *size, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 3, *size, generator=generator, dtype=torch.float64)
    level = torch.linspace(0.02, 0.2, count, dtype=torch.float64)[:, None, None, None]
    weight = torch.rand(count, 1, *size, generator=generator, dtype=torch.float64)
    for index in range(count):
        weight[index, :, :, : index * size[1] // count] = 0
    return target + level * noise, target, weight
