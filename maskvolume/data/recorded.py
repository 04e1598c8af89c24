"""Recorded training data of both stages: cropping, colour augmentation, reading in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskvolume.data.draws import READER_KILLED, Draws, LazySequence
from maskvolume.data.samples import ViewBatch, num_sources_of
from maskvolume.geometry.cameras import Camera
from maskvolume.runtime.errors import InputError

JITTERS = ("none", "brightness", "contrast", "saturation", "hue")  # each sample gets one at random
HUE_SHARE = 0.25  # relative to the strength of the other jitters, since hue is in turns

Batch = TypeVar("Batch", bound=ViewBatch)
Window = tuple[int, int, tuple[int, int]]  # top, left, (height, width) in pixels of the uncropped picture


@dataclass(frozen=True)
class View:
    """One crop of one frame.

    Attributes:
        image: uint8 ``[3, h, w]``.
        K: ``[3, 3]`` intrinsics of the crop, in pixels.
        T_cam_world: ``[4, 4]`` pose.
    """

    image: Tensor
    K: np.ndarray
    T_cam_world: np.ndarray


def draw_window(
    rng: np.random.Generator, picture: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float]
) -> Window:
    """Draw a random window of a picture that gives the crop after enlargement.

    A picture that is too small is enlarged further, as far as the crop requires.

    Args:
        rng: the random generator.
        picture: (h, w) of the picture in pixels.
        crop: (h, w) of the crop in pixels.
        scale: lowest and highest factor of enlargement.
    """
    lowest_factor = max(crop_side / side for crop_side, side in zip(crop, picture, strict=True))
    factor = max(rng.uniform(*scale), lowest_factor)
    h, w = (min(round(crop_side / factor), side) for crop_side, side in zip(crop, picture, strict=True))
    return int(rng.integers(picture[0] - h + 1)), int(rng.integers(picture[1] - w + 1)), (h, w)


def cut(picture: np.ndarray, window: Window, size: tuple[int, int]) -> Tensor:
    """Crop a picture to a window and resize the crop.

    Args:
        picture: uint8 ``[H, W, 3]`` or ``[H, W]``.
        window: the part of the picture.
        size: (h, w) of the result.

    Returns:
        uint8 ``[3, h, w]``, or ``[1, h, w]`` for a picture without channels.
    """
    top, left, (h, w) = window
    part = picture[top : top + h, left : left + w]
    if (h, w) != size:
        shrinks = h >= size[0] and w >= size[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        part = cv2.resize(part, (size[1], size[0]), interpolation=interpolation)
    part = part[..., None] if part.ndim == 2 else part
    return torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))


def cut_intrinsics(K: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Return the intrinsics ``[3, 3]`` of a window resized to ``size`` (h, w), from those of the picture, in pixels."""
    top, left, (h, w) = window
    sx, sy = size[1] / w, size[0] / h
    return np.array(
        [
            [K[0, 0] * sx, K[0, 1] * sx, (K[0, 2] - left) * sx],
            [0, K[1, 1] * sy, (K[1, 2] - top) * sy],
            [0, 0, 1],
        ]
    )


def draw_jitter(rng: np.random.Generator, strength: float) -> Callable[[Tensor], Tensor] | None:
    """Draw a colour change for all views of a sample; None for no change.

    Args:
        rng: the random generator.
        strength: largest relative change of brightness, contrast or saturation.

    Returns:
        A function of pictures uint8 ``[..., 3, h, w]``, or None.
    """
    kind, amount = JITTERS[int(rng.integers(len(JITTERS)))], rng.uniform(-strength, strength)
    if kind == "none" or strength == 0:
        return None
    # Importing torchvision takes seconds, so programs that draw no jitter do without it.
    from torchvision.transforms.v2 import functional as transforms

    if kind == "hue":
        return lambda image: transforms.adjust_hue(image, HUE_SHARE * amount)
    return lambda image: getattr(transforms, f"adjust_{kind}")(image, 1 + amount)


def change_alike(change: Callable[[Tensor], Tensor] | None, images: Sequence[Tensor]) -> list[Tensor]:
    """Apply the same colour change to pictures ``[3, h, w]`` of one size; None changes nothing."""
    if change is None:
        return list(images)
    # Side by side, so that a change that depends on the mean of a picture is the same for all.
    return list(change(torch.cat(list(images), dim=-1)).chunk(len(images), dim=-1))


class RecordedSamples(Dataset[Any]):
    """A data set indexed by (number of sources, sample number); equal seeds give equal samples in every process.

    Each epoch visits every place that samples are drawn from once, in an order of its own.

    Args:
        seed: seed of the run.
        places: number of places, for instance scenes.
    """

    def __init__(self, seed: int, places: int) -> None:
        self.seed, self._places = seed, places
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self._places

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Return a sample, or the InputError: an error raised in a worker process would lose its type."""
        num_sources, number = key
        try:
            return self.make(num_sources, number)
        except InputError as error:
            return error

    def make(self, num_sources: int, number: int) -> Any:
        """Return sample ``number`` with ``num_sources`` source views.

        Raises:
            InputError: the data is damaged.
        """
        raise NotImplementedError

    def place_of(self, number: int) -> int:
        """Return the index of the place that a sample is drawn from."""
        epoch, turn = divmod(number, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, epoch, 2)).permutation(len(self)))
        return int(self._order[1][turn])


@dataclass(frozen=True)
class RecordedSource:
    """A ``SampleSource`` of recorded views.

    Attributes:
        samples: the training samples.
        choices: the fixed views for validation.
        read_choice: reads the sample of a choice.
        collate: joins samples into a batch with uint8 pictures.
        device: where batches go.
        num_workers: processes that read; 0: this one.
        num_sources: fewest and most source views; the number alternates between steps.
    """

    samples: RecordedSamples
    choices: Sequence[Any]
    read_choice: Callable[[Any], Any]
    collate: Callable[[Sequence[Any]], Any]
    device: torch.device
    num_workers: int
    num_sources: tuple[int, int] = (2, 2)

    @property
    def epoch_samples(self) -> int:
        """The places that samples are drawn from."""
        return len(self.samples)

    def batches(self, draws: Draws) -> Generator[Any, None, None]:
        """Yield the batch of each draw, on the device; the workers read ahead.

        Raises:
            InputError: damaged data, or a worker that was killed.
        """
        keys = ([(num_sources_of(draw.step, self.num_sources), index) for index in draw.indices] for draw in draws)
        yield from read_batches(self.samples, keys, self.collate, self.device, self.num_workers)

    def validation(self) -> Sequence[Any]:
        """Return the fixed views as batches of one sample each, read when indexed, on the device."""
        return LazySequence(
            len(self.choices),
            lambda index: to_device(self.collate([self.read_choice(self.choices[index])]), self.device),
        )


def read_batches(
    samples: Dataset[Any],
    keys: Iterable[list[tuple[int, int]]],
    collate: Callable[[Sequence[Any]], Any],
    device: torch.device,
    num_workers: int,
) -> Generator[Any, None, None]:
    """Yield batches on the device, read ahead in worker processes.

    Args:
        samples: indexed by (number of sources, sample number); returns an InputError for damaged data instead of
            raising it, because an error raised in a worker would lose its type.
        keys: the keys of the samples of each batch.
        collate: joins samples into a ``ViewBatch`` with uint8 pictures.
        device: device of the batches.
        num_workers: number of worker processes; 0 reads in this process.

    Raises:
        InputError: damaged data, or a worker that was killed while it sent a batch.
    """
    ending = multiprocessing.Event()
    loader = DataLoader(
        samples,
        batch_sampler=keys,
        num_workers=num_workers,
        collate_fn=_Collate(collate),
        pin_memory=device.type == "cuda",
        worker_init_fn=partial(_start_worker, ending) if num_workers else None,
    )
    try:
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield to_device(batch, device)
    except (ConnectionError, EOFError) as error:
        raise InputError(READER_KILLED) from error
    finally:
        ending.set()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to a device and convert its uint8 pictures to float32 in 0..1."""

    def move(value: Any) -> Any:
        if isinstance(value, Camera):
            return value.to(device, non_blocking=True)
        if not isinstance(value, Tensor):
            return value
        moved = value.to(device, non_blocking=True)
        return moved.float().div_(255) if value.dtype == torch.uint8 else moved

    return replace(batch, **{field.name: move(getattr(batch, field.name)) for field in fields(batch)})


@dataclass(frozen=True)
class _Collate:
    """Joins samples into a batch, or returns the first error among them."""

    make: Callable[[Sequence[Any]], Any]

    def __call__(self, samples: Sequence[Any]) -> Any:
        error = next((sample for sample in samples if isinstance(sample, InputError)), None)
        return error if error is not None else self.make(samples)


def stack_cameras_of(views: Sequence[Sequence[View]]) -> Camera:
    """Return cameras ``[B, N]`` of the views of B samples, in float32.

    Poses are relative to the second view, the first source: small numbers keep their precision in float32.
    """
    K = torch.from_numpy(np.stack([[view.K for view in sample] for sample in views])).float()
    T = torch.from_numpy(np.stack([[view.T_cam_world for view in sample] for sample in views]))
    h, w = views[0][0].image.shape[-2:]
    return Camera((T @ torch.linalg.inv(T[:, 1:2])).float(), K, (h, w))


def _start_worker(ending: Event, _: int) -> None:
    """Ignore interrupts in a worker: they reach all processes of a group, and the main process ends its workers."""

    def terminate(*_: object) -> None:
        if ending.is_set():
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    cv2.setNumThreads(0)
