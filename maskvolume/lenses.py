"""What a lens does to straight lines: OpenCV calibrations, and tables that undo the distortion.

Convention: K is in pixels with pixel centres at (i + 0.5, j + 0.5) and sizes are (h, w), as everywhere here.
OpenCV counts pixel centres from 0; files and OpenCV's own functions get a principal point that is 0.5 less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from maskvolume.errors import InputError
from maskvolume.io.files import atomic_path

LensModel = Literal["pinhole", "fisheye"]

CALIBRATION_SUFFIXES = (".json", ".yml", ".yaml", ".xml")
ALL_CAMERAS = "all"  # stem of the calibration that holds for all cameras of a folder

# OpenCV's: k1 k2 p1 p2, then k3, then k4 k5 k6, then thin prism, then tilt.
_PINHOLE_COUNTS = (4, 5, 8, 12, 14)
_FISHEYE_COUNTS = (4,)
# What a flat picture is taken to show at most; beyond, a pixel at the border covers next to nothing.
_MAX_ANGLE = math.radians(80)
_STRAIGHT_TOLERANCE = 0.01  # pixels
_BISECTIONS = 50
_MODEL_KEYS = ("model", "camera_model", "distortion_model")
_FISHEYE_KEYS = ("fisheye_model", "fisheye")
_MODEL_NAMES: Mapping[str, LensModel] = {
    **dict.fromkeys(("pinhole", "plumb_bob", "rational_polynomial", "radtan", "opencv"), "pinhole"),
    **dict.fromkeys(("fisheye", "equidistant", "opencv_fisheye"), "fisheye"),
}


@dataclass(frozen=True, eq=False)
class Lens:
    """What one camera does to straight lines.

    Attributes:
        K: ``[3, 3]`` float64 in pixels, pixel centres at +0.5, no skew.
        distortion: pinhole: OpenCV's order k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tx ty]]]]; fisheye: k1 k2 k3 k4.
        model: OpenCV's pinhole or fisheye model.
        size: (h, w) of the pictures.
    """

    K: np.ndarray
    distortion: np.ndarray
    model: LensModel
    size: tuple[int, int]

    def __post_init__(self) -> None:
        counts = _PINHOLE_COUNTS if self.model == "pinhole" else _FISHEYE_COUNTS
        if self.K.shape != (3, 3) or self.distortion.shape not in [(count,) for count in counts]:
            raise ValueError(
                f"K [3, 3] and one of {counts} distortion coefficients expected, got {list(self.K.shape)} and "
                f"{list(self.distortion.shape)}"
            )

    def scaled(self, size: tuple[int, int]) -> Lens:
        """The same lens at another picture size: K is scaled per axis."""
        scale = np.array([[size[1] / self.size[1]], [size[0] / self.size[0]], [1.0]])
        return replace(self, K=self.K * scale, size=(int(size[0]), int(size[1])))


@dataclass(frozen=True, eq=False)
class RemapTables:
    """Where each pixel of a new picture lies in the old one.

    Attributes:
        x: ``[h, w]`` float32, OpenCV's coordinates (pixel centres at whole numbers).
        y: the same.
        seen: ``[h, w]`` bool, whether the old picture shows it.
    """

    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The new picture, uint8 ``[h, w, 3]`` or ``[h, w]``, of an old one; black where it shows nothing."""
        new = cv2.remap(picture, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        new[~self.seen] = 0
        return new


def pinhole(K: np.ndarray, size: tuple[int, int]) -> Lens:
    """The lens that leaves straight lines straight."""
    return Lens(np.asarray(K, np.float64), np.zeros(4), "pinhole", size)


def is_distorted(lens: Lens) -> bool:
    """Whether straight lines come out bent."""
    return lens.model == "fisheye" or bool(np.any(lens.distortion != 0))


def llff_obstacles(lens: Lens) -> list[str]:
    """What of this lens LLFF cannot hold, in words; empty where less than a hundredth of a pixel is lost."""
    h, w = lens.size
    fx, fy, cx, cy = lens.K[0, 0], lens.K[1, 1], lens.K[0, 2], lens.K[1, 2]
    words = []
    if is_distorted(lens):
        words.append("distortion")
    if abs(fx - fy) / max(fx, fy) * max(h, w) / 2 > _STRAIGHT_TOLERANCE:
        words.append(f"two focal lengths ({fx:.2f} and {fy:.2f})")
    if max(abs(cx - w / 2), abs(cy - h / 2)) > _STRAIGHT_TOLERANCE:
        words.append(f"a principal point off the centre ({cx - w / 2:+.2f}, {cy - h / 2:+.2f} pixels)")
    return words


def project(
    lens: Lens,
    rays: np.ndarray,  # [N, 2]
) -> np.ndarray:
    """Pixels ``[N, 2]`` (x, y), centres at +0.5, of points (x, y, 1) in the camera's frame."""
    if lens.model == "fisheye":
        return cv2.fisheye.distortPoints(rays[:, None], lens.K, lens.distortion)[:, 0]
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    return cv2.projectPoints(points[:, None], np.zeros(3), np.zeros(3), lens.K, lens.distortion)[0][:, 0]


def undistort_maps(
    lens: Lens,
    K_new: np.ndarray,  # [3, 3], pixel centres at +0.5
    size: tuple[int, int] | None = None,
) -> RemapTables:
    """Tables to the picture that an ideal camera with ``K_new`` takes from the same place.

    Args:
        lens: of the old pictures.
        K_new: of the new ones.
        size: (h, w) of the new ones; None: as the old ones.
    """
    h, w = size or lens.size
    old, new = _shifted(lens.K, -0.5), _shifted(K_new, -0.5)
    undistort = cv2.fisheye.initUndistortRectifyMap if lens.model == "fisheye" else cv2.initUndistortRectifyMap
    x, y = undistort(old, lens.distortion, np.eye(3), new, (w, h), cv2.CV_32FC1)
    ray_x, ray_y = (np.arange(w) - new[0, 2]) / new[0, 0], (np.arange(h) - new[1, 2]) / new[1, 1]
    # Beyond its reach the formula of the lens turns back and would show the picture a second time.
    within = ray_x[None] ** 2 + ray_y[:, None] ** 2 <= _reach(lens) ** 2
    inside = (x >= -0.5) & (x <= lens.size[1] - 0.5) & (y >= -0.5) & (y <= lens.size[0] - 0.5)
    return RemapTables(x, y, within & inside)


def straight(
    lens: Lens, size: tuple[int, int] | None = None, *, keep_all: bool = False, focal: float | None = None
) -> np.ndarray:
    """K ``[3, 3]`` of the ideal camera, which LLFF can hold: one focal length, principal point in the middle.

    Args:
        lens: of the pictures that there are.
        size: (h, w) of the new ones; None: as the old ones.
        keep_all: show all of the old picture, up to 80 degrees off the axis, also where that leaves pixels empty.
            Otherwise the view is as wide as it can be without an empty pixel.
        focal: the focal length in pixels, instead of either.

    Raises:
        InputError: the principal point lies outside the picture.
    """
    size = size or lens.size
    if size == lens.size and focal is None and not llff_obstacles(lens):
        focal = float(lens.K[0, 0] + lens.K[1, 1]) / 2
    if focal is None:
        focal = _focal_of_all(lens, size) if keep_all else _focal_without_gaps(lens, size)
    return np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]])


def _focal_without_gaps(lens: Lens, size: tuple[int, int]) -> float:
    """The shortest focal length with which the border of the new picture lies within the old one."""
    x, y = np.arange(size[1]) + 0.5 - size[1] / 2, np.arange(size[0]) + 0.5 - size[0] / 2
    sides = [np.stack(np.broadcast_arrays(x, y[i]), axis=-1) for i in (0, -1)]
    sides += [np.stack(np.broadcast_arrays(x[i], y), axis=-1) for i in (0, -1)]
    border = np.concatenate(sides)
    distance = np.linalg.norm(border, axis=1).clip(min=1e-6)
    return float((distance / _border_distances(lens, border / distance[:, None])).max())


def _focal_of_all(lens: Lens, size: tuple[int, int]) -> float:
    """The longest focal length with which the border of the old picture lies within the new one."""
    angle = np.linspace(0, 2 * np.pi, 16384, endpoint=False)
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x, y = np.abs(directions * _border_distances(lens, directions)[:, None]).max(axis=0)
    return float(min((size[1] - 1) / 2 / x, (size[0] - 1) / 2 / y))


def _border_distances(
    lens: Lens,
    directions: np.ndarray,  # [N, 2], of length 1
) -> np.ndarray:
    """How far from the axis the outermost pixel centres lie, ``[N]``, in the plane at depth 1."""
    h, w = lens.size
    if not (0.5 < lens.K[0, 2] < w - 0.5 and 0.5 < lens.K[1, 2] < h - 0.5):
        raise InputError(
            f"the principal point ({lens.K[0, 2]:.1f}, {lens.K[1, 2]:.1f}) lies outside the picture of {w} x {h} "
            f"pixels; calibrate this camera again"
        )
    low, high = np.zeros(len(directions)), np.full(len(directions), _reach(lens))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        x, y = project(lens, directions * middle[:, None]).T
        inside = (x >= 0.5) & (x <= w - 0.5) & (y >= 0.5) & (y <= h - 0.5)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low.clip(min=1e-9)


def _reach(lens: Lens) -> float:
    """The distance from the axis, at depth 1, up to which what lies farther out is also shown farther out."""
    angle = np.linspace(0, _MAX_ANGLE, 8192)
    if lens.model == "fisheye":
        shown = angle * np.polyval([*lens.distortion[::-1], 1], angle**2)
    else:
        k1, k2, _, _, k3, k4, k5, k6 = np.pad(lens.distortion, (0, 14))[:8]
        square = np.tan(angle) ** 2
        shown = np.tan(angle) * np.polyval([k3, k2, k1, 1], square) / np.polyval([k6, k5, k4, 1], square)
    falls = np.flatnonzero(np.diff(shown) <= 0)
    return float(np.tan(angle[falls[0] if len(falls) else -1]))


def _shifted(K: np.ndarray, shift: float) -> np.ndarray:
    """K with its principal point moved along both axes."""
    return K + np.array([[0, 0, shift], [0, 0, shift], [0, 0, 0]])


def fit_lens(lens: Lens, size: tuple[int, int], path: str | Path) -> Lens:
    """A lens at the size of the pictures that it is used for.

    Args:
        lens: calibrated at any size.
        size: (h, w) of the pictures.
        path: the calibration, for the message.

    Raises:
        InputError: the pictures have another shape than those of the calibration.
    """
    (h, w), (old_h, old_w) = size, lens.size
    if abs(h - old_h * w / old_w) > 1:
        raise InputError(
            f"{path}: made for pictures of {old_w} x {old_h} pixels, these have {w} x {h}, which is another shape; "
            f"calibrate with pictures of the mode that was recorded in"
        )
    return lens.scaled(size)


def read_calibrations(
    path: str | Path, names: Sequence[str], model: LensModel | None = None
) -> dict[str, tuple[Path, Lens]]:
    """The calibration of each camera, and the file that it stands in.

    Args:
        path: a file that holds for all cameras, or a folder with ``NAME.json`` (or ``.yml``, ``.xml``) for each of
            them, or with ``all.json``.
        names: the cameras.
        model: of files that do not say it; None: pinhole.

    Raises:
        InputError: a camera has none, or one cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        lens = read_calibration(path, model)
        return dict.fromkeys(names, (path, lens))
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in CALIBRATION_SUFFIXES and not file.name.startswith("."):
            if file.stem in found:
                raise InputError(f"{file}: {found[file.stem].name} is of the same camera; keep one of the two")
            found[file.stem] = file
    lenses = {}
    for name in names:
        file = found.get(name, found.get(ALL_CAMERAS, path / f"{name}.json"))
        if not file.is_file():
            raise InputError(
                f"{file}: no such calibration; put a file for each camera there, or {ALL_CAMERAS}.json for all, "
                f"or leave the camera out with --exclude"
            )
        lenses[name] = (file, read_calibration(file, model))
    return lenses


def read_calibration(path: str | Path, model: LensModel | None = None) -> Lens:
    """Read a calibration as OpenCV writes it, in JSON, YAML or XML.

    Args:
        path: the file; ``camera_matrix`` (or ``K``), ``distortion_coefficients`` (``dist_coeffs``, ``dist_coeff``,
            ``D``), ``image_width``, ``image_height``, and ``model`` or ``fisheye_model``.
        model: of a file that does not say it; None: pinhole.

    Raises:
        InputError: the file is missing or damaged, lacks something or holds no calibration.
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
    counts = _PINHOLE_COUNTS if lens_model == "pinhole" else _FISHEYE_COUNTS
    if distortion.size not in counts or not np.isfinite(distortion).all():
        raise InputError(
            f"{path}: {distortion.size} distortion coefficients; the {lens_model} model has "
            f"{' or '.join(map(str, counts))} finite ones; correct the file or its model"
        )
    if not (h >= 1 and w >= 1 and h == round(h) and w == round(w)):
        raise InputError(f"{path}: pictures of {w:g} x {h:g} pixels; correct image_width and image_height")
    K = np.array([[K[0], 0, K[2]], [0, K[4], K[5]], [0, 0, 1]])
    return Lens(_shifted(K, 0.5), distortion, lens_model, (round(h), round(w)))


def write_calibration(path: str | Path, lens: Lens, notes: Mapping[str, float] | None = None) -> None:
    """Write a calibration as OpenCV does, in the form that the suffix of ``path`` names.

    Args:
        path: ``.json``, ``.yml``, ``.yaml`` or ``.xml``.
        lens: the calibration.
        notes: further numbers to write, such as the reprojection error.

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
    storage.write("camera_matrix", _shifted(lens.K, -0.5))
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
    raise InputError(f"{path}: damaged, or not a file as OpenCV writes it; calibrate again")


def _read_matrix(storage: cv2.FileStorage, keys: Sequence[str], path: Path) -> np.ndarray:
    """The numbers under the first of ``keys`` that is there, as ``[N]`` float64."""
    node = next((node for node in map(storage.getNode, keys) if not node.empty()), None)
    if node is None:
        raise InputError(f"{path}: {keys[0]} is missing; give a calibration as OpenCV writes it")
    try:
        if node.isMap():
            data = node.getNode("data")
            # A map that is not marked as OpenCV's matrix, as other programs write it, holds the same list.
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
        raise InputError(f"{path}: {key} is missing or no number; add the size of the pictures that were calibrated")
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
