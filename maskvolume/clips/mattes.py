"""Mattes of a clip: for each frame of each camera, a grey picture of where something moves.

Mattes are stored as ``mattes/camNN/FRAME.png`` beside the pictures of the clip, in 8 bits, 255 where something
certainly moves. They have the camera names, the frame names and the picture size of the clip.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskvolume.io.images import read_image
from maskvolume.runtime.errors import InputError

MATTES_NAME = "mattes"
_MAKE = "make the mattes with data_tools/make_mattes.py, or name their folder"


def matte_file(folder: str | Path, camera: str, frame: str) -> Path:
    """The file of a frame's matte."""
    return Path(folder) / camera / f"{frame}.png"


def read_matte(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Read a matte as uint8 ``[H, W]``.

    Args:
        path: the file; colours are converted to grey.
        size: required (h, w).

    Returns:
        The matte, 255 where something certainly moves.

    Raises:
        InputError: the file is missing, damaged or of another size.
    """
    path = Path(path)
    if not path.is_file():
        what = "no such matte" if path.parent.is_dir() else "no matte of this camera"
        raise InputError(f"{path}: {what}; {_MAKE}")
    matte = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
    if matte.shape != tuple(size):
        raise InputError(
            f"{path}: {matte.shape[1]} x {matte.shape[0]} pixels, but the pictures have {size[1]} x {size[0]}; {_MAKE}"
        )
    return matte
