"""Training losses on rendered pictures and masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MATTE_THRESHOLD = 0.5  # Lin et al., ICCV 2021: of the matte, before its dilation
MATTE_DILATION = 5  # pixels, the side of the square
SSIM_WINDOW = 7
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for colours in 0..1
SSIM_WEIGHT, GRADIENT_WEIGHT = 0.3, 0.5  # beside an L1 term of weight 1


def l1_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target).abs(), weight)


def mse_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target) ** 2, weight)


def l1_ssim_grad_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1, structural dissimilarity and difference of gradients: sharp, and needs no downloaded weights."""
    dissimilarity = (1 - ssim_map(prediction, target)) / 2
    loss = l1_loss(prediction, target, weight) + SSIM_WEIGHT * _mean(dissimilarity, weight)
    for axis in (-1, -2):
        gradient = (prediction.diff(dim=axis) - target.diff(dim=axis)).abs()
        loss = loss + GRADIENT_WEIGHT * _mean(gradient, weight.narrow(axis, 0, weight.shape[axis] - 1))
    return loss


IMAGE_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "l1": l1_loss,
    "mse": mse_loss,
    "l1_ssim_grad": l1_ssim_grad_loss,
}


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity ``[B, 3, H, W]`` over square windows; borders by replication."""

    def window(x: Tensor) -> Tensor:
        half = SSIM_WINDOW // 2
        return F.avg_pool2d(F.pad(x, (half, half, half, half), mode="replicate"), SSIM_WINDOW, stride=1)

    mean_a, mean_b = window(a), window(b)
    var_a, var_b = window(a * a) - mean_a**2, window(b * b) - mean_b**2
    covariance = window(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)
    return numerator / ((mean_a**2 + mean_b**2 + SSIM_C1) * (var_a + var_b + SSIM_C2))


def mask_loss(opacity: Tensor, matte: Tensor) -> Tensor:
    """What moves is opaque, what stands still is empty (Lin et al., ICCV 2021, eq. 7).

    Args:
        opacity: ``[B, 1, H, W]`` of mask * dynamic MPI in the target view.
        matte: ``[B, 1, H, W]`` of the movers in the target view, 0..1.
    """
    moving = (matte > MATTE_THRESHOLD).to(opacity.dtype)
    dilated = F.max_pool2d(moving, MATTE_DILATION, stride=1, padding=MATTE_DILATION // 2)
    inside = (moving * (1 - opacity)).sum() / moving.sum().clamp_min(1)
    outside = ((1 - dilated) * opacity).sum() / (1 - dilated).sum().clamp_min(1)
    return 0.5 * inside + 0.5 * outside


def psnr(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio in dB of colours clamped to 0..1, over all pixels (with weights)."""
    squared = (prediction.clamp(0, 1) - target.clamp(0, 1)) ** 2
    mse = squared.mean() if weight is None else _mean(squared, weight)
    return -10 * torch.log10(mse.clamp_min(1e-10))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp_min(1e-6)
