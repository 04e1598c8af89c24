"""Structural similarity for training losses: weighted, differentiable, and defined for small pictures too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 7
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for colours in 0..1
MSSSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, the finest scale first
MSSSIM_WINDOW, MSSSIM_SIGMA = 11, 1.5  # Gaussian window of the same paper, in pixels
MSSSIM_FLOOR = 0.01  # lower limit of a scale's similarity, since powers below 1 have an infinite slope at 0
TINY = 1e-12  # lower limit of a divisor


def box_ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity over square windows of pictures, all ``[B, 3, H, W]``; borders are replicated."""

    def window(x: Tensor) -> Tensor:
        half = SSIM_WINDOW // 2
        return F.avg_pool2d(F.pad(x, (half, half, half, half), mode="replicate"), SSIM_WINDOW, stride=1)

    mean_a, mean_b = window(a), window(b)
    var_a, var_b = window(a * a) - mean_a**2, window(b * b) - mean_b**2
    covariance = window(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)
    return numerator / ((mean_a**2 + mean_b**2 + SSIM_C1) * (var_a + var_b + SSIM_C2))


def weighted_ms_ssim(
    a: Tensor,  # [B, C, H, W]
    b: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [B, 1, H, W]
) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003) that ignores pixels of weight 0.

    The product over scales of contrast and structure, and of luminance at the coarsest scale, each to the power of its
    exponent; channels are averaged last. Means over Gaussian windows are weighted, and exclude pixels outside the
    picture. From one scale to the next, each 2 x 2 pixels are replaced by their weighted mean and their mean weight.

    Small pictures have fewer scales: as many of the five as keep both sides at 11 pixels or more, and at least one.
    That is five from 161 pixels, four from 81, three from 41 and two from 21. Their exponents are scaled to a sum of 1.

    Args:
        a: ``[B, C, H, W]``, colours in 0..1.
        b: ``[B, C, H, W]``, colours in 0..1.
        weight: ``[B, 1, H, W]``, not negative.

    Returns:
        The similarity ``[B]``, at most 1.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b, weight = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (a, b, weight))
        count = _count_scales(min(a.shape[-2:]))
        exponents = [exponent / sum(MSSSIM_EXPONENTS[:count]) for exponent in MSSSIM_EXPONENTS[:count]]
        result = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
        for scale, exponent in enumerate(exponents):
            if scale:
                a, b, weight = _halve(a, weight), _halve(b, weight), _pool(weight)
            luminance, structure = _similarities(a, b, weight)
            values = luminance * structure if scale == count - 1 else structure
            # One minus the mean dissimilarity, so that a sample without any weight has a similarity of 1.
            similarity = 1 - channel_means(1 - values, weight)
            result = result * similarity.clamp_min(MSSSIM_FLOOR) ** exponent
        return result.mean(dim=1)


def channel_means(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted means ``[B, C]`` of ``[B, C, H, W]``; 0 for a sample without any weight."""
    return (values * weight).sum(dim=(-2, -1)) / weight.sum(dim=(-2, -1)).clamp_min(1e-6)


def _count_scales(side: int) -> int:
    """Number of scales for a picture whose shorter side has this length in pixels."""
    count = 1
    while count < len(MSSSIM_EXPONENTS) and -(-side // 2**count) >= MSSSIM_WINDOW:
        count += 1
    return count


def _similarities(a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure terms of SSIM, ``[B, C, H, W]`` each, over weighted Gaussian windows."""
    moments = torch.cat([a, b, a * a, b * b, a * b], dim=1) * weight
    windows = _gaussian_window(torch.cat([moments, weight], dim=1))
    means = windows[:, :-1] / windows[:, -1:].clamp_min(TINY)
    mean_a, mean_b, square_a, square_b, product = means.chunk(5, dim=1)
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    covariance = product - mean_a * mean_b
    variances = square_a - mean_a**2 + square_b - mean_b**2
    return luminance, (2 * covariance + SSIM_C2) / (variances + SSIM_C2)


def _gaussian_window(x: Tensor) -> Tensor:
    """Gaussian-weighted sums ``[B, C, H, W]`` over windows; pixels outside the picture count as 0."""
    half = MSSSIM_WINDOW // 2
    offsets = torch.arange(-half, half + 1, dtype=x.dtype, device=x.device)
    kernel = torch.softmax(-(offsets**2) / (2 * MSSSIM_SIGMA**2), dim=0)
    # One group per channel: on a CPU this is 30 times faster than a batch of single-channel pictures.
    channels = x.shape[1]
    kernels = kernel.expand(channels, 1, -1)
    rows = F.conv2d(x, kernels[:, :, :, None], padding=(half, 0), groups=channels)
    return F.conv2d(rows, kernels[:, :, None, :], padding=(0, half), groups=channels)


def _halve(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted means of 2 x 2 pixels; 0 where all weights are 0."""
    return _pool(x * weight) / _pool(weight).clamp_min(TINY)


def _pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True)
