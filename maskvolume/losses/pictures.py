"""Training losses on rendered pictures and masks.

Every loss is the mean over the samples of a batch of a value that each sample has by itself, whatever its weights: the
gradient of a batch is the mean of the gradients of its samples, so that it can be split among processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.losses.ssim import box_ssim_map, channel_means, weighted_ms_ssim
from maskvolume.runtime.errors import InputError

ImageLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # prediction, target [B, 3, H, W], weight [B, 1, H, W]

MATTE_THRESHOLD = 0.5  # Lin et al., ICCV 2021: of the matte, before its dilation
MATTE_DILATION = 5  # pixels, the side of the square
SSIM_WEIGHT, GRADIENT_WEIGHT = 0.3, 0.5  # beside an L1 term of weight 1
MSSSIM_WEIGHT = 0.5  # beside an L1 term of weight 1: of a trained network the three terms are about as large


def l1_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target).abs(), weight)


def mse_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target) ** 2, weight)


def l1_ssim_grad_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1, structural dissimilarity and difference of gradients: sharp, and needs no downloaded weights."""
    dissimilarity = _mean((1 - box_ssim_map(prediction, target)) / 2, weight)
    pixels = l1_loss(prediction, target, weight)
    return pixels + SSIM_WEIGHT * dissimilarity + GRADIENT_WEIGHT * gradient_loss(prediction, target, weight)


def l1_msssim_grad_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1, multi-scale structural dissimilarity and difference of gradients; needs no downloaded weights."""
    dissimilarity = (1 - weighted_ms_ssim(prediction, target, weight)).mean()
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
        InputError: an unknown name, or weights that are unavailable or do not match.
    """
    if name in IMAGE_LOSSES:
        return IMAGE_LOSSES[name]
    if name not in PERCEPTUAL_LOSSES:
        raise InputError(f"loss {name}: no such loss; choose one of {', '.join(LOSS_NAMES)}")
    from maskvolume.losses.perceptual import (  # imports torchvision, which takes its time
        PerceptualLoss,
        load_vgg_weights,
    )

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


def weighted_psnr(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio in dB of colours clamped to 0..1 (with weights): the mean over the samples."""
    squared = (prediction.clamp(0, 1) - target.clamp(0, 1)) ** 2
    mse = channel_means(squared, torch.ones_like(squared[:, :1]) if weight is None else weight).mean(dim=1)
    return (-10 * torch.log10(mse.clamp_min(1e-10))).mean()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over the samples of the weighted mean of each; its channels count alike."""
    return channel_means(values, weight).mean()
