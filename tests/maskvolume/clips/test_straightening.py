"""Pictures of bent lenses come out straight, from any source; those of straight ones come out as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from lens_helpers import LENSES, SIZE, make_lens, take_picture, waves

from maskvolume.clips.straightening import StraightPictures, read_of_lens
from maskvolume.geometry.lenses import pinhole, straight
from maskvolume.runtime.errors import InputError


@dataclass
class Stored:
    """Pictures in memory that note which cameras were released."""

    pictures: list[np.ndarray]
    released: list[int] = field(default_factory=list)

    def read(self, camera: int, frame: int) -> np.ndarray:
        return self.pictures[camera] // (frame + 1)

    def file(self, camera: int, frame: int) -> Path:
        return Path(f"{camera}/{frame}.png")

    def release(self, camera: int) -> None:
        self.released.append(camera)


@pytest.mark.parametrize("kind", LENSES)
def test_a_straightened_picture_is_that_of_the_ideal_camera(kind: str) -> None:
    lens = make_lens(kind)
    target = pinhole(straight(lens), SIZE)
    stored = Stored([take_picture(lens, np.eye(4), waves)])
    pictures = StraightPictures(stored, (0, 0), (lens, lens), (target, lens))
    truth = take_picture(target, np.eye(4), waves)
    assert np.abs(pictures.read(0, 0).astype(int) - truth)[2:-2, 2:-2].max() <= 3
    np.testing.assert_array_equal(pictures.read(1, 0), stored.pictures[0])  # as it is stored


def test_cameras_keep_their_numbers_in_the_source() -> None:
    lens = pinhole(np.array([[50.0, 0, 3], [0, 50, 2], [0, 0, 1]]), (4, 6))
    stored = Stored([np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)])
    pictures = StraightPictures(stored, (2, 0), (lens, lens), (lens, lens))
    assert pictures.read(0, 0)[0, 0, 0] == 30
    assert pictures.read(0, 1)[0, 0, 0] == 15
    assert pictures.file(1, 0) == Path("0/0.png")
    pictures.release(0)
    assert stored.released == [2]


def test_a_picture_of_another_size_than_its_lens_is_an_input_error() -> None:
    lens = pinhole(np.array([[50.0, 0, 3], [0, 50, 2], [0, 0, 1]]), (4, 6))
    with pytest.raises(InputError, match=r"0/1\.png: 5 x 4 pixels, but its camera has 6 x 4"):
        read_of_lens(Stored([np.zeros((4, 5, 3), np.uint8)]), 0, 1, lens)
