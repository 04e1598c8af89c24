"""Calibrates cameras from pictures of a chessboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from maskvolume.clips.layouts import list_pictures
from maskvolume.geometry.lenses import Lens, LensModel
from maskvolume.io.calibrations import ALL_CAMERAS
from maskvolume.io.files import natural_key
from maskvolume.io.images import read_image
from maskvolume.runtime.errors import InputError

MIN_BOARDS = 3
# If all boards have similar poses, the focal length is undetermined.
_MAX_FOCAL_SPREAD = 0.05  # largest relative standard deviation of the focal length
_REFINEMENT = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 60, 1e-4)
_FLAGS = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_NORMALIZE_IMAGE


@dataclass(frozen=True, eq=False)
class BoardPictures:
    """The boards in the pictures of one camera.

    Attributes:
        size: (h, w) of the pictures.
        corners: inner corners of each board that was found, ``[rows * cols, 2]`` float32, OpenCV's pixels.
        without_board: the pictures without a complete board.
    """

    size: tuple[int, int]
    corners: tuple[np.ndarray, ...]
    without_board: tuple[Path, ...]


def board_folders(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each camera: those of each subfolder, or those of the folder itself under ``all``.

    Raises:
        InputError: there is no picture.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder with the pictures of the chessboard")
    subfolders = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: natural_key(path.name))
    pictures = {path.name: list(list_pictures(path).values()) for path in subfolders if not path.name.startswith(".")}
    by_camera = {name: paths for name, paths in pictures.items() if paths}
    top_level = list(list_pictures(folder).values())
    if top_level and by_camera:
        raise InputError(
            f"{folder}: holds pictures and folders with pictures ({next(iter(by_camera))}); give a folder per camera, "
            f"or one folder for all"
        )
    if not top_level and not by_camera:
        raise InputError(f"{folder}: holds no picture; put those of the chessboard there, jpg or png")
    return by_camera or {ALL_CAMERAS: top_level}


def find_boards(pictures: Sequence[Path], board: tuple[int, int]) -> BoardPictures:
    """Find a chessboard of ``board`` (columns, rows) inner corners in the pictures of one camera.

    Raises:
        InputError: a picture cannot be read, or has another size than the first.
    """
    corners, without_board = [], []
    size: tuple[int, int] | None = None
    for path in tqdm(pictures, desc=pictures[0].parent.name, unit="picture", disable=None):
        grey = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
        size = size or (grey.shape[0], grey.shape[1])
        if grey.shape != size:
            raise InputError(
                f"{path}: {grey.shape[1]} x {grey.shape[0]} pixels, but {pictures[0].name} has {size[1]} x {size[0]}; "
                f"give pictures of one size for a camera"
            )
        is_found, points = cv2.findChessboardCornersSB(grey, board, flags=_FLAGS)
        if is_found:
            corners.append(_refined(grey, points.reshape(board[1], board[0], 2)).reshape(-1, 2))
        else:
            without_board.append(path)
    assert size is not None
    return BoardPictures(size, tuple(corners), tuple(without_board))


def _refined(
    grey: np.ndarray,  # [H, W]
    corners: np.ndarray,  # [rows, columns, 2]
) -> np.ndarray:
    """Refine corners to subpixel accuracy ``[rows * columns, 1, 2]``, in windows with one corner each."""
    gaps = [np.linalg.norm(np.diff(corners, axis=axis), axis=-1).min() for axis in (0, 1)]
    side = max(2, round(float(min(gaps)) / 3))
    return cv2.cornerSubPix(grey, corners.reshape(-1, 1, 2).astype(np.float32), (side, side), (-1, -1), _REFINEMENT)


def calibrate(
    pictures: BoardPictures, board: tuple[int, int], square: float, model: LensModel, place: Path
) -> tuple[Lens, float]:
    """Fit a lens to the boards.

    Args:
        pictures: of one camera.
        board: (columns, rows) of inner corners.
        square: side of a square, in any unit.
        model: of the lens.
        place: the folder of the pictures, for messages.

    Returns:
        The lens and its reprojection error, the root mean square over all corners in pixels.

    Raises:
        InputError: too few boards, or boards that do not determine the lens.
    """
    count = len(pictures.corners)
    if count < MIN_BOARDS:
        raise InputError(
            f"{place}: a board of {board[0]} x {board[1]} inner corners in {count} of "
            f"{count + len(pictures.without_board)} pictures, at least {MIN_BOARDS} are needed; count the corners "
            f"where four squares meet, and take more pictures that show all of it"
        )
    points = np.zeros((board[0] * board[1], 3), np.float32)
    points[:, :2] = np.mgrid[: board[0], : board[1]].T.reshape(-1, 2) * square
    size = pictures.size[::-1]
    advice = "take more pictures: tilted in all directions, near and far, up to the corners of the picture"
    K: Any = np.zeros((3, 3))
    spread = 0.0
    try:
        if model == "fisheye":
            flags = cv2.CALIB_RECOMPUTE_EXTRINSIC | cv2.CALIB_FIX_SKEW
            objects = [points[None].astype(np.float64)] * count
            images = [corners[None].astype(np.float64) for corners in pictures.corners]
            error, K, distortion, *_ = cv2.fisheye.calibrate(objects, images, size, K, np.zeros((4, 1)), flags=flags)
        else:
            result = cv2.calibrateCameraExtended([points] * count, pictures.corners, size, K, np.zeros((5, 1)))
            error, K, distortion, spread = *result[:3], float(result[5][0, 0])
    except cv2.error as failure:
        raise InputError(f"{place}: the boards do not determine the lens; {advice}") from failure
    h, w = pictures.size
    plausible = np.isfinite(K).all() and np.isfinite(distortion).all() and 0 < K[0, 2] < w and 0 < K[1, 2] < h
    if not plausible or spread > _MAX_FOCAL_SPREAD * K[0, 0]:
        raise InputError(f"{place}: the boards are too similar to determine the lens; {advice}")
    K_lens = np.array([[K[0, 0], 0, K[0, 2] + 0.5], [0, K[1, 1], K[1, 2] + 0.5], [0, 0, 1]])
    return Lens(K_lens, distortion.ravel().astype(np.float64), model, pictures.size), float(error)
