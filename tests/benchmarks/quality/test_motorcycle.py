"""Disparity errors of the stereo pair, what its right camera can't see, and the peer beside the networks."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality import motorcycle


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
