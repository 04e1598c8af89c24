"""Worlds that no training draws."""

from __future__ import annotations

import pytest
import torch

from benchmarks import stage_one
from benchmarks.quality.held_out_worlds import (
    BANDS,
    MOVING_SEED,
    STATIC_SEED,
    WorldSet,
    describe,
    seen_disparity,
)
from maskvolume.data.synthetic.source import SAMPLES_PER_SEED, VALIDATION_SEED

SIZE = (48, 64)


def test_no_training_draws_the_worlds() -> None:
    """Training draws from the multiples of SAMPLES_PER_SEED on; no run is 100,000 million samples long."""
    others = (VALIDATION_SEED, stage_one.HELD_OUT_SEED)
    for seed, rest in ((STATIC_SEED, (MOVING_SEED, *others)), (MOVING_SEED, (STATIC_SEED, *others))):
        assert seed % SAMPLES_PER_SEED > 100_000_000_000
        assert (seed + 1_000_000) // SAMPLES_PER_SEED == seed // SAMPLES_PER_SEED
        assert all(abs(seed - other) > 100_000_000_000 for other in rest)


def test_a_set_is_the_beginning_of_a_larger_one() -> None:
    world_set = WorldSet(True, SIZE)
    few, many = describe(world_set, 4), describe(world_set, 40)
    assert [few["bands"][band]["num_worlds"] for band in BANDS] == [2, 1, 1]
    assert [many["bands"][band]["num_worlds"] for band in BANDS] == [14, 13, 13]
    assert few["first_seed"] == many["first_seed"] == MOVING_SEED
    assert (few["instants"], describe(WorldSet(False, SIZE), 1)["instants"]) == (3, 1)
    sizes = [tuple(many["bands"][band]["disparity_px"]) for band in BANDS]
    assert sizes == [(1.3, 3.2), (3.2, 6.4), (6.4, 12.8)]
    assert describe(WorldSet(False, (192, 256)), 3)["bands"]["medium"]["disparity_px"] == [12.8, 25.6]


@pytest.mark.slow
@pytest.mark.parametrize("moving", [False, True])
def test_worlds_are_of_their_band(moving: bool) -> None:
    world_set = WorldSet(moving, SIZE)
    seen = []
    for index in range(3):
        sample = world_set.sample(index)
        assert sample.images.shape[1] == 4
        assert bool((sample.source_mattes > 0).any()) == moving
        largest = world_set.disparity_bounds(world_set.band(index))[1]
        seen.append(seen_disparity(sample) / largest)
        # The rig and its baseline are jittered a little, and the nearest thing may be farther than it could be.
        assert 0.05 < seen[-1] < 1.15
    assert max(seen) > 0.3
    again = world_set.sample(2)
    assert torch.equal(again.images, sample.images)
