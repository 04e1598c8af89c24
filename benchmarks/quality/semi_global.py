"""OpenCV's semi-global matching of a rectified pair: the baseline for the geometry of the MPI networks."""

from __future__ import annotations

import cv2
import numpy as np

# Of 768 settings (block 1 to 7; P1, P2 of 2, 4, 8 and 24, 32, 96; uniqueness 0, 5, 10; with and without speckle filter;
# HH or 3WAY; prefilter 15 or 63; grey or colour) the one with the fewest bad disparities on the Motorcycle pair; its
# mean error there is within 2 % of the best. P1 and P2 are multiplied by channels and block area, as OpenCV recommends.
SGBM_SETTINGS = {"blockSize": 3, "P1": 8, "P2": 32, "uniquenessRatio": 10, "preFilterCap": 15, "disp12MaxDiff": 1}
SGBM_SPECKLES = {"speckleWindowSize": 100, "speckleRange": 2}
SGBM_MULTIPLE = 16  # numDisparities must be a multiple of this


def semi_global_matching(left: np.ndarray, right: np.ndarray, most: float) -> np.ndarray:
    """Disparity ``[h, w]`` of the left picture from OpenCV's StereoSGBM in colour; NaN where it finds none.

    Both pictures are padded on the left, since it finds nothing in the first ``most`` columns.
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
    """Fill NaN with the smaller of the nearest values to the left and right: holes are mostly hidden background."""
    sides = [_carried_right(disparity), _carried_right(disparity[:, ::-1])[:, ::-1]]
    return np.nan_to_num(np.fmin(*sides), nan=0.0)


def num_disparities(most: float) -> int:
    """OpenCV's ``numDisparities`` for a largest disparity of ``most`` pixels."""
    return -int(-most // SGBM_MULTIPLE) * SGBM_MULTIPLE


def _carried_right(values: np.ndarray) -> np.ndarray:
    """Replace each NaN by the last number before it in its row."""
    columns = np.where(np.isfinite(values), np.arange(values.shape[1]), 0)
    return np.take_along_axis(values, np.maximum.accumulate(columns, axis=1), axis=1)
