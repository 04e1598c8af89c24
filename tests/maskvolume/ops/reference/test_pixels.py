"""Means over windows, halves, and what is left of a ray, by their definitions."""

from __future__ import annotations

import pytest
import torch
from ops_helpers import random_sweep

from maskvolume import ops
from maskvolume.ops.reference.pixels import box_mean, halved, shuffled, unshuffled, valid_views


@pytest.mark.parametrize("backend", ["reference", "compiled"])
def test_what_is_left_of_a_ray_is_the_product_over_nearer_planes(backend: str) -> None:
    opacity = torch.rand(2, 5, 3, 7)
    left = ops.remaining_transmittance(opacity, backend=backend)
    for d in range(5):
        torch.testing.assert_close(left[:, d], (1 - opacity[:, d + 1 :]).prod(dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("window", [1, 3, 9])
def test_a_window_holds_the_pictures_own_pixels_alone(window: int) -> None:
    x, half = torch.rand(1, 2, 6, 11, dtype=torch.float64), window // 2
    mean = box_mean(x, window)
    for y in range(6):
        for column in range(11):
            part = x[..., max(y - half, 0) : y + half + 1, max(column - half, 0) : column + half + 1]
            torch.testing.assert_close(mean[..., y, column], part.mean(dim=(-2, -1)))


def test_halves_are_means_of_the_four_pixels_that_shuffling_puts_beside_each_other() -> None:
    x = torch.rand(2, 3, 4, 6, 8)
    assert torch.equal(shuffled(unshuffled(x)), x)
    torch.testing.assert_close(halved(x), unshuffled(x).unflatten(1, (3, 4)).mean(dim=2))


def test_a_view_without_data_is_not_valid() -> None:
    sweep = random_sweep(2, 3, 4, 5)
    assert torch.equal(valid_views(sweep), (sweep != ops.NO_DATA).all(dim=-4, keepdim=True))
