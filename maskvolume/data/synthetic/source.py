"""Random worlds as a source of training samples."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch

from maskvolume.data.draws import Draws, LazySequence
from maskvolume.data.samples import join_batches, num_sources_of
from maskvolume.data.synthetic.options import SyntheticSample, WorldOptions
from maskvolume.data.synthetic.sampling import sample_worlds

# Training worlds have the seeds seed * SAMPLES_PER_SEED + number of the sample; no validation world is among them.
VALIDATION_SEED = 987_654_321
SAMPLES_PER_SEED = 2**40


@dataclass(frozen=True)
class SyntheticSource:
    """Random worlds as a function of seed and sample number, and fixed ones to validate on.

    Attributes:
        options: of the worlds.
        seed: of the run.
        device: where the worlds are rendered.
        val_samples: the number of fixed worlds.
        num_sources: fewest and most source views of training samples; the steps take turns.
    """

    options: WorldOptions
    seed: int
    device: torch.device
    val_samples: int
    num_sources: tuple[int, int] = (2, 2)

    @property
    def epoch_samples(self) -> None:
        """None: there is no end of worlds."""
        return None

    def batches(self, draws: Draws) -> Generator[SyntheticSample, None, None]:
        """The batch of each draw, on the device."""
        for draw in draws:
            options = replace(self.options, num_sources=num_sources_of(draw.step, self.num_sources))
            seeds = [self.seed * SAMPLES_PER_SEED + index for index in draw.indices]
            yield join_batches([sample_worlds(options, 1, generator=seed, device=self.device) for seed in seeds])

    def validation(self) -> Sequence[SyntheticSample]:
        """The fixed worlds, the same for every seed."""
        return LazySequence(
            self.val_samples,
            lambda index: sample_worlds(self.options, 1, generator=VALIDATION_SEED + index, device=self.device),
        )
