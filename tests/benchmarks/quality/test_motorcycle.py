"""Disparity errors of the stereo pair, what its right camera can't see, and the peer beside the networks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.quality import motorcycle
from benchmarks.quality.semi_global import fill_holes, semi_global_matching


def square_disparity(size: tuple[int, int] = (40, 80), near: float = 12.0, far: float = 4.0) -> np.ndarray:
    """A square in front of a wall, seen from the left."""
    truth = np.full(size, far)
    truth[10:30, 30:50] = near
    return truth


def test_occlusion_is_what_the_nearer_thing_hides_in_the_right_picture() -> None:
    """The square moves by 8 pixels more than the wall: it hides the 8 columns to its left."""
    hidden = motorcycle.occluded(square_disparity())
    expected = np.zeros_like(hidden)
    expected[:, :4] = True  # outside of the right picture
    expected[10:30, 22:30] = True
    assert np.array_equal(hidden, expected)


def test_what_is_not_known_neither_is_hidden_nor_hides() -> None:
    truth = square_disparity()
    truth[10:30, 30:50] = np.nan
    hidden = motorcycle.occluded(truth)
    assert not hidden[:, 4:].any()


def test_a_slope_hides_nothing() -> None:
    truth = np.tile(np.linspace(10, 0, 80), (3, 1))  # nearer on the left: seen wider on the right
    assert not motorcycle.occluded(truth)[:, 11:].any()


def test_holes_take_the_lesser_of_both_sides() -> None:
    nan = np.nan
    rows = np.array([[nan, 5, nan, nan, 2, nan], [3, nan, 9, nan, 9, 1], [nan] * 6])
    expected = [[5, 5, 2, 2, 2, 2], [3, 3, 9, 9, 9, 1], [0] * 6]
    np.testing.assert_array_equal(fill_holes(rows), expected)


def test_semi_global_matching_finds_a_square_before_a_wall() -> None:
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 256, (30, 60, 3), np.uint8), (120, 60), interpolation=cv2.INTER_CUBIC)
    square = rng.integers(0, 256, (30, 30, 3), np.uint8)
    left, right = wall[:, :100].copy(), wall[:, 4:104].copy()  # 4 pixels
    left[15:45, 40:70], right[15:45, 28:58] = square, square  # 12 pixels
    truth = np.full((60, 100), 4.0)
    truth[15:45, 40:70] = 12
    visible = ~motorcycle.occluded(truth)
    found = semi_global_matching(left, right, 16)
    assert found.shape == truth.shape
    assert np.isfinite(found[:, 4:12]).mean() > 0.7, "the columns on the left are searched as well"
    error = np.abs(fill_holes(found) - truth)[visible]
    assert np.median(error) < 0.5
    assert (error > 2).mean() < 0.1


def test_error_figures() -> None:
    truth = np.array([[1.0, 2.0, np.nan, 4.0, 5.0]])
    found = np.array([[1.5, 5.0, 9.0, np.nan, 5.0]])
    visible = np.array([[True, False, False, True, True]])
    figures = motorcycle._errors(found, truth, visible, 0.5)
    assert figures == {
        "coverage": 0.75, "mean": pytest.approx(3.5 / 3, abs=1e-4), "median": 0.5,
        "bad2": pytest.approx(1 / 3, abs=1e-4), "mean_visible": 0.25, "median_visible": 0.25, "bad2_visible": 0.0,
        "seconds": 0.5,
    }  # fmt: skip
