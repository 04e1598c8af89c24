"""RealEstate10K for stage one: drawing views from scenes, augmentation, reading in worker processes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from maskvolume.errors import InputError
from maskvolume.io.shards import SceneShards
from maskvolume.io.triplets import ViewChoice, read_triplets
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
from maskvolume.samples import Draws, Lazy, ViewBatch

NEAR_SHARE, FAR_SHARE = 0.9, 2.0  # planes against a scene's bounds, as for rigs
TRIPLETS_NAME = "triplets.txt"


@dataclass(frozen=True)
class ViewDrawing:
    """How views are drawn from a scene and changed. Defaults are the original's.

    Attributes:
        size: (h, w) of the crops.
        scale: least and largest factor that a picture is enlarged by before it is cropped.
        subsequence: frames that the views are drawn from.
        stride: smallest and largest step between these frames.
        jitter: largest relative change of brightness, contrast or saturation (one of them, or hue, or none).
        depth_range: near and far where a scene's bounds are not known.
    """

    size: tuple[int, int] = (256, 256)
    scale: tuple[float, float] = (1.0, 2.0)
    subsequence: int = 10
    stride: tuple[int, int] = (3, 10)
    jitter: float = 0.2
    depth_range: tuple[float, float] = (1.0, 100.0)


@dataclass(frozen=True)
class Sample:
    """Views of one scene, the target first, and the depths of the nearest and farthest plane."""

    views: list[View]
    near: float
    far: float


class SceneSamples(Dataset[Any]):
    """Samples by (number of sources, number of the sample); the same for the same seed in every process.

    A pass over the data, an epoch, takes every scene once, in an order of its own.
    """

    def __init__(self, shards: SceneShards, drawing: ViewDrawing, seed: int, most_sources: int) -> None:
        self.shards, self.drawing, self.seed = shards, drawing, seed
        counts = np.array([shards.count(scene) for scene in range(len(shards))])
        self.scenes = np.flatnonzero(counts > most_sources)
        self._order: tuple[int, np.ndarray] = (-1, self.scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, drawn: tuple[int, int]) -> Sample | InputError:
        """A sample; what is wrong with the data is handed over, since an error raised here would lose its kind."""
        num_sources, number = drawn
        try:
            return self.make(num_sources, number)
        except InputError as error:
            return error

    def make(self, num_sources: int, number: int) -> Sample:
        """Sample ``number`` with this many source views."""
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
        """The scene that a sample is drawn from."""
        epoch, place = divmod(number, len(self.scenes))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, epoch, 2)).permutation(self.scenes))
        return int(self._order[1][place])


def draw_frames(rng: np.random.Generator, count: int, views: int, drawing: ViewDrawing) -> list[int]:
    """Frame numbers of ``views`` views, in random order: from a subsequence of a scene of ``count`` frames.

    In a short scene the stride is smaller, and if need be the subsequence shorter, so that there always is one.
    """
    length = min(max(drawing.subsequence, views), count)
    widest = max((count - 1) // (length - 1), 1)
    stride = int(rng.integers(min(drawing.stride[0], widest), min(drawing.stride[1], widest) + 1))
    first = int(rng.integers(count - (length - 1) * stride))
    return [first + stride * int(place) for place in rng.permutation(length)[:views]]


def cut_view(
    shards: SceneShards, scene: int, frame: int, window: Window, size: tuple[int, int], picture: np.ndarray
) -> View:
    """The window of a frame, resized to ``size`` (h, w), with the camera that took it."""
    full_h, full_w = shards.size
    fx, fy, cx, cy = shards.intrinsics(scene)[frame].astype(np.float64)
    K = np.array([[fx * full_w, 0, cx * full_w], [0, fy * full_h, cy * full_h], [0, 0, 1]])
    T = np.eye(4)
    T[:3] = shards.T_cam_world(scene)[frame]
    return View(cut(picture, window, size), cut_intrinsics(K, window, size), T)


def plane_range(shards: SceneShards, scene: int, default: tuple[float, float]) -> tuple[float, float]:
    """Depths of the nearest and farthest plane: from the scene's bounds where they are known."""
    bounds = shards.bounds(scene)
    return default if bounds is None else (NEAR_SHARE * bounds[0], FAR_SHARE * bounds[1])


@dataclass(frozen=True)
class RealEstate10KSource:
    """Training samples and fixed triplets of RealEstate10K; see ``samples.SampleSource``.

    Attributes:
        samples: of the training scenes.
        val_shards: validation scenes.
        choices: the fixed views.
        device: where batches go.
        num_workers: processes that read; 0: this one.
    """

    samples: SceneSamples
    val_shards: SceneShards
    choices: Sequence[ViewChoice]
    device: torch.device
    num_workers: int

    @property
    def epoch_samples(self) -> int:
        """The scenes."""
        return len(self.samples)

    def batches(self, draws: Draws) -> Generator[ViewBatch, None, None]:
        """See ``SampleSource``; reads ahead in the workers."""
        yield from read_batches(self.samples, draws, collate, self.device, self.num_workers)

    def validation(self) -> Sequence[ViewBatch]:
        """Whole pictures of the chosen views."""
        return Lazy(len(self.choices), self._chosen)

    def _chosen(self, index: int) -> ViewBatch:
        choice, shards = self.choices[index], self.val_shards
        scene = shards.index(choice.scene)
        known = {int(timestamp): frame for frame, timestamp in enumerate(shards.timestamps(scene))}
        frames = [known[timestamp] for timestamp in (choice.target, *choice.sources)]
        whole = (0, 0, shards.size)
        views = [cut_view(shards, scene, f, whole, shards.size, shards.picture(scene, f)) for f in frames]
        sample = Sample(views, *plane_range(shards, scene, self.samples.drawing.depth_range))
        return to_device(collate([sample]), self.device)


def open_realestate10k(
    root_dir: str,
    val_dir: str,
    val_triplets: str,
    drawing: ViewDrawing,
    *,
    seed: int,
    most_sources: int,
    max_views: int | None,
    val_samples: int,
    device: torch.device,
    num_workers: int,
) -> RealEstate10KSource:
    """Open training and validation data; ``max_views`` is the most that the network takes, None for any number.

    Raises:
        InputError: a folder that compress_data.py did not write, scenes too short for the number of views, or a list
            of triplets that is missing or names frames that are not there or too many of them.
    """
    shards, val_shards = SceneShards(root_dir), SceneShards(val_dir)
    samples = SceneSamples(shards, drawing, seed, most_sources)
    if len(samples) == 0:
        raise InputError(f"{root_dir}: no scene has {most_sources + 1} frames; lower --num_sources or add scenes")
    path = Path(val_triplets) if val_triplets else Path(val_dir) / TRIPLETS_NAME
    choices = read_triplets(path)[:val_samples]
    if not choices:
        raise InputError(f"{path}: lists no views; write `SCENE TARGET SOURCE SOURCE` lines or make the file anew")
    for choice in choices:
        there = set(val_shards.timestamps(val_shards.index(choice.scene)).tolist())
        lost = [timestamp for timestamp in (choice.target, *choice.sources) if timestamp not in there]
        if max_views is not None and len(choice.sources) > max_views:
            raise InputError(
                f"{path}: scene {choice.scene} is seen from {len(choice.sources)} sources, but --arch takes "
                f"{max_views}; give another list as --val_triplets"
            )
        if lost:
            raise InputError(f"{path}: scene {choice.scene} has no frame {lost[0]} in {val_dir}; make the list anew")
    return RealEstate10KSource(samples, val_shards, choices, device, num_workers)


def collate(samples: Sequence[Sample]) -> ViewBatch:
    """A batch of samples, pictures still uint8."""
    images = torch.stack([torch.stack([view.image for view in sample.views]) for sample in samples])
    cameras = stack_cameras_of([sample.views for sample in samples])
    near, far = (torch.tensor([getattr(sample, name) for sample in samples]) for name in ("near", "far"))
    return ViewBatch(images[:, 1:], cameras[:, 1:], cameras[:, 0], images[:, 0], near.float(), far.float())
