"""Lens calibrations in OpenCV's file formats.

Convention: a ``Lens`` has pixel centres at (i + 0.5, j + 0.5). OpenCV counts them from 0; files hold a principal point
that is 0.5 less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from maskvolume.geometry.lenses import (
    DISTORTION_COUNTS,
    Lens,
    LensModel,
    shifted,
)
from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

CALIBRATION_SUFFIXES = (".json", ".yml", ".yaml", ".xml")
ALL_CAMERAS = "all"  # stem of the calibration that holds for all cameras of a folder

_MODEL_KEYS = ("model", "camera_model", "distortion_model")
_FISHEYE_KEYS = ("fisheye_model", "fisheye")
_MODEL_NAMES: Mapping[str, LensModel] = {
    **dict.fromkeys(("pinhole", "plumb_bob", "rational_polynomial", "radtan", "opencv"), "pinhole"),
    **dict.fromkeys(("fisheye", "equidistant", "opencv_fisheye"), "fisheye"),
}


def read_calibrations(
    path: str | Path, names: Sequence[str], model: LensModel | None = None
) -> dict[str, tuple[Path, Lens]]:
    """The calibration of each camera, and its file.

    Args:
        path: a file for all cameras, or a folder with ``NAME.json`` (or ``.yml``, ``.xml``) for each of
            them, or with ``all.json``.
        names: the cameras.
        model: for files that do not name one; None: pinhole.

    Raises:
        InputError: a camera has no calibration, or one cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        lens = read_calibration(path, model)
        return dict.fromkeys(names, (path, lens))
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in CALIBRATION_SUFFIXES and not file.name.startswith("."):
            if file.stem in files:
                raise InputError(f"{file}: {files[file.stem].name} is of the same camera; keep one of the two")
            files[file.stem] = file
    lenses = {}
    for name in names:
        file = files.get(name, files.get(ALL_CAMERAS, path / f"{name}.json"))
        if not file.is_file():
            raise InputError(
                f"{file}: no such calibration; put a file for each camera there, or {ALL_CAMERAS}.json for all, "
                f"or leave the camera out with --exclude"
            )
        lenses[name] = (file, read_calibration(file, model))
    return lenses


def read_calibration(path: str | Path, model: LensModel | None = None) -> Lens:
    """Read a calibration in OpenCV's JSON, YAML or XML format.

    Args:
        path: the file; ``camera_matrix`` (or ``K``), ``distortion_coefficients`` (``dist_coeffs``, ``dist_coeff``,
            ``D``), ``image_width``, ``image_height``, and ``model`` or ``fisheye_model``.
        model: for a file that does not name one; None: pinhole.

    Raises:
        InputError: the file is missing, damaged or incomplete, or holds no calibration.
    """
    path = Path(path)
    storage = _open_storage(path)
    K = _read_matrix(storage, ("camera_matrix", "cameraMatrix", "K"), path)
    distortion = _read_matrix(
        storage, ("distortion_coefficients", "dist_coeffs", "dist_coeff", "distCoeffs", "D"), path
    )
    h, w = (_read_number(storage, key, path) for key in ("image_height", "image_width"))
    lens_model = _read_model(storage, path) or model or "pinhole"
    storage.release()
    if K.size != 9 or not np.isfinite(K).all() or min(K[0], K[4]) <= 0 or list(K[6:]) != [0, 0, 1]:
        raise InputError(f"{path}: camera_matrix: 3 x 3 numbers [fx 0 cx; 0 fy cy; 0 0 1] expected; calibrate again")
    if abs(K[1]) > 1e-6 * K[0] or K[3] != 0:
        raise InputError(f"{path}: camera_matrix has a skew of {K[1]:g}; calibrate again with the skew fixed at 0")
    counts = DISTORTION_COUNTS[lens_model]
    if distortion.size not in counts or not np.isfinite(distortion).all():
        raise InputError(
            f"{path}: {distortion.size} distortion coefficients; the {lens_model} model has "
            f"{' or '.join(map(str, counts))} finite ones; correct the file or its model"
        )
    if not (h >= 1 and w >= 1 and h == round(h) and w == round(w)):
        raise InputError(f"{path}: pictures of {w:g} x {h:g} pixels; correct image_width and image_height")
    K = np.array([[K[0], 0, K[2]], [0, K[4], K[5]], [0, 0, 1]])
    return Lens(shifted(K, 0.5), distortion, lens_model, (round(h), round(w)))


def write_calibration(path: str | Path, lens: Lens, notes: Mapping[str, float] | None = None) -> None:
    """Write a calibration in OpenCV's format; the suffix of ``path`` selects JSON, YAML or XML.

    Args:
        path: ``.json``, ``.yml``, ``.yaml`` or ``.xml``.
        lens: the calibration.
        notes: additional numbers to write, such as the reprojection error.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in CALIBRATION_SUFFIXES:
        raise ValueError(f"path: one of {', '.join(CALIBRATION_SUFFIXES)} expected, got {path.name}")
    storage = cv2.FileStorage(path.suffix, cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    storage.write("image_width", lens.size[1])
    storage.write("image_height", lens.size[0])
    storage.write("model", lens.model)
    storage.write("fisheye_model", int(lens.model == "fisheye"))
    storage.write("camera_matrix", shifted(lens.K, -0.5))
    storage.write("distortion_coefficients", lens.distortion.reshape(1, -1))
    for key, value in (notes or {}).items():
        storage.write(key, value)
    text = storage.releaseAndGetString()
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _open_storage(path: Path) -> cv2.FileStorage:
    if not path.is_file():
        raise InputError(f"{path}: no such calibration; check the path")
    if path.suffix.lower() not in CALIBRATION_SUFFIXES:
        raise InputError(f"{path}: a calibration is a file of {', '.join(CALIBRATION_SUFFIXES)}; check the path")
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        if storage.isOpened() and storage.root().isMap():
            return storage
    except (cv2.error, SystemError):  # the latter wraps the former
        pass
    raise InputError(f"{path}: damaged, or not in OpenCV's format; calibrate again")


def _read_matrix(storage: cv2.FileStorage, keys: Sequence[str], path: Path) -> np.ndarray:
    """The numbers under the first of ``keys`` that exists, as ``[N]`` float64."""
    node = next((node for node in map(storage.getNode, keys) if not node.empty()), None)
    if node is None:
        raise InputError(f"{path}: {keys[0]} is missing; give a calibration in OpenCV's format")
    try:
        if node.isMap():
            data = node.getNode("data")
            # Other programs write a map that is not tagged as an OpenCV matrix but holds the same list.
            return _numbers(data) if data.isSeq() and node.getNode("dt").empty() else node.mat().ravel().astype(float)
        return _numbers(node)
    except (cv2.error, SystemError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: {keys[0]}: a matrix of numbers expected; calibrate again") from error


def _numbers(node: cv2.FileNode) -> np.ndarray:
    """All numbers of a list or of a list of lists."""
    if not node.isSeq():
        if not (node.isInt() or node.isReal()):
            raise ValueError("not a number")
        return np.array([node.real()])
    return np.concatenate([np.zeros(0), *(_numbers(node.at(i)) for i in range(node.size()))])


def _read_number(storage: cv2.FileStorage, key: str, path: Path) -> float:
    node = storage.getNode(key)
    if not (node.isInt() or node.isReal()):
        raise InputError(f"{path}: {key} is missing or not a number; add the size of the calibration pictures")
    return float(node.real())


def _read_model(storage: cv2.FileStorage, path: Path) -> LensModel | None:
    for key in _MODEL_KEYS:
        node = storage.getNode(key)
        if node.isString():
            if node.string().lower() not in _MODEL_NAMES:
                raise InputError(f"{path}: {key} {node.string()!r} is not known; pinhole or fisheye expected")
            return _MODEL_NAMES[node.string().lower()]
    for key in _FISHEYE_KEYS:
        node = storage.getNode(key)
        if node.isInt():
            return "fisheye" if node.real() else "pinhole"
    return None
