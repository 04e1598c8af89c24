"""The depths of the planes of a multiplane image."""

from __future__ import annotations

import torch
from torch import Tensor

RIG_NEAR_FACTOR = 0.9  # of the nearest bound of a rig: the method's choice (Lin et al., ICCV 2021)
RIG_FAR_FACTOR = 2.0  # of the farthest bound of a rig: the same


def disparity_planes(
    near: float | Tensor,  # [...]
    far: float | Tensor,  # [...]
    count: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Depths ``[..., D]`` of planes uniform in inverse depth, index 0 the FARTHEST.

    Args:
        near: depth of the nearest plane, in scene units, > 0.
        far: depth of the farthest plane, > near.
        count: number of planes D, at least 1; a single plane is at ``far``.
        device: of the result; by default that of ``near``.
        dtype: of the result.

    Raises:
        ValueError: ``count`` is below 1, or not 0 < near < far.
    """
    if count < 1:
        raise ValueError(f"count: at least 1 expected, got {count}")
    near_t = torch.as_tensor(near, device=device, dtype=dtype)
    far_t = torch.as_tensor(far, device=device, dtype=dtype)
    if not bool(((near_t > 0) & (far_t > near_t)).all()):
        raise ValueError(f"near, far: 0 < near < far expected, got {near} and {far}")
    step = torch.linspace(0, 1, count, device=near_t.device, dtype=dtype)
    inv_near, inv_far = 1 / near_t[..., None], 1 / far_t[..., None]
    return 1 / (inv_far + (inv_near - inv_far) * step)
