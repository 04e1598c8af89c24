"""What the tasks of both stages share: where views come from, MPI cameras, pictures for the log, the start of a run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from maskvolume.data.draws import (
    Draws,
    Lazy,
    MixedSource,
    SampleSource,
)
from maskvolume.data.samples import ViewBatch, join_batches
from maskvolume.data.synthetic import SyntheticSample, WorldOptions, sample_worlds
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel, Stage
from maskvolume.networks import ARCHITECTURES
from maskvolume.ops import Rendering
from maskvolume.runtime.devices import resolve_device, resolve_precision
from maskvolume.runtime.errors import InputError
from maskvolume.training import (
    Processes,
    Task,
    TrainOptions,
    open_processes,
    start_processes,
    train,
)

# Worlds to validate on are apart from every training seed: those are seed * SAMPLES_PER_SEED + number of the sample.
VALIDATION_SEED = 987_654_321
SAMPLES_PER_SEED = 2**40
MIN_SCALE = 0.01  # of recorded pictures: below it nothing is left of them


@dataclass(frozen=True)
class SyntheticSource:
    """Random worlds as a function of seed and sample number, and fixed ones to validate on.

    Attributes:
        options: what the worlds are like.
        seed: of the run.
        device: where they are rendered.
        val_samples: the number of fixed worlds.
    """

    options: WorldOptions
    seed: int
    device: torch.device
    val_samples: int

    @property
    def epoch_samples(self) -> None:
        """There are always more worlds."""
        return None

    def batches(self, draws: Draws) -> Generator[SyntheticSample, None, None]:
        """See ``SampleSource``."""
        for draw in draws:
            options = replace(self.options, num_sources=draw.num_sources)
            seeds = [self.seed * SAMPLES_PER_SEED + index for index in draw.indices]
            yield join_batches([sample_worlds(options, 1, generator=seed, device=self.device) for seed in seeds])

    def validation(self) -> Sequence[SyntheticSample]:
        """The fixed worlds, the same for every seed."""
        return Lazy(
            self.val_samples,
            lambda index: sample_worlds(self.options, 1, generator=VALIDATION_SEED + index, device=self.device),
        )


class DataOptions(Protocol):
    """Options of both stages that say where views come from.

    ``dataset_name`` is synthetic, mixed or the name of a recorded data set.
    """

    @property
    def dataset_name(self) -> str: ...
    @property
    def root_dir(self) -> str: ...
    @property
    def val_dir(self) -> str: ...
    @property
    def synthetic_share(self) -> float: ...
    @property
    def scale(self) -> tuple[float, float]: ...
    @property
    def jitter(self) -> float: ...
    @property
    def seed(self) -> int: ...


def check_data_options(options: DataOptions, how_to_get: str) -> None:
    """Find what can't be meant, before anything is made.

    Args:
        options: of either stage.
        how_to_get: where the recorded data comes from, for the message.

    Raises:
        InputError: names the option and what is expected.
    """
    if options.dataset_name != "synthetic":
        for name, folder in (("root_dir", options.root_dir), ("val_dir", options.val_dir)):
            if not Path(folder or " ").is_dir():
                raise InputError(f"{name} {folder or '(not given)'}: no such folder; {how_to_get}")
    low, high = options.scale
    if not MIN_SCALE <= low <= high:
        raise InputError(f"--scale: {MIN_SCALE:g} or more, the lower one first, expected, got {low:g} {high:g}")
    if not 0 < options.synthetic_share < 1:
        raise InputError(f"--synthetic_share: between 0 and 1 expected, got {options.synthetic_share:g}")
    if not 0 <= options.jitter < 1:
        raise InputError(f"--jitter: 0 or more and below 1 expected, got {options.jitter:g}")


def choose_source(
    options: DataOptions, worlds: SampleSource, open_recorded: Callable[[], SampleSource]
) -> SampleSource:
    """The source that ``dataset_name`` names: random worlds, the recorded data (opened only then), or a mixture."""
    if options.dataset_name == "synthetic":
        return worlds
    recorded = open_recorded()
    if options.dataset_name != "mixed":
        return recorded
    share = options.synthetic_share
    return MixedSource(((worlds, share), (recorded, 1 - share)), options.seed)


def mpi_frustum(batch: ViewBatch, num_planes: int, margin: int) -> tuple[Camera, Tensor]:
    """The MPI's camera (the first source's, wider by ``margin``) and plane depths of a batch."""
    camera = batch.sources[:, 0].padded(margin)
    return camera, disparity_planes(batch.near, batch.far, num_planes, device=batch.images.device)


def side_by_side(*pictures: Tensor) -> Tensor:
    """Pictures ``[3 or 1, H, W]`` in a row."""
    return torch.cat([picture.expand(3, -1, -1) for picture in pictures], dim=-1)


def disparity_picture(rendering: Rendering, near: Tensor) -> Tensor:
    """Disparity ``[B, 1, H, W]`` as grey: white at the nearest plane, black at infinity."""
    return rendering.disparity * near[:, None, None, None]


def load_start(path: str, stage: Stage, arch: str) -> MaskVolumeModel:
    """The networks of a stage that another training starts from, of the same architecture or of one that it adopts.

    Raises:
        InputError: no such checkpoint, a damaged one, or one of another stage or architecture.
    """
    model = load_model(path, stage=stage)
    if model.meta.arch == arch:
        return model
    adopted = ARCHITECTURES[arch].adopt(model.mpi_net.state_dict(), model.meta.arch)
    if adopted is None:
        raise InputError(f"{path}: architecture {model.meta.arch!r}, but --arch is {arch!r}; make them agree")
    started = MaskVolumeModel(replace(model.meta, arch=arch))
    started.mpi_net.load_state_dict(adopted)
    if model.mask_net is not None and started.mask_net is not None:
        started.mask_net.load_state_dict(model.mask_net.state_dict())
    return started.eval().requires_grad_(False)


def run_training(
    options: TrainOptions,
    make_model: Callable[[], MaskVolumeModel],
    make_task: Callable[[torch.device, Processes], Task],
) -> Path | None:
    """Start the processes that the options ask for, build model and task on each one's device, and train.

    Returns:
        The path of the written model; None in all processes but the first.
    """
    start_processes(options.num_gpus)
    device = resolve_device("cpu" if options.num_gpus == 0 else options.device)
    with open_processes(device) as (processes, device):
        torch.manual_seed(options.seed)
        model = make_model()
        model.precision = resolve_precision(options.precision, device)
        path = train(make_task(device, processes), model.to(device), options, processes)
    return path if processes.is_first else None


def new_model(options: TrainOptions) -> MaskVolumeModel:
    """A stage-one model with new weights."""
    return MaskVolumeModel(CheckpointMeta("mpi", options.arch, num_planes=options.num_planes))
