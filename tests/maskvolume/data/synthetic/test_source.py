"""Random worlds as a source of batches."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import torch
from synthetic_helpers import CLEAN

from maskvolume.data.draws import BatchPlan
from maskvolume.data.synthetic import SyntheticSample, SyntheticSource

OPTIONS = replace(CLEAN, size=(16, 24))


def source(seed: int = 0, num_sources: tuple[int, int] = (2, 2)) -> SyntheticSource:
    return SyntheticSource(OPTIONS, seed, torch.device("cpu"), 2, num_sources)


def batches(of: SyntheticSource, batch_size: int, first: int, count: int) -> list[SyntheticSample]:
    return list(islice(of.batches(BatchPlan(batch_size).draws(first)), count))


def test_samples_depend_on_seed_and_number_alone() -> None:
    pair, later = batches(source(0), 2, 0, 2)
    assert torch.equal(pair.images[1], batches(source(0), 1, 1, 1)[0].images[0])
    assert torch.equal(later.images, batches(source(0), 2, 1, 1)[0].images)
    assert not torch.equal(pair.images, batches(source(1), 2, 0, 1)[0].images)


def test_steps_take_turns_in_the_number_of_views() -> None:
    assert [batch.images.shape[1] for batch in batches(source(0, (2, 4)), 1, 0, 4)] == [2, 3, 4, 2]


def test_validation_is_the_same_for_every_seed() -> None:
    first, other = source(0).validation(), source(1).validation()
    assert len(first) == len(other) == 2
    assert torch.equal(first[1].images, other[1].images)
    assert not torch.equal(first[0].images, first[1].images)
    assert source().epoch_samples is None
