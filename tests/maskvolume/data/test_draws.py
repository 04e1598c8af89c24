"""Which samples are drawn when, by whom."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from maskvolume.data.draws import (
    BatchPlan,
    Draw,
    Draws,
    LazySequence,
    MixedSource,
    concatenate,
)


def drawn(plan: BatchPlan, first: int, count: int) -> list[Draw]:
    return list(islice(plan.draws(first), count))


@pytest.mark.parametrize(("batch_size", "accumulate", "world"), [(4, 1, 1), (2, 2, 1), (1, 1, 4), (2, 1, 2), (1, 2, 2)])
def test_a_step_learns_from_the_same_samples_however_it_is_split(batch_size: int, accumulate: int, world: int) -> None:
    for step in (0, 7):
        indices: set[int] = set()
        for rank in range(world):
            plan = BatchPlan(batch_size, accumulate, rank, world)
            assert plan.samples_per_step == 4
            for draw in drawn(plan, step, accumulate):
                assert draw.step == step
                indices.update(draw.indices)
        assert indices == {4 * step, 4 * step + 1, 4 * step + 2, 4 * step + 3}


def test_a_later_start_draws_what_would_have_come() -> None:
    plan = BatchPlan(3, 2, 1, 2)
    assert drawn(plan, 0, 40)[10:] == drawn(plan, 5, 30)


class Named:
    """Yields its name and the sample's number."""

    epoch_samples = None

    def __init__(self, name: str) -> None:
        self.name = name

    def batches(self, draws: Draws) -> Iterator[tuple[str, int]]:
        for draw in draws:
            yield self.name, draw.indices[0]

    def validation(self) -> list[str]:
        return [self.name]


def test_a_mixture_keeps_numbers_and_shares_and_resumes() -> None:
    mixed = MixedSource(((Named("a"), 1.0), (Named("b"), 3.0)), seed=5)
    plan = BatchPlan(accumulate=2)
    found = list(islice(mixed.batches(plan.draws(0)), 800))
    assert [number for _, number in found] == list(range(800))
    assert all(found[2 * step][0] == found[2 * step + 1][0] for step in range(400))  # one source a step
    assert np.mean([name == "b" for name, _ in found]) == pytest.approx(0.75, abs=0.06)
    assert list(islice(mixed.batches(plan.draws(100)), 600)) == found[200:]
    assert list(mixed.validation()) == ["a", "b"]


def test_lazy_sequences_build_only_what_is_indexed() -> None:
    built: list[int] = []

    def build(index: int) -> int:
        built.append(index)
        return 10 * index

    both = concatenate([LazySequence(2, build), [7]])
    assert len(both) == 3
    assert both[1] == 10
    assert built == [1]
    assert list(both) == [0, 10, 7]
