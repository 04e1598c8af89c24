"""The networks of the original implementation (Lin et al., ICCV 2021), which load its weights unchanged.

State dict keys are those of the original: a block has ``NAME.model.0`` (convolution) and ``NAME.model.2`` (norm).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskvolume.networks.volumes import Network, blend_views, double_size, pad_to_multiple

STRIDE = 8  # three convolutions of stride 2
NF = 8  # channels of the first layer


class Block(nn.Module):
    """A Conv3d, a ReLU and a GroupNorm over all channels."""

    def __init__(self, c_in: int, c_out: int, kernel: int, padding: int, stride: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv3d(c_in, c_out, kernel, stride, padding), nn.ReLU(), nn.GroupNorm(1, c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Output(nn.Module):
    """The last convolution, without norm or activation; wrapped so that its key is ``model.0``."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv3d(c_in, c_out, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Trunk(Network):
    """The 3D U-Net shared by both networks.

    Args:
        c_in: number of input channels.
        c_out: number of output channels.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1_1 = Block(c_in, NF, 7, 3, 1)
        self.conv1_2 = Block(NF, NF * 2, 7, 3, 2)
        self.conv2_1 = Block(NF * 2, NF * 2, 3, 1, 1)
        self.conv2_2 = Block(NF * 2, NF * 4, 3, 1, 2)
        self.conv3_1 = Block(NF * 4, NF * 4, 3, 1, 1)
        self.conv3_2 = Block(NF * 4, NF * 8, 3, 1, 2)
        self.conv4_1 = Block(NF * 8, NF * 8, 3, 1, 1)
        self.conv4_2 = Block(NF * 8, NF * 8, 3, 1, 1)
        self.conv5_1 = Block(NF * 16, NF * 4, 3, 1, 1)
        self.conv5_2 = Block(NF * 4, NF * 4, 3, 1, 1)
        self.conv6_1 = Block(NF * 8, NF * 2, 3, 1, 1)
        self.conv6_2 = Block(NF * 2, NF * 2, 3, 1, 1)
        self.conv7_1 = Block(NF * 4, NF * 2, 3, 1, 1)
        self.conv7_2 = Block(NF * 2, NF, 3, 1, 1)
        self.conv7_3 = Output(NF, c_out)

    def trunk(self, x: Tensor) -> Tensor:
        """Run the U-Net on ``[B, c_in, D, H, W]`` of any size: ``[B, c_out, D, H, W]``, without activation."""
        padded, crop = pad_to_multiple(x, (STRIDE, STRIDE, STRIDE))
        if padded.device.type != "mps":
            padded = padded.contiguous(memory_format=torch.channels_last_3d)
        conv1 = self.conv1_2(self.conv1_1(padded))
        conv2 = self.conv2_2(self.conv2_1(conv1))
        conv3 = self.conv3_2(self.conv3_1(conv2))
        conv4 = self.conv4_2(self.conv4_1(conv3))
        up5 = double_size(torch.cat([conv4, conv3], dim=1))
        conv5 = self.conv5_2(self.conv5_1(up5))
        up6 = double_size(torch.cat([conv5, conv2], dim=1))
        conv6 = self.conv6_2(self.conv6_1(up6))
        up7 = double_size(torch.cat([conv6, conv1], dim=1))
        return self.conv7_3(self.conv7_2(self.conv7_1(up7)))[crop]


class OriginalMPINet(Trunk):
    """Predicts straight RGBA planes from the plane sweep volume of two views."""

    def __init__(self) -> None:
        super().__init__(6, 2)

    def forward(self, sweep: Tensor, context: Tensor | None = None, *, mix_no_data: bool = False) -> Tensor:
        """Predict the planes.

        Args:
            sweep: ``[B, 2, 3, D, H, W]``, the plane sweep volume; -1 where a view has no data.
            context: unused; this network always sees the whole picture.
            mix_no_data: blend the -1 as if it were a colour, as the original does.

        Returns:
            ``[B, D, 4, H, W]``, RGBA with straight colour.
        """
        unet_output = self.trunk(sweep.flatten(1, 2)).float()
        alpha = torch.sigmoid(unet_output[:, :1])
        logits = torch.stack([torch.zeros_like(unet_output[:, 1:]), unet_output[:, 1:]], dim=1)
        color, seen = blend_views(sweep, logits, mix_no_data=mix_no_data)
        return torch.cat([color, alpha if mix_no_data else alpha * seen], dim=1).transpose(1, 2)


class OriginalMaskNet(Trunk):
    """Predicts a mask volume from the plane sweep volumes of a frame and of the background."""

    def __init__(self) -> None:
        super().__init__(12, 1)

    def forward(self, sweep: Tensor, background_sweep: Tensor, dynamic_rgba: Tensor, background_rgba: Tensor) -> Tensor:
        """Predict the mask volume.

        Args:
            sweep: ``[B, 2, 3, D, H, W]``, the plane sweep volume of the frame.
            background_sweep: ``[B, 2, 3, D, H, W]``, the plane sweep volume of the background.
            dynamic_rgba: unused.
            background_rgba: unused.

        Returns:
            ``[B, 1, D, H, W]`` in 0..1; 1 selects the frame.
        """
        with torch.autocast(sweep.device.type, enabled=False):  # autocast on a CPU can't concatenate float16
            volume = torch.cat([sweep.flatten(1, 2), background_sweep.flatten(1, 2)], dim=1)
        return torch.sigmoid(self.trunk(volume).float())
