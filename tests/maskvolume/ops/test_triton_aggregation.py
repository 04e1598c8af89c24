"""The Triton kernel that carries costs along paths gives what the plain functions give."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from maskvolume.networks import matching, semiglobal
from maskvolume.networks.semiglobal import (
    EDGE,
    JUMP_PRICE,
    LEAST_JUMP_PRICE,
    STEP_PRICE,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("shape", [(2, 5, 6, 9), (1, 8, 11, 4), (1, 1, 3, 5), (1, 3, 1, 7), (1, 4, 7, 1)])
def test_costs_along_paths(kernels: ModuleType, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(8)
    cost, guide = torch.rand(shape, generator=generator), torch.rand(shape[0], *shape[2:], generator=generator) * 0.1
    monkeypatch.setattr(matching, "_compiled_loops", lambda: None)
    wanted = semiglobal.aggregate(cost, guide)
    prices = STEP_PRICE, JUMP_PRICE, EDGE, LEAST_JUMP_PRICE
    found = kernels.aggregate(cost.to(DEVICE), guide.to(DEVICE), *prices)
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=0)
    apart = cost.transpose(2, 3).contiguous().transpose(2, 3)  # other strides
    torch.testing.assert_close(kernels.aggregate(apart.to(DEVICE), guide.to(DEVICE), *prices), found)
