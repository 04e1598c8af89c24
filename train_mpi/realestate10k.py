"""RealEstate10K for stage one: sampling of views from scenes, augmentation, reading in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

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
from maskvolume.data.samples import ViewBatch
from maskvolume.geometry.planes import RIG_FAR_FACTOR, RIG_NEAR_FACTOR
from maskvolume.io.shards import SceneShards
from maskvolume.io.triplets import ViewChoice, read_triplets
from maskvolume.runtime.errors import InputError

TRIPLETS_NAME = "triplets.txt"


@dataclass(frozen=True)
class ViewDrawing:
    """The sampling and augmentation of views. The defaults are those of the original.

    Attributes:
        size: (h, w) of the crops in pixels.
        scale: smallest and largest factor of enlargement before cropping.
        subsequence: number of frames from which the views are drawn.
        stride: smallest and largest step between these frames.
        jitter: largest relative change of brightness, contrast or saturation; each sample changes one of these, the
            hue, or nothing.
        depth_range: near and far for scenes without known bounds.
    """

    size: tuple[int, int] = (256, 256)
    scale: tuple[float, float] = (1.0, 2.0)
    subsequence: int = 10
    stride: tuple[int, int] = (3, 10)
    jitter: float = 0.2
    depth_range: tuple[float, float] = (1.0, 100.0)


@dataclass(frozen=True)
class Sample:
    """Views of one scene, target first, and the depths of the nearest and farthest plane."""

    views: list[View]
    near: float
    far: float


class SceneSamples(RecordedSamples):
    """Samples of scenes; an epoch visits each scene that is long enough once."""

    def __init__(self, shards: SceneShards, drawing: ViewDrawing, seed: int, most_sources: int) -> None:
        counts = np.array([shards.count(scene) for scene in range(len(shards))])
        self.scenes = np.flatnonzero(counts > most_sources)
        super().__init__(seed, len(self.scenes))
        self.shards, self.drawing = shards, drawing

    def make(self, num_sources: int, number: int) -> Sample:
        """Return sample ``number`` with ``num_sources`` source views, a pure function of both and the seed."""
        rng = np.random.default_rng((self.seed, number, 0))
        scene = self.scene_of(number)
        frames = draw_frames(rng, self.shards.count(scene), num_sources + 1, self.drawing)
        window = draw_window(rng, self.shards.size, self.drawing.size, self.drawing.scale)
        change = draw_jitter(rng, self.drawing.jitter)
        pictures = [self.shards.picture(scene, frame) for frame in frames]
        views = [cut_view(self.shards, scene, frame, window, self.drawing.size, picture)
                 for frame, picture in zip(frames, pictures, strict=True)]  # fmt: skip
        images = change_alike(change, [view.image for view in views])
        views = [replace(view, image=image) for view, image in zip(views, images, strict=True)]
        return Sample(views, *plane_range(self.shards, scene, self.drawing.depth_range))

    def scene_of(self, number: int) -> int:
        """Return the index of the scene that a sample is drawn from."""
        return int(self.scenes[self.place_of(number)])


def draw_frames(rng: np.random.Generator, count: int, views: int, drawing: ViewDrawing) -> list[int]:
    """Draw the frame numbers of ``views`` views from a subsequence of a scene of ``count`` frames, in random order.

    A short scene reduces the stride and, if necessary, the length of the subsequence.
    """
    length = min(max(drawing.subsequence, views), count)
    largest_stride = max((count - 1) // (length - 1), 1)
    stride = int(rng.integers(min(drawing.stride[0], largest_stride), min(drawing.stride[1], largest_stride) + 1))
    first = int(rng.integers(count - (length - 1) * stride))
    return [first + stride * int(place) for place in rng.permutation(length)[:views]]


def cut_view(
    shards: SceneShards, scene: int, frame: int, window: Window, size: tuple[int, int], picture: np.ndarray
) -> View:
    """Crop a frame to a window, resized to ``size`` (h, w), with its camera; ``picture`` is uint8 ``[H, W, 3]``."""
    full_h, full_w = shards.size
    fx, fy, cx, cy = shards.intrinsics(scene)[frame].astype(np.float64)
    K = np.array([[fx * full_w, 0, cx * full_w], [0, fy * full_h, cy * full_h], [0, 0, 1]])
    T = np.eye(4)
    T[:3] = shards.T_cam_world(scene)[frame]
    return View(cut(picture, window, size), cut_intrinsics(K, window, size), T)


def plane_range(shards: SceneShards, scene: int, default: tuple[float, float]) -> tuple[float, float]:
    """Return the depths of the nearest and farthest plane, from the bounds of the scene, or ``default`` without any."""
    bounds = shards.bounds(scene)
    return default if bounds is None else (RIG_NEAR_FACTOR * bounds[0], RIG_FAR_FACTOR * bounds[1])


def read_choice(shards: SceneShards, depth_range: tuple[float, float], choice: ViewChoice) -> Sample:
    """Read the uncropped pictures of chosen views; ``depth_range`` is for scenes without known bounds."""
    scene = shards.index(choice.scene)
    frame_of = {int(timestamp): frame for frame, timestamp in enumerate(shards.timestamps(scene))}
    frames = [frame_of[timestamp] for timestamp in (choice.target, *choice.sources)]
    window = (0, 0, shards.size)
    views = [cut_view(shards, scene, f, window, shards.size, shards.picture(scene, f)) for f in frames]
    return Sample(views, *plane_range(shards, scene, depth_range))


def open_realestate10k(
    root_dir: str,
    val_dir: str,
    val_triplets: str,
    drawing: ViewDrawing,
    *,
    seed: int,
    num_sources: tuple[int, int],
    max_views: int | None,
    val_samples: int,
    device: torch.device,
    num_workers: int,
) -> RecordedSource:
    """Open training and validation data.

    Args:
        root_dir: folder of the training data.
        val_dir: folder of the validation data.
        val_triplets: file that lists the validation views; "" for the list in ``val_dir``.
        drawing: sampling and augmentation of the views.
        seed: seed of the run.
        num_sources: fewest and most source views.
        max_views: largest number of source views that the network supports; None for no limit.
        val_samples: largest number of validation views.
        device: device of the batches.
        num_workers: number of worker processes; 0 reads in this process.

    Returns:
        The source of training and validation batches.

    Raises:
        InputError: a folder that compress_data.py did not write, scenes too short for the number of views, or a list
            of triplets that is missing, names missing frames, or has too many sources per view.
    """
    shards, val_shards = SceneShards(root_dir), SceneShards(val_dir)
    samples = SceneSamples(shards, drawing, seed, num_sources[1])
    if len(samples) == 0:
        raise InputError(f"{root_dir}: no scene has {num_sources[1] + 1} frames; lower --num_sources or add scenes")
    path = Path(val_triplets) if val_triplets else Path(val_dir) / TRIPLETS_NAME
    choices = read_triplets(path)[:val_samples]
    if not choices:
        raise InputError(f"{path}: lists no views; write `SCENE TARGET SOURCE SOURCE` lines or recreate the file")
    for choice in choices:
        timestamps = set(val_shards.timestamps(val_shards.index(choice.scene)).tolist())
        missing = [timestamp for timestamp in (choice.target, *choice.sources) if timestamp not in timestamps]
        if max_views is not None and len(choice.sources) > max_views:
            raise InputError(
                f"{path}: scene {choice.scene} is seen from {len(choice.sources)} sources, but --arch takes "
                f"{max_views}; give another list as --val_triplets"
            )
        if missing:
            raise InputError(f"{path}: scene {choice.scene} has no frame {missing[0]} in {val_dir}; recreate the list")
    read = partial(read_choice, val_shards, drawing.depth_range)
    return RecordedSource(samples, choices, read, collate, device, num_workers, num_sources)


def collate(samples: Sequence[Sample]) -> ViewBatch:
    """Join samples into a batch with uint8 pictures."""
    images = torch.stack([torch.stack([view.image for view in sample.views]) for sample in samples])
    cameras = stack_cameras_of([sample.views for sample in samples])
    near, far = (torch.tensor([getattr(sample, name) for sample in samples]) for name in ("near", "far"))
    return ViewBatch(images[:, 1:], cameras[:, 1:], cameras[:, 0], images[:, 0], near.float(), far.float())
