"""transforms.json: axes, intrinsics for all and for each, times, and files that are broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lens_helpers import make_lens

from maskvolume.geometry.lenses import pinhole
from maskvolume.geometry.poses import PosedCamera
from maskvolume.io.images import write_image
from maskvolume.io.nerfstudio import nerfstudio_obstacle, read_nerfstudio, write_nerfstudio
from maskvolume.io.posed import group_cameras
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)
K = np.array([[50.0, 0, 32], [0, 51, 24], [0, 0, 1]])
INTRINSICS = {"fl_x": 50.0, "fl_y": 51.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cam00/0.png", "cam00/1.png", "cam01/0.png", "cam01/1.png"):
        write_image(tmp_path / "images" / name, np.zeros((*SIZE, 3), np.uint8))
    return tmp_path


def matrix(x: float) -> list[list[float]]:
    """Camera to world, OpenGL axes, of a camera at (x, 0, 0) that looks along the world's +y with z up."""
    return [[1, 0, 0, x], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def frame(name: str, x: float, **more: object) -> dict[str, object]:
    return {"file_path": f"images/{name}.png", "transform_matrix": matrix(x), **more}


def write(folder: Path, *frames: object, **content: object) -> Path:
    path = folder / "transforms.json"
    path.write_text(json.dumps({**content, "frames": frames}))
    return path


def test_axes_are_opengl(folder):
    """A point ahead of the camera, to its right and above its axis falls right of and above the middle."""
    (image,) = read_nerfstudio(write(folder, frame("cam00/0", 2.0), **INTRINSICS))
    local = image.T_cam_world[:3, :3] @ [3.0, 5.0, 0.5] + image.T_cam_world[:3, 3]
    np.testing.assert_allclose(local, [1.0, -0.5, 5.0], atol=1e-12)
    pixel = image.lens.K @ local / local[2]
    np.testing.assert_allclose(pixel[:2], [32 + 50 / 5, 24 - 51 * 0.5 / 5], atol=1e-12)
    assert image.lens.size == SIZE


def test_intrinsics_of_a_frame_win(folder):
    path = write(folder, frame("cam00/0", 0.0, fl_x=60.0, k1=0.2), frame("cam01/0", 1.0), **INTRINSICS, k1=0.1, p2=0.3)
    first, second = read_nerfstudio(path)
    assert first.lens.K[0, 0] == 60
    assert first.lens.distortion.tolist() == [0.2, 0, 0, 0.3, 0]
    np.testing.assert_array_equal(second.lens.K, K)
    assert second.lens.distortion.tolist() == [0.1, 0, 0, 0.3, 0]


def test_what_may_be_missing(folder):
    write_image(folder / "images/a.png", np.zeros((*SIZE, 3), np.uint8))
    (image,) = read_nerfstudio(
        write(folder, {"file_path": "./images/a", "transform_matrix": matrix(0)}, camera_angle_x=np.pi / 2)
    )
    np.testing.assert_allclose(image.lens.K, [[32, 0, 32], [0, 32, 24], [0, 0, 1]])
    assert image.name == "images/a.png"
    assert image.time is image.bounds is None


def test_fisheye(folder):
    path = write(
        folder, frame("cam00/0", 0.0), **INTRINSICS, camera_model="OPENCV_FISHEYE", k1=0.1, k2=0.2, k3=0.3, k4=0.4
    )
    (image,) = read_nerfstudio(path)
    assert image.lens.model == "fisheye"
    assert image.lens.distortion.tolist() == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("kind", ["barrel", "pincushion", "fisheye"])
def test_written_file_is_read_back(folder, kind):
    lens, other = make_lens(kind, SIZE), make_lens(kind, SIZE).scaled((48, 64))
    T = np.eye(4)
    T[:3, :3] = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    T[:3, 3] = [0.1, 0.2, 0.3]
    cameras = [
        PosedCamera("cam00", lens, np.eye(4), ("images/cam00/0.png", "images/cam00/1.png"), (1.5, 20.0)),
        PosedCamera("cam01", other, T, ("images/cam01/0.png", "images/cam01/1.png"), (1.0, 30.0)),
    ]
    write_nerfstudio(folder / "transforms.json", cameras)
    content = json.loads((folder / "transforms.json").read_text())
    assert content["fl_x"] == lens.K[0, 0]  # shared
    assert [entry["time"] for entry in content["frames"]] == [0, 1, 0, 1]
    again, frames = group_cameras(read_nerfstudio(folder / "transforms.json"), "t")
    assert frames == ("0", "1")
    for old, new in zip(cameras, again, strict=True):
        np.testing.assert_allclose(new.T_cam_world, old.T_cam_world, atol=1e-12)
        np.testing.assert_array_equal(new.lens.K, old.lens.K)
        np.testing.assert_array_equal(new.lens.distortion[: old.lens.distortion.size], old.lens.distortion)
        assert (new.name, new.files, new.bounds) == (old.name, old.files, old.bounds)
    different = [cameras[0], PosedCamera("cam01", pinhole(K, SIZE), T, cameras[1].files)]
    if kind != "fisheye":
        write_nerfstudio(folder / "transforms.json", different)
        content = json.loads((folder / "transforms.json").read_text())
        assert "fl_x" not in content
        assert content["frames"][2]["fl_x"] == 50


def test_obstacle():
    assert nerfstudio_obstacle(make_lens("pincushion")) is None
    assert nerfstudio_obstacle(make_lens("fisheye")) is None
    assert nerfstudio_obstacle(make_lens("rational")) == "rational, thin prism or tilt distortion"


GOOD = frame("cam00/0", 0.0)
BROKEN = {
    "no frames": ({}, r'a list "frames"'),
    "frames that are none": ({"frames": [1]}, r'a list "frames"'),
    "no picture": ({**INTRINSICS, "frames": [{**GOOD, "file_path": "images/x.png"}]}, r"x\.png: no such picture"),
    "no name": ({**INTRINSICS, "frames": [{"transform_matrix": matrix(0)}]}, "frame 0: file_path is missing"),
    "no pose": ({**INTRINSICS, "frames": [{"file_path": "images/cam00/0.png"}]}, "transform_matrix: 4 x 4 numbers"),
    "small pose": ({**INTRINSICS, "frames": [{**GOOD, "transform_matrix": [[1]]}]}, "transform_matrix: 4 x 4"),
    "scaled pose": (
        {**INTRINSICS, "frames": [{**GOOD, "transform_matrix": (2 * np.eye(4)).tolist()}]},
        "not a rotation: scaled",
    ),
    "mirrored pose": (
        {**INTRINSICS, "frames": [{**GOOD, "transform_matrix": np.diag([1, 1, -1, 1]).tolist()}]},
        "not a rotation: scaled, mirrored",
    ),
    "no focal length": ({"frames": [GOOD]}, "frame 0: fl_x is missing"),
    "text": ({**INTRINSICS, "fl_x": "50", "frames": [GOOD]}, "fl_x: a finite number expected, got '50'"),
    "not a number": ({**INTRINSICS, "cx": float("nan"), "frames": [GOOD]}, "cx: a finite number expected"),
    "no size": ({**INTRINSICS, "w": 0, "frames": [GOOD]}, "0 x 48 pixels and focal lengths"),
    "another camera": ({**INTRINSICS, "camera_model": "EQUIRECTANGULAR", "frames": [GOOD]}, "EQUIRECTANGULAR is not"),
    "k4": ({**INTRINSICS, "k4": 0.1, "frames": [GOOD]}, "k4 is only known for OPENCV_FISHEYE"),
    "twice": ({**INTRINSICS, "frames": [GOOD, GOOD]}, "a picture is listed twice"),
    "bounds": ({**INTRINSICS, "frames": [{**GOOD, "near": 3, "far": 2}]}, "near 3 and far 2"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_line(folder, name):
    content, message = BROKEN[name]
    (folder / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_nerfstudio(folder / "transforms.json")
    assert str(caught.value).startswith(str(folder / "transforms.json"))


def test_missing_and_damaged_file(folder):
    with pytest.raises(InputError, match=r"transforms\.json: no such file"):
        read_nerfstudio(folder / "transforms.json")
    (folder / "transforms.json").write_text('{"frames": [')
    with pytest.raises(InputError, match=r"transforms\.json: damaged or no JSON"):
        read_nerfstudio(folder / "transforms.json")


# Which pictures are of one camera.
