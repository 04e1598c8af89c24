"""Recorded rigs for stage two: drawing cameras and frames from scenes, reading them in worker processes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from maskvolume.cameras import nearest_cameras
from maskvolume.errors import InputError
from maskvolume.io.rig_h5 import RigScene, open_rig_scenes
from maskvolume.planes import RIG_FAR_FACTOR, RIG_NEAR_FACTOR
from maskvolume.recorded import (
    View,
    Window,
    change_alike,
    cut,
    cut_intrinsics,
    draw_jitter,
    draw_window,
    read_batches,
    stack_cameras_of,
    to_device,
)
from maskvolume.samples import Draws, Lazy, MovingBatch


@dataclass(frozen=True)
class RigDrawing:
    """How views are drawn from a scene and changed.

    Attributes:
        size: (h, w) of the crops.
        scale: least and largest factor that a picture is enlarged by before it is cropped.
        jitter: largest relative change of brightness, contrast or saturation (one of them, or hue, or none).
        instants: frames of a sample, one after the other.
    """

    size: tuple[int, int] = (360, 640)
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    instants: int = 1


@dataclass(frozen=True)
class RigSample:
    """Views of one scene.

    Attributes:
        views: of the first instant, the target first.
        later: pictures of the instants that follow, uint8 ``[T-1, 1 + V, 3, h, w]``.
        backgrounds: uint8 ``[V, 3, h, w]`` of the sources.
        mattes: uint8 ``[T, 1, h, w]`` of the target.
        near, far: depths of the nearest and farthest plane.
    """

    views: list[View]
    later: Tensor
    backgrounds: Tensor
    mattes: Tensor
    near: float
    far: float


class RigSamples(Dataset[Any]):
    """Samples by (number of sources, number of the sample); the same for the same seed in every process.

    A pass over the data, an epoch, takes every frame of every scene once, in an order of its own; the cameras are
    drawn anew each time.
    """

    def __init__(self, scenes: Sequence[RigScene], drawing: RigDrawing, seed: int) -> None:
        self.scenes, self.drawing, self.seed = scenes, drawing, seed
        self.starts = [0, *accumulate(scene.num_frames - drawing.instants + 1 for scene in scenes)]
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, drawn: tuple[int, int]) -> RigSample | InputError:
        """A sample; what is wrong with the data is handed over, since an error raised here would lose its kind."""
        num_sources, number = drawn
        try:
            return self.make(num_sources, number)
        except InputError as error:
            return error

    def make(self, num_sources: int, number: int) -> RigSample:
        """Sample ``number`` with this many source views."""
        rng = np.random.default_rng((self.seed, number, 0))
        scene, frame = self.frame_of(number)
        cameras = rng.permutation(scene.num_cameras)[: num_sources + 1].tolist()
        window = draw_window(rng, scene.size, self.drawing.size, self.drawing.scale)
        return read_sample(scene, frame, cameras, window, self.drawing, draw_jitter(rng, self.drawing.jitter))

    def frame_of(self, number: int) -> tuple[RigScene, int]:
        """The scene and the first frame that a sample is drawn from."""
        epoch, place = divmod(number, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, epoch, 2)).permutation(len(self)))
        position = int(self._order[1][place])
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
    """Frames from ``frame`` on as some cameras see them.

    Args:
        scene: where they are read.
        frame: number of the first.
        cameras: the target, then the sources; the first of these is the reference.
        window: the part of each picture that is used.
        drawing: size of the crops, number of frames.
        change: of the colours of all pictures, or None.
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
    """A batch of samples, pictures still uint8."""
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
    """A fixed view to validate on: scene, frame, and cameras, the target first."""

    scene: RigScene
    frame: int
    cameras: tuple[int, ...]


def choose_validation(scenes: Sequence[RigScene], count: int, num_sources: int, instants: int) -> list[Choice]:
    """Views to validate on, the same for the same scenes: every scene in turn, frames and targets spread evenly.

    The sources are the cameras nearest to the target, as the renderer takes them.
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


@dataclass(frozen=True)
class RigSource:
    """Views of recorded rigs.

    Attributes:
        samples: to train on.
        choices: to validate on.
        device: of the training.
        num_workers: processes that read.
    """

    samples: RigSamples
    choices: Sequence[Choice]
    device: torch.device
    num_workers: int

    @property
    def epoch_samples(self) -> int:
        """The frames of all scenes."""
        return len(self.samples)

    def batches(self, draws: Draws) -> Generator[MovingBatch, None, None]:
        """See ``SampleSource``; reads ahead in the workers."""
        yield from read_batches(self.samples, draws, collate, self.device, self.num_workers)

    def validation(self) -> Sequence[MovingBatch]:
        """The chosen views; the middle of the pictures, as large as the crops allow, without changes."""
        return Lazy(len(self.choices), self._chosen)

    def _chosen(self, index: int) -> MovingBatch:
        choice, drawing = self.choices[index], replace(self.samples.drawing, instants=1)
        sample = read_sample(
            choice.scene, choice.frame, choice.cameras, middle_window(choice.scene.size, drawing.size), drawing
        )
        return to_device(collate([sample]), self.device)


def middle_window(picture: tuple[int, int], crop: tuple[int, int]) -> Window:
    """The largest part of a picture, in its middle, that has the shape of the crop."""
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
) -> RigSource:
    """Open training and validation data.

    Raises:
        InputError: a folder without scenes, damaged ones, or scenes with too few cameras or frames.
    """
    scenes, val_scenes = open_rig_scenes(root_dir), open_rig_scenes(val_dir)
    for scene, most in (*((s, num_sources[1]) for s in scenes), *((s, num_sources[0]) for s in val_scenes)):
        if scene.num_cameras < most + 1:
            raise InputError(
                f"{scene.path}: has {scene.num_cameras} cameras, but a target and {most} sources are drawn; lower "
                f"--num_cams or --num_sources"
            )
    if short := next((scene for scene in scenes if scene.num_frames < drawing.instants), None):
        raise InputError(f"{short.path}: has a single frame, but --temporal_weight needs pairs; move it away")
    choices = choose_validation(val_scenes, val_samples, num_sources[0], 1)
    return RigSource(RigSamples(scenes, drawing, seed), choices, device, num_workers)
