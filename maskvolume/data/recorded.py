"""What recorded training data of both stages shares: cutting and changing views, reading them in worker processes."""

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

JITTERS = ("none", "brightness", "contrast", "saturation", "hue")  # one of them is drawn
HUE_SHARE = 0.25  # of the other jitters' strength: hue is in turns

Batch = TypeVar("Batch", bound=ViewBatch)
Window = tuple[int, int, tuple[int, int]]  # top, left, (height, width), in the picture's own pixels


@dataclass(frozen=True)
class View:
    """One crop of one frame: uint8 ``[3, h, w]``, ``K [3, 3]`` of the crop, ``T_cam_world [4, 4]``."""

    image: Tensor
    K: np.ndarray
    T_cam_world: np.ndarray


def draw_window(
    rng: np.random.Generator, picture: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float]
) -> Window:
    """The part of a picture of size (h, w) that becomes the crop, when it is enlarged by a factor of ``scale``.

    A picture that is too small is enlarged as far as it needs to be.
    """
    least = max(wanted / side for wanted, side in zip(crop, picture, strict=True))
    factor = max(rng.uniform(*scale), least)
    h, w = (min(round(wanted / factor), side) for wanted, side in zip(crop, picture, strict=True))
    return int(rng.integers(picture[0] - h + 1)), int(rng.integers(picture[1] - w + 1)), (h, w)


def cut(picture: np.ndarray, window: Window, size: tuple[int, int]) -> Tensor:
    """The window of a picture uint8 ``[H, W, 3]`` or ``[H, W]``, resized to ``size`` (h, w): ``[3 or 1, h, w]``."""
    top, left, (h, w) = window
    part = picture[top : top + h, left : left + w]
    if (h, w) != size:
        shrinks = h >= size[0] and w >= size[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        part = cv2.resize(part, (size[1], size[0]), interpolation=interpolation)
    part = part[..., None] if part.ndim == 2 else part
    return torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))


def cut_intrinsics(K: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """``K [3, 3]`` of the window of a picture, resized to ``size`` (h, w)."""
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
    """A change of colour for all views of a sample, or None."""
    kind, amount = JITTERS[int(rng.integers(len(JITTERS)))], rng.uniform(-strength, strength)
    if kind == "none" or strength == 0:
        return None
    # Importing torchvision takes seconds, so programs that draw no jitter do without it.
    from torchvision.transforms.v2 import functional as transforms

    if kind == "hue":
        return lambda image: transforms.adjust_hue(image, HUE_SHARE * amount)
    return lambda image: getattr(transforms, f"adjust_{kind}")(image, 1 + amount)


def change_alike(change: Callable[[Tensor], Tensor] | None, images: Sequence[Tensor]) -> list[Tensor]:
    """Pictures ``[3, h, w]`` of one size after a change of colour that is the same for all."""
    if change is None:
        return list(images)
    # Side by side, so that a change that looks at the mean of a picture does the same to all.
    return list(change(torch.cat(list(images), dim=-1)).chunk(len(images), dim=-1))


class RecordedSamples(Dataset[Any]):
    """Samples by (number of sources, number of the sample); the same for the same seed in every process.

    A pass over the data, an epoch, takes every place that a sample can be drawn from once, in an order of its own.

    Args:
        seed: of the run.
        places: how many there are, for instance scenes.
    """

    def __init__(self, seed: int, places: int) -> None:
        self.seed, self._places = seed, places
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self._places

    def __getitem__(self, drawn: tuple[int, int]) -> Any:
        """A sample; what is wrong with the data is handed over, since an error raised here would lose its kind."""
        num_sources, number = drawn
        try:
            return self.make(num_sources, number)
        except InputError as error:
            return error

    def make(self, num_sources: int, number: int) -> Any:
        """Sample ``number`` with this many source views.

        Raises:
            InputError: the data is damaged.
        """
        raise NotImplementedError

    def place_of(self, number: int) -> int:
        """The place that a sample is drawn from."""
        epoch, turn = divmod(number, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, epoch, 2)).permutation(len(self)))
        return int(self._order[1][turn])


@dataclass(frozen=True)
class RecordedSource:
    """Recorded views to train on, and fixed ones to validate on; see ``samples.SampleSource``.

    Attributes:
        samples: to train on.
        choices: what to validate on.
        read_choice: the sample of a choice.
        collate: makes a batch of samples, pictures still uint8.
        device: where batches go.
        num_workers: processes that read; 0: this one.
        num_sources: fewest and most source views; the steps take turns.
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
        """See ``SampleSource``; reads ahead in the workers."""
        keys = ([(num_sources_of(draw.step, self.num_sources), index) for index in draw.indices] for draw in draws)
        yield from read_batches(self.samples, keys, self.collate, self.device, self.num_workers)

    def validation(self) -> Sequence[Any]:
        """The chosen views."""
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
    """Batches on the device, read ahead in worker processes.

    Args:
        samples: by (number of sources, number of the sample); gives an InputError, instead of raising it, where the
            data is damaged: raised in a worker it would lose its kind.
        keys: of the samples of each batch.
        collate: makes a ``ViewBatch`` of samples, pictures still uint8.
        device: where batches are to be.
        num_workers: 0 reads here.

    Raises:
        InputError: damaged data, or a reader that was killed while a batch was handed over.
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
    """The batch on a device, pictures as float32 in 0..1."""

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
    """A batch of samples, or the first error among them."""

    make: Callable[[Sequence[Any]], Any]

    def __call__(self, samples: Sequence[Any]) -> Any:
        wrong = next((sample for sample in samples if isinstance(sample, InputError)), None)
        return wrong if wrong is not None else self.make(samples)


def stack_cameras_of(views: Sequence[Sequence[View]]) -> Camera:
    """Cameras ``[B, N]`` of the views of B samples; poses against the second view's, the first source.

    Small numbers lose nothing in float32.
    """
    K = torch.from_numpy(np.stack([[view.K for view in sample] for sample in views])).float()
    T = torch.from_numpy(np.stack([[view.T_cam_world for view in sample] for sample in views]))
    h, w = views[0][0].image.shape[-2:]
    return Camera((T @ torch.linalg.inv(T[:, 1:2])).float(), K, (h, w))


def _start_worker(ending: Event, _: int) -> None:
    """Interruptions, which may come to all processes of a group, are for the main one; it ends its workers itself."""

    def terminate(*_: object) -> None:
        if ending.is_set():
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    cv2.setNumThreads(0)
