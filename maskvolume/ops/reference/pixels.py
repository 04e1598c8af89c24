"""Pixel operations on plane sweep volumes, in plain torch: valid views, means, rays."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.ops import types

# Planes processed at full resolution at once: few fit in the CPU cache, many keep a GPU busy.
PLANE_CHUNK_CPU, PLANE_CHUNK = 2, 16


def valid_views(sweep: Tensor) -> Tensor:
    """Return where views have data: ``[..., V, 3, D, H, W] -> [..., V, 1, D, H, W]`` bool."""
    return sweep[..., :1, :, :, :] > types.VALID_ABOVE


def remaining_transmittance(opacity: Tensor) -> Tensor:
    """See ``maskvolume.ops``."""
    through = (1 - opacity).flip(1).cumprod(dim=1).flip(1)
    return torch.cat([through[:, 1:], torch.ones_like(through[:, :1])], dim=1)


def plane_chunk(device: torch.device) -> int:
    """Return the number of planes to process at full resolution at once."""
    return PLANE_CHUNK_CPU if device.type == "cpu" else PLANE_CHUNK


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory format in which convolutions read volumes fastest."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last_3d


def shuffled(x: Tensor) -> Tensor:
    """Pixel shuffle: ``[B, 4 * C, D, H / 2, W / 2] -> [B, C, D, H, W]``."""
    return F.pixel_shuffle(x.transpose(1, 2), 2).transpose(1, 2)


def unshuffled(x: Tensor) -> Tensor:
    """Pixel unshuffle: ``[B, C, D, H, W] -> [B, 4 * C, D, H / 2, W / 2]``."""
    return F.pixel_unshuffle(x.transpose(1, 2), 2).transpose(1, 2)


def halved(x: Tensor) -> Tensor:
    """Mean of 2x2 pixels: ``[B, C, D, H, W] -> [B, C, D, H / 2, W / 2]``."""
    half = F.avg_pool2d(x.flatten(1, 2), 2)
    return half.reshape(*x.shape[:3], *half.shape[-2:])


def box_mean(x: Tensor, window: int) -> Tensor:
    """Mean over a window in the picture plane, clipped to the picture, ``[B, D, H, W]``."""
    half = window // 2
    rows = F.avg_pool2d(x, (window, 1), stride=1, padding=(half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, window), stride=1, padding=(0, half), count_include_pad=False)
