"""Rows of contact sheets."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.quality.contact_sheet import CELL_WIDTH, ERROR_GAIN, sheet_row
from benchmarks.quality.figures import Moment


def test_below_each_picture_is_its_error() -> None:
    truth = torch.full((3, 45, 80), 0.5)
    off = truth.clone()
    off[:, 20:, :] += 1 / ERROR_GAIN  # as bright as the sheet goes
    row = sheet_row("target0", Moment(truth, None, None, {"same": truth.clone(), "off": off}))
    height = CELL_WIDTH * 45 // 80
    assert row.shape == (2 * height, 3 * CELL_WIDTH, 3)
    cells = row.reshape(2, height, 3, CELL_WIDTH, 3).swapaxes(1, 2)
    middle = (slice(30, height), slice(20, None))  # below the labels
    assert np.abs(cells[0, 0][middle].astype(int) - 128).max() <= 1
    assert np.array_equal(cells[0, 0][middle], cells[0, 1][middle])
    assert cells[1, 1][middle].max() < 10  # no error: black
    assert cells[1, 2][-20:].min(axis=(0, 1))[0] > 200  # the largest: yellow
    assert cells[1, 2][30:60].max() < 10
