"""Contact sheets: rows of labelled pictures in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maskvolume.io.images import write_image

WIDTH = 1600  # pixels
MARGIN, GAP, LABEL, CAPTION, TITLE, NOTE = 24, 10, 28, 18, 54, 28  # pixels
INK, PALE, PAPER = "#1c1e21", "#5d646d", "#ffffff"


@dataclass(frozen=True)
class Row:
    """Pictures side by side, drawn at the same height.

    Attributes:
        label: text above the row.
        pictures: uint8 ``[h, w, 3]`` or ``[h, w]``, all of one size.
        captions: one below each picture, or none at all.
    """

    label: str
    pictures: Sequence[np.ndarray]
    captions: Sequence[str] = ()


def draw_sheet(path: Path, title: str, rows: Sequence[Row], note: str = "") -> None:
    """Draw a sheet and write it as a PNG; rows may hold different numbers of pictures, ``note`` is a line below."""
    columns = max(len(row.pictures) for row in rows)
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    total = TITLE + sum(_row_height(row, width) for row in rows) + (NOTE if note else MARGIN - GAP)
    figure = Figure(figsize=(WIDTH / 100, total / 100), dpi=100, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)

    def text(x: float, y: float, content: str, size: float, **style: Any) -> None:
        figure.text(x / WIDTH, 1 - y / total, content, fontsize=size, va="baseline", **style)

    text(MARGIN, TITLE - 22, title, 15, color=INK, weight="bold")
    top = TITLE
    for row in rows:
        height = _picture_height(row, width)
        text(MARGIN, top + LABEL - 8, row.label, 11, color=INK, weight="bold")
        for number, picture in enumerate(row.pictures):
            left = MARGIN + number * (width + GAP)
            if row.captions:
                text(left, top + LABEL + height + CAPTION - 4, row.captions[number], 9.5, color=PALE)
            box = (left / WIDTH, 1 - (top + LABEL + height) / total, width / WIDTH, height / total)
            axes = figure.add_axes(box)
            colors = picture if picture.ndim == 3 else picture[..., None].repeat(3, axis=-1)
            axes.imshow(colors, interpolation="antialiased", aspect="auto")
            axes.set_axis_off()
        top += _row_height(row, width)
    text(MARGIN, total - 14, note, 10.5, color=INK)
    canvas.draw()
    write_image(path, np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def _picture_height(row: Row, width: int) -> int:
    h, w = row.pictures[0].shape[:2]
    return round(width * h / w)


def _row_height(row: Row, width: int) -> int:
    return LABEL + _picture_height(row, width) + (CAPTION if row.captions else 0) + GAP
