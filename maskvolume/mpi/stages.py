"""Shared parts of the training stages: choice of the data source, MPI cameras, log pictures, and the start of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskvolume.data.draws import MixedSource, SampleSource
from maskvolume.data.samples import ViewBatch
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.checkpoints import load_model, save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel, Stage
from maskvolume.mpi.stage_options import StageOptions
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


class StageTask:
    """The part of a ``training.Task`` shared by both stages: networks to compile and checkpoints to write."""

    suffix = ".safetensors"
    rate_shares: Mapping[str, float] = {}

    def compiled_modules(self, model: MaskVolumeModel) -> Sequence[nn.Module]:
        """The networks of the stage."""
        return [net for net in (model.mpi_net, model.mask_net) if net is not None]

    def save(self, path: Path, model: MaskVolumeModel, info: dict[str, Any]) -> None:
        """Write a checkpoint whose header holds ``info``."""
        model.meta = replace(model.meta, info=info)
        save_checkpoint(path, model)


def choose_source(
    options: StageOptions, worlds: SampleSource, open_recorded: Callable[[], SampleSource]
) -> SampleSource:
    """Choose the source named by ``dataset_name``: random worlds, recorded data (opened on demand), or a mixture."""
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
    """Concatenate pictures ``[3 or 1, H, W]`` horizontally: ``[3, H, sum of W]``."""
    return torch.cat([picture.expand(3, -1, -1) for picture in pictures], dim=-1)


def disparity_picture(rendering: Rendering, near: Tensor) -> Tensor:
    """Disparity as a grey picture ``[B, 1, H, W]`` in 0..1: white at the nearest plane, black at infinity."""
    return rendering.disparity * near[:, None, None, None]


def load_start(path: str, stage: Stage, arch: str) -> MaskVolumeModel:
    """Load the networks that a training starts from.

    Args:
        path: the checkpoint.
        stage: the stage whose networks are needed.
        arch: name of the architecture to train; the checkpoint's may differ if this one can adopt its weights.

    Returns:
        The model, in eval mode and without gradients.

    Raises:
        InputError: the checkpoint is missing or damaged, or of an incompatible stage or architecture.
    """
    model = load_model(path, stage=stage)
    if model.meta.arch == arch:
        return model
    weights = ARCHITECTURES[arch].adopt(model.mpi_net.state_dict(), model.meta.arch)
    if weights is None:
        raise InputError(f"{path}: architecture {model.meta.arch!r}, but --arch is {arch!r}; make them agree")
    adapted = MaskVolumeModel(replace(model.meta, arch=arch))
    adapted.mpi_net.load_state_dict(weights)
    if model.mask_net is not None and adapted.mask_net is not None:
        adapted.mask_net.load_state_dict(model.mask_net.state_dict())
    return adapted.eval().requires_grad_(False)


def run_training(
    options: TrainOptions,
    make_model: Callable[[], MaskVolumeModel],
    make_task: Callable[[torch.device, Processes], Task[MaskVolumeModel]],
) -> Path | None:
    """Start the requested processes, build the model and the task on the device of each, and train.

    Args:
        options: the training options.
        make_model: builds the model.
        make_task: builds the task from a device and the processes.

    Returns:
        The path of the trained model; None in all processes but the first.
    """
    start_processes(options.num_gpus)
    device = resolve_device("cpu" if options.num_gpus == 0 else options.device)
    with open_processes(device) as (processes, device):
        torch.manual_seed(options.seed)
        model = make_model()
        model.precision = resolve_precision(options.precision, device)
        model.to(device).to(memory_format=torch.channels_last_3d)
        path = train(make_task(device, processes), model, options, processes)
    return path if processes.is_first else None


def new_model(options: StageOptions) -> MaskVolumeModel:
    """A stage-one model with new weights."""
    return MaskVolumeModel(CheckpointMeta("mpi", options.arch, num_planes=options.num_planes))
