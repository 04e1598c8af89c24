"""What the tasks of both stages share: synthetic samples by step, MPI cameras, pictures for the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskvolume.cameras import Camera
from maskvolume.checkpoints import load_model
from maskvolume.errors import InputError
from maskvolume.model import MaskVolumeModel
from maskvolume.networks import ARCHITECTURES
from maskvolume.planes import disparity_planes
from maskvolume.synthetic import SyntheticSample, WorldOptions, sample_worlds
from maskvolume.training import TrainOptions

VALIDATION_SEED = 987_654_321  # apart from every training seed: those are seed * STEPS_PER_SEED + step
STEPS_PER_SEED = 10_000_000
LOGGED_SAMPLES = 3


@dataclass(frozen=True)
class SyntheticSource:
    """Random worlds as a function of the step alone, and fixed ones to validate on.

    Attributes:
        options: what the worlds are like.
        batch_size: worlds a step.
        seed: of the run.
        device: where they are rendered.
        val_samples: the number of fixed worlds.
        num_sources: fewest and most source views; each step takes the next number of this range.
    """

    options: WorldOptions
    batch_size: int
    seed: int
    device: torch.device
    val_samples: int
    num_sources: tuple[int, int] = (2, 2)

    def sample(self, step: int) -> SyntheticSample:
        """The batch of a training step."""
        fewest, most = self.num_sources
        options = replace(self.options, num_sources=fewest + step % (most - fewest + 1))
        seed = self.seed * STEPS_PER_SEED + step
        return sample_worlds(options, self.batch_size, generator=seed, device=self.device)

    def validation(self) -> Iterator[SyntheticSample]:
        """The fixed worlds, one at a time, the same for every seed."""
        for index in range(self.val_samples):
            yield sample_worlds(self.options, 1, generator=VALIDATION_SEED + index, device=self.device)


def mpi_frustum(batch: SyntheticSample, num_planes: int, margin: int) -> tuple[Camera, Tensor]:
    """The MPI's camera (the first source's, wider by ``margin``) and plane depths of a batch."""
    camera = batch.sources[:, 0].padded(margin)
    return camera, disparity_planes(batch.near, batch.far, num_planes, device=batch.images.device)


def validate_samples(
    samples: Iterator[SyntheticSample],
    evaluate: Callable[[SyntheticSample], tuple[dict[str, Tensor], Tensor]],
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Means of the scalars that ``evaluate`` returns, and the pictures of the first samples."""
    sums: dict[str, list[float]] = {}
    pictures: dict[str, Tensor] = {}
    for index, sample in enumerate(samples):
        scalars, picture = evaluate(sample)
        for name, value in scalars.items():
            sums.setdefault(name, []).append(float(value))
        if index < LOGGED_SAMPLES:
            pictures[f"sample{index}"] = picture.float().cpu()
    return {name: sum(values) / len(values) for name, values in sums.items()}, pictures


def require_synthetic(dataset_name: str, root_dir: str, how_to_get: str) -> None:
    """Refuse a recorded data set.

    Raises:
        InputError: for any ``dataset_name`` but "synthetic": says where the data was looked for and how to get it.
    """
    if dataset_name != "synthetic":
        raise InputError(f"root_dir {root_dir or '(not given)'}: {how_to_get}")


def check_sources(options: TrainOptions) -> None:
    """Refuse a number of source views that the architecture does not take.

    Raises:
        InputError: fewer than two, more than the architecture takes, or a range the wrong way round.
    """
    fewest, most = options.num_sources
    limit = ARCHITECTURES[options.arch].max_views or most
    if not 2 <= fewest <= most <= limit:
        wanted = "2 or more, the fewest first," if limit >= most else f"at most {limit} for --arch {options.arch}"
        raise InputError(f"num_sources: {wanted} expected, got {fewest} {most}")


def load_stage_one(path: str, arch: str) -> MaskVolumeModel:
    """The stage-one network that another training starts from.

    Raises:
        InputError: no such checkpoint, a damaged one, or one of another architecture.
    """
    model = load_model(path, stage="mpi")
    if model.meta.arch != arch:
        raise InputError(f"{path}: architecture {model.meta.arch!r}, but --arch is {arch!r}; make them agree")
    return model
