"""Disparity by OpenCV's semi-global matching."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.quality import motorcycle
from benchmarks.quality.semi_global import fill_holes, semi_global_matching


def square_disparity(size: tuple[int, int] = (40, 80), near: float = 12.0, far: float = 4.0) -> np.ndarray:
    """A square in front of a wall, seen from the left."""
    truth = np.full(size, far)
    truth[10:30, 30:50] = near
    return truth


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
