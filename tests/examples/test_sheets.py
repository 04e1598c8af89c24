"""Sheets of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.sheets import Row, draw_sheet
from maskvolume.io.images import read_image


def test_a_sheet_shows_its_pictures(tmp_path: Path) -> None:
    red = np.zeros((30, 40, 3), np.uint8)
    red[..., 0] = 200
    grey = np.full((30, 40), 90, np.uint8)
    draw_sheet(tmp_path / "sheet.png", "Title", [Row("a", [red, red], ["1", "2"]), Row("b", [grey])], "Note")
    sheet = read_image(tmp_path / "sheet.png")
    assert (sheet == [200, 0, 0]).all(-1).sum() > 2 * 700 * 500
    assert (sheet == 90).all(-1).sum() > 700 * 500
