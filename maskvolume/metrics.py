"""How near a picture is to the true one: PSNR and SSIM, of the whole picture or of some of its pixels.

Pictures are clamped to 0..1 first, as they are when they are shown or written.
"""

from __future__ import annotations

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

SSIM_SIGMA = 1.5  # Wang et al. 2004: Gaussian window of 11 x 11 pixels, sigma 1.5
SSIM_WINDOW = 11


def psnr(
    picture: Tensor,  # [..., C, H, W]
    truth: Tensor,  # [..., C, H, W]
    mask: Tensor | None = None,  # [..., 1, H, W] or [..., C, H, W] bool
) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``-10 log10`` of the mean squared error at a peak of 1.

    Args:
        picture: colours, clamped to 0..1 here.
        truth: the true colours, clamped likewise.
        mask: the pixels that count; all of them for None.

    Returns:
        ``[...]`` one value a picture: infinite where nothing differs, NaN where the mask is empty.

    Raises:
        ValueError: the shapes don't agree, or the mask isn't boolean.
    """
    _check(picture, truth, mask)
    error = (picture.float().clamp(0, 1) - truth.float().clamp(0, 1)) ** 2
    if mask is None:
        mse = error.mean(dim=(-3, -2, -1))
    else:
        counts = mask.expand_as(error)
        mse = error.where(counts, 0.0).sum(dim=(-3, -2, -1)) / counts.sum(dim=(-3, -2, -1))
    return -10.0 * torch.log10(mse)


def ssim(
    picture: Tensor,  # [..., C, H, W]
    truth: Tensor,  # [..., C, H, W]
    mask: Tensor | None = None,  # [..., 1, H, W] or [..., C, H, W] bool
) -> Tensor:
    """Structural similarity with the settings of Wang et al. 2004, computed by scikit-image.

    Gaussian weights of sigma 1.5 (11 x 11 pixels), ``data_range=1``, population covariance, the mean over the
    colour channels. Without a mask the mean leaves out the 5 pixels at each border, whose windows reach
    outside; with one, the map (reflected at the borders) is averaged over the pixels of the mask.

    Args:
        picture: colours, clamped to 0..1 here; at least 11 x 11 pixels.
        truth: the true colours, clamped likewise.
        mask: the pixels that count; all of them for None.

    Returns:
        ``[...]`` float32, one value a picture; NaN where the mask is empty.

    Raises:
        ValueError: the shapes don't agree, the pictures are too small, or the mask isn't boolean.
    """
    _check(picture, truth, mask)
    if min(picture.shape[-2:]) < SSIM_WINDOW:
        got = list(picture.shape[-2:])
        raise ValueError(f"picture: at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels expected, got {got}")
    batch, inner = picture.shape[:-3], picture.shape[-3:]
    pictures, truths = picture.reshape(-1, *inner), truth.reshape(-1, *inner)
    masks = [None] * len(pictures) if mask is None else list(mask.expand_as(picture).reshape(-1, *inner))
    values = [_ssim_one(*item) for item in zip(pictures, truths, masks, strict=True)]
    return torch.tensor(values, device=picture.device).reshape(batch)


def _ssim_one(picture: Tensor, truth: Tensor, mask: Tensor | None) -> float:
    a, b = (x.detach().float().clamp(0, 1).cpu().numpy() for x in (picture, truth))
    similarity = structural_similarity(
        a,
        b,
        channel_axis=0,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    if mask is None:
        return float(similarity[0])
    chosen = similarity[1][mask.cpu().numpy()]
    return float(chosen.mean()) if chosen.size else float("nan")


def _check(picture: Tensor, truth: Tensor, mask: Tensor | None) -> None:
    if picture.ndim < 3 or picture.shape != truth.shape:
        got = f"{list(picture.shape)} and {list(truth.shape)}"
        raise ValueError(f"picture, truth: one shape [..., C, H, W] expected, got {got}")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: bool expected, got {mask.dtype}")
    one_channel = (*picture.shape[:-3], 1, *picture.shape[-2:])
    if tuple(mask.shape) not in (one_channel, tuple(picture.shape)):
        raise ValueError(f"mask: {list(one_channel)} expected, got {list(mask.shape)}")
