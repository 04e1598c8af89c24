"""The Triton kernel that carries costs along paths gives what the plain functions give."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from triton_helpers import (
    DEVICE,
)

from maskvolume.ops.reference import costs
from maskvolume.ops.types import PathPrices


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 6, 5, 3), (1, 1, 3, 5), (1, 3, 1, 7), (1, 4, 7, 1)])
def test_costs_along_paths(kernels: ModuleType, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(8)
    cost, guide = torch.rand(shape, generator=generator), torch.rand(shape[0], *shape[2:], generator=generator) * 0.1
    prices = 0.05, 0.8, 20.0, 0.075
    wanted = costs.aggregate(cost, guide, PathPrices(*prices))
    found = kernels.aggregate(cost.to(DEVICE), guide.to(DEVICE), *prices)
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=0)
    apart = cost.transpose(2, 3).contiguous().transpose(2, 3)  # other strides
    torch.testing.assert_close(kernels.aggregate(apart.to(DEVICE), guide.to(DEVICE), *prices), found)
