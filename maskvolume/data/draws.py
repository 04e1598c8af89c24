"""The assignment of samples to training steps, the protocol of a sample source, and mixtures of sources.

The sample with number i is a pure function of (seed, i). Samples are numbered step by step, within a step by
micro-batch, and within a micro-batch by process. The samples of a step therefore depend neither on the number of
processes nor on the number of data workers, and a resumed run sees the same samples as an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np

READER_KILLED = (
    "--num_workers: a process that reads the data was killed, possibly for lack of memory; use fewer (0 reads "
    "without any) and run again"
)


class Draw(NamedTuple):
    """The samples of one micro-batch of one process."""

    step: int
    indices: tuple[int, ...]  # sample numbers


@dataclass(frozen=True)
class BatchPlan:
    """The assignment of samples to steps, micro-batches and processes.

    Attributes:
        batch_size: samples per micro-batch and process.
        accumulate: micro-batches per step.
        rank, world: index of this process and number of processes.
    """

    batch_size: int = 1
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    @property
    def samples_per_step(self) -> int:
        """The number of samples per optimizer step over all processes."""
        return self.batch_size * self.accumulate * self.world

    def draws(self, first_step: int, first_sample: int | None = None) -> Draws:
        """Return the draws of this process.

        Args:
            first_step: the step to start at.
            first_sample: number of the first sample of that step; None for the sample after all earlier steps.
        """
        return Draws(self, first_step, first_step * self.samples_per_step if first_sample is None else first_sample)


@dataclass(frozen=True)
class Draws:
    """The endless draws of one process; each iteration starts at the first step.

    Attributes:
        plan: the assignment of samples to steps.
        first_step: the step to start at.
        first_sample: number of the first sample of that step.
        chosen: selects steps; None for all.
    """

    plan: BatchPlan
    first_step: int = 0
    first_sample: int = 0
    chosen: Callable[[int], bool] | None = None

    def __iter__(self) -> Iterator[Draw]:
        plan = self.plan
        for step in count(self.first_step):
            if self.chosen is not None and not self.chosen(step):
                continue
            for micro in range(plan.accumulate):
                batches = ((step - self.first_step) * plan.accumulate + micro) * plan.world + plan.rank
                start = self.first_sample + batches * plan.batch_size
                yield Draw(step, tuple(range(start, start + plan.batch_size)))


class SampleSource(Protocol):
    """A source of training and validation samples."""

    @property
    def epoch_samples(self) -> int | None:
        """The number of samples per pass over a recorded data set; None for an endless source."""
        ...

    def batches(self, draws: Draws) -> Generator[Any, None, None]:
        """Yield the batch of each draw, on the training device; closing the generator stops any readers."""
        ...

    def validation(self) -> Sequence[Any]:
        """Return fixed batches of one sample each, built when indexed, on the training device."""
        ...


@dataclass(frozen=True)
class MixedSource:
    """A mixture of sources: each step draws from one, chosen at random in proportion to the weights.

    Attributes:
        sources: the sources and their weights.
        seed: seed of the choice.
    """

    sources: Sequence[tuple[SampleSource, float]]
    seed: int

    @property
    def epoch_samples(self) -> None:
        """None: the sources are endless or end at different steps."""
        return None

    def choose(self, step: int) -> int:
        """Return the index of the source of a step."""
        weights = np.cumsum([weight for _, weight in self.sources])
        # The 1 separates this random stream from the streams of the samples.
        draw = np.random.default_rng((self.seed, step, 1)).random() * weights[-1]
        return int(np.searchsorted(weights[:-1], draw, side="right"))

    def batches(self, draws: Draws) -> Generator[Any, None, None]:
        """Yield the batch of each draw, from the source of its step."""

        def stream_of(number: int) -> Generator[Any, None, None]:
            return self.sources[number][0].batches(replace(draws, chosen=lambda step: self.choose(step) == number))

        with ExitStack() as stack:
            streams = [stack.enter_context(closing(stream_of(number))) for number in range(len(self.sources))]
            for draw in draws:
                yield next(streams[self.choose(draw.step)])

    def validation(self) -> Sequence[Any]:
        """Return the fixed samples of all sources, source by source."""
        return concatenate([source.validation() for source, _ in self.sources])


class LazySequence(Sequence[Any]):
    """A sequence of ``length`` items; ``build`` computes an item when it is indexed."""

    def __init__(self, length: int, build: Callable[[int], Any]) -> None:
        self.length, self.build = length, build

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.build(index)


def concatenate(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Concatenate sequences lazily: indexing the result indexes one part."""
    places = [(part, index) for part in parts for index in range(len(part))]
    return LazySequence(len(places), lambda index: places[index][0][places[index][1]])
