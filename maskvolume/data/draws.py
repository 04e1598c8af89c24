"""Which sample belongs to which step: the order of a training run, the protocol of a source, mixtures.

The sample with number i is a pure function of (seed, i). Numbers run through the steps, within a step through the
micro-batches, within these through the processes: what a step learns from depends neither on the number of
processes nor on that of data workers, and a resumed run sees the samples that an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np

READER_KILLED = (
    "--num_workers: a process that reads the data was killed, perhaps for want of memory; give fewer (0 reads "
    "without any) and run again"
)


class Draw(NamedTuple):
    """What a process draws for one micro-batch."""

    step: int
    indices: tuple[int, ...]  # numbers of the samples


@dataclass(frozen=True)
class BatchPlan:
    """Which samples each process draws when.

    Attributes:
        batch_size: samples of a micro-batch of one process.
        accumulate: micro-batches of a step.
        rank, world: this process, and the number of processes.
    """

    batch_size: int = 1
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step, of all processes together."""
        return self.batch_size * self.accumulate * self.world

    def draws(self, first_step: int, first_sample: int | None = None) -> Draws:
        """The draws of this process from a step on; the first sample is the one after all those of earlier steps."""
        return Draws(self, first_step, first_step * self.samples_per_step if first_sample is None else first_sample)


@dataclass(frozen=True)
class Draws:
    """The draws of one process, without end; each iteration starts at the first step.

    Attributes:
        plan: which samples belong to which step.
        first_step: where to begin.
        first_sample: the number of the first sample of that step.
        chosen: tells which steps are wanted; None for all.
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
    """Where samples come from."""

    @property
    def epoch_samples(self) -> int | None:
        """Samples of one pass over a recorded data set; None where there is no end."""
        ...

    def batches(self, draws: Draws) -> Generator[Any, None, None]:
        """The batch of each draw, on the training device; closing the generator ends whatever reads ahead."""
        ...

    def validation(self) -> Sequence[Any]:
        """Fixed batches of one sample each, built when they are indexed, on the training device."""
        ...


@dataclass(frozen=True)
class MixedSource:
    """Several sources; each step draws from one of them, at random in proportion to the weights.

    Attributes:
        sources: the sources and their weights.
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
        # The last number separates this random stream from those of the samples.
        draw = np.random.default_rng((self.seed, step, 1)).random() * weights[-1]
        return int(np.searchsorted(weights[:-1], draw, side="right"))

    def batches(self, draws: Draws) -> Generator[Any, None, None]:
        """The batch of each draw, from the source of its step."""

        def stream_of(number: int) -> Generator[Any, None, None]:
            return self.sources[number][0].batches(replace(draws, chosen=lambda step: self.choose(step) == number))

        with ExitStack() as stack:
            streams = [stack.enter_context(closing(stream_of(number))) for number in range(len(self.sources))]
            for draw in draws:
                yield next(streams[self.choose(draw.step)])

    def validation(self) -> Sequence[Any]:
        """The fixed samples of all sources, one source after the other."""
        return concatenate([source.validation() for source, _ in self.sources])


class LazySequence(Sequence[Any]):
    """A sequence of ``length`` items; ``build`` computes each one when it is indexed."""

    def __init__(self, length: int, build: Callable[[int], Any]) -> None:
        self.length, self.build = length, build

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.build(index)


def concatenate(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """The items of several sequences in one sequence, which indexes the parts only when it is indexed itself."""
    places = [(part, index) for part in parts for index in range(len(part))]
    return LazySequence(len(places), lambda index: places[index][0][places[index][1]])
