"""Converts views to pictures: 8-bit colours, 16-bit disparity, colour-mapped disparity."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from maskvolume.runtime.errors import InputError

DISPARITY_STEPS = 2**16 - 1  # largest value of a 16-bit disparity picture


def to_bytes(image: Tensor) -> Tensor:
    """Convert ``[..., C, h, w]`` in 0..1 to uint8 ``[..., h, w, C]``, clamped and rounded; C = 1: ``[..., h, w]``."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1)
    return (pixels[..., 0] if pixels.shape[-1] == 1 else pixels).contiguous()


def to_steps(
    disparity: Tensor,  # [..., 1, h, w]
    nearest: float,
) -> Tensor:
    """Quantise disparity to steps of ``1 / nearest / 65535``.

    Args:
        disparity: ``[..., 1, h, w]``, 1 / depth in scene units.
        nearest: depth of the nearest plane, in scene units.

    Returns:
        ``[..., h, w]`` int16 that holds the bits of uint16, a type that not all devices support.
    """
    exact = disparity[..., 0, :, :].cpu() if disparity.device.type == "mps" else disparity[..., 0, :, :]
    steps = (exact.double() * nearest).clamp(0, 1) * DISPARITY_STEPS
    return steps.round().to(torch.int32).to(torch.int16)


def to_uint8(image: Tensor) -> np.ndarray:
    """``to_bytes`` as a NumPy array."""
    return to_bytes(image).cpu().numpy()


def disparity_to_uint16(disparity: Tensor, nearest: float) -> np.ndarray:
    """``to_steps`` as a NumPy array, uint16."""
    return to_steps(disparity, nearest).cpu().numpy().view(np.uint16)


def read_disparity(path: Path) -> np.ndarray:
    """Read a disparity picture as float32 ``[h, w]`` in 0..1, 1 at the nearest plane.

    Raises:
        InputError: the file is not a 16-bit grey picture.
    """
    steps = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if steps is None or steps.dtype != np.uint16 or steps.ndim != 2:
        raise InputError(f"{path}: not a disparity picture; remove it and run the same command again")
    return steps.astype(np.float32) / DISPARITY_STEPS


def color_map(disparity: np.ndarray, lowest: float = 0.0) -> np.ndarray:
    """Map disparity ``[h, w]`` in ``lowest``..1 to RGB colours, uint8 ``[h, w, 3]``; near things are bright."""
    stretched = ((disparity - lowest) / (1 - lowest)).clip(0, 1)
    colors = cv2.applyColorMap((stretched * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)
