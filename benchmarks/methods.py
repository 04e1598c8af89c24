"""Ways to make a novel view of a moving scene from a rig, ours among them, on clips and on random worlds alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.classical import plane_sweep_stereo
from benchmarks.holdout import to_tensor
from benchmarks.warping import DisparityWarp
from maskvolume.cameras import Camera, stack_cameras
from maskvolume.filling import fill_unseen
from maskvolume.model import MaskVolumeModel
from maskvolume.networks.matching import MatchingMaskNet
from maskvolume.pipeline import Clip, ClipRenderer
from maskvolume.synthetic import SyntheticSample

NEAREST, CLASSICAL, WARPING = "nearest camera", "classical plane sweep", "disparity warping"
FRAME_MPI, MASK_2D, MASK_VOLUME = "MPI of each frame", "2D mask", "mask volume"
MORE_CAMERAS = 4
MORE = f"{MASK_VOLUME}, {MORE_CAMERAS} cameras"  # where the checkpoint's architecture takes more than two
MASK_WINDOW = 3  # pixels, of the 2D mask


@dataclass(frozen=True)
class WorldClip:
    """A random world as a clip of T instants.

    Attributes:
        sample: of one world, with its later instants.
    """

    sample: SyntheticSample

    @property
    def size(self) -> tuple[int, int]:
        """See ``pipeline.Clip``."""
        return self.sample.sources.size

    @property
    def num_frames(self) -> int:
        """The instants."""
        later = self.sample.later_images
        return 1 if later is None else 1 + later.shape[1]

    def cameras(self, size: tuple[int, int] | None = None) -> Camera:
        """See ``pipeline.Clip``."""
        return self.sample.sources[0].scaled(size or self.size)

    def near_far(self) -> tuple[float, float]:
        """See ``pipeline.Clip``."""
        return float(self.sample.near), float(self.sample.far)

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See ``pipeline.Clip``."""
        later = self.sample.later_images
        images = self.sample.images[0] if frame == 0 or later is None else later[0, frame - 1]
        return self._picture(images[camera])

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See ``pipeline.Clip``."""
        return self._picture(self.sample.backgrounds[0, camera])

    @staticmethod
    def _picture(image: Tensor) -> np.ndarray:
        return (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()


def method_names(model: MaskVolumeModel) -> tuple[str, ...]:
    """The methods that a checkpoint allows, in the order of the tables."""
    names = [NEAREST, CLASSICAL, WARPING, FRAME_MPI]
    if model.has_mask:
        names += [MASK_2D, MASK_VOLUME]
        names += [MORE] if model.arch.max_views is None else []
    return tuple(names)


class NovelView:
    """One novel view of a clip by every method; what does not change from frame to frame is made once.

    Args:
        clip: where pictures and backgrounds come from.
        model: ours.
        indices: source cameras, the nearest first: two for every method, all for the last one.
        target: the camera to look from.
        size: ``(h, w)`` at which pictures are read.
    """

    def __init__(
        self, clip: Clip, model: MaskVolumeModel, indices: tuple[int, ...], target: Camera, size: tuple[int, int]
    ) -> None:
        self.clip, self.target, self.size, self.indices = clip, target, size, indices
        self.methods = method_names(model)
        self.near, self.far = clip.near_far()
        cameras = clip.cameras(size)
        self.sources = stack_cameras([cameras[i] for i in indices[:2]])
        backgrounds = torch.stack([to_tensor(clip.read_background(i, size)) for i in indices[:2]])
        self.warp = DisparityWarp(self.sources, target, self.near, self.far, backgrounds)
        targets = stack_cameras([target])

        def renderer(used: MaskVolumeModel, chosen: tuple[int, ...]) -> ClipRenderer:
            return ClipRenderer(clip, used, chosen, targets=targets, size=size)

        self.alone = renderer(first_stage(model), indices[:2])
        self.ours = {MASK_VOLUME: renderer(model, indices[:2])} if model.has_mask else {}
        if MORE in self.methods:
            self.ours[MORE] = renderer(model, indices)
        self._background: Tensor | None = None

    def pictures(self, frame: int) -> dict[str, Tensor]:
        """``[3, h, w]`` in 0..1 by each method."""
        images = torch.stack([to_tensor(self.clip.read(i, frame, self.size)) for i in self.indices[:2]])
        alone = self.alone.render(frame, self.target).color.float().cpu()
        made = {
            NEAREST: images[0],
            CLASSICAL: plane_sweep_stereo(images, self.sources, self.target, self.near, self.far).color,
            WARPING: self.warp.view(images),
            FRAME_MPI: alone,
        }
        if self.ours:
            made[MASK_2D] = blend_pictures(alone, self.background())
        for name, renderer in self.ours.items():
            made[name] = renderer.render(frame, self.target).color.float().cpu()
        return {name: made[name].clamp(0, 1) for name in self.methods}

    def background(self) -> Tensor:
        """``[3, h, w]`` the background's MPI seen from the target."""
        if self._background is None:
            renderer = self.ours[MASK_VOLUME]
            mpi = renderer.background().mpi
            rendering = mpi.render(self.target.to(renderer.device), renderer.model.backend)
            self._background = fill_unseen(rendering).color.float().cpu()
        return self._background


def first_stage(model: MaskVolumeModel) -> MaskVolumeModel:
    """The MPI network of a model as a model of its own; it shares the weights."""
    alone = MaskVolumeModel(replace(model.meta, stage="mpi"), model.precision, model.backend)
    alone.mpi_net = model.mpi_net
    return alone


def blend_pictures(frame: Tensor, background: Tensor) -> Tensor:
    """Renderings ``[3, h, w]`` of frame and background, blended by a mask of the picture.

    The mask is to the two pictures what the mask network's prior is to the volume: a sigmoid of their difference,
    averaged over a small window.
    """
    difference = (frame - background).abs().sum(dim=0, keepdim=True)
    smooth = F.avg_pool2d(difference, MASK_WINDOW, stride=1, padding=MASK_WINDOW // 2, count_include_pad=False)
    mask = torch.sigmoid(MatchingMaskNet.SLOPE * (smooth - MatchingMaskNet.THRESHOLD))
    return mask * frame + (1 - mask) * background
