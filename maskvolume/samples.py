"""Training samples: posed source views and a target view, and the order in which they are drawn.

The sample with number i is a pure function of (seed, i). Numbers run through the steps, within a step through the
micro-batches, within these through the processes: what a step learns from depends neither on the number of
processes nor on that of data workers, and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from maskvolume.cameras import Camera


@dataclass(frozen=True)
class ViewBatch:
    """B times V source views and a target.

    Attributes:
        images: ``[B, V, 3, H, W]`` source views in 0..1.
        sources: cameras ``[B, V]``; view 0 is the reference.
        target: cameras ``[B]``, of their own size (h, w).
        target_image: ``[B, 3, h, w]`` in 0..1.
        near: ``[B]`` depth of the nearest plane, in the reference view.
        far: ``[B]`` depth of the farthest plane.
    """

    images: Tensor
    sources: Camera
    target: Camera
    target_image: Tensor
    near: Tensor
    far: Tensor

    def pin_memory(self) -> ViewBatch:
        """The same in memory that a GPU reads from while the program goes on; what a DataLoader calls."""

        def pin(value: Any) -> Any:
            if isinstance(value, Camera):
                return replace(value, T_cam_world=value.T_cam_world.pin_memory(), K=value.K.pin_memory())
            return value.pin_memory() if isinstance(value, Tensor) else value

        return replace(self, **{field.name: pin(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class MovingBatch(ViewBatch):
    """Views of scenes in which something moves; of one instant, or of several, one after the other.

    Attributes:
        backgrounds: ``[B, V, 3, H, W]`` the scene without what moves, as each source sees it.
        matte: ``[B, 1, h, w]`` share of each target pixel that is covered by what moves.
        later_images: ``[B, T-1, V, 3, H, W]`` the source views at the instants that follow, or None.
        later_target_images: ``[B, T-1, 3, h, w]`` the target then.
        later_mattes: ``[B, T-1, 1, h, w]`` and its matte.
    """

    backgrounds: Tensor
    matte: Tensor
    later_images: Tensor | None = None
    later_target_images: Tensor | None = None
    later_mattes: Tensor | None = None


READER_KILLED = (
    "--num_workers: a process that reads the data was killed, perhaps for want of memory; give fewer (0 reads "
    "without any) and run again"
)

Batch = TypeVar("Batch", bound=ViewBatch)


def join_batches(batches: Sequence[Batch]) -> Batch:
    """One batch of several, all of the same sizes and number of views."""
    if len(batches) == 1:
        return batches[0]
    joined: dict[str, Any] = {}
    for field in fields(batches[0]):
        values = [getattr(batch, field.name) for batch in batches]
        if isinstance(values[0], Camera):
            poses, K = torch.cat([c.T_cam_world for c in values]), torch.cat([c.K for c in values])
            joined[field.name] = Camera(poses, K, values[0].size)
        else:
            joined[field.name] = None if values[0] is None else torch.cat(values)
    return replace(batches[0], **joined)


class Draw(NamedTuple):
    """What a process draws for one micro-batch."""

    step: int
    num_sources: int
    indices: tuple[int, ...]  # numbers of the samples


@dataclass(frozen=True)
class BatchPlan:
    """Which samples each process draws when.

    Attributes:
        batch_size: samples of a micro-batch of one process.
        accumulate: micro-batches of a step.
        rank, world: this process, and the number of processes.
        num_sources: fewest and most source views; the steps take turns.
    """

    batch_size: int = 1
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    num_sources: tuple[int, int] = (2, 2)

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step, of all processes together."""
        return self.batch_size * self.accumulate * self.world

    def draws(self, first_step: int, first_sample: int | None = None) -> Draws:
        """The draws of this process from a step on; the first sample is the one after all those of earlier steps."""
        return Draws(self, first_step, first_step * self.samples_per_step if first_sample is None else first_sample)


@dataclass(frozen=True)
class Draws:
    """The draws of one process, without end; can be gone through more than once.

    Attributes:
        plan: which samples belong to which step.
        first_step: where to begin.
        first_sample: the number of the first sample of that step.
        chosen: the steps that are wanted; None: all.
    """

    plan: BatchPlan
    first_step: int = 0
    first_sample: int = 0
    chosen: Callable[[int], bool] | None = None

    def __iter__(self) -> Iterator[Draw]:
        plan, (fewest, most) = self.plan, self.plan.num_sources
        for step in count(self.first_step):
            if self.chosen is not None and not self.chosen(step):
                continue
            views = fewest + step % (most - fewest + 1)
            for micro in range(plan.accumulate):
                batches = ((step - self.first_step) * plan.accumulate + micro) * plan.world + plan.rank
                start = self.first_sample + batches * plan.batch_size
                yield Draw(step, views, tuple(range(start, start + plan.batch_size)))


class SampleSource(Protocol):
    """Where samples come from."""

    @property
    def epoch_samples(self) -> int | None:
        """Samples of one pass over a recorded data set; None where there is no end."""
        ...

    def batches(self, draws: Draws) -> Generator[Any, None, None]:
        """The batch of each draw, on the training device; closing it ends whatever reads ahead."""
        ...

    def validation(self) -> Sequence[Any]:
        """Fixed batches of one sample each, made when they are indexed, on the training device."""
        ...


@dataclass(frozen=True)
class MixedSource:
    """Several sources; each step draws from one of them, by chance as the weights say.

    Attributes:
        sources: with the weight of each.
        seed: of the choices.
    """

    sources: Sequence[tuple[SampleSource, float]]
    seed: int

    @property
    def epoch_samples(self) -> None:
        """No end: at least one source has none, or they end at different times."""
        return None

    def choose(self, step: int) -> int:
        """The source of a step."""
        weights = np.cumsum([weight for _, weight in self.sources])
        # The last number makes a stream apart from those of the samples.
        draw = np.random.default_rng((self.seed, step, 1)).random() * weights[-1]
        return int(np.searchsorted(weights[:-1], draw, side="right"))

    def batches(self, draws: Draws) -> Generator[Any, None, None]:
        """See ``SampleSource``."""

        def of(number: int) -> Generator[Any, None, None]:
            return self.sources[number][0].batches(replace(draws, chosen=lambda step: self.choose(step) == number))

        with ExitStack() as stack:
            streams = [stack.enter_context(closing(of(number))) for number in range(len(self.sources))]
            for draw in draws:
                yield next(streams[self.choose(draw.step)])

    def validation(self) -> Sequence[Any]:
        """See ``SampleSource``: the samples of all sources, one source after the other."""
        return chain([source.validation() for source, _ in self.sources])


class Lazy(Sequence[Any]):
    """A sequence of ``length`` items, each made when it is asked for."""

    def __init__(self, length: int, make: Callable[[int], Any]) -> None:
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.make(index)


def chain(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """The items of several sequences as one; nothing is made before it is asked for."""
    places = [(part, index) for part in parts for index in range(len(part))]
    return Lazy(len(places), lambda index: places[index][0][places[index][1]])
