"""Networks that start from matching evidence and learn a residual.

In a plane sweep, views agree where a plane meets a surface. The MPI network turns this agreement, averaged over
windows, into a distribution over planes along each ray of the reference; a light 3D U-Net at half resolution adds a
learned residual to its logits and weights the colours of the views. With a residual of zero, the network is classical
multi-view stereo in MPI form. The mask network starts from the difference between frame and background in the same
way. Neither network has norm layers, so the result at a voxel does not depend on the size of the picture.

All evidence is symmetric in the views and depends on their number only through means, so any V >= 2 works.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskvolume import ops
from maskvolume.networks.volumes import Network, channels_last, compute_dtype, double_size, pad_to_multiple
from maskvolume.ops import CostSettings, PlaneSettings

COST_CAP = 0.6  # upper limit of a difference (summed over colours); larger ones carry no more information
# Cost of a point that fewer than two views see: above that of a match, below that of a mismatch. At the sides of the
# picture, several views see only the near planes; if the others cost more, surfaces there would seem near.
COST_UNSURE = 0.35
WINDOW, WINDOW_FINE = 9, 3  # sides of the averaging windows in pixels
TEMPERATURE = 0.03  # initial temperature of the softmax over planes, in cost units; lower ones block the gradient
COST_GAIN = 10.0  # initial factor of the cost features in the first layer, since costs are small numbers
LOGIT_CAP = 60.0  # keeps exp() and its cumulative sums within float32
VIEW_LOGIT_CAP = 15.0
MULTIPLE = (4, 8, 8)  # padding of D, H, W: the U-Net halves all three twice, and works at half of H and W


@dataclass(frozen=True)
class Evidence:
    """The evidence for each plane, computed before the U-Net runs.

    Attributes:
        cost: ``[B, 1, D, H, W]``, plane costs averaged over windows.
        features: ``[B, F, D, H / 2, W / 2]``, the input of the U-Net.
        aggregated: ``[B, 1, D, H / 2, W / 2]``, costs aggregated along paths through the whole picture; None without
            semi-global evidence.
    """

    cost: Tensor
    features: Tensor
    aggregated: Tensor | None = None


class ResBlock(nn.Module):
    """A residual block of two 3x3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x + self.conv2(F.relu_(self.conv1(x))))


class ResidualUNet(nn.Module):
    """A 3D U-Net at half the resolution of the picture, with a last layer initialised to zero.

    Args:
        c_in: number of input channels.
        c_out: number of output channels.
        channels: number of channels at each of the three levels, the finest first.
    """

    def __init__(self, c_in: int, c_out: int, channels: tuple[int, int, int]) -> None:
        super().__init__()
        c0, c1, c2 = channels
        self.stem = nn.Conv3d(c_in, c0, 3, padding=1)
        self.down1 = nn.Conv3d(c0, c1, 3, stride=2, padding=1)
        self.block1 = ResBlock(c1)
        self.down2 = nn.Conv3d(c1, c2, 3, stride=2, padding=1)
        self.block2 = nn.Sequential(ResBlock(c2), ResBlock(c2))
        self.up1 = nn.Conv3d(c2, c1, 1)
        self.block1_up = ResBlock(c1)
        self.up0 = nn.Conv3d(c1, c0, 1)
        self.block0_up = ResBlock(c0)
        self.head = nn.Conv3d(c0, c_out, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network on ``[B, c_in, D, H, W]``, with D, H and W multiples of 4: ``[B, c_out, D, H, W]``."""
        x0 = F.relu_(self.stem(x))
        x1 = self.block1(F.relu_(self.down1(x0)))
        x2 = self.block2(F.relu_(self.down2(x1)))
        x1 = self.block1_up(x1 + double_size(self.up1(x2)))
        x0 = self.block0_up(x0 + double_size(self.up0(x1)))
        return self.head(x0)


class MatchingMPINet(Network):
    """Predicts premultiplied RGBA planes from the plane sweep volume of two or more views.

    Args:
        channels: channels of the U-Net; see ``ResidualUNet``.
    """

    FEATURES = ops.MATCHING_FEATURES
    COSTS = slice(8, 16)  # the features that are costs

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        self.unet = ResidualUNet(self.FEATURES, 4 * 2, channels)
        with torch.no_grad():
            self.unet.stem.weight[:, self.COSTS] *= COST_GAIN
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())

    def forward(self, sweep: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict the planes.

        Args:
            sweep: ``[B, V, 3, D, H, W]``, the plane sweep volume; -1 where a view has no data.
            context: ``[B, D, H / 2, W / 2]``, the context of this part if the sweep covers only a part of the picture
                (``networks.PictureContext``); None if it covers the whole picture.

        Returns:
            ``[B, D, 4, H, W]``, premultiplied RGBA in 0..1.
        """
        unet_output, penalty, padded = self._run_unet(sweep, context)
        size = (sweep.shape[-3], sweep.shape[-2], sweep.shape[-1])
        return ops.make_planes(unet_output, penalty, padded, self._plane_settings(), size, backend=self.backend)

    def with_logits(self, sweep: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict the planes of ``forward``, and their logits ``[B, D, H, W]`` along each ray of the reference.

        The arguments are those of ``forward``.
        """
        unet_output, penalty, padded = self._run_unet(sweep, context)
        size = (sweep.shape[-3], sweep.shape[-2], sweep.shape[-1])
        settings = self._plane_settings()
        return ops.make_planes_with_logits(unet_output, penalty, padded, settings, size, backend=self.backend)

    def evidence(self, sweep: Tensor, context: Tensor | None) -> Evidence:
        """Compute the evidence of a padded sweep ``[B, V, 3, D, H, W]``; ``context`` as in ``forward``."""
        return Evidence(*self._matching_evidence(sweep))

    def penalty(self, evidence: Evidence) -> Tensor:
        """Compute the penalty ``[B, 1, D, H, W]``, which is subtracted from the logits of the planes."""
        return evidence.cost.float() / self.log_temperature.exp()

    def trust(self) -> Tensor | None:
        """Rate ``[]`` at which a view loses weight as it differs from the most similar view; None disables this."""
        return None

    def _matching_evidence(self, sweep: Tensor) -> tuple[Tensor, Tensor]:
        settings, dtype = cost_settings(), compute_dtype(sweep)
        return ops.matching_evidence(sweep, settings, channels=self.FEATURES, dtype=dtype, backend=self.backend)

    def _run_unet(self, sweep: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output of the U-Net, the penalty of the planes, and the padded sweep."""
        padded, _ = pad_views(sweep)
        with torch.no_grad():
            evidence = self.evidence(padded, context)
        unet_output = self.unet(channels_last(evidence.features))
        return unet_output, self.penalty(evidence), padded

    def _plane_settings(self) -> PlaneSettings:
        return PlaneSettings(LOGIT_CAP, VIEW_LOGIT_CAP, COST_CAP, self.trust())


class MatchingMaskNet(Network):
    """Predicts the mask volume of moving surfaces from a frame and the background.

    The U-Net adds a residual to a prior from the difference of the two. Behind an opaque mover, the mask always selects
    the background: no reference ray reaches that region, where the frame's MPI holds only smears of the mover.

    Args:
        channels: channels of the U-Net; see ``ResidualUNet``.
    """

    FEATURES = ops.MASK_FEATURES
    SLOPE, THRESHOLD = 30.0, 0.1  # initial prior: sigmoid(slope * (difference - threshold))
    HIDDEN = 0.05  # initial transmittance behind movers below which the background takes over

    def __init__(self, channels: tuple[int, int, int] = (8, 16, 32)) -> None:
        super().__init__()
        self.unet = ResidualUNet(self.FEATURES, 4, channels)
        self.slope = nn.Parameter(torch.tensor(self.SLOPE))
        self.threshold = nn.Parameter(torch.tensor(self.THRESHOLD))
        self.log_hidden = nn.Parameter(torch.tensor(self.HIDDEN).log())

    def forward(self, sweep: Tensor, background_sweep: Tensor, dynamic_rgba: Tensor, background_rgba: Tensor) -> Tensor:
        """Predict the mask volume.

        Args:
            sweep: ``[B, V, 3, D, H, W]``, the plane sweep volume of the frame; -1 where a view has no data.
            background_sweep: ``[B, V, 3, D, H, W]``, the plane sweep volume of the background.
            dynamic_rgba: ``[B, D, 4, H, W]``, the planes of the frame, which get no gradient.
            background_rgba: ``[B, D, 4, H, W]``, the planes of the background, which get no gradient.

        Returns:
            ``[B, 1, D, H, W]`` in 0..1; 1 selects the frame.
        """
        opacities = torch.stack([dynamic_rgba[:, :, 3], background_rgba[:, :, 3]], dim=1).detach().float()
        opacities, _ = pad_to_multiple(opacities, MULTIPLE)
        (padded, _), (padded_background, _) = pad_views(sweep), pad_views(background_sweep)
        with torch.no_grad():
            features, difference = ops.mask_evidence(
                padded, padded_background, opacities, cost_settings(), dtype=compute_dtype(padded), backend=self.backend
            )
        unet_output = self.unet(channels_last(features))
        del features
        return ops.make_mask(
            unet_output,
            difference,
            opacities[:, 0],
            slope=self.slope,
            threshold=self.threshold,
            hidden=self.log_hidden.exp(),
            size=(sweep.shape[-3], sweep.shape[-2], sweep.shape[-1]),
            backend=self.backend,
        )


def cost_settings() -> CostSettings:
    """Return how the matching networks compare views."""
    return CostSettings(COST_CAP, COST_UNSURE, WINDOW, WINDOW_FINE)


def pad_views(sweep: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """``pad_to_multiple`` for sweeps ``[B, V, 3, D, H, W]`` and ``MULTIPLE``; makes no copy if no padding is needed."""
    padded, crop = pad_to_multiple(sweep.flatten(0, 1), MULTIPLE)
    return padded.unflatten(0, sweep.shape[:2]), crop
