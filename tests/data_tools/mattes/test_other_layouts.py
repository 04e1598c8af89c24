"""Mattes that were made elsewhere: which of them belong to a clip, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.mattes.other_layouts import OtherMattes
from maskvolume.clips.layouts import Layout, open_layout
from maskvolume.io.images import write_image
from maskvolume.runtime.errors import InputError

SIZE = (24, 32)


@pytest.fixture
def layout(tmp_path) -> Layout:
    """A clip of two cameras and three frames."""
    for camera in ("cam01", "cam10"):
        for frame in range(3):
            write_image(tmp_path / f"clip/{camera}/{frame:05d}.png", np.full((*SIZE, 3), 90, np.uint8))
    return open_layout(tmp_path / "clip")


def write_mattes(folder: Path, camera: str, pictures: list[np.ndarray]) -> None:
    for number, picture in enumerate(pictures):
        write_image(folder / camera / f"{number:05d}.png", picture)


def test_mattes_are_found_by_name_and_are_grey(layout, tmp_path):
    shape = np.zeros(SIZE, np.uint8)
    shape[4:12, 8:20] = 1
    forms = [shape * 255, shape, np.dstack([np.full((*SIZE, 3), 90, np.uint8), shape * 200])]  # grey, 0 and 1, alpha
    write_mattes(tmp_path / "other", "cam00", [shape * 0] * 3)  # of a camera that the clip does not have
    write_mattes(tmp_path / "other", "cam10", forms)
    mattes = OtherMattes.open(tmp_path / "other", layout, [1], [0, 1, 2])
    read = mattes.of_camera(1)
    for frame, level in enumerate((255, 255, 200)):
        np.testing.assert_array_equal(read(frame), shape * level)
        assert mattes.sources(1, frame) == [tmp_path / f"other/cam10/{frame:05d}.png"]


def test_mattes_that_do_not_fit_are_one_line(layout, tmp_path):
    other = tmp_path / "other"
    write_mattes(other, "cam01", [np.zeros(SIZE, np.uint8)] * 2)
    with pytest.raises(InputError, match=r"other: no mattes of camera cam10"):
        OtherMattes.open(other, layout, [0, 1], [0, 1])
    with pytest.raises(InputError, match=r"other: no mattes of frame 00002.*00000 to 00001"):
        OtherMattes.open(other, layout, [0], [0, 1, 2])
    write_mattes(other, "cam01", [np.zeros((20, 30), np.uint8)] * 2)
    with pytest.raises(InputError, match=r"other: mattes of 30 x 20 pixels, but the pictures have 32 x 24"):
        OtherMattes.open(other, layout, [0], [0])
