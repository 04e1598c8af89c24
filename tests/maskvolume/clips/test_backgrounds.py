"""The temporal median is exact, whatever memory it is given, and does not hold the clip."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskvolume.clips.backgrounds import evenly_spaced, histogram_median, temporal_median


def lower_median(clip: np.ndarray) -> np.ndarray:
    return np.sort(clip, axis=0)[(len(clip) - 1) // 2]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 13),
    values=st.sampled_from([2, 3, 17, 256]),
    budget=st.sampled_from([1, 100, 1000, 10_000, 2**20]),
    colour=st.booleans(),
)
def test_equals_the_lower_middle_of_the_sorted_values(seed, count, values, budget, colour):
    rng = np.random.default_rng(seed)
    palette = rng.choice(256, values, replace=False).astype(np.uint8)
    clip = rng.choice(palette, (count, 5, 4, 3)[: 4 if colour else 3])
    median = temporal_median(lambda i: clip[i], count, budget=budget)
    assert median.dtype == np.uint8
    np.testing.assert_array_equal(median, lower_median(clip))


def test_extreme_values():
    for row in ([0, 255], [255, 255], [0, 0, 255], [0, 255, 255], [254, 255, 255], [0, 1], [63, 64, 65, 66]):
        clip = np.array(row, np.uint8)[:, None, None]
        median = temporal_median(lambda i, clip=clip: clip[i], len(row))
        assert median[0, 0] == sorted(row)[(len(row) - 1) // 2]


def test_odd_counts_agree_with_numpy():
    clip = np.random.default_rng(0).integers(0, 256, (31, 6, 7, 3), np.uint8)
    np.testing.assert_array_equal(temporal_median(lambda i: clip[i], 31), np.median(clip, axis=0))


def test_a_subject_that_passes_by_is_gone():
    background = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)

    def read(i: int) -> np.ndarray:
        frame = background.copy()
        frame[:, 3 * i : 3 * i + 8] = 200
        return frame

    np.testing.assert_array_equal(temporal_median(read, 10), background)


@pytest.mark.parametrize(("budget", "reads"), [(2**20, 1), (30_000, 4)])
def test_each_picture_is_read_once_or_four_times(budget, reads):
    clip = np.random.default_rng(2).integers(0, 256, (50, 20, 20, 3), np.uint8)
    seen: list[int] = []

    def read(i: int) -> np.ndarray:
        seen.append(i)
        return clip[i]

    np.testing.assert_array_equal(temporal_median(read, 50, budget=budget), lower_median(clip))
    assert len(seen) <= 50 * reads + 1


def peak_bytes(count: int, budget: int) -> int:
    def read(i: int) -> np.ndarray:
        return np.random.default_rng(i).integers(0, 256, (60, 80, 3), np.uint8)

    tracemalloc.start()
    try:
        temporal_median(read, count, budget=budget)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_clip():
    picture, budget, slack = 60 * 80 * 3, 200_000, 100_000
    short, long = peak_bytes(5, budget), peak_bytes(150, budget)
    assert long <= budget + 3 * picture + slack
    assert long <= short + slack
    assert 150 * picture > 5 * long  # holding the clip would have taken much more


def test_bad_arguments():
    with pytest.raises(ValueError, match="count"):
        temporal_median(lambda i: np.zeros((2, 2), np.uint8), 0)
    with pytest.raises(ValueError, match="uint8"):
        temporal_median(lambda i: np.zeros((2, 2), np.float32), 2)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="shape"):
        temporal_median(lambda i: np.zeros((2, 2 + i), np.uint8), 2)


@given(total=st.integers(1, 500), count=st.integers(1, 500))
def test_evenly_spaced(total, count):
    chosen = evenly_spaced(total, count)
    assert len(chosen) == min(total, count)
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < total
    steps = np.diff(chosen)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 13), colour=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_histogram_is_at_most_two_levels_off(seed, count, colour):
    rng = np.random.default_rng(seed)
    clip = rng.integers(0, 256, (count, 5, 4, 3)[: 4 if colour else 3]).astype(np.uint8)
    median = histogram_median(lambda i: clip[i], count)
    assert median.dtype == np.uint8
    assert median.shape == clip.shape[1:]
    assert np.abs(median.astype(int) - lower_median(clip)).max() <= 2


@pytest.mark.parametrize("count", [255, 256, 300])
def test_the_histogram_counts_any_number_once(count):
    clip = np.random.default_rng(0).integers(100, 140, (count, 3, 3), np.uint8)
    clip[: count // 2 + 1] = 7
    seen: list[int] = []

    def read(i: int) -> np.ndarray:
        seen.append(i)
        return clip[i]

    assert (np.abs(histogram_median(read, count).astype(int) - 7) <= 2).all()
    assert seen == list(range(count))


def test_bad_arguments_of_the_histogram():
    with pytest.raises(ValueError, match="count"):
        histogram_median(lambda i: np.zeros((2, 2), np.uint8), 0)
    with pytest.raises(ValueError, match="uint8"):
        histogram_median(lambda i: np.zeros((2, 2), np.float32), 2)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="shape"):
        histogram_median(lambda i: np.zeros((2, 2 + i), np.uint8), 2)
