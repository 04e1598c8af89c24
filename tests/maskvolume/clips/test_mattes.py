"""Mattes of a clip: where they lie, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskvolume.clips.mattes import matte_file, read_matte
from maskvolume.io.images import write_image
from maskvolume.runtime.errors import InputError


def test_a_matte_is_read_as_grey(tmp_path: Path) -> None:
    path = matte_file(tmp_path, "cam02", "00007")
    assert path == tmp_path / "cam02/00007.png"
    matte = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    write_image(path, matte)
    np.testing.assert_array_equal(read_matte(path, (4, 6)), matte)


def test_missing_mattes_and_those_of_another_size_are_one_line(tmp_path: Path) -> None:
    path = matte_file(tmp_path, "cam02", "00007")
    with pytest.raises(InputError, match="no matte of this camera"):
        read_matte(path, (4, 6))
    write_image(path, np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match="no such matte"):
        read_matte(path.with_name("00008.png"), (4, 6))
    with pytest.raises(InputError, match="6 x 4 pixels, but the pictures have 7 x 4"):
        read_matte(path, (4, 7))
