"""Methods for novel views of a moving scene from a rig, including ours, for clips and random worlds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.quality.classical import plane_sweep_stereo
from benchmarks.quality.holdout import to_tensor
from benchmarks.quality.warping import DisparityWarp
from maskvolume.clips.clip import StillClip
from maskvolume.data.synthetic import SyntheticSample
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.references import choose_references
from maskvolume.mpi.renderer import ClipRenderer, RenderSettings
from maskvolume.networks.matching import MatchingMaskNet
from maskvolume.ops import fill_unseen

NEAREST, CLASSICAL, WARPING = "nearest camera", "classical plane sweep", "disparity warping"
FRAME_MPI, MASK_2D, MASK_VOLUME = "MPI of each frame", "2D mask", "mask volume"
MORE_CAMERAS = 4
BACKGROUND_CAMERAS = 6  # cameras for the backgrounds in the rows with more cameras, if available
MORE = f"{MASK_VOLUME}, {MORE_CAMERAS} cameras"  # for architectures that take more than two
BLENDED = f"two {MASK_VOLUME}s, {MORE_CAMERAS} cameras"  # blended; the two nearest are references
BASELINES = (NEAREST, CLASSICAL, WARPING)
METHODS = (*BASELINES, FRAME_MPI, MASK_2D, MASK_VOLUME, MORE, BLENDED)
MASK_WINDOW = 3  # side in pixels of the 2D mask's window


@dataclass(frozen=True)
class WorldClip:
    """A random world as a clip of T instants.

    Attributes:
        sample: one world, with its later instants.
    """

    sample: SyntheticSample

    @property
    def size(self) -> tuple[int, int]:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.sample.sources.size

    @property
    def names(self) -> tuple[str, ...]:
        """Numbers of the cameras."""
        return tuple(map(str, range(self.sample.images.shape[1])))

    @property
    def num_frames(self) -> int:
        """Number of instants."""
        later = self.sample.later_images
        return 1 if later is None else 1 + later.shape[1]

    def cameras(self, size: tuple[int, int] | None = None, time: float = 0.0) -> Camera:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.sample.sources[0].scaled(size or self.size)

    def near_far(self) -> tuple[float, float]:
        """As ``maskvolume.clips.clip.StillClip``."""
        return float(self.sample.near), float(self.sample.far)

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """As ``maskvolume.clips.clip.StillClip``."""
        later = self.sample.later_images
        images = self.sample.images[0] if frame == 0 or later is None else later[0, frame - 1]
        return self._picture(images[camera])

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self._picture(self.sample.backgrounds[0, camera])

    @staticmethod
    def _picture(image: Tensor) -> np.ndarray:
        return (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()


@dataclass(frozen=True)
class Row:
    """A row of the tables: a method and its checkpoint.

    Attributes:
        name: unique among the rows.
        method: one of ``METHODS``.
        checkpoint: name of the model; None for a baseline.
    """

    name: str
    method: str
    checkpoint: str | None = None


def choose_rows(models: Mapping[str, MaskVolumeModel], methods: Collection[str]) -> tuple[Row, ...]:
    """The rows that the checkpoints support: baselines first, then checkpoint by checkpoint.

    With several checkpoints, the row names include theirs. A checkpoint of stage one has no mask rows, and one for two
    cameras no rows with more.
    """
    rows = [Row(method, method) for method in BASELINES if method in methods]
    for label, model in models.items():
        names = [FRAME_MPI]
        if model.has_mask:
            names += [MASK_2D, MASK_VOLUME]
            names += [MORE, BLENDED] if model.arch.max_views is None else []
        suffix = f" [{label}]" if len(models) > 1 else ""
        rows += [Row(f"{method}{suffix}", method, label) for method in names if method in methods]
    return tuple(rows)


class NovelView:
    """One novel view of a clip by every row; everything that is the same for all frames is computed once.

    Args:
        clip: with pictures and backgrounds.
        models: ours, by name.
        rows: to render, from ``choose_rows``.
        indices: cameras, the nearest first: the first two for every method, the first four for those with more
            cameras, and the rest for the latter's backgrounds.
        target: the camera to look from.
        size: ``(h, w)`` to read pictures at.
    """

    def __init__(
        self,
        clip: StillClip,
        models: Mapping[str, MaskVolumeModel],
        rows: Sequence[Row],
        indices: tuple[int, ...],
        target: Camera,
        size: tuple[int, int],
    ) -> None:
        self.clip, self.models, self.rows = clip, models, rows
        self.indices, self.target, self.size = indices, target, size
        self.near, self.far = clip.near_far()
        cameras = clip.cameras(size)
        self.sources = stack_cameras([cameras[i] for i in indices[:2]])
        self._renderers: dict[tuple[str, str], ClipRenderer] = {}
        self._blended: dict[str, BlendedRenderer] = {}
        self._backgrounds: dict[str, Tensor] = {}

    def pictures(self, frame: int) -> dict[str, Tensor]:
        """The view ``[3, h, w]`` in 0..1 of each row."""
        images = torch.stack([to_tensor(self.clip.read(i, frame, self.size)) for i in self.indices[:2]])
        frame_views: dict[str, Tensor] = {}  # views of the frame's own MPI by checkpoint, shared by two rows
        return {row.name: self._picture(row, frame, images, frame_views).clamp(0, 1) for row in self.rows}

    def _picture(self, row: Row, frame: int, images: Tensor, frame_views: dict[str, Tensor]) -> Tensor:
        if row.method == NEAREST:
            return images[0]
        if row.method == CLASSICAL:
            return plane_sweep_stereo(images, self.sources, self.target, self.near, self.far).color
        if row.method == WARPING:
            return self._warp.view(images)
        label = row.checkpoint
        assert label is not None
        if row.method in (FRAME_MPI, MASK_2D) and label not in frame_views:
            frame_views[label] = self._render(label, FRAME_MPI, frame)
        if row.method == FRAME_MPI:
            return frame_views[label]
        if row.method == MASK_2D:
            return blend_pictures(frame_views[label], self._background(label))
        if row.method == BLENDED:
            return self._blend(label, frame)
        return self._render(label, row.method, frame)

    @cached_property
    def _warp(self) -> DisparityWarp:
        backgrounds = [to_tensor(self.clip.read_background(i, self.size)) for i in self.indices[:2]]
        return DisparityWarp(self.sources, self.target, self.near, self.far, torch.stack(backgrounds))

    def _render(self, label: str, method: str, frame: int) -> Tensor:
        return self._renderer(label, method).render(frame, self.target).color.float().cpu()

    def _blend(self, label: str, frame: int) -> Tensor:
        """Blend two MPIs of the same cameras, with the nearest and the second nearest camera as reference."""
        targets = stack_cameras([self.target])
        if label not in self._blended:
            cameras = self.clip.cameras(self.size)
            references = choose_references(
                cameras,
                targets,
                self.near,
                self.far,
                count=2,
                max_sources=MORE_CAMERAS,
                max_still_sources=BACKGROUND_CAMERAS,
                candidates=self.indices,
            )
            model = self.models[label]
            self._blended[label] = BlendedRenderer.of(
                self.clip, model, references, RenderSettings(self.size), targets=targets
            )
        renderer = self._blended[label]
        weights = renderer.weights(targets)[0]
        needed = weights.nonzero()[:, 0].tolist()
        pictures = {index: self.clip.read(index, frame, self.size) for index in renderer.cameras_of(needed)}
        renderer.make(frame, needed, pictures)
        return renderer.view(frame, self.target, needed, weights.to(renderer.device)).color.float().cpu()

    def _renderer(self, label: str, method: str) -> ClipRenderer:
        if (label, method) not in self._renderers:
            model = self.models[label]
            used = first_stage(model) if method == FRAME_MPI else model
            chosen, still = self.indices[:2], self.indices[:0]
            if method == MORE:
                chosen, still = self.indices[:MORE_CAMERAS], self.indices[MORE_CAMERAS:]
            targets = stack_cameras([self.target])
            self._renderers[label, method] = ClipRenderer(
                self.clip, used, chosen, RenderSettings(self.size), targets=targets, still_indices=still
            )
        return self._renderers[label, method]

    def _background(self, label: str) -> Tensor:
        """``[3, h, w]`` the background's MPI seen from the target."""
        if label not in self._backgrounds:
            renderer = self._renderer(label, MASK_VOLUME)
            rendering = renderer.background().mpi.render(self.target.to(renderer.device), renderer.model.backend)
            self._backgrounds[label] = fill_unseen(rendering).color.float().cpu()
        return self._backgrounds[label]


def first_stage(model: MaskVolumeModel) -> MaskVolumeModel:
    """The MPI network of a model as a separate model that shares the weights."""
    stage_one = MaskVolumeModel(replace(model.meta, stage="mpi"), model.precision, model.backend)
    stage_one.mpi_net = model.mpi_net
    return stage_one


def blend_pictures(frame: Tensor, background: Tensor) -> Tensor:
    """Blend renderings ``[3, h, w]`` of frame and background by a 2D mask.

    The mask is the 2D counterpart of the mask network's prior: a sigmoid of the pictures' difference, averaged over a
    small window.
    """
    difference = (frame - background).abs().sum(dim=0, keepdim=True)
    smooth = F.avg_pool2d(difference, MASK_WINDOW, stride=1, padding=MASK_WINDOW // 2, count_include_pad=False)
    mask = torch.sigmoid(MatchingMaskNet.SLOPE * (smooth - MatchingMaskNet.THRESHOLD))
    return mask * frame + (1 - mask) * background
