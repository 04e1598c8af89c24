"""Which cameras are references of which target: weights that are continuous, and laws of special places."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.mpi.references import choose_references, penalties_of, reference_weights

NEAR, FAR = 2.0, 20.0
SPACING = 0.1


def cameras_at(centers: Tensor, turn: Tensor | float = 0.0) -> Camera:
    """Cameras ``[N]`` that look along +z, turned to the right by an angle."""
    angle = torch.as_tensor(turn, dtype=torch.float64).expand(len(centers))
    R = torch.eye(3, dtype=torch.float64).repeat(len(centers), 1, 1)
    R[:, 0, 0], R[:, 0, 2], R[:, 2, 0], R[:, 2, 2] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
    T = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    T[:, :3, :3] = R
    T[:, :3, 3] = -(R @ centers.double()[..., None])[..., 0]
    K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64)
    return Camera(T, K.expand(len(centers), 3, 3), (48, 64))


def grid(rows: int, columns: int) -> Camera:
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return cameras_at(SPACING * torch.stack([x.flatten(), y.flatten(), torch.zeros(rows * columns)], dim=1))


def weights_at(rig: Camera, *places: tuple[float, float, float], count: int = 2) -> Tensor:
    """Of targets at places in spacings."""
    targets = cameras_at(SPACING * torch.tensor(places, dtype=torch.float64))
    return reference_weights(rig, targets, NEAR, FAR, count)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_target_where_a_camera_stands_has_that_camera_alone(rows: int, count: int) -> None:
    rig = grid(rows, 5)
    weights = reference_weights(rig, rig, NEAR, FAR, count)
    assert torch.equal(weights, torch.eye(5 * rows, dtype=torch.float64))


def test_between_two_cameras_of_a_row_both_count_and_the_nearer_one_more() -> None:
    weights = weights_at(grid(1, 5), (1.5, 0, 0), (1.3, 0, 0), (1.01, 0, 0))
    torch.testing.assert_close(weights[0], torch.tensor([0, 0.5, 0.5, 0, 0], dtype=torch.float64))
    assert (weights[1] > 0).tolist() == [False, True, True, False, False]
    assert 0.6 < weights[1, 1] < 0.95
    assert weights[2].tolist() == [0, 1, 0, 0, 0]  # too little of the other to be worth a multiplane image


def test_amid_four_cameras_all_count_the_same_and_farther_off_too() -> None:
    for away in (0, 1, 5):
        weights = weights_at(grid(2, 4), (1.5, 0.5, away))[0]
        torch.testing.assert_close(weights, torch.tensor([0, 0.25, 0.25, 0] * 2, dtype=torch.float64))


def test_more_are_taken_when_more_are_asked_for() -> None:
    used = [int((weights_at(grid(1, 9), (3.7, 0, 0), count=count) > 0).sum()) for count in (2, 3, 4)]
    assert used == [2, 3, 4]


def test_outside_of_the_rig_the_nearest_camera_dominates() -> None:
    weights = weights_at(grid(1, 4), (-1.5, 0, 0), (-0.5, 0, 0), (-8, 0, 0))
    assert bool((weights[:, 0] > 2 * weights[:, 1:].amax(dim=1)).all())


@pytest.mark.parametrize("cameras", [1, 2, 3])
def test_small_rigs(cameras: int) -> None:
    weights = weights_at(grid(1, cameras), (0.4, 0, 0), (0, 0, 0), (-50, 3, 7), count=4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert weights[1, 0] == 1


def test_cameras_at_one_place_share() -> None:
    rig = cameras_at(torch.zeros(3, 3))
    weights = reference_weights(rig, cameras_at(torch.tensor([[0.0, 0, 0], [1, 0, 0]])), NEAR, FAR, 2)
    torch.testing.assert_close(weights, torch.full((2, 3), 1 / 3, dtype=torch.float64))


def irregular_rig() -> Camera:
    generator = torch.Generator().manual_seed(1)
    turns = 0.3 * torch.randn(9, generator=generator)
    return cameras_at(SPACING * 2 * torch.randn(9, 3, generator=generator), turns)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("rig", [grid(1, 6), grid(2, 5), irregular_rig()], ids=["row", "grid", "irregular"])
def test_weights_are_continuous(rig: Camera, count: int) -> None:
    """Ten times finer steps change ten times less; through cameras, along the midline of rows, and round about."""

    def largest_change(steps: int) -> float:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        zero = torch.zeros_like(t)
        middle = rig.center.mean(dim=0)
        largest = 0.0
        for path in (
            torch.stack([6 * SPACING * t, zero, zero], dim=1),
            torch.stack([6 * SPACING * t, zero + SPACING / 2, zero], dim=1),
            middle + 3 * SPACING * torch.stack([(7 * t).sin(), (5 * t).cos(), (9 * t).sin()], dim=1),
        ):
            weights = reference_weights(rig, cameras_at(path, 0.5 * (11 * t).sin()), NEAR, FAR, count)
            assert not weights.isnan().any()
            torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(t))
            largest = max(largest, float((weights[1:] - weights[:-1]).abs().max()))
        return largest

    coarse, fine = largest_change(1000), largest_change(10_000)
    assert fine < 0.2 * coarse
    assert fine < 0.02


def test_a_camera_that_looks_away_is_no_good() -> None:
    rig = cameras_at(SPACING * torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), torch.tensor([0.0, math.pi, 0.0]))
    target = cameras_at(SPACING * torch.tensor([[1.0, 0, 0]]))
    weights = reference_weights(rig, target, NEAR, FAR, 2)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0, 0.5]], dtype=torch.float64))
    assert choose_references(rig, target, NEAR, FAR, count=2, max_sources=2).sources == ((0, 2), (2, 0))
    # A target that looks where none does still has its nearest cameras.
    weights = reference_weights(grid(1, 5), cameras_at(SPACING * torch.tensor([[1.3, 0, 0]]), math.pi), NEAR, FAR, 2)
    assert weights[0].argmax() == 1


def test_cameras_that_see_most_of_the_target_count_by_distance_alone() -> None:
    rig = grid(2, 4)
    targets = cameras_at(torch.tensor([[0.12, 0.04, 0.02]]), 0.05)
    distances = (rig.center - targets.center).norm(dim=1)
    torch.testing.assert_close(penalties_of(rig, targets, NEAR, FAR)[0], distances)


def test_sources_are_the_reference_and_those_around_the_targets() -> None:
    path = cameras_at(SPACING * torch.tensor([[x / 10, 0.0, 0] for x in range(40)]))
    references = choose_references(grid(1, 6), path, NEAR, FAR, count=2, max_sources=3)
    assert {sources[0] for sources in references.sources} == {0, 1, 2, 3, 4}
    for first, *others in references.sources:
        assert len(others) == 2
        assert all(abs(other - first) <= 2 for other in others)
    weights = references.weights(path)
    assert weights.shape == (40, 5)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(40, dtype=torch.float64))
    few = choose_references(grid(1, 6), path, NEAR, FAR, count=2, max_sources=4, candidates=(5, 0, 2))
    assert {sources[0] for sources in few.sources} <= {0, 2, 5}
    assert all(sorted(sources) == [0, 2, 5] for sources in few.sources)
