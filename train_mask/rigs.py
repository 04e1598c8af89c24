"""Recorded rigs for stage two: sampling of cameras and frames from scenes, reading in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskvolume.data.recorded import (
    RecordedSamples,
    RecordedSource,
    View,
    Window,
    change_alike,
    cut,
    cut_intrinsics,
    draw_jitter,
    draw_window,
    stack_cameras_of,
)
from maskvolume.data.samples import MovingBatch
from maskvolume.geometry.cameras import nearest_cameras
from maskvolume.geometry.planes import RIG_FAR_FACTOR, RIG_NEAR_FACTOR
from maskvolume.io.rig_h5 import RigScene, open_rig_scenes
from maskvolume.runtime.errors import InputError


@dataclass(frozen=True)
class RigDrawing:
    """The sampling and augmentation of views.

    Attributes:
        size: (h, w) of the crops in pixels.
        scale: smallest and largest factor of enlargement before cropping.
        jitter: largest relative change of brightness, contrast or saturation; each sample changes one of these, the
            hue, or nothing.
        instants: number of consecutive frames in a sample, T.
    """

    size: tuple[int, int] = (360, 640)
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    instants: int = 1


@dataclass(frozen=True)
class RigSample:
    """Views of one scene.

    Attributes:
        views: the views at the first instant, target first.
        later: uint8 ``[T-1, 1 + V, 3, h, w]`` pictures at the following instants, target first.
        backgrounds: uint8 ``[V, 3, h, w]`` backgrounds of the sources.
        mattes: uint8 ``[T, 1, h, w]`` mattes of the target.
        near, far: depths of the nearest and farthest plane.
    """

    views: list[View]
    later: Tensor
    backgrounds: Tensor
    mattes: Tensor
    near: float
    far: float


class RigSamples(RecordedSamples):
    """Samples of rigs; an epoch visits every frame of every scene once and draws new cameras each time."""

    def __init__(self, scenes: Sequence[RigScene], drawing: RigDrawing, seed: int) -> None:
        self.starts = [0, *accumulate(scene.num_frames - drawing.instants + 1 for scene in scenes)]
        super().__init__(seed, self.starts[-1])
        self.scenes, self.drawing = scenes, drawing

    def make(self, num_sources: int, number: int) -> RigSample:
        """Return sample ``number`` with ``num_sources`` source views, a pure function of both and the seed."""
        rng = np.random.default_rng((self.seed, number, 0))
        scene, frame = self.frame_of(number)
        cameras = rng.permutation(scene.num_cameras)[: num_sources + 1].tolist()
        window = draw_window(rng, scene.size, self.drawing.size, self.drawing.scale)
        return read_sample(scene, frame, cameras, window, self.drawing, draw_jitter(rng, self.drawing.jitter))

    def frame_of(self, number: int) -> tuple[RigScene, int]:
        """Return the scene and the first frame of a sample."""
        position = self.place_of(number)
        scene = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.scenes[scene], position - self.starts[scene]


def read_sample(
    scene: RigScene,
    frame: int,
    cameras: Sequence[int],
    window: Window,
    drawing: RigDrawing,
    change: Any = None,
) -> RigSample:
    """Read consecutive frames of some cameras.

    Args:
        scene: the scene.
        frame: number of the first frame.
        cameras: the target, then the sources; the first source is the reference.
        window: the window of each picture.
        drawing: size of the crops and number of frames.
        change: colour change for all pictures, or None.
    """
    size, target = drawing.size, cameras[0]
    frames = range(frame, frame + drawing.instants)
    pictures = [cut(scene.picture(camera, f), window, size) for f in frames for camera in cameras]
    pictures += [cut(scene.background(camera), window, size) for camera in cameras[1:]]
    pictures = change_alike(change, pictures)
    mattes = torch.stack([cut(scene.matte(target, f), window, size) for f in frames])
    rig = scene.poses.cameras
    views = [
        View(picture, cut_intrinsics(rig.K[camera].numpy(), window, size), rig.T_cam_world[camera].numpy())
        for picture, camera in zip(pictures, cameras, strict=False)
    ]
    count = len(cameras)
    later = torch.stack(pictures[count : count * drawing.instants]) if drawing.instants > 1 else torch.empty(0)
    return RigSample(
        views,
        later.reshape(drawing.instants - 1, count, 3, *size),
        torch.stack(pictures[count * drawing.instants :]),
        mattes,
        RIG_NEAR_FACTOR * float(scene.poses.bounds.min()),
        RIG_FAR_FACTOR * float(scene.poses.bounds.max()),
    )


def collate(samples: Sequence[RigSample]) -> MovingBatch:
    """Join samples into a batch with uint8 pictures."""
    images = torch.stack([torch.stack([view.image for view in sample.views]) for sample in samples])
    cameras = stack_cameras_of([sample.views for sample in samples])
    later = torch.stack([sample.later for sample in samples])
    mattes = torch.stack([sample.mattes for sample in samples])
    near, far = (torch.tensor([getattr(sample, name) for sample in samples]) for name in ("near", "far"))
    has_later = later.shape[1] > 0
    return MovingBatch(
        images=images[:, 1:],
        sources=cameras[:, 1:],
        target=cameras[:, 0],
        target_image=images[:, 0],
        near=near.float(),
        far=far.float(),
        backgrounds=torch.stack([sample.backgrounds for sample in samples]),
        matte=mattes[:, 0],
        later_images=later[:, :, 1:] if has_later else None,
        later_target_images=later[:, :, 0] if has_later else None,
        later_mattes=mattes[:, 1:] if has_later else None,
    )


@dataclass(frozen=True)
class Choice:
    """A fixed validation view: scene, frame, and cameras, target first."""

    scene: RigScene
    frame: int
    cameras: tuple[int, ...]


def choose_validation(scenes: Sequence[RigScene], count: int, num_sources: int, instants: int) -> list[Choice]:
    """Choose validation views that depend only on the scenes: every scene in turn, frames and targets evenly spaced.

    The sources are the cameras nearest to the target, as in the renderer.
    """
    choices = []
    for index in range(count):
        scene, turn = scenes[index % len(scenes)], index // len(scenes)
        turns = -(-count // len(scenes))
        frame = (2 * turn + 1) * (scene.num_frames - instants + 1) // (2 * turns)
        target = (turn * scene.num_cameras) // turns % scene.num_cameras
        others = [camera for camera in range(scene.num_cameras) if camera != target]
        rig = scene.poses.cameras
        nearest = nearest_cameras(rig[others], rig[target], num_sources)
        choices.append(Choice(scene, frame, (target, *(others[i] for i in nearest))))
    return choices


def read_choice(drawing: RigDrawing, choice: Choice) -> RigSample:
    """Read a chosen view without augmentation: the largest centred window in the aspect ratio of the crops."""
    window = middle_window(choice.scene.size, drawing.size)
    return read_sample(choice.scene, choice.frame, choice.cameras, window, replace(drawing, instants=1))


def middle_window(picture: tuple[int, int], crop: tuple[int, int]) -> Window:
    """Return the largest centred window of a picture (h, w) that has the aspect ratio of the crop (h, w)."""
    scale = min(side / wanted for side, wanted in zip(picture, crop, strict=True))
    h, w = (min(round(wanted * scale), side) for wanted, side in zip(crop, picture, strict=True))
    return (picture[0] - h) // 2, (picture[1] - w) // 2, (h, w)


def open_rigs(
    root_dir: str,
    val_dir: str,
    drawing: RigDrawing,
    *,
    seed: int,
    num_sources: tuple[int, int],
    val_samples: int,
    device: torch.device,
    num_workers: int,
) -> RecordedSource:
    """Open training and validation data.

    Args:
        root_dir: folder of the training data.
        val_dir: folder of the validation data.
        drawing: sampling and augmentation of the views.
        seed: seed of the run.
        num_sources: fewest and most source views.
        val_samples: number of validation views.
        device: device of the batches.
        num_workers: number of worker processes; 0 reads in this process.

    Returns:
        The source of training and validation batches.

    Raises:
        InputError: a folder without scenes, damaged scenes, or scenes with too few cameras or frames.
    """
    scenes, val_scenes = open_rig_scenes(root_dir), open_rig_scenes(val_dir)
    for scene, needed in (*((s, num_sources[1]) for s in scenes), *((s, num_sources[0]) for s in val_scenes)):
        if scene.num_cameras < needed + 1:
            raise InputError(
                f"{scene.path}: has {scene.num_cameras} cameras, but a target and {needed} sources are drawn; lower "
                f"--num_cams or --num_sources"
            )
    if short_scene := next((scene for scene in scenes if scene.num_frames < drawing.instants), None):
        raise InputError(f"{short_scene.path}: has a single frame, but --temporal_weight needs pairs; move it away")
    choices = choose_validation(val_scenes, val_samples, num_sources[0], 1)
    samples, read = RigSamples(scenes, drawing, seed), partial(read_choice, drawing)
    return RecordedSource(samples, choices, read, collate, device, num_workers, num_sources)
