from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.web.layers import (
    merge_planes,
    plan_layers,
    to_layer_bytes,
    visible_weights,
)


def random_mpi(planes: int = 9, size: tuple[int, int] = (24, 32), seed: int = 0, premultiplied: bool = True):
    generator = torch.Generator().manual_seed(seed)
    rgba = torch.rand(planes, 4, *size, generator=generator)
    rgba[:, 3] *= torch.rand(planes, 1, 1, generator=generator)
    if premultiplied:
        rgba[:, :3] *= rgba[:, 3:]
    K = torch.tensor([[40.0, 0, size[1] / 2], [0, 40.0, size[0] / 2], [0, 0, 1]])
    return MultiplaneImage(rgba, Camera(torch.eye(4), K, size), disparity_planes(1.0, 20.0, planes), premultiplied)


def cost_of(weights: np.ndarray, disparity: np.ndarray, first: tuple[int, ...]) -> float:
    ends = [*first[1:], len(disparity)]
    total = 0.0
    for begin, end in zip(first, ends, strict=True):
        mean = np.average(disparity[begin:end], weights=weights[begin:end])
        total += float((weights[begin:end] * (disparity[begin:end] - mean) ** 2).sum())
    return total


@pytest.mark.parametrize("count", [1, 3, 5])
def test_no_other_grouping_loses_less(count: int) -> None:
    weights = np.random.default_rng(0).random(9) ** 3
    depths = disparity_planes(1.0, 20.0, 9).tolist()
    plan = plan_layers(weights, depths, count)
    disparity = 1 / np.array(depths)
    least = min(cost_of(weights, disparity, (0, *others)) for others in itertools.combinations(range(1, 9), count - 1))
    assert cost_of(weights, disparity, plan.first) == pytest.approx(least, rel=1e-4)
    assert [plane for planes in plan.planes() for plane in planes] == list(range(9))
    for planes, depth in zip(plan.planes(), plan.depths, strict=True):
        assert depths[planes[-1]] - 1e-6 <= depth <= depths[planes[0]] + 1e-6


def test_as_many_layers_as_planes_are_the_planes() -> None:
    mpi = random_mpi()
    plan = plan_layers(visible_weights(mpi), mpi.depths.tolist(), 9)
    assert plan.depths == pytest.approx(mpi.depths.tolist())
    torch.testing.assert_close(merge_planes(mpi, plan).rgba, mpi.rgba, atol=1e-6, rtol=0)


@pytest.mark.parametrize("premultiplied", [True, False])
def test_merged_layers_look_the_same_from_their_own_camera(premultiplied: bool) -> None:
    mpi = random_mpi(premultiplied=premultiplied)
    plan = plan_layers(visible_weights(mpi), mpi.depths.tolist(), 4)
    merged = merge_planes(mpi, plan)
    assert merged.rgba.shape == (4, 4, 24, 32)
    assert merged.premultiplied
    whole, found = mpi.composite(), merged.composite()
    torch.testing.assert_close(found.color, whole.color, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.opacity, whole.opacity, atol=1e-5, rtol=0)
    stored = to_layer_bytes(merged)
    assert stored.shape == (4, 24, 32, 4)
    assert np.abs(stored.transpose(0, 3, 1, 2) / 255.0 - merged.rgba.numpy()).max() <= 0.5 / 255 + 1e-6


def test_planes_count_by_what_is_seen_of_them_and_how_it_changes() -> None:
    mpi = random_mpi()
    mpi.rgba[7:] = 0
    alone = [visible_weights(replace(mpi, rgba=mpi.rgba[plane : plane + 1]))[0] for plane in range(7)]
    mpi.rgba[6] = 1.0  # hides all that is behind it, and is of one colour
    weights = visible_weights(mpi)
    assert weights[:6] == pytest.approx([0.1**2 * weight for weight in alone[:6]])
    assert list(weights[6:]) == [0, 0, 0]
    mpi.rgba[6] = 0
    assert visible_weights(mpi)[5] == pytest.approx(alone[5])
    assert visible_weights(mpi)[2] < alone[2]


def test_more_layers_than_planes_are_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        plan_layers(np.ones(4), [4.0, 3.0, 2.0, 1.0], 5)
