"""A source of training samples from random worlds."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch

from maskvolume.data.draws import Draws, LazySequence
from maskvolume.data.samples import join_batches, num_sources_of
from maskvolume.data.synthetic.options import SyntheticSample, WorldOptions
from maskvolume.data.synthetic.sampling import sample_worlds

# Training worlds have the seeds seed * SAMPLES_PER_SEED + sample number, none of which is a validation seed.
VALIDATION_SEED = 987_654_321
SAMPLES_PER_SEED = 2**40


@dataclass(frozen=True)
class SyntheticSource:
    """A ``SampleSource`` of random worlds, each a function of seed and sample number, and fixed validation worlds.

    Attributes:
        options: the distribution of the worlds.
        seed: seed of the run.
        device: device of the rendering and of the batches.
        val_samples: number of validation worlds.
        num_sources: fewest and most source views of training samples; steps cycle through them.
    """

    options: WorldOptions
    seed: int
    device: torch.device
    val_samples: int
    num_sources: tuple[int, int] = (2, 2)

    @property
    def epoch_samples(self) -> None:
        """None: the source is endless."""
        return None

    def batches(self, draws: Draws) -> Generator[SyntheticSample, None, None]:
        """Yield the batch of each draw, on the device."""
        for draw in draws:
            options = replace(self.options, num_sources=num_sources_of(draw.step, self.num_sources))
            seeds = [self.seed * SAMPLES_PER_SEED + index for index in draw.indices]
            yield join_batches([sample_worlds(options, 1, generator=seed, device=self.device) for seed in seeds])

    def validation(self) -> Sequence[SyntheticSample]:
        """Return the validation worlds, which are the same for every seed."""
        return LazySequence(
            self.val_samples,
            lambda index: sample_worlds(self.options, 1, generator=VALIDATION_SEED + index, device=self.device),
        )
