"""Stage one: learn to make multiplane images from posed views.

python train.py --config train_synthetic.txt
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from maskvolume.devices import resolve_device, resolve_precision
from maskvolume.errors import run_program
from maskvolume.losses import IMAGE_LOSSES, psnr
from maskvolume.model import CheckpointMeta, MaskVolumeModel
from maskvolume.options import option, parse_options
from maskvolume.synthetic import SyntheticSample, WorldOptions
from maskvolume.tasks import (
    SyntheticSource,
    check_sources,
    load_stage_one,
    mpi_frustum,
    require_synthetic,
    validate_samples,
)
from maskvolume.training import TrainOptions, train

HOW_TO_GET = (
    "RealEstate10K can't be read yet: its links are at google.github.io/realestate10k, and the programs of "
    "preprocessing/ that turn them into training data are not part of this version; use --dataset_name synthetic"
)


@dataclass(frozen=True)
class MPITrainOptions(TrainOptions):
    """Options of stage one."""

    dataset_name: str = option("synthetic", "where views come from", choices=("synthetic", "realestate10k"))
    root_dir: str = option("", "folder of the training data (not for synthetic)")
    val_dir: str = option("", "folder of the validation data (not for synthetic)")
    loss_type: str = option("l1_ssim_grad", "loss on the rendered view", choices=tuple(IMAGE_LOSSES))
    init_ckpt: str = option("", "checkpoint whose MPI network to start from")


class MPITask:
    """Render the target from the MPI of the sources; the loss is on what the MPI covers."""

    def __init__(self, options: MPITrainOptions, device: torch.device) -> None:
        self.options = options
        self.image_loss = IMAGE_LOSSES[options.loss_type]
        worlds = WorldOptions(size=options.img_hw, moving=False)
        samples = 1 if options.debug else options.val_samples
        self.source = SyntheticSource(worlds, options.batch_size, options.seed, device, samples, options.num_sources)

    def sample(self, step: int) -> SyntheticSample:
        """See ``training.Task``."""
        return self.source.sample(step)

    def loss(self, model: MaskVolumeModel, batch: SyntheticSample) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``training.Task``."""
        color, opacity = self._render(model, batch)
        loss = self.image_loss(color, batch.target_image, opacity.detach())
        return loss, {"psnr": psnr(color.detach(), batch.target_image, opacity.detach())}

    def validate(self, model: MaskVolumeModel) -> tuple[dict[str, float], dict[str, Tensor]]:
        """See ``training.Task``."""

        def evaluate(sample: SyntheticSample) -> tuple[dict[str, Tensor], Tensor]:
            color, opacity = self._render(model, sample)
            scalars = {
                "psnr": psnr(color, sample.target_image, opacity),
                "loss": self.image_loss(color, sample.target_image, opacity),
            }
            return scalars, torch.cat([sample.target_image[0], color[0]], dim=-1)

        return validate_samples(self.source.validation(), evaluate)

    def _render(self, model: MaskVolumeModel, batch: SyntheticSample) -> tuple[Tensor, Tensor]:
        margin = self.options.margin if model.arch.uses_margin else 0
        camera, depths = mpi_frustum(batch, self.options.num_planes, margin)
        rendering = model.dynamic(batch.images, batch.sources, camera, depths).render(batch.target)
        return rendering.color, rendering.opacity


def main() -> None:
    """Read the options, build the model and train it."""
    options = parse_options(MPITrainOptions, prog="train.py", description=__doc__ or "")
    require_synthetic(options.dataset_name, options.root_dir, HOW_TO_GET)
    check_sources(options)
    device = resolve_device(options.device)
    torch.manual_seed(options.seed)
    meta = CheckpointMeta("mpi", options.arch, num_planes=options.num_planes)
    model = MaskVolumeModel(meta, resolve_precision(options.precision, device))
    if options.init_ckpt:
        model.mpi_net.load_state_dict(load_stage_one(options.init_ckpt, options.arch).mpi_net.state_dict())
    path = train(MPITask(options, device), model.to(device), options)
    print(f"written: {path}")


if __name__ == "__main__":
    run_program(main)
