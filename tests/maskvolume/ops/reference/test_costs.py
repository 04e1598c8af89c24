"""Semi-global evidence: costs along paths, costs that hidden views don't spoil."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from maskvolume import ops

BACKENDS = ["reference", "compiled"]
COST_CAP = 0.6
ROBUST = ops.RobustSettings(cap=COST_CAP, unsure=0.45, window=3, gradient_cap=0.25, gradient_gain=2.0)
STEP_PRICE, JUMP_PRICE, EDGE, LEAST_JUMP_PRICE = 0.05, 0.8, 20.0, 0.075
PRICES = ops.PathPrices(STEP_PRICE, JUMP_PRICE, EDGE, LEAST_JUMP_PRICE)


def aggregated_by_the_book(cost: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Hirschmueller 2008, eq. 13, pixel by pixel: ``[D, h, w]``."""
    count, h, w = cost.shape
    total = np.zeros_like(cost)
    for down, across in [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)]:
        along = np.zeros_like(cost)
        for y in range(h) if down >= 0 else reversed(range(h)):
            for x in range(w) if across >= 0 else reversed(range(w)):
                along[:, y, x] = cost[:, y, x]
                before = (y - down, x - across)
                if not (0 <= before[0] < h and 0 <= before[1] < w):
                    continue
                last = along[:, before[0], before[1]]
                jump = max(LEAST_JUMP_PRICE, JUMP_PRICE / (1 + EDGE * abs(guide[y, x] - guide[before])))
                for d in range(count):
                    steps = [last[e] + STEP_PRICE for e in (d - 1, d + 1) if 0 <= e < count]
                    along[d, y, x] += min(last[d], *steps, last.min() + jump) - last.min()
        total += along
    return total / 8


@pytest.mark.parametrize("backend", BACKENDS)
def test_costs_are_aggregated_by_the_book(backend: str) -> None:
    generator = torch.Generator().manual_seed(4)
    cost, guide = torch.rand(2, 5, 6, 9, generator=generator), torch.rand(2, 6, 9, generator=generator)
    guide[:, :, :5] = 0.4  # jumps are dear there
    found = ops.aggregate(cost, guide, PRICES, backend=backend)
    for b in range(2):
        wanted = aggregated_by_the_book(cost[b].double().numpy(), guide[b].double().numpy())
        np.testing.assert_allclose(found[b].numpy(), wanted, atol=1e-5)


def one_plane(*colors: float) -> Tensor:
    """``[1, V, 3, 1, 4, 4]`` of grey views, -1 for one that sees nothing."""
    return torch.tensor(colors)[None, :, None, None, None, None].expand(1, -1, 3, 1, 4, 4).contiguous()


@pytest.mark.parametrize(
    ("colors", "cost", "nearest"),
    [
        ((0.5, 0.5), 0.0, 0.0),
        ((0.5, 0.4), 0.3, 0.3),
        ((0.5, 0.5, 0.9), 0.0, 0.0),  # hidden from the third: the better half counts
        ((0.9, 0.5, 0.5), 0.6, 0.0),  # hidden from the reference
        ((0.5, 0.51, 0.52, 0.9), 0.045, 0.03),
        ((0.5, -1.0), ROBUST.unsure, COST_CAP),
        ((-1.0, -1.0), ROBUST.unsure, COST_CAP),
        ((-1.0, 0.5, 0.6), 0.3, 0.3),  # beyond the reference's picture the others are compared
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_costs_of_a_point(colors: tuple[float, ...], cost: float, nearest: float, backend: str) -> None:
    found = ops.robust_costs(one_plane(*colors), ROBUST, backend=backend)
    for values, wanted in zip(found, (cost, nearest), strict=True):
        assert values.shape == (1, 1, 2, 2)
        torch.testing.assert_close(values, torch.full_like(values, wanted), atol=1e-5, rtol=0)


def test_brightness_that_differs_between_cameras_costs_less_than_structure_that_does() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 1, 3, 1, 16, 16) * 0.5
    brighter = torch.cat([picture, picture + 0.05], dim=1)
    another = torch.cat([picture, torch.rand_like(picture) * 0.5], dim=1)
    assert ops.robust_costs(brighter, ROBUST)[0].mean() < 0.5 * ops.robust_costs(another, ROBUST)[0].mean()
