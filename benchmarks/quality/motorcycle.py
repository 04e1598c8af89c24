"""Measures the disparity of scikit-image's Motorcycle pair (Middlebury 2014), against semi-global matching."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import skimage.data

from benchmarks.quality.semi_global import (
    SGBM_SETTINGS,
    SGBM_SPECKLES,
    fill_holes,
    num_disparities,
    semi_global_matching,
)
from benchmarks.record import markdown_table
from examples.stereo import BASELINE, CENTER_SHIFT, FOCAL, MAX_DISPARITY, StereoPair
from maskvolume.geometry.cameras import stack_cameras
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.renderer import ClipRenderer, RenderSettings

SGBM = "semi-global matching"
SGBM_BARE = f"{SGBM}, not filled"
BAD = 2.0  # pixels; errors above this are counted


def measure_stereo(models: Mapping[str, MaskVolumeModel], num_planes: int, shrink: int) -> dict[str, Any]:
    """Errors of the left picture's disparity, in pixels, over all pixels with known disparity.

    Args:
        models: of stage one, by name.
        num_planes: of their multiplane images.
        shrink: divisor of the pair's size.
    """
    left, right, truth = skimage.data.stereo_motorcycle()
    pair = StereoPair((left, right), left.shape[:2])
    size = (pair.size[0] // shrink, pair.size[1] // shrink)
    scale = size[1] / pair.size[1]
    truth = cv2.resize(truth.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST) * scale
    visible = np.isfinite(truth) & ~occluded(truth)
    most = MAX_DISPARITY * scale
    start = time.perf_counter()
    bare = semi_global_matching(pair.read(0, 0, size), pair.read(1, 0, size), most)
    filled = fill_holes(bare)
    seconds = time.perf_counter() - start
    methods = {SGBM: _errors(filled, truth, visible, seconds), SGBM_BARE: _errors(bare, truth, visible, seconds)}
    for name, model in models.items():
        left_camera = pair.between(0.0, size)
        start = time.perf_counter()
        renderer = ClipRenderer(
            pair,
            model,
            (0, 1),
            RenderSettings(size=size, num_planes=num_planes),
            targets=stack_cameras([left_camera]),
        )
        view = renderer.render(0, left_camera)
        disparity = (FOCAL * BASELINE * view.disparity[0].cpu().numpy() - CENTER_SHIFT) * scale
        methods[name] = _errors(disparity, truth, visible, time.perf_counter() - start)
    return {
        "pair": "skimage.data.stereo_motorcycle",
        "size_wh": [size[1], size[0]],
        "num_planes": num_planes,
        "known": round(float(np.isfinite(truth).mean()), 4),
        "not_occluded": round(float(visible.mean()), 4),
        "sgbm": {**SGBM_SETTINGS, **SGBM_SPECKLES, "numDisparities": num_disparities(most), "mode": "SGBM_3WAY"},
        "methods": methods,
    }


def occluded(truth: np.ndarray) -> np.ndarray:
    """``[h, w]`` bool: pixels of the left picture that the right camera can't see, according to the known disparities.

    Their points project outside the right picture, or onto the pixel of a point whose disparity is larger by more than
    one pixel.
    """
    h, w = truth.shape
    y, x = np.nonzero(np.isfinite(truth))
    disparity = truth[y, x]
    in_right = x - disparity
    nearest = np.full((h, w), -np.inf)
    for column in (np.floor(in_right), np.ceil(in_right)):
        inside = (column >= 0) & (column < w)
        np.maximum.at(nearest, (y[inside], column[inside].astype(int)), disparity[inside])
    column = np.round(in_right).astype(int)
    outside = (column < 0) | (column >= w)
    hidden = outside | (nearest[y, column.clip(0, w - 1)] > disparity + 1)
    result = np.zeros((h, w), bool)
    result[y, x] = hidden
    return result


def stereo_table(part: Mapping[str, Any]) -> str:
    """The heading and the Markdown table of ``measure_stereo``."""
    header = ["method", "mean px", "median px", "bad 2.0 %", "visible: mean", "bad 2.0 %", "coverage %", "s"]
    rows = [[name, *_error_cells(figures)] for name, figures in part["methods"].items()]
    size = " x ".join(str(side) for side in part["size_wh"])
    return f"Disparity of the Motorcycle pair, {size}, {part['num_planes']} planes:\n\n{markdown_table(header, rows)}"


def _errors(disparity: np.ndarray, truth: np.ndarray, visible: np.ndarray, seconds: float) -> dict[str, float]:
    """Mean and median error in pixels and the share above 2 pixels, over the pixels with a disparity."""
    error = np.abs(disparity - truth)
    known = np.isfinite(truth)
    figures = {"coverage": float(np.isfinite(error[known]).mean())}
    for suffix, chosen in (("", known), ("_visible", visible)):
        values = error[chosen & np.isfinite(error)]
        figures |= {
            f"mean{suffix}": float(values.mean()),
            f"median{suffix}": float(np.median(values)),
            f"bad2{suffix}": float((values > BAD).mean()),
        }
    return {name: round(value, 4) for name, value in {**figures, "seconds": seconds}.items()}


def _error_cells(figures: Mapping[str, float]) -> list[str]:
    names = ("mean", "median", "bad2", "mean_visible", "bad2_visible", "coverage", "seconds")
    shares = {name: f"{100 * figures[name]:.1f}" for name in ("bad2", "bad2_visible", "coverage")}
    return [shares.get(name, f"{figures[name]:.2f}") for name in names]
