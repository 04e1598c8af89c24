"""A row of a contact sheet: the truth, the picture of every method, and its error."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from benchmarks.quality.figures import Moment
from benchmarks.quality.holdout import to_tensor
from maskvolume.io.images import resize_image

CELL_WIDTH = 320
ERROR_GAIN = 4.0  # an error of 1/4 has the brightest colour


def sheet_row(name: str, moment: Moment) -> np.ndarray:
    """uint8 ``[h, w, 3]`` with two lines: the truth and every picture, and below each its error."""
    pictures = [_cell(moment.truth, f"{name}: true")]
    pictures += [_cell(picture, method) for method, picture in moment.pictures.items()]
    legend = np.zeros_like(pictures[0])
    _write(legend, f"mean error of the colours, black 0 to yellow {1 / ERROR_GAIN:g}")
    errors = [legend]
    for method, picture in moment.pictures.items():
        errors.append(_cell(_error_map(picture, moment.truth), f"error: {method}"))
    return np.concatenate([np.concatenate(cells, axis=1) for cells in (pictures, errors)])


def _error_map(picture: Tensor, truth: Tensor) -> Tensor:
    level = ((picture - truth).abs().mean(dim=0) * ERROR_GAIN).clamp(0, 1)
    colored = cv2.applyColorMap((level * 255).byte().numpy(), cv2.COLORMAP_INFERNO)
    return to_tensor(cv2.cvtColor(colored, cv2.COLOR_BGR2RGB))


def _cell(picture: Tensor, label: str) -> np.ndarray:
    height = round(CELL_WIDTH * picture.shape[-2] / picture.shape[-1])
    array = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
    array = resize_image(array, (height, CELL_WIDTH)).copy()
    _write(array, label)
    return array


def _write(cell: np.ndarray, label: str) -> None:
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(cell, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, thickness, cv2.LINE_AA)
