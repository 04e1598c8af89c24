"""OpenCV's semi-global matching of a rectified pair: the peer of what the MPI networks know of geometry."""

from __future__ import annotations

import cv2
import numpy as np

# Of 768 settings (block 1 to 7; P1, P2 of 2, 4, 8 and 24, 32, 96; uniqueness 0, 5, 10; speckles kept or not; HH or
# 3WAY; prefilter 15 or 63; grey or colour) the one with the fewest bad disparities on the Motorcycle pair; its mean
# error there is within 2 % of the best. P1 and P2 are times channels and block area, as OpenCV's documentation has it.
SGBM_SETTINGS = {"blockSize": 3, "P1": 8, "P2": 32, "uniquenessRatio": 10, "preFilterCap": 15, "disp12MaxDiff": 1}
SGBM_SPECKLES = {"speckleWindowSize": 100, "speckleRange": 2}
SGBM_MULTIPLE = 16  # numDisparities is one of it


def semi_global_matching(left: np.ndarray, right: np.ndarray, most: float) -> np.ndarray:
    """Disparity ``[h, w]`` of the left picture by OpenCV's StereoSGBM in colour, NaN where it gives none.

    Both pictures are widened on the left: without that it gives nothing for the first ``most`` columns.
    """
    count, channels, block = num_disparities(most), left.shape[2], SGBM_SETTINGS["blockSize"]
    area = channels * block**2
    settings = {**SGBM_SETTINGS, **SGBM_SPECKLES}
    settings |= {key: area * settings[key] for key in ("P1", "P2")}
    matcher = cv2.StereoSGBM_create(  # type: ignore[attr-defined]
        minDisparity=0, numDisparities=count, mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY, **settings
    )
    wide = [cv2.copyMakeBorder(picture, 0, 0, count, 0, cv2.BORDER_REPLICATE) for picture in (left, right)]
    disparity = matcher.compute(*wide)[:, count:].astype(np.float32) / 16
    return np.where(disparity < 0, np.nan, disparity)


def fill_holes(disparity: np.ndarray) -> np.ndarray:
    """Give what is NaN the lesser of the next values to its left and right: holes are mostly hidden background."""
    sides = [_carried_right(disparity), _carried_right(disparity[:, ::-1])[:, ::-1]]
    return np.nan_to_num(np.fmin(*sides), nan=0.0)


def num_disparities(most: float) -> int:
    """What OpenCV takes as ``numDisparities`` where none is larger than ``most`` pixels."""
    return -int(-most // SGBM_MULTIPLE) * SGBM_MULTIPLE


def _carried_right(values: np.ndarray) -> np.ndarray:
    """Each row with the last number before a NaN in its place."""
    columns = np.where(np.isfinite(values), np.arange(values.shape[1]), 0)
    return np.take_along_axis(values, np.maximum.accumulate(columns, axis=1), axis=1)
