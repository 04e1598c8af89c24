"""COLMAP models: read and written as pycolmap does, binary and text, with gaps in the ids; broken ones."""

from __future__ import annotations

import builtins
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from lens_helpers import distort, make_lens

from maskvolume.geometry.lenses import Lens, pinhole
from maskvolume.geometry.poses import PosedCamera
from maskvolume.io.colmap import (
    colmap_obstacle,
    find_model,
    read_colmap,
    write_colmap,
)
from maskvolume.io.posed import group_cameras
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)


def pose(number: int) -> np.ndarray:
    """World to camera, in general position near the origin."""
    rng = np.random.default_rng(number)
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(rng.normal(size=3) * 0.1)[0]
    T[:3, 3] = rng.normal(size=3) * 0.2
    return T


def make_model(folder: Path, suffix: str = ".bin", points: int = 200, depth: tuple[float, float] = (2.0, 8.0)) -> Path:
    """A model as COLMAP leaves it: ids with gaps, points with tracks, one image that shows none of them."""
    rng = np.random.default_rng(7)
    model = pycolmap.Reconstruction()
    for camera_id, name, params in (
        (3, "OPENCV", [50, 52, 32.5, 23, 0.1, 0.01, 0.001, -0.002]),
        (9, "PINHOLE", [60, 60, 32, 24]),
    ):
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(model=name, width=SIZE[1], height=SIZE[0], params=params, camera_id=camera_id)
        )
    xyz = np.stack([rng.uniform(-1, 1, points), rng.uniform(-1, 1, points), rng.uniform(*depth, points)], axis=1)
    names = {12: ("cam02.png", 3), 5: ("cam10.png", 9), 40: ("cam00.png", 3)}
    for image_id, (name, camera_id) in names.items():
        image = pycolmap.Image(name=name, camera_id=camera_id, image_id=image_id)
        if image_id != 40:
            image.points2D = pycolmap.Point2DList([pycolmap.Point2D([1.0, 2.0]) for _ in range(points)])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose(image_id)[:3]))
    for i, point in enumerate(xyz):
        elements = [pycolmap.TrackElement(image_id, i) for image_id in (12, 5)]
        model.add_point3D(point, pycolmap.Track(elements))
    folder.mkdir(parents=True)
    (model.write_binary if suffix == ".bin" else model.write_text)(str(folder))
    return folder


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_model_with_gaps_in_its_ids(tmp_path, suffix):
    model = read_colmap(make_model(tmp_path / "sparse/0", suffix))
    assert [image.name for image in model.images] == ["cam00.png", "cam02.png", "cam10.png"]
    assert model.without_pose == ()
    for image, number in zip(model.images, (40, 12, 5), strict=True):
        np.testing.assert_allclose(image.T_cam_world, pose(number), atol=1e-12)
    first, _, last = (image.lens for image in model.images)
    assert first.K.tolist() == [[50, 0, 32.5], [0, 52, 23], [0, 0, 1]]
    assert first.distortion.tolist() == [0.1, 0.01, 0.001, -0.002]
    assert last.K.tolist() == [[60, 0, 32], [0, 60, 24], [0, 0, 1]]
    assert (first.model, first.size, last.distortion.any()) == ("pinhole", SIZE, False)


def test_older_models_have_no_rigs_and_frames(tmp_path):
    folder = make_model(tmp_path / "m")
    expected = [image.T_cam_world for image in read_colmap(folder).images]
    for name in ("rigs.bin", "frames.bin"):
        (folder / name).unlink()
    np.testing.assert_array_equal([image.T_cam_world for image in read_colmap(folder).images], expected)


def test_bounds_are_percentiles_of_depths(tmp_path):
    folder = make_model(tmp_path / "m", points=400)
    for image in read_colmap(folder).images:
        near, far = image.bounds
        assert 1.5 < near < 2.6
        assert 7.2 < far < 8.5
    few = read_colmap(make_model(tmp_path / "few", points=5))
    assert [image.bounds for image in few.images] == [None] * 3


@pytest.mark.parametrize("kind", ["barrel", "pincushion", "rational", "fisheye"])
def test_lenses_project_as_colmap_does(tmp_path, kind):
    """The pixel of a point by COLMAP itself, by the formulas of OpenCV's manual, and read back."""
    lens = make_lens(kind)
    write_colmap(tmp_path / "sparse/0", [PosedCamera("cam00", lens, pose(1), ("cam00/0.png",))])
    (image,) = pycolmap.Reconstruction(str(tmp_path / "sparse/0")).images.values()
    for point in ([0.3, -0.2, 3.0], [-0.8, 0.5, 4.0], [0.0, 0.0, 2.0]):
        local = pose(1)[:3, :3] @ point + pose(1)[:3, 3]
        np.testing.assert_allclose(image.project_point(point), distort(lens, local[:2] / local[2]), atol=1e-9)
    (again,) = read_colmap(tmp_path / "sparse/0").images
    np.testing.assert_array_equal(again.lens.K, lens.K)
    kept = np.zeros(8)
    kept[: lens.distortion.size] = lens.distortion
    np.testing.assert_array_equal(np.pad(again.lens.distortion, (0, 8))[:8], kept)
    assert (again.lens.model, again.lens.size) == (lens.model, lens.size)
    assert colmap_obstacle(lens) is None


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("SIMPLE_PINHOLE", [50, 30, 25]),
        ("SIMPLE_RADIAL", [50, 30, 25, 0.1]),
        ("RADIAL", [50, 30, 25, 0.1, -0.02]),
        ("SIMPLE_RADIAL_FISHEYE", [50, 30, 25, 0.02]),
        ("RADIAL_FISHEYE", [50, 30, 25, 0.02, -0.01]),
        ("SIMPLE_FISHEYE", [50, 30, 25]),
        ("FISHEYE", [50, 51, 30, 25]),
    ],
)
def test_every_model_that_is_read_projects_as_colmap_does(tmp_path, name, params):
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(pycolmap.Camera(model=name, width=64, height=48, params=params, camera_id=1))
    model.add_image_with_trivial_frame(pycolmap.Image(name="a.png", camera_id=1, image_id=1), pycolmap.Rigid3d())
    (tmp_path / "m").mkdir()
    model.write_binary(str(tmp_path / "m"))
    (image,) = read_colmap(tmp_path / "m").images
    for ray in ([0.3, -0.2], [-0.5, 0.4]):
        expected = model.images[1].project_point([*ray, 1.0])
        np.testing.assert_allclose(distort(image.lens, np.array(ray)), expected, atol=1e-9)


def test_models_that_formulas_do_not_hold(tmp_path):
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="FOV", width=64, height=48, params=[50, 50, 32, 24, 0.5], camera_id=4)
    )
    model.add_image_with_trivial_frame(pycolmap.Image(name="a.png", camera_id=4, image_id=1), pycolmap.Rigid3d())
    (tmp_path / "m").mkdir()
    model.write_binary(str(tmp_path / "m"))
    with pytest.raises(InputError, match=r"camera 4: model FOV is not one of SIMPLE_PINHOLE, .* image_undistorter"):
        read_colmap(tmp_path / "m")
    prism = Lens(np.eye(3), np.arange(12.0), "pinhole", SIZE)
    assert colmap_obstacle(prism) == "thin prism or tilt distortion"


def test_written_model_is_read_back(tmp_path):
    lens = pinhole(np.array([[50.1, 0, 32], [0, 50.1, 24], [0, 0, 1]]), SIZE)
    cameras = [
        PosedCamera(name, lens, pose(i), (f"{name}/00000.png", f"{name}/00001.png"))
        for i, name in enumerate(("cam00", "cam02", "cam10"))
    ]
    for _ in range(2):  # a second time in the same place
        write_colmap(tmp_path / "sparse/0", cameras)
    assert {path.name for path in (tmp_path / "sparse").iterdir()} == {"0"}
    again, frames = group_cameras(read_colmap(tmp_path / "sparse/0").images, "m")
    assert frames == ("00000", "00001")
    assert [camera.name for camera in again] == ["cam00", "cam02", "cam10"]
    for old, new in zip(cameras, again, strict=True):
        np.testing.assert_allclose(new.T_cam_world, old.T_cam_world, atol=1e-12)
        np.testing.assert_array_equal(new.lens.K, old.lens.K)
        assert new.files == old.files


def test_full_disk_leaves_no_half_model(tmp_path):
    lens = pinhole(np.array([[50.1, 0, 32], [0, 50.1, 24], [0, 0, 1]]), SIZE)
    camera = PosedCamera("cam00", lens, pose(0), ("cam00/00000.png",))
    write_colmap(tmp_path / "sparse/0", [camera])
    before = {path.name: path.read_bytes() for path in (tmp_path / "sparse/0").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left on device"):
            write_colmap(tmp_path / "sparse/0", [camera, PosedCamera("cam01", lens, pose(1), ("cam01/00000.png",))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "sparse").iterdir()] == ["0"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "sparse/0").iterdir()} == before


def test_model_is_found_in_a_folder(tmp_path):
    make_model(tmp_path / "a/sparse/0")
    make_model(tmp_path / "b/sparse", ".txt")
    make_model(tmp_path / "c")
    assert find_model(tmp_path / "a") == tmp_path / "a/sparse/0"
    assert find_model(tmp_path / "b") == tmp_path / "b/sparse"
    assert find_model(tmp_path / "c") == tmp_path / "c"
    assert find_model(tmp_path) is None


def cut(name: str, keep: float):
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return spoil


BROKEN = {
    "no images": (".bin", lambda folder: (folder / "images.bin").unlink(), r"images\.bin: no such file"),
    "no points": (".txt", lambda folder: (folder / "points3D.txt").unlink(), r"points3D\.txt: no such file"),
    "cameras cut short": (".bin", cut("cameras.bin", 0.95), "cut short"),
    "images cut short": (".bin", cut("images.bin", 0.6), "damaged, or not a COLMAP model|cut short"),
    "last image cut short": (".bin", cut("images.bin", 0.99), "damaged, or not a COLMAP model|cut short"),
    "points cut short": (".bin", cut("points3D.bin", 0.5), "damaged, or not a COLMAP model|cut short"),
    "empty images": (".bin", cut("images.bin", 0), "damaged, or not a COLMAP model"),
    "text that is none": (".txt", lambda folder: (folder / "images.txt").write_text("hello\n\n"), "damaged, or no"),
    "unknown camera": (".txt", lambda folder: (folder / "cameras.txt").write_text("1 ODD 3\n"), "damaged, or no"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_models_are_one_line(tmp_path, name):
    suffix, spoil, message = BROKEN[name]
    folder = make_model(tmp_path / "m", suffix)
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        read_colmap(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_missing_pycolmap_is_one_line(tmp_path, monkeypatch):
    folder = make_model(tmp_path / "m")
    original = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "pycolmap":
            raise ImportError("No module named 'pycolmap'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"COLMAP models need pycolmap, .* install pycolmap"):
        read_colmap(folder)


def test_a_signal_is_handled_as_before_after_a_model_was_read() -> None:
    code = """
import signal
from maskvolume.io.colmap import _pycolmap
handler = lambda *_: None
signal.signal(signal.SIGTERM, handler)
_pycolmap()
assert signal.getsignal(signal.SIGTERM) is handler
signal.raise_signal(signal.SIGTERM)
print("still here")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout == "still here\n", run.stderr
