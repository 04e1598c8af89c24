"""Training losses on rendered pictures and masks.

Every loss is a mean over the samples of a batch, and the value of a sample does not depend on the other samples or
their weights. The gradient of a batch is thus the mean of the gradients of its samples, so that processes can share a
batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.losses.ssim import box_ssim_map, channel_means, weighted_ms_ssim
from maskvolume.runtime.errors import InputError

ImageLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # prediction, target [B, 3, H, W], weight [B, 1, H, W]

MATTE_THRESHOLD = 0.5  # Lin et al., ICCV 2021; applied to the matte before its dilation
MATTE_DILATION = 5  # side of the square structuring element in pixels
SSIM_WEIGHT, GRADIENT_WEIGHT = 0.3, 0.5  # relative to the L1 term
MSSSIM_WEIGHT = 0.5  # relative to the L1 term; for a trained network the three terms are about equal


def l1_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target).abs(), weight)


def mse_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared difference of ``[B, 3, H, W]`` with weights ``[B, 1, H, W]``."""
    return _mean((prediction - target) ** 2, weight)


def l1_ssim_grad_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of L1, structural dissimilarity and gradient difference; yields sharp pictures without a network.

    Args:
        prediction: ``[B, 3, H, W]``, colours in 0..1.
        target: ``[B, 3, H, W]``, colours in 0..1.
        weight: ``[B, 1, H, W]`` in 0..1.

    Returns:
        The loss ``[]``.
    """
    dissimilarity = _mean((1 - box_ssim_map(prediction, target)) / 2, weight)
    absolute = l1_loss(prediction, target, weight)
    return absolute + SSIM_WEIGHT * dissimilarity + GRADIENT_WEIGHT * gradient_loss(prediction, target, weight)


def l1_msssim_grad_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of L1, multi-scale structural dissimilarity and gradient difference; uses no network.

    Args:
        prediction: ``[B, 3, H, W]``, colours in 0..1.
        target: ``[B, 3, H, W]``, colours in 0..1.
        weight: ``[B, 1, H, W]`` in 0..1.

    Returns:
        The loss ``[]``.
    """
    dissimilarity = (1 - weighted_ms_ssim(prediction, target, weight)).mean()
    absolute = l1_loss(prediction, target, weight)
    return absolute + MSSSIM_WEIGHT * dissimilarity + GRADIENT_WEIGHT * gradient_loss(prediction, target, weight)


# The losses that need no network weights.
IMAGE_LOSSES: dict[str, ImageLoss] = {
    "l1_msssim_grad": l1_msssim_grad_loss,
    "l1_ssim_grad": l1_ssim_grad_loss,
    "l1": l1_loss,
    "mse": mse_loss,
}
PERCEPTUAL_LOSSES = ("vgg", "vgg_only")  # two names of one loss: stage two of the original adds terms to "vgg"
LOSS_NAMES = (*IMAGE_LOSSES, *PERCEPTUAL_LOSSES)


def make_image_loss(name: str, *, vgg_weights: str = "", device: torch.device | str = "cpu") -> ImageLoss:
    """Return the image loss of a name.

    Args:
        name: one of ``LOSS_NAMES``; "vgg" and "vgg_only" are the perceptual loss, the others need no weights.
        vgg_weights: file with a state dict of torchvision's VGG-19-BN for the perceptual loss; "" for torchvision's
            own, from its cache or downloaded.
        device: where the perceptual loss is computed.

    Returns:
        A function of prediction ``[B, 3, H, W]``, target ``[B, 3, H, W]`` and weight ``[B, 1, H, W]`` that returns the
        loss ``[]``.

    Raises:
        InputError: the name is unknown, or the weights are unavailable or don't fit.
    """
    if name in IMAGE_LOSSES:
        return IMAGE_LOSSES[name]
    if name not in PERCEPTUAL_LOSSES:
        raise InputError(f"loss {name}: no such loss; choose one of {', '.join(LOSS_NAMES)}")
    from maskvolume.losses.perceptual import (  # imports torchvision, which is slow
        PerceptualLoss,
        load_vgg_weights,
    )

    return PerceptualLoss(load_vgg_weights(vgg_weights)).to(device)


def gradient_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute difference of the horizontal gradients, plus that of the vertical gradients.

    Args:
        prediction: ``[B, 3, H, W]``.
        target: ``[B, 3, H, W]``.
        weight: ``[B, 1, H, W]``; a gradient has the lower weight of its two pixels.

    Returns:
        The loss ``[]``.
    """
    difference = prediction - target
    loss = torch.zeros((), dtype=difference.dtype, device=difference.device)
    for axis in (-1, -2):
        length = weight.shape[axis] - 1
        pair_weights = torch.minimum(weight.narrow(axis, 0, length), weight.narrow(axis, 1, length))
        loss = loss + _mean(difference.diff(dim=axis).abs(), pair_weights)
    return loss


def mask_loss(opacity: Tensor, matte: Tensor) -> Tensor:
    """Penalise transparency where the scene moves, and opacity where it is static (Lin et al., ICCV 2021, eq. 7).

    Args:
        opacity: ``[B, 1, H, W]``, opacity of mask * dynamic MPI in the target view.
        matte: ``[B, 1, H, W]`` in 0..1, matte of the movers in the target view.

    Returns:
        The loss ``[]``.
    """
    moving = (matte > MATTE_THRESHOLD).to(opacity.dtype)
    dilated = F.max_pool2d(moving, MATTE_DILATION, stride=1, padding=MATTE_DILATION // 2)
    return 0.5 * _mean(1 - opacity, moving) + 0.5 * _mean(opacity, 1 - dilated)


def masked_l1_loss(prediction: Tensor, target: Tensor, weight: Tensor, matte: Tensor) -> Tensor:
    """Weighted L1 in which moving and static regions count half each, even if the movers are small.

    Args:
        prediction: ``[B, 3, H, W]``.
        target: ``[B, 3, H, W]``.
        weight: ``[B, 1, H, W]``.
        matte: ``[B, 1, H, W]`` in 0..1, matte of the movers; the moving region is its dilation.

    Returns:
        The loss ``[]``.
    """
    moving = _dilated(matte)
    return 0.5 * l1_loss(prediction, target, weight * moving) + 0.5 * l1_loss(prediction, target, weight * (1 - moving))


def temporal_loss(
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    weight: Tensor,
    mattes: tuple[Tensor, Tensor],
) -> Tensor:
    """Penalise flicker: changes from one instant to the next in static regions that the true pictures don't show.

    Args:
        before: prediction and truth ``[B, 3, H, W]`` at one instant.
        after: prediction and truth ``[B, 3, H, W]`` at the next instant.
        weight: ``[B, 1, H, W]``.
        mattes: ``[B, 1, H, W]`` in 0..1, mattes of the movers at both instants.

    Returns:
        The loss ``[]``.
    """
    static = (1 - _dilated(mattes[0])) * (1 - _dilated(mattes[1]))
    predicted_change, true_change = after[0] - before[0], after[1] - before[1]
    return l1_loss(predicted_change, true_change, weight * static)


def _dilated(matte: Tensor) -> Tensor:
    """Dilate a matte: 1 near a mover, 0 elsewhere."""
    moving = (matte > 0).to(matte.dtype)
    return F.max_pool2d(moving, MATTE_DILATION, stride=1, padding=MATTE_DILATION // 2)


def weighted_psnr(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of colours clamped to 0..1, as the mean over the samples.

    Args:
        prediction: ``[B, 3, H, W]``.
        target: ``[B, 3, H, W]``.
        weight: ``[B, 1, H, W]``; None: all pixels count equally.

    Returns:
        The ratio ``[]``, at most 100 dB.
    """
    squares = (prediction.clamp(0, 1) - target.clamp(0, 1)) ** 2
    mse = channel_means(squares, torch.ones_like(squares[:, :1]) if weight is None else weight).mean(dim=1)
    return (-10 * torch.log10(mse.clamp_min(1e-10))).mean()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over samples and channels of the weighted means of ``[B, C, H, W]``."""
    return channel_means(values, weight).mean()
