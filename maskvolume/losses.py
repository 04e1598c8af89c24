"""Training losses on rendered pictures and masks.

Every loss is the mean over the samples of a batch of a value that each sample has by itself, whatever its weights: the
gradient of a batch is the mean of the gradients of its samples, so that it can be split among processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.errors import InputError

ImageLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # prediction, target [B, 3, H, W], weight [B, 1, H, W]

MATTE_THRESHOLD = 0.5  # Lin et al., ICCV 2021: of the matte, before its dilation
MATTE_DILATION = 5  # pixels, the side of the square
SSIM_WINDOW = 7
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for colours in 0..1
SSIM_WEIGHT, GRADIENT_WEIGHT = 0.3, 0.5  # beside an L1 term of weight 1
MSSSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, the finest scale first
MSSSIM_WINDOW, MSSSIM_SIGMA = 11, 1.5  # the same: pixels, Gaussian
MSSSIM_FLOOR = 0.01  # of a scale's similarity: a power below 1 has no bounded slope at 0, and none below it
MSSSIM_WEIGHT = 0.5  # beside an L1 term of weight 1: of a trained network the three terms are about as large
TINY = 1e-12  # a sum of weights that is divided by


def l1_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target).abs(), weight)


def mse_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target) ** 2, weight)


def l1_ssim_grad_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1, structural dissimilarity and difference of gradients: sharp, and needs no downloaded weights."""
    dissimilarity = _mean((1 - ssim_map(prediction, target)) / 2, weight)
    pixels = l1_loss(prediction, target, weight)
    return pixels + SSIM_WEIGHT * dissimilarity + GRADIENT_WEIGHT * gradient_loss(prediction, target, weight)


def l1_msssim_grad_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1, multi-scale structural dissimilarity and difference of gradients; needs no downloaded weights."""
    dissimilarity = (1 - ms_ssim(prediction, target, weight)).mean()
    pixels = l1_loss(prediction, target, weight)
    return pixels + MSSSIM_WEIGHT * dissimilarity + GRADIENT_WEIGHT * gradient_loss(prediction, target, weight)


# Those that need no weights of a network.
IMAGE_LOSSES: dict[str, ImageLoss] = {
    "l1_msssim_grad": l1_msssim_grad_loss,
    "l1_ssim_grad": l1_ssim_grad_loss,
    "l1": l1_loss,
    "mse": mse_loss,
}
PERCEPTUAL_LOSSES = ("vgg", "vgg_only")  # two names of one loss: stage two of the original adds terms to "vgg"
LOSS_NAMES = (*IMAGE_LOSSES, *PERCEPTUAL_LOSSES)


def make_image_loss(name: str, *, vgg_weights: str = "", device: torch.device | str = "cpu") -> ImageLoss:
    """The loss of that name, one of ``LOSS_NAMES``: takes prediction, target ``[B, 3, H, W]``, weight ``[B, 1, H, W]``.

    Args:
        name: "vgg" and "vgg_only" are the perceptual loss; the others need no weights.
        vgg_weights: file with a state dict of torchvision's VGG-19-BN, for the perceptual loss; "" for torchvision's
            own, from its cache or downloaded.
        device: where the perceptual loss is computed.

    Raises:
        InputError: an unknown name, or weights that can't be had or don't fit.
    """
    if name in IMAGE_LOSSES:
        return IMAGE_LOSSES[name]
    if name not in PERCEPTUAL_LOSSES:
        raise InputError(f"loss {name}: no such loss; choose one of {', '.join(LOSS_NAMES)}")
    from maskvolume.perceptual import PerceptualLoss, load_vgg_weights  # imports torchvision, which takes its time

    return PerceptualLoss(load_vgg_weights(vgg_weights)).to(device)


def gradient_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of the gradients, along x plus along y; two pixels weigh as the lesser one."""
    difference = prediction - target
    loss = torch.zeros((), dtype=difference.dtype, device=difference.device)
    for axis in (-1, -2):
        length = weight.shape[axis] - 1
        pairs = torch.minimum(weight.narrow(axis, 0, length), weight.narrow(axis, 1, length))
        loss = loss + _mean(difference.diff(dim=axis).abs(), pairs)
    return loss


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


def ms_ssim(
    a: Tensor,  # [B, C, H, W]
    b: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [B, 1, H, W]
) -> Tensor:
    """Multi-scale structural similarity ``[B]`` (Wang et al. 2003); pixels of weight 0 don't count at all.

    Contrast and structure at every scale, luminance at the coarsest, each to the power of its exponent; channels are
    averaged last. Windows are Gaussian, and weighted means: they end at the picture's border and leave out what has
    no weight. Between scales 2 x 2 pixels become their weighted mean, which has the mean of their weights.

    Small pictures have fewer scales: as many of the five as keep both sides at 11 pixels or more (one at least), so
    five from 176 pixels on, four from 88, three from 44, two from 22. The exponents of those are scaled to a sum of 1.
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
            # One minus the dissimilarity's mean: where nothing has weight, nothing is dissimilar.
            similarity = 1 - _channel_means(1 - values, weight)
            result = result * similarity.clamp_min(MSSSIM_FLOOR) ** exponent
        return result.mean(dim=1)


def mask_loss(opacity: Tensor, matte: Tensor) -> Tensor:
    """What moves is opaque, what stands still is empty (Lin et al., ICCV 2021, eq. 7).

    Args:
        opacity: ``[B, 1, H, W]`` of mask * dynamic MPI in the target view.
        matte: ``[B, 1, H, W]`` of the movers in the target view, 0..1.
    """
    moving = (matte > MATTE_THRESHOLD).to(opacity.dtype)
    dilated = F.max_pool2d(moving, MATTE_DILATION, stride=1, padding=MATTE_DILATION // 2)
    return 0.5 * _mean(1 - opacity, moving) + 0.5 * _mean(opacity, 1 - dilated)


def masked_l1_loss(prediction: Tensor, target: Tensor, weight: Tensor, matte: Tensor) -> Tensor:
    """Weighted L1 in which what moves and what stands still count half each, however small the movers are.

    Args:
        prediction: ``[B, 3, H, W]``.
        target: the same.
        weight: ``[B, 1, H, W]``.
        matte: ``[B, 1, H, W]`` of the movers, 0..1; what is within its dilation counts as moving.
    """
    moving = _dilated(matte)
    return 0.5 * l1_loss(prediction, target, weight * moving) + 0.5 * l1_loss(prediction, target, weight * (1 - moving))


def temporal_loss(
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    weight: Tensor,
    mattes: tuple[Tensor, Tensor],
) -> Tensor:
    """What changes from one instant to the next where nothing moves, but does not in truth: flicker.

    Args:
        before: prediction and truth ``[B, 3, H, W]`` of an instant.
        after: of the next.
        weight: ``[B, 1, H, W]``.
        mattes: of both instants, ``[B, 1, H, W]``.
    """
    still = (1 - _dilated(mattes[0])) * (1 - _dilated(mattes[1]))
    predicted, true = after[0] - before[0], after[1] - before[1]
    return l1_loss(predicted, true, weight * still)


def _dilated(matte: Tensor) -> Tensor:
    """1 where a mover is within reach of the dilation, 0 elsewhere."""
    touched = (matte > 0).to(matte.dtype)
    return F.max_pool2d(touched, MATTE_DILATION, stride=1, padding=MATTE_DILATION // 2)


def psnr(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio in dB of colours clamped to 0..1 (with weights): the mean over the samples."""
    squared = (prediction.clamp(0, 1) - target.clamp(0, 1)) ** 2
    mse = _channel_means(squared, torch.ones_like(squared[:, :1]) if weight is None else weight).mean(dim=1)
    return (-10 * torch.log10(mse.clamp_min(1e-10))).mean()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over the samples of the weighted mean of each; its channels count alike."""
    return _channel_means(values, weight).mean()


def _channel_means(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted means ``[B, C]`` of ``[B, C, H, W]``; 0 for a sample without any weight."""
    return (values * weight).sum(dim=(-2, -1)) / weight.sum(dim=(-2, -1)).clamp_min(1e-6)


def _count_scales(side: int) -> int:
    """How many scales of multi-scale SSIM a picture has whose shorter side is this long."""
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
    """Sums ``[B, C, H, W]`` over a Gaussian window; outside of the picture is nothing."""
    half = MSSSIM_WINDOW // 2
    offsets = torch.arange(-half, half + 1, dtype=x.dtype, device=x.device)
    kernel = torch.softmax(-(offsets**2) / (2 * MSSSIM_SIGMA**2), dim=0)
    # A group per channel: on a CPU this is 30 times faster than a batch of pictures of one channel.
    channels = x.shape[1]
    kernels = kernel.expand(channels, 1, -1)
    rows = F.conv2d(x, kernels[:, :, :, None], padding=(half, 0), groups=channels)
    return F.conv2d(rows, kernels[:, :, None, :], padding=(0, half), groups=channels)


def _halve(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted means of 2 x 2 pixels; 0 where none of them has weight."""
    return _pool(x * weight) / _pool(weight).clamp_min(TINY)


def _pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True)
