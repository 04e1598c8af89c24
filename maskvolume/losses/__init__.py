"""Training losses: on pictures and masks, structural similarity, features of a network."""

from maskvolume.losses.pictures import (
    LOSS_NAMES,
    ImageLoss,
    make_image_loss,
    mask_loss,
    masked_l1_loss,
    psnr,
    temporal_loss,
)

__all__ = ["LOSS_NAMES", "ImageLoss", "make_image_loss", "mask_loss", "masked_l1_loss", "psnr", "temporal_loss"]
