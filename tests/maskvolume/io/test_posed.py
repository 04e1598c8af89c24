"""Pictures with poses, sorted by cameras and frames."""

from __future__ import annotations

import numpy as np
import pytest

from maskvolume.geometry.lenses import Lens, pinhole
from maskvolume.geometry.poses import PosedImage
from maskvolume.io.posed import group_cameras
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)


K = np.array([[50.0, 0, 32], [0, 51, 24], [0, 0, 1]])


def posed(name: str, x: float, time: float | None = None, lens: Lens | None = None) -> PosedImage:
    T = np.eye(4)
    T[0, 3] = -x
    return PosedImage(name, lens or pinhole(K, SIZE), T, time)


def grouped(*images: PosedImage, exclude: tuple[str, ...] = ()) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    cameras, frames = group_cameras(images, "model", exclude)
    return {camera.name: camera.files for camera in cameras}, frames


def test_a_folder_for_each_camera():
    images = [posed(f"images/cam{c:02d}/{f:05d}.png", c) for f in (1, 0) for c in (10, 2)]
    cameras, frames = grouped(*images)
    assert frames == ("00000", "00001")
    assert list(cameras) == ["cam02", "cam10"]
    assert cameras["cam02"] == ("images/cam02/00000.png", "images/cam02/00001.png")


def test_a_folder_for_each_frame():
    images = [posed(f"{f:05d}/images/{c:03d}.png", c) for f in range(2) for c in range(3)]
    cameras, frames = grouped(*images)
    assert frames == ("00000", "00001")
    assert cameras["001"] == ("00000/images/001.png", "00001/images/001.png")


def test_one_frame():
    assert grouped(posed("b.png", 1), posed("a.png", 0)) == ({"a": ("a.png",), "b": ("b.png",)}, ("00000",))
    cameras, frames = grouped(posed("images/b.png", 1), posed("images/a.png", 0))
    assert (list(cameras), frames) == (["a", "b"], ("00000",))
    assert grouped(posed("left/x.png", 0), posed("right/x.png", 1))[0] == {
        "left": ("left/x.png",),
        "right": ("right/x.png",),
    }


def test_one_camera():
    assert grouped(posed("0.png", 1), posed("1.png", 1)) == ({"cam00": ("0.png", "1.png")}, ("0", "1"))
    assert grouped(posed("cam07/0.png", 1), posed("cam07/1.png", 1))[0] == {"cam07": ("cam07/0.png", "cam07/1.png")}


def test_times_order_the_frames():
    images = [posed(f"cam{c}/{name}.png", c, time) for c in range(2) for name, time in (("a", 3.0), ("b", 1.0))]
    cameras, frames = grouped(*images)
    assert cameras["cam0"] == ("cam0/b.png", "cam0/a.png")
    assert frames == ("00000", "00001")
    with pytest.raises(InputError, match="cam0 and cam1 took pictures of one name at different times"):
        grouped(*images[:3], posed("cam1/b.png", 1, 2.0))
    with pytest.raises(InputError, match="some pictures have a time, others none"):
        grouped(*images[:3], posed("cam1/b.png", 1))


def test_cameras_that_differ():
    with pytest.raises(InputError, match="of cameras cam0 and cam1 only one has frame b"):
        grouped(posed("cam0/a.png", 0), posed("cam0/b.png", 0), posed("cam1/a.png", 1))
    with pytest.raises(InputError, match="the cameras move from picture to picture"):
        grouped(posed("cam0/a.png", 0), posed("cam0/b.png", 1), posed("cam1/a.png", 2), posed("cam1/b.png", 3))
    with pytest.raises(InputError, match=r"a\.png and a\.jpg are of the same frame"):
        grouped(posed("a.jpg", 0), posed("a.png", 0))
    with pytest.raises(InputError, match="holds no picture with a pose"):
        grouped()
    focal = pinhole(K * 1.1, SIZE)
    with pytest.raises(InputError, match="move"):
        grouped(
            posed("cam0/a.png", 0), posed("cam0/b.png", 0, lens=focal), posed("cam1/a.png", 1), posed("cam1/b.png", 1)
        )


def test_excluded_cameras_are_as_if_they_were_not_there():
    odd = [posed("cam1/a.png", 1), posed("cam1/c.png", 5)]  # moves, and has other frames
    images = [posed(f"cam{c}/{f}.png", c) for c in (0, 2) for f in "ab"]
    assert list(grouped(*images, *odd, exclude=("cam1",))[0]) == ["cam0", "cam2"]
    assert list(grouped(posed("cam0.png", 0), posed("cam1.png", 1), exclude=("cam0",))[0]) == ["cam1"]
    with pytest.raises(InputError, match="no camera cam9; --exclude takes some of cam0, cam2"):
        grouped(*images, exclude=("cam9",))
    with pytest.raises(InputError, match="every camera is excluded"):
        grouped(*images, exclude=("cam0", "cam2"))
