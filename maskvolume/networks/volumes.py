"""Functions on volumes shared by the networks: padding, resizing, memory layout, dtypes, blending of views."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskvolume.ops import valid_views


class Network(nn.Module):
    """A network of an architecture.

    Attributes:
        backend: implementation of the operations it calls; None for the best for its inputs (``maskvolume.ops``).
    """

    backend: str | None = None


def blend_views(
    sweep: Tensor,  # [B, V, 3, D, H, W]
    logits: Tensor,  # [B, V, 1, D, H, W]
    *,
    mix_no_data: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute the colour of each plane as a softmax-weighted mean over the views that have data there.

    Args:
        sweep: ``[B, V, 3, D, H, W]``, colours; -1 for no data.
        logits: ``[B, V, 1, D, H, W]``, weight of each view before the softmax.
        mix_no_data: blend the -1 as if it were a colour, as the original does.

    Returns:
        Colours ``[B, 3, D, H, W]``, 0 where no view has data, and ``seen [B, 1, D, H, W]``, 1 where a view has data.
    """
    if mix_no_data:
        weights = torch.softmax(logits, dim=1)
        return (weights * sweep).sum(dim=1), torch.ones_like(logits[:, 0])
    valid = valid_views(sweep)
    # A fill of -inf would give NaN where no view has data, in the gradient too.
    weights = torch.softmax(logits.masked_fill(~valid, -1e4), dim=1) * valid
    total = weights.sum(dim=1, keepdim=True).clamp_min(1e-6)
    seen = valid.any(dim=1).to(logits.dtype)
    return (weights / total * sweep.clamp_min(0)).sum(dim=1), seen


def pad_to_multiple(x: Tensor, multiples: tuple[int, int, int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad the end of D, H and W to multiples by replication.

    Args:
        x: ``[B, C, D, H, W]``.
        multiples: the multiples of D, H and W.

    Returns:
        The padded tensor, and the index that crops it to the original size.
    """
    sizes = x.shape[-3:]
    pads = [-size % multiple for size, multiple in zip(sizes, multiples, strict=True)]
    crop = (..., *(slice(0, size) for size in sizes))
    if not any(pads):
        return x, crop  # type: ignore[return-value]
    # Autocast on a CPU pads in float32, but the compiled loops for reduced precision expect float16 sweeps.
    padded = F.pad(x, (0, pads[2], 0, pads[1], 0, pads[0]), mode="replicate").to(x.dtype)
    return padded, crop  # type: ignore[return-value]


def double_size(x: Tensor) -> Tensor:
    """Upsample ``[B, C, D, H, W]`` to twice the size along D, H and W, with nearest-neighbour interpolation."""
    if x.device.type != "mps":
        return F.interpolate(x, scale_factor=2, mode="nearest")
    b, c, d, h, w = x.shape  # MPS has no 3D interpolation
    repeated = x[:, :, :, None, :, None, :, None].expand(b, c, d, 2, h, 2, w, 2)
    return repeated.reshape(b, c, 2 * d, 2 * h, 2 * w)


def channels_last(x: Tensor) -> Tensor:
    """A volume ``[B, C, D, H, W]`` in the memory layout that convolutions read fastest."""
    layout = torch.contiguous_format if x.device.type == "mps" else torch.channels_last_3d
    return x.contiguous(memory_format=layout)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of convolutions on ``x``: that of autocast if enabled."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
