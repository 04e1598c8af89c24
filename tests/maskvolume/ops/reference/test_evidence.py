"""Evidence of agreement and of change, for every implementation of the processor."""

from __future__ import annotations

import pytest
import torch
from ops_helpers import random_sweep

from maskvolume import ops

BACKENDS = ["reference", "compiled"]
SETTINGS = ops.CostSettings(cap=0.6, unsure=0.35, window=9, window_fine=3)


def grey(*values: float) -> torch.Tensor:
    """``[1, V, 3, 1, 4, 4]`` of grey views, -1 for one that sees nothing."""
    return torch.tensor(values)[None, :, None, None, None, None].expand(1, -1, 3, 1, 4, 4).contiguous()


@pytest.mark.parametrize(
    ("values", "cost"),
    [
        ((0.5, 0.5), 0.0),
        ((0.5, 0.4), 0.3),  # summed over three colours
        ((0.1, 0.9), SETTINGS.cap),
        ((0.5, -1.0), SETTINGS.unsure),
        ((-1.0, -1.0), SETTINGS.unsure),
        ((0.5, -1.0, 0.4), 0.3),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_costs_are_twice_the_mean_deviation(values: tuple[float, ...], cost: float, backend: str) -> None:
    found, features = ops.matching_evidence(grey(*values), SETTINGS, backend=backend)
    torch.testing.assert_close(found, torch.full_like(found, cost), atol=1e-6, rtol=0)
    seen = sum(value >= 0 for value in values) / len(values)
    torch.testing.assert_close(features[:, 22], torch.full_like(features[:, 22], seen))
    assert features[:, 8:16].abs().max() == 0  # costs beyond the best plane's


@pytest.mark.parametrize("backend", BACKENDS)
def test_evidence_does_not_depend_on_the_order_of_views(backend: str) -> None:
    sweep = random_sweep(3, 4, 8, 16)
    outputs = [ops.matching_evidence(x, SETTINGS, backend=backend) for x in (sweep, sweep[:, [2, 0, 1]])]
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_differs_in_one_view_alone_does_not_move(backend: str) -> None:
    background = torch.rand(1, 2, 3, 4, 8, 8) * 0.4
    sweep = background.clone()
    sweep[:, 0] += 0.5
    opacities = torch.zeros(1, 2, 4, 8, 8)
    _, still = ops.mask_evidence(sweep, background, opacities, SETTINGS, backend=backend)
    assert still.abs().max() < 1e-5
    sweep[:, 1] += 0.5
    _, moving = ops.mask_evidence(sweep, background, opacities, SETTINGS, backend=backend)
    torch.testing.assert_close(moving, torch.full_like(moving, SETTINGS.cap), atol=1e-5, rtol=0)
