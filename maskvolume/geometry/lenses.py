"""Lens models, and remap tables that undo their distortion.

Convention: K is in pixels with pixel centres at (i + 0.5, j + 0.5) and sizes are (h, w), as everywhere here.
OpenCV counts pixel centres from 0; its own functions get a principal point that is 0.5 less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from maskvolume.runtime.errors import InputError

LensModel = Literal["pinhole", "fisheye"]

# Coefficients of each model. OpenCV's pinhole: k1 k2 p1 p2, then k3, then k4 k5 k6, then thin prism, then tilt.
DISTORTION_COUNTS: Mapping[LensModel, tuple[int, ...]] = {"pinhole": (4, 5, 8, 12, 14), "fisheye": (4,)}

# The widest angle off the axis that a flat picture shows; beyond it, a border pixel covers next to nothing.
_MAX_ANGLE = math.radians(80)
_STRAIGHT_TOLERANCE = 0.01  # pixels
_BISECTIONS = 50


@dataclass(frozen=True, eq=False)
class Lens:
    """Intrinsics and distortion of one camera.

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
        counts = DISTORTION_COUNTS[self.model]
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
    """The position in the old picture of each pixel of a new one.

    Attributes:
        x: ``[h, w]`` float32, OpenCV's coordinates (pixel centres at whole numbers).
        y: the same.
        seen: ``[h, w]`` bool, whether the old picture covers the pixel.
    """

    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Remap an old picture; returns uint8 ``[h, w, 3]`` or ``[h, w]``, black where the old one has no content."""
        new = cv2.remap(picture, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        new[~self.seen] = 0
        return new


def pinhole(K: np.ndarray, size: tuple[int, int]) -> Lens:
    """A lens without distortion."""
    return Lens(np.asarray(K, np.float64), np.zeros(4), "pinhole", size)


def is_distorted(lens: Lens) -> bool:
    """Whether the lens bends straight lines."""
    return lens.model == "fisheye" or bool(np.any(lens.distortion != 0))


def llff_obstacles(lens: Lens) -> list[str]:
    """The properties of this lens that LLFF cannot represent, as text; empty if less than 0.01 pixels is lost."""
    h, w = lens.size
    fx, fy, cx, cy = lens.K[0, 0], lens.K[1, 1], lens.K[0, 2], lens.K[1, 2]
    obstacles = []
    if is_distorted(lens):
        obstacles.append("distortion")
    if abs(fx - fy) / max(fx, fy) * max(h, w) / 2 > _STRAIGHT_TOLERANCE:
        obstacles.append(f"two focal lengths ({fx:.2f} and {fy:.2f})")
    if max(abs(cx - w / 2), abs(cy - h / 2)) > _STRAIGHT_TOLERANCE:
        obstacles.append(f"a principal point off the centre ({cx - w / 2:+.2f}, {cy - h / 2:+.2f} pixels)")
    return obstacles


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
    """Remap tables for the picture that an ideal camera with ``K_new`` takes from the same position.

    Args:
        lens: of the old pictures.
        K_new: of the new ones.
        size: (h, w) of the new ones; by default that of the old ones.
    """
    h, w = size or lens.size
    old, new = shifted(lens.K, -0.5), shifted(K_new, -0.5)
    undistort = cv2.fisheye.initUndistortRectifyMap if lens.model == "fisheye" else cv2.initUndistortRectifyMap
    x, y = undistort(old, lens.distortion, np.eye(3), new, (w, h), cv2.CV_32FC1)
    ray_x, ray_y = (np.arange(w) - new[0, 2]) / new[0, 0], (np.arange(h) - new[1, 2]) / new[1, 1]
    # Beyond the lens's reach its formula turns back and would show the picture a second time.
    within = ray_x[None] ** 2 + ray_y[:, None] ** 2 <= _reach(lens) ** 2
    inside = (x >= -0.5) & (x <= lens.size[1] - 0.5) & (y >= -0.5) & (y <= lens.size[0] - 0.5)
    return RemapTables(x, y, within & inside)


def straight(
    lens: Lens, size: tuple[int, int] | None = None, *, keep_all: bool = False, focal: float | None = None
) -> np.ndarray:
    """K ``[3, 3]`` of an ideal camera that LLFF can represent: one focal length, principal point in the middle.

    Args:
        lens: of the existing pictures.
        size: (h, w) of the new ones; by default that of the old ones.
        keep_all: show all of the old picture, up to 80 degrees off the axis, even if that leaves empty pixels.
            Otherwise the view is as wide as possible without empty pixels.
        focal: focal length in pixels; overrides ``keep_all``.

    Raises:
        InputError: the principal point is outside the picture.
    """
    size = size or lens.size
    if size == lens.size and focal is None and not llff_obstacles(lens):
        focal = float(lens.K[0, 0] + lens.K[1, 1]) / 2
    if focal is None:
        focal = _focal_of_all(lens, size) if keep_all else _focal_without_gaps(lens, size)
    return np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]])


def _focal_without_gaps(lens: Lens, size: tuple[int, int]) -> float:
    """The shortest focal length for which the border of the new picture is inside the old one."""
    x, y = np.arange(size[1]) + 0.5 - size[1] / 2, np.arange(size[0]) + 0.5 - size[0] / 2
    sides = [np.stack(np.broadcast_arrays(x, y[i]), axis=-1) for i in (0, -1)]
    sides += [np.stack(np.broadcast_arrays(x[i], y), axis=-1) for i in (0, -1)]
    border = np.concatenate(sides)
    distance = np.linalg.norm(border, axis=1).clip(min=1e-6)
    return float((distance / _border_distances(lens, border / distance[:, None])).max())


def _focal_of_all(lens: Lens, size: tuple[int, int]) -> float:
    """The longest focal length for which the border of the old picture is inside the new one."""
    angle = np.linspace(0, 2 * np.pi, 16384, endpoint=False)
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x, y = np.abs(directions * _border_distances(lens, directions)[:, None]).max(axis=0)
    return float(min((size[1] - 1) / 2 / x, (size[0] - 1) / 2 / y))


def _border_distances(
    lens: Lens,
    directions: np.ndarray,  # [N, 2], of length 1
) -> np.ndarray:
    """Distance from the axis to the outermost pixel centres, ``[N]``, in the plane at depth 1."""
    h, w = lens.size
    if not (0.5 < lens.K[0, 2] < w - 0.5 and 0.5 < lens.K[1, 2] < h - 0.5):
        raise InputError(
            f"the principal point ({lens.K[0, 2]:.1f}, {lens.K[1, 2]:.1f}) is outside the picture of {w} x {h} "
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
    """The distance from the axis, at depth 1, up to which the distorted radius grows with the distance."""
    angle = np.linspace(0, _MAX_ANGLE, 8192)
    if lens.model == "fisheye":
        radius = angle * np.polyval([*lens.distortion[::-1], 1], angle**2)
    else:
        k1, k2, _, _, k3, k4, k5, k6 = np.pad(lens.distortion, (0, 14))[:8]
        square = np.tan(angle) ** 2
        radius = np.tan(angle) * np.polyval([k3, k2, k1, 1], square) / np.polyval([k6, k5, k4, 1], square)
    falls = np.flatnonzero(np.diff(radius) <= 0)
    return float(np.tan(angle[falls[0] if len(falls) else -1]))


def shifted(K: np.ndarray, shift: float) -> np.ndarray:
    """K with its principal point moved along both axes."""
    return K + np.array([[0, 0, shift], [0, 0, shift], [0, 0, 0]])


def fit_lens(lens: Lens, size: tuple[int, int], path: object) -> Lens:
    """Scale a lens to the size of the pictures that it is used for.

    Args:
        lens: calibrated at any size.
        size: (h, w) of the pictures.
        path: the calibration file, for the message.

    Raises:
        InputError: the pictures have another aspect ratio than the calibration.
    """
    (h, w), (old_h, old_w) = size, lens.size
    if abs(h - old_h * w / old_w) > 1:
        raise InputError(
            f"{path}: made for pictures of {old_w} x {old_h} pixels, these have {w} x {h}, which is another shape; "
            f"calibrate with pictures taken in the recording mode"
        )
    return lens.scaled(size)
