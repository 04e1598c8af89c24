"""The player beside the renderer: how pictures are compared, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import web
from benchmarks.web import compare, picture_of, table_of
from maskvolume.runtime.errors import InputError


class Page:
    """A player that shows a grey of its frame and offset, and notes what it is asked."""

    def __init__(self) -> None:
        self.frame, self.offset = 0, [0.0, 0.0]

    def run(self, script: str, argument: Any) -> Any:
        if "seek" in script:
            self.frame = argument
            return None
        if "setOffset" in script:
            self.offset = argument
            return None
        width, height = argument
        grey = np.full((height, width, 3), 50 + 10 * self.frame + round(10 * self.offset[0]), np.uint8)
        grey[..., 0] = 0  # blue, as OpenCV writes
        return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", grey)[1].tobytes()).decode()


def test_a_picture_of_the_player_is_rgb_and_of_the_size_that_is_asked() -> None:
    picture = picture_of(Page(), 8, 6)
    assert picture.shape == (6, 8, 3)
    assert (picture == [50, 50, 0]).all()


def test_each_frame_is_compared_from_each_place() -> None:
    offsets = [[0.0, 0.0], [1.0, 0.0]]
    pictures = []
    for frame in (0, 3):
        shades = (50 + 10 * frame, 60 + 10 * frame)
        pictures.append(
            [np.dstack([np.full((6, 8, 2), shade, np.uint8), np.zeros((6, 8), np.uint8)]) for shade in shades]
        )
    same = compare(Page(), offsets, [0, 3], pictures)
    assert np.shape(same) == (2, 2)
    assert np.min(same) > 60
    pictures[1][0] = pictures[1][0] + np.uint8(20)
    other = compare(Page(), offsets, [0, 3], pictures)
    assert other[1][0] == pytest.approx(20 * np.log10(255 / 20), abs=0.01)
    assert other[0] == same[0]


def test_the_table_says_what_was_measured() -> None:
    size = {
        "moving_mbit_per_second": 12.34,
        "per_second_of_clip": 2_500_000,
        "raw_planes_per_second": 884e6,
        "before_first_picture": 1_250_000,
        "uploaded_per_frame": 3_100_000,
    }
    figures = {"bytes": size, "psnr": {"center": 41.0, "edges": 35.25, "worst_edge": 30.0}, "layers": 8}
    table = table_of({**figures, "first_picture_ms": 800, "frames_per_second_moving": 24.5})
    for words in ("41.0 dB", "35.2, 30.0 dB", "12.3 Mbit/s", "2.50 MB", "884 MB", "1.25 MB, 800 ms", "24.5 frames/s"):
        assert words in table


def test_bad_options_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["web.py", "--every", "0"])
    with pytest.raises(InputError, match="--every: 1 or more expected, got 0"):
        web.main()
    monkeypatch.setattr("sys.argv", ["web.py"])
    monkeypatch.setattr(web, "find_chromium", lambda: None)
    with pytest.raises(InputError, match="Chromium"):
        web.main()
