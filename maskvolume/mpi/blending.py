"""The renderer of multiplane images (MPIs): blends views from the MPIs of one or more reference cameras.

A ``BlendedRenderer`` holds one ``ClipRenderer`` per reference camera of a path. For each frame it computes only the
MPIs that the poses at that frame need.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskvolume.clips.clip import StillClip
from maskvolume.geometry.cameras import Camera, relative_pose, stack_cameras
from maskvolume.geometry.homography import invert_intrinsics
from maskvolume.mpi.memory import Job
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.references import References
from maskvolume.mpi.renderer import DEFAULT_SETTINGS, ClipRenderer, RenderSettings
from maskvolume.mpi.tiles import Tiling
from maskvolume.ops import Rendering
from maskvolume.rendering.renderer import Moment, Source, View
from maskvolume.rendering.shots import Shots
from maskvolume.runtime.errors import InputError

SURE_SHARE = 0.2  # weight from which a reference fully fills what the others don't see; below it, proportionally


@dataclass(frozen=True)
class BlendedMoment(Moment):
    """The shots of one recorded frame.

    Attributes:
        frame: frame number.
        references: numbers of the references with a non-zero weight for any of these shots.
        targets: cameras ``[N]`` of all shots of the rendering, on the device.
        weights: ``[N, R]``, weight of each reference for each target, on the device.
        served_by: for each target, the references with a non-zero weight.
    """

    frame: int
    references: tuple[int, ...]
    targets: Camera
    weights: Tensor
    served_by: tuple[tuple[int, ...], ...]


class BlendedRenderer:
    """Renders views of a clip from one or more reference cameras.

    Args:
        renderers: one per reference, all with the same clip, model, size and number of planes.
        references: gives the weight of each reference for a target; None for a single reference.

    Raises:
        ValueError: the number of renderers differs from the number of references.
    """

    def __init__(self, renderers: Sequence[ClipRenderer], references: References | None = None) -> None:
        if len(renderers) != (1 if references is None else len(references.sources)):
            raise ValueError("renderers: one for each reference expected")
        self.renderers, self.references = tuple(renderers), references
        # Cameras whose pictures and whose backgrounds are read, those of the most used reference first.
        self.indices = tuple(dict.fromkeys(index for each in renderers for index in each.indices))
        additional = (index for each in renderers for index in each.still_indices)
        self.background_indices = tuple(dict.fromkeys((*self.indices, *additional)))

    @classmethod
    def of(
        cls,
        clip: StillClip,
        model: MaskVolumeModel,
        references: References,
        settings: RenderSettings = DEFAULT_SETTINGS,
        *,
        targets: Camera,
    ) -> BlendedRenderer:
        """Build a ``ClipRenderer`` per reference, each with a frustum wide enough for the targets it serves.

        Args:
            clip: the pictures and cameras.
            model: the networks, on the device to compute on.
            references: the reference cameras of the path.
            settings: shared by all renderers.
            targets: ``[N]``, the cameras that the references were chosen for.

        Returns:
            The renderer of all references.
        """
        is_served = references.weights(targets) > 0
        renderers = [
            ClipRenderer(
                clip, model, sources, settings, targets=targets[is_served[:, number]], still_indices=still_sources
            )
            for number, (sources, still_sources) in enumerate(
                zip(references.sources, references.still_sources, strict=True)
            )
        ]
        return cls(renderers, references)

    @property
    def model(self) -> MaskVolumeModel:
        """The model that all references share."""
        return self.renderers[0].model

    @property
    def device(self) -> torch.device:
        """The device that the renderers compute on."""
        return self.renderers[0].device

    @property
    def depths(self) -> Tensor:
        """``[D]``, depths of the planes in scene units, the farthest first."""
        return self.renderers[0].depths

    @property
    def depth_range(self) -> tuple[float, float]:
        """Depths of the nearest and the farthest plane, in scene units."""
        return float(self.depths.min()), float(self.depths.max())

    @property
    def has_masks(self) -> bool:
        """Whether the model has a mask network."""
        return self.model.has_mask

    @property
    def size(self) -> tuple[int, int]:
        """``(h, w)`` at which the sources are read."""
        return self.renderers[0].size

    def weights(self, targets: Camera) -> Tensor:
        """Weight of each reference for each target ``[N]``: ``[N, R]`` float32 on the CPU."""
        if self.references is None:
            return torch.ones(len(targets), 1)
        return self.references.weights(targets).float()

    def begin(self, shots: Shots, numbers: Sequence[int]) -> list[BlendedMoment]:
        """Group shots by frame and compute the background MPIs of the references they need.

        Args:
            shots: all shots of the rendering.
            numbers: the shots to render now.

        Returns:
            One moment per frame, in rendering order.

        Raises:
            InputError: a time lies between two frames, or a background can't be read.
        """
        weights = self.weights(shots.targets)
        groups = [(recorded_frame(time), members) for time, members in shots.by_time(numbers)]
        needed = references_of_frames(weights, groups)
        if self.model.has_mask:
            self.background(sorted({number for references in needed.values() for number in references}))
        served_by = tuple(tuple(row.nonzero()[:, 0].tolist()) for row in weights)
        targets, weights = shots.targets.to(self.device, self.depths.dtype), weights.to(self.device)
        moments = []
        for frame, members in groups:
            cameras = self.cameras_of(needed[frame])
            moments.append(
                BlendedMoment(
                    time=float(frame),
                    sources=tuple((camera, frame) for camera in self.indices if camera in cameras),
                    batches=_by_references(members, served_by),
                    frame=frame,
                    references=tuple(needed[frame]),
                    targets=targets,
                    weights=weights,
                    served_by=served_by,
                )
            )
        return moments

    def read(self, source: Source) -> np.ndarray:
        """Read the picture of a camera and a frame, uint8 ``[H, W, 3]`` RGB; thread-safe."""
        return self.renderers[0].read_camera(*source)

    def prepare(self, moment: BlendedMoment, pictures: Mapping[Source, np.ndarray]) -> None:
        """Compute the MPIs that the shots of a frame need; see ``make``."""
        self.make(moment.frame, moment.references, {camera: picture for (camera, _), picture in pictures.items()})

    def render(self, moment: BlendedMoment, numbers: Sequence[int], *, with_mask: bool = False) -> View:
        """Render shots that share their references: views ``[N, ...]``, without the leading axis for a single shot."""
        if len(numbers) == 1:
            # Integer indices only: an index list would be copied to the device.
            target, weights = moment.targets[numbers[0]], moment.weights[numbers[0]]
        else:
            target = stack_cameras([moment.targets[number] for number in numbers])
            weights = torch.stack([moment.weights[number] for number in numbers])
        return self.view(moment.frame, target, moment.served_by[numbers[0]], weights, with_mask=with_mask)

    def background(self, references: Iterable[int]) -> None:
        """Compute and keep the background MPIs of these references."""
        for number in references:
            self.renderers[number].background()

    def cameras_of(self, references: Sequence[int]) -> set[int]:
        """The cameras that any of these references reads."""
        return {index for number in references for index in self.renderers[number].indices}

    def make(self, frame: int, references: Sequence[int], pictures: Mapping[int, np.ndarray]) -> None:
        """Compute the MPIs of a frame for these references, and release those of other frames.

        Args:
            frame: frame number.
            references: numbers of the references.
            pictures: uint8 ``[H, W, 3]`` for each camera of ``cameras_of(references)``.
        """
        for number, renderer in enumerate(self.renderers):
            if number not in references:
                renderer.forget_frame()
        for number in references:
            renderer = self.renderers[number]
            renderer.frame_mpi(frame, [pictures[index] for index in renderer.indices])

    def release(self) -> None:
        """Release all cached planes; later calls compute them again."""
        for renderer in self.renderers:
            renderer.release()

    @torch.no_grad()
    def view(
        self,
        frame: int,
        target: Camera,
        references: Sequence[int],
        weights: Tensor,  # [..., R] on the device
        *,
        with_mask: bool = False,
    ) -> View:
        """Render one frame from a target camera of any size, or from N of them.

        Args:
            frame: frame number.
            target: one camera, or ``[N]``.
            references: the references with a non-zero weight, the same for all targets; only their MPIs are used.
            weights: ``[..., R]``, weights of all references for each target, as returned by ``weights``.
            with_mask: render the mask volume too.

        Returns:
            The views; disparity is measured along the weighted mean of the references' axes.
        """
        if len(references) == 1:
            return self.renderers[references[0]].render(frame, target, with_mask=with_mask)
        outputs = [self.renderers[number].look(frame, target, with_mask=with_mask) for number in references]
        shares = [weights[..., number, None, None, None] for number in references]
        cameras = [self.renderers[number].camera for number in references]
        renderings = along_one_axis([rendering for rendering, _ in outputs], cameras, target, shares)
        rendering = blend_renderings(renderings, shares)
        masks = [replace(each, color=mask) for each, mask in outputs if mask is not None]
        return self.renderers[0].finish(rendering, blend_renderings(masks, shares).color if masks else None)

    def views_at_once(self, size: tuple[int, int]) -> int:
        """Number of views of size ``(h, w)`` to pass to ``view`` in one call."""
        return max(1, min(each.views_at_once(size) for each in self.renderers) // len(self.renderers))

    def job_of(self, shots: Shots) -> Job:
        """The memory-relevant description of rendering these shots.

        Raises:
            InputError: a time lies between two frames.
        """
        groups = [(recorded_frame(time), members) for time, members in shots.by_time(range(len(shots)))]
        return self.job(shots.targets.size, references_of_frames(self.weights(shots.targets), groups).values())

    def job(self, target_size: tuple[int, int], needed: Collection[Collection[int]]) -> Job:
        """The input of the memory plan: all backgrounds in use, and the largest MPI for each one alive at a time.

        Args:
            target_size: ``(h, w)`` of the views.
            needed: the references that each frame uses.
        """
        renderers = [self.renderers[number] for number in sorted({number for each in needed for number in each})]
        jobs = [each.job(target_size) for each in renderers]
        size = (max(job.mpi_size[0] for job in jobs), max(job.mpi_size[1] for job in jobs))
        return replace(
            jobs[0],
            mpi_size=size,
            references=len(renderers),
            references_at_once=max(map(len, needed)),
            cameras=len({index for each in renderers for index in each.indices}),
        )

    def use_tiles(self, tiling: Tiling) -> None:
        """Compute all MPIs in tiles of this size; see ``ClipRenderer.use_tiles``."""
        for renderer in self.renderers:
            h, w = renderer.camera.size
            renderer.use_tiles(Tiling((h, w), (min(tiling.tile[0], h), min(tiling.tile[1], w))))


def recorded_frame(time: float) -> int:
    """The number of the frame recorded at a time, which is in frames.

    Raises:
        InputError: the time lies between two frames.
    """
    frame = math.floor(time)
    if frame != time:
        raise InputError(
            f"time: {time:g} lies between two frames, and multiplane images show recorded frames only; choose {frame} "
            f"or {frame + 1}"
        )
    return frame


def references_of_frames(
    weights: Tensor,  # [N, R]
    groups: Iterable[tuple[int, Sequence[int]]],
) -> dict[int, list[int]]:
    """The references with a non-zero weight for any shot of each frame.

    Args:
        weights: ``[N, R]``, weight of each reference for each shot.
        groups: pairs of a frame and the numbers of its shots.

    Returns:
        Reference numbers by frame.
    """
    return {frame: (weights[list(members)] > 0).any(dim=0).nonzero()[:, 0].tolist() for frame, members in groups}


def _by_references(members: Sequence[int], served_by: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Group shots that share their references."""
    ordered = sorted(members, key=lambda number: served_by[number])
    return tuple(tuple(group) for _, group in itertools.groupby(ordered, lambda number: served_by[number]))


def blend_renderings(
    renderings: Sequence[Rendering],  # [..., C, h, w] each
    weights: Sequence[Tensor],  # [..., 1, 1, 1] each
) -> Rendering:
    """Blend the renderings of several references, weighted by reference and by opacity per pixel.

    Colour and disparity are opacity-weighted means. The opacity is that of the renderings composited over each other,
    where a rendering with a weight below ``SURE_SHARE`` counts proportionally: the other references fill what one
    does not see, and fade in as their weight grows.

    Args:
        renderings: ``[..., C, h, w]``, one per reference.
        weights: ``[..., 1, 1, 1]``, one per reference; they sum to 1.

    Returns:
        The blended rendering, ``[..., C, h, w]``.
    """
    color, disparity, weighted_opacity = (
        sum(weight * x for weight, x in zip(weights, layers, strict=True))
        for layers in zip(*((each.color, each.disparity, each.opacity) for each in renderings), strict=True)
    )
    transmittance = torch.ones_like(renderings[0].opacity)
    for each, weight in zip(renderings, weights, strict=True):
        transmittance = transmittance * (1 - each.opacity.clamp(0, 1) * (weight / SURE_SHARE).clamp_max(1))
    opacity = 1 - transmittance
    scale = opacity / weighted_opacity.clamp_min(1e-6)
    return Rendering(color * scale, opacity, disparity * scale)


def along_one_axis(
    renderings: Sequence[Rendering],  # [..., C, h, w] each
    references: Sequence[Camera],  # [] each
    target: Camera,  # [...]
    weights: Sequence[Tensor],  # [..., 1, 1, 1] each
) -> list[Rendering]:
    """Convert each rendering's disparity from its reference's own axis to the weighted mean of all axes.

    A point at depth ``t`` along a target pixel's ray has depth ``a + t b`` in a reference, and the weighted means of
    ``a`` and ``b`` give its depth along the mean axis. A reference with all the weight keeps its disparity.

    Args:
        renderings: ``[..., C, h, w]``, one per reference.
        references: ``[]``, the reference cameras.
        target: ``[...]``, the cameras that the renderings are seen from.
        weights: ``[..., 1, 1, 1]``, one per reference; they sum to 1.

    Returns:
        The renderings with converted disparity; colour and opacity are unchanged.
    """
    h, w = target.size
    target = target.to(references[0].K.device, references[0].K.dtype)
    y = torch.arange(h, dtype=target.K.dtype, device=target.K.device)[:, None] + 0.5
    x = torch.arange(w, dtype=target.K.dtype, device=target.K.device) + 0.5
    terms = []
    for reference in references:
        T = relative_pose(reference, target)
        row = (T[..., 2:3, :3] @ invert_intrinsics(target.K))[..., None]  # [..., 1, 3, 1]
        terms.append((T[..., 2:3, 3:, None], row[..., 0:1, :] * x + row[..., 1:2, :] * y + row[..., 2:3, :]))
    a_mean, b_mean = (sum(w * term for w, term in zip(weights, each, strict=True)) for each in zip(*terms, strict=True))
    converted = []
    for rendering, (a, b) in zip(renderings, terms, strict=True):
        mean = rendering.disparity / rendering.opacity.clamp_min(1e-6)
        ratio = b / (b_mean + mean * (a_mean * b - a * b_mean)).clamp_min(1e-6)
        converted.append(replace(rendering, disparity=rendering.disparity * ratio))
    return converted
