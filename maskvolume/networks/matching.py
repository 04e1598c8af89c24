"""Networks that start from matching evidence and learn the residual.

A plane sweep shows a surface where the views agree. The MPI network turns the agreement of the views, averaged
over windows, into a distribution over planes along each ray of the reference; a light 3D U-Net at half resolution
adds a learned residual to it and weighs the views' colours. With a residual of zero it is classical multi-view
stereo in MPI form; the learned part is added to that. The mask network starts from the difference between frame and
background in the same way. Neither has norm layers: the result at a voxel does not depend on the picture's size.

All evidence is symmetric in the views and depends on their number through means alone, so any V >= 2 works.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskvolume import ops
from maskvolume.networks.volumes import Network, channels_last, compute_dtype, double_size, pad_to_multiple
from maskvolume.ops import CostSettings, PlaneSettings

COST_CAP = 0.6  # a larger difference (summed over colours) says no more than "different"
# Where fewer than two views see a point, which tells nothing: more than a match costs, less than a mismatch. At the
# picture's sides only near planes are seen by several views; were others dearer, what is there would seem near.
COST_UNSURE = 0.35
WINDOW, WINDOW_FINE = 9, 3  # pixels of the averaging windows
TEMPERATURE = 0.03  # of the softmax over planes when training starts; cost units. Sharper ones let through no gradient
COST_GAIN = 10.0  # of the costs where the network reads them, when training starts: they are small numbers
LOGIT_CAP = 60.0  # keeps exp() and its cumulative sums within float32
VIEW_LOGIT_CAP = 15.0
MULTIPLE = (4, 8, 8)  # of D, H, W: half resolution and two more halvings


@dataclass(frozen=True)
class Evidence:
    """What the MPI network knows of planes before it runs the U-Net.

    Attributes:
        cost: ``[B, 1, D, H, W]`` of the planes over windows.
        features: ``[B, F, D, H / 2, W / 2]`` that the U-Net reads.
        aggregated: ``[B, 1, D, H / 2, W / 2]`` costs that are carried through the whole picture, where there are some.
    """

    cost: Tensor
    features: Tensor
    aggregated: Tensor | None = None


class ResBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x + self.conv2(F.relu_(self.conv1(x))))


class ResidualUNet(nn.Module):
    """3D U-Net at half the picture's resolution; the last layer starts at zero."""

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
        """``[B, C, D, H, W] -> [B, out, D, H, W]``; D, H, W are multiples of 4."""
        x0 = F.relu_(self.stem(x))
        x1 = self.block1(F.relu_(self.down1(x0)))
        x2 = self.block2(F.relu_(self.down2(x1)))
        x1 = self.block1_up(x1 + double_size(self.up1(x2)))
        x0 = self.block0_up(x0 + double_size(self.up0(x1)))
        return self.head(x0)


class MatchingMPINet(Network):
    """Plane sweep volume of any number of views to premultiplied RGBA planes."""

    FEATURES = ops.MATCHING_FEATURES
    COSTS = slice(8, 16)  # of these

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        self.unet = ResidualUNet(self.FEATURES, 4 * 2, channels)
        with torch.no_grad():
            self.unet.stem.weight[:, self.COSTS] *= COST_GAIN
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())

    def forward(self, sweep: Tensor, context: Tensor | None = None) -> Tensor:
        """``sweep [B, V, 3, D, H, W] -> rgba [B, D, 4, H, W]``, premultiplied; -1 in ``sweep`` is no data.

        Args:
            sweep: the plane sweep volume.
            context: what the network looks at of a larger picture, if the volume is a part of one
                (``networks.PictureContext``); None: the part is the picture.
        """
        unet_output, penalty, padded = self._run_unet(sweep, context)
        size = (sweep.shape[-3], sweep.shape[-2], sweep.shape[-1])
        return ops.make_planes(unet_output, penalty, padded, self._plane_settings(), size, backend=self.backend)

    def with_logits(self, sweep: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What ``forward`` returns, and the logits ``[B, D, H, W]`` of the planes along each ray of the reference.

        See ``maskvolume.ops.make_planes_with_logits``.
        """
        unet_output, penalty, padded = self._run_unet(sweep, context)
        size = (sweep.shape[-3], sweep.shape[-2], sweep.shape[-1])
        settings = self._plane_settings()
        return ops.make_planes_with_logits(unet_output, penalty, padded, settings, size, backend=self.backend)

    def evidence(self, sweep: Tensor, context: Tensor | None) -> Evidence:
        """The evidence of a padded sweep ``[B, V, 3, D, H, W]``; ``context`` as in ``forward``."""
        return Evidence(*self._matching_evidence(sweep))

    def penalty(self, evidence: Evidence) -> Tensor:
        """What is taken off the logits of planes, ``[B, 1, D, H, W]``."""
        return evidence.cost.float() / self.log_temperature.exp()

    def trust(self) -> Tensor | None:
        """How fast a view's colour loses weight as it differs from that of the view next to it; None: it doesn't."""
        return None

    def _matching_evidence(self, sweep: Tensor) -> tuple[Tensor, Tensor]:
        settings, dtype = cost_settings(), compute_dtype(sweep)
        return ops.matching_evidence(sweep, settings, channels=self.FEATURES, dtype=dtype, backend=self.backend)

    def _run_unet(self, sweep: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The output of the U-Net, the penalty of planes, and the padded sweep."""
        padded, _ = pad_views(sweep)
        with torch.no_grad():
            evidence = self.evidence(padded, context)
        unet_output = self.unet(channels_last(evidence.features))
        return unet_output, self.penalty(evidence), padded

    def _plane_settings(self) -> PlaneSettings:
        return PlaneSettings(LOGIT_CAP, VIEW_LOGIT_CAP, COST_CAP, self.trust())


class MatchingMaskNet(Network):
    """Frame and background to the volume of what moves.

    The residual of the U-Net is added to the difference between frame and background. Voxels behind an opaque mover
    always belong to the background: no reference ray reaches them, so that the MPI of the frame has only smears there.
    """

    FEATURES = ops.MASK_FEATURES
    SLOPE, THRESHOLD = 30.0, 0.1  # of the prior: sigmoid(slope * (difference - threshold))
    HIDDEN = 0.05  # where less of a ray than this is left, it begins to be the background's

    def __init__(self, channels: tuple[int, int, int] = (8, 16, 32)) -> None:
        super().__init__()
        self.unet = ResidualUNet(self.FEATURES, 4, channels)
        self.slope = nn.Parameter(torch.tensor(self.SLOPE))
        self.threshold = nn.Parameter(torch.tensor(self.THRESHOLD))
        self.log_hidden = nn.Parameter(torch.tensor(self.HIDDEN).log())

    def forward(self, sweep: Tensor, background_sweep: Tensor, dynamic_rgba: Tensor, background_rgba: Tensor) -> Tensor:
        """Sweeps ``[B, V, 3, D, H, W]``, MPIs ``[B, D, 4, H, W] -> mask [B, 1, D, H, W]`` in 0..1."""
        opacities = torch.stack([dynamic_rgba[:, :, 3], background_rgba[:, :, 3]], dim=1).detach().float()
        opacities, _ = pad_to_multiple(opacities, MULTIPLE)
        (padded, _), (still, _) = pad_views(sweep), pad_views(background_sweep)
        with torch.no_grad():
            features, difference = ops.mask_evidence(
                padded, still, opacities, cost_settings(), dtype=compute_dtype(padded), backend=self.backend
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
    """How these networks compare views."""
    return CostSettings(COST_CAP, COST_UNSURE, WINDOW, WINDOW_FINE)


def pad_views(sweep: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """``pad_to_multiple`` of ``[B, V, 3, D, H, W]``; no copy where nothing is to be padded."""
    padded, crop = pad_to_multiple(sweep.flatten(0, 1), MULTIPLE)
    return padded.unflatten(0, sweep.shape[:2]), crop
