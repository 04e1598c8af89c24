"""Image quality metrics: PSNR and SSIM, optionally of masked pixels only, and MS-SSIM.

Pictures are clamped to 0..1 first, as they are when displayed or written. Each metric documents which borders it
excludes; ``BORDERS`` holds the widths.
"""

from __future__ import annotations

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

SSIM_SIGMA = 1.5  # Wang et al. 2004: Gaussian window of 11 x 11 pixels, sigma 1.5
SSIM_WINDOW = 11
MS_SSIM_SIDE = 161  # minimum side in pixels: the window of 11 pixels must fit at the fifth scale

# Pixels excluded at each border of a whole picture; for MS-SSIM, at each of its five scales.
BORDERS = {"psnr": 0, "ssim": SSIM_WINDOW // 2, "ms_ssim": SSIM_WINDOW // 2}


def psnr(
    picture: Tensor,  # [..., C, H, W]
    truth: Tensor,  # [..., C, H, W]
    mask: Tensor | None = None,  # [..., 1, H, W] or [..., C, H, W] bool
) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``-10 log10`` of the mean squared error at a peak of 1.

    Args:
        picture: colours, clamped to 0..1 here.
        truth: the true colours, clamped likewise.
        mask: the pixels to include; None: all.

    Returns:
        ``[...]`` in dB, one value per picture: infinite for equal pictures, NaN for an empty mask.

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

    Gaussian weights of sigma 1.5 (11 x 11 pixels), ``data_range=1``, population covariance, mean over the colour
    channels. Without a mask, the mean excludes the 5 pixels at each border, whose windows reach outside the picture;
    with a mask, the map (reflected at the borders) is averaged over the pixels of the mask.

    Args:
        picture: colours, clamped to 0..1 here; at least 11 x 11 pixels.
        truth: the true colours, clamped likewise.
        mask: the pixels to include; None: all.

    Returns:
        ``[...]`` float32, one value per picture; NaN for an empty mask.

    Raises:
        ValueError: the shapes don't agree, the pictures are too small, or the mask isn't boolean.
    """
    _check(picture, truth, mask)
    similarity = ssim_map(picture, truth)
    if mask is None:
        border = BORDERS["ssim"]
        return similarity[..., border:-border, border:-border].double().mean(dim=(-3, -2, -1)).float()
    counts = mask.expand_as(similarity)
    return similarity.where(counts, 0.0).sum(dim=(-3, -2, -1)) / counts.sum(dim=(-3, -2, -1))


def ssim_map(
    picture: Tensor,  # [..., C, H, W]
    truth: Tensor,  # [..., C, H, W]
) -> Tensor:
    """The structural similarity of every pixel, ``[..., C, H, W]`` float32; see ``ssim``.

    Raises:
        ValueError: the shapes don't agree, or the pictures are too small.
    """
    _check(picture, truth, None)
    if min(picture.shape[-2:]) < SSIM_WINDOW:
        got = list(picture.shape[-2:])
        raise ValueError(f"picture: at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels expected, got {got}")
    pairs = zip(picture.reshape(-1, *picture.shape[-3:]), truth.reshape(-1, *picture.shape[-3:]), strict=True)
    return torch.stack([_ssim_map_one(*pair) for pair in pairs]).to(picture.device).reshape(picture.shape)


def ms_ssim(
    picture: Tensor,  # [..., C, H, W]
    truth: Tensor,  # [..., C, H, W]
) -> Tensor:
    """Multi-scale structural similarity with the settings of Wang et al. 2003, computed by torchmetrics.

    Five scales with the windows of ``ssim``. At each scale, the mean over pixels and channels excludes 5 pixels at each
    border, and a negative mean counts as 0. The borders of the coarsest scale correspond to 80 pixels of the picture.

    Args:
        picture: colours, clamped to 0..1 here; at least 161 x 161 pixels.
        truth: the true colours, clamped likewise.

    Returns:
        ``[...]`` float32, one value per picture.

    Raises:
        ValueError: the shapes don't agree, or the pictures are too small.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure  # slow to import

    _check(picture, truth, None)
    if min(picture.shape[-2:]) < MS_SSIM_SIDE:
        got = list(picture.shape[-2:])
        raise ValueError(f"picture: at least {MS_SSIM_SIDE} x {MS_SSIM_SIDE} pixels expected, got {got}")
    a, b = (x.detach().float().clamp(0, 1).reshape(-1, *x.shape[-3:]) for x in (picture, truth))
    values = multiscale_structural_similarity_index_measure(
        a, b, sigma=SSIM_SIGMA, kernel_size=SSIM_WINDOW, data_range=1.0, reduction="none", normalize="relu"
    )
    return torch.as_tensor(values).reshape(picture.shape[:-3])


def _ssim_map_one(picture: Tensor, truth: Tensor) -> Tensor:
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
    return torch.from_numpy(similarity[1])


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
