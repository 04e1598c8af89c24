"""Training losses: on pictures and masks, on structural similarity, and on features of a network."""

from maskvolume.losses.pictures import (
    LOSS_NAMES,
    ImageLoss,
    make_image_loss,
    mask_loss,
    masked_l1_loss,
    temporal_loss,
    weighted_psnr,
)

__all__ = [
    "LOSS_NAMES",
    "ImageLoss",
    "make_image_loss",
    "mask_loss",
    "masked_l1_loss",
    "temporal_loss",
    "weighted_psnr",
]
