"""Calibrations: files of OpenCV's form and of other programs', broken ones, one for each camera or for all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from lens_helpers import LENSES, SIZE, make_lens

from maskvolume.geometry.lenses import project
from maskvolume.io.calibrations import read_calibration, read_calibrations, write_calibration
from maskvolume.runtime.errors import InputError


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("suffix", [".json", ".yml", ".yaml", ".xml"])
def test_files_give_back_what_was_written(tmp_path: Path, kind: str, suffix: str) -> None:
    lens = make_lens(kind)
    path = tmp_path / f"cam00{suffix}"
    write_calibration(path, lens, {"avg_reprojection_error": 0.25})
    again = read_calibration(path)
    np.testing.assert_allclose(again.K, lens.K, rtol=1e-14)
    np.testing.assert_array_equal(again.distortion, lens.distortion)
    assert (again.model, again.size) == (lens.model, lens.size)
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)  # as OpenCV's own programs read it
    K = storage.getNode("camera_matrix").mat()
    assert K[0, 2] == pytest.approx(lens.K[0, 2] - 0.5)
    assert K[1, 2] == pytest.approx(lens.K[1, 2] - 0.5)
    assert storage.getNode("distortion_coefficients").mat().size == lens.distortion.size
    assert storage.getNode("avg_reprojection_error").real() == 0.25


def test_pixels_are_those_of_opencv(tmp_path: Path) -> None:
    """A point falls where cv2.projectPoints says, half a pixel on: OpenCV's (0, 0) is our (0.5, 0.5)."""
    K, D = np.array([[90.0, 0, 63], [0, 91, 47], [0, 0, 1]]), np.array([[-0.2, 0.05, 0.001, 0.002, 0.01]])
    path = tmp_path / "a.yml"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for key, value in {
        "image_width": 128,
        "image_height": 96,
        "camera_matrix": K,
        "distortion_coefficients": D,
    }.items():
        storage.write(key, value)
    storage.release()
    rays = np.array([[0.1, -0.2], [0.4, 0.3]])
    points = np.concatenate([rays, np.ones((2, 1))], axis=1)
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, D)[0][:, 0] + 0.5
    np.testing.assert_allclose(project(read_calibration(path), rays), expected, atol=1e-9)


MATRIX = (
    '{"type_id": "opencv-matrix", "rows": 3, "cols": 3, "dt": "d", "data": [90., 0., 63., 0., 90., 47., 0., 0., 1.]}'
)
SIZES = '"image_width": 128, "image_height": 96'
D4 = '"D": [0.1, 0.2, 0, 0]'
K_PLAIN = '"K": [[90, 0, 63], [0, 90, 47], [0, 0, 1]]'


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (f'{{{SIZES}, "camera_matrix": {MATRIX}, "dist_coeffs": [0.1, 0.2, 0, 0]}}', "pinhole"),
        (f"{{{SIZES}, {K_PLAIN}, {D4}}}", "pinhole"),
        (f'{{{SIZES}, {K_PLAIN}, "dist_coeff": [[0.1, 0.2, 0, 0]]}}', "pinhole"),
        (f'{{{SIZES}, {K_PLAIN}, {D4}, "fisheye_model": 1}}', "fisheye"),
        (f'{{{SIZES}, {K_PLAIN}, {D4}, "fisheye": true}}', "fisheye"),
        (f'{{{SIZES}, {K_PLAIN}, {D4}, "distortion_model": "equidistant"}}', "fisheye"),
        (f'{{{SIZES}, {K_PLAIN}, {D4}, "distortion_model": "plumb_bob"}}', "pinhole"),
    ],
)
def test_names_that_others_use(tmp_path: Path, text: str, model: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    lens = read_calibration(path)
    assert lens.model == model
    assert lens.K.tolist() == [[90, 0, 63.5], [0, 90, 47.5], [0, 0, 1]]
    assert lens.distortion.tolist() == [0.1, 0.2, 0, 0]
    assert lens.size == SIZE


def test_yaml_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "image_width: 128\nimage_height: 96\ncamera_name: left\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
        "  data: [90, 0, 63, 0, 90, 47, 0, 0, 1]\ndistortion_model: plumb_bob\ndistortion_coefficients:\n"
        "  rows: 1\n  cols: 5\n  data: [0.1, 0.2, 0, 0, 0.3]\n"
    )
    lens = read_calibration(path)
    assert lens.distortion.tolist() == [0.1, 0.2, 0, 0, 0.3]
    assert lens.K[0].tolist() == [90, 0, 63.5]


def test_model_of_a_file_that_does_not_say_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f"{{{SIZES}, {K_PLAIN}, {D4}}}")
    assert read_calibration(path, "fisheye").model == "fisheye"
    path.write_text(f'{{{SIZES}, {K_PLAIN}, {D4}, "model": "pinhole"}}')
    assert read_calibration(path, "fisheye").model == "pinhole"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged, or not in OpenCV's format"),
        ('{"camera_matrix": ', "damaged, or not in OpenCV's format"),
        ("[1, 2]", "damaged, or not in OpenCV's format"),
        (f"{{{SIZES}, {D4}}}", "camera_matrix is missing"),
        (f"{{{SIZES}, {K_PLAIN}}}", "distortion_coefficients is missing"),
        (f"{{{K_PLAIN}, {D4}}}", "image_height is missing or not a number; add the size"),
        (f'{{"image_width": 0, "image_height": 96, {K_PLAIN}, {D4}}}', "pictures of 0 x 96 pixels"),
        (f'{{{SIZES}, "K": [[90, 0, 63], [0, 90, 47]], {D4}}}', "camera_matrix: 3 x 3 numbers"),
        (f'{{{SIZES}, "K": [[-9, 0, 63], [0, 90, 47], [0, 0, 1]], {D4}}}', "camera_matrix: 3 x 3 numbers"),
        (f'{{{SIZES}, "K": [[90, 3, 63], [0, 90, 47], [0, 0, 1]], {D4}}}', "skew of 3; calibrate again"),
        (f'{{{SIZES}, "K": "text", {D4}}}', "camera_matrix: a matrix of numbers expected"),
        (f'{{{SIZES}, "K": [["a"]], {D4}}}', "camera_matrix: a matrix of numbers expected"),
        (f'{{{SIZES}, "K": {MATRIX[:-7]}]}}, {D4}}}', "camera_matrix: a matrix of numbers expected"),
        (f'{{{SIZES}, {K_PLAIN}, "D": [1, 2, 3]}}', "3 distortion coefficients; the pinhole model has 4 or 5"),
        (f'{{{SIZES}, {K_PLAIN}, "D": [1, 2, 3, 4, 5], "fisheye": 1}}', "5 distortion coefficients; the fisheye"),
        (f'{{{SIZES}, {K_PLAIN}, {D4}, "model": "mirror"}}', "model 'mirror' is not known; pinhole or fisheye"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cam00.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_calibration(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file_and_other_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: no such calibration"):
        read_calibration(tmp_path / "gone.json")
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(InputError, match=r"a\.txt: a calibration is a file of \.json"):
        read_calibration(tmp_path / "a.txt")


def test_a_file_for_each_camera_or_one_for_all(tmp_path: Path) -> None:
    one, other = make_lens("barrel"), make_lens("fisheye")
    write_calibration(tmp_path / "cam00.json", one)
    write_calibration(tmp_path / "cam02.yml", other)
    found = read_calibrations(tmp_path, ["cam00", "cam02"])
    assert [found[name][1].model for name in ("cam00", "cam02")] == ["pinhole", "fisheye"]
    assert found["cam02"][0] == tmp_path / "cam02.yml"
    with pytest.raises(InputError, match=r"cam01\.json: no such calibration; put a file for each camera"):
        read_calibrations(tmp_path, ["cam00", "cam01"])
    write_calibration(tmp_path / "all.json", other)
    found = read_calibrations(tmp_path, ["cam00", "cam01"])
    assert [found[name][1].model for name in ("cam00", "cam01")] == ["pinhole", "fisheye"]
    found = read_calibrations(tmp_path / "cam00.json", ["a", "b"])
    assert found["a"][1].model == found["b"][1].model == "pinhole"
    write_calibration(tmp_path / "cam02.json", other)
    with pytest.raises(InputError, match=r"cam02\.yml: cam02\.json is of the same camera; keep one"):
        read_calibrations(tmp_path, ["cam02"])


def test_writing_fails_without_a_half_file(tmp_path: Path) -> None:
    (tmp_path / "cam00.json").mkdir()
    with pytest.raises(OSError, match=r"cam00\.json"):
        write_calibration(tmp_path / "cam00.json", make_lens("barrel"))
    assert [path.name for path in tmp_path.iterdir()] == ["cam00.json"]
