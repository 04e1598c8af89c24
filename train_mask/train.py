"""Stage two: learn the mask volume that blends a static background MPI with the MPI of each frame.

python train.py --config train_mask_synthetic.txt
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the imports are done there is nothing to end in order

import torch
from torch import Tensor

from maskvolume.checkpoints import load_model
from maskvolume.errors import InputError, run_program
from maskvolume.losses import LOSS_NAMES, make_image_loss, mask_loss, psnr
from maskvolume.model import Background, CheckpointMeta, FrameMPI, MaskVolumeModel
from maskvolume.mpi import blend
from maskvolume.options import option, parse_options, required
from maskvolume.synthetic import SyntheticSample, WorldOptions
from maskvolume.tasks import (
    SyntheticSource,
    disparity_picture,
    load_stage_one,
    mpi_frustum,
    run_training,
    side_by_side,
)
from maskvolume.training import Processes, TrainOptions, settle_options

HOW_TO_GET = (
    "recorded rigs can't be read for training yet; they are to be folders with sceneNNN.h5 and sceneNNN_pb.npy, as on "
    "the page of the original (cseweb.ucsd.edu/~viscomp/projects/ICCV21Deep); use --dataset_name synthetic"
)
MASK_WEIGHT = 0.25  # Lin et al., ICCV 2021, section 3.4
SPARSITY_WEIGHT = 0.10  # the same
SHADOW_SHARE = 0.3  # of synthetic movers: a shadow is no matte, but the picture has to show it


@dataclass(frozen=True)
class MaskTrainOptions(TrainOptions):
    """Options of stage two."""

    mpi_model: str = required("checkpoint of stage one; its MPI network is kept as it is")
    init_ckpt: str = option("", "checkpoint of stage two whose mask network to start from")
    dataset_name: str = option("synthetic", "where views come from", choices=("synthetic", "rig"))
    root_dir: str = option("", "folder of the training data (not for synthetic)")
    val_dir: str = option("", "folder of the validation data (not for synthetic)")
    loss_type: str = option(
        "full_loss",
        "full_loss (image, matte and sparsity), no_mask (image and sparsity) or image",
        choices=("full_loss", "no_mask", "image"),
    )
    image_loss: str = option("l1_msssim_grad", "loss on the rendered view", choices=LOSS_NAMES)
    vgg_weights: str = option("", "vgg losses: VGG-19-BN state dict; torchvision's cache or download when empty")


class MaskTask:
    """Render the target from the blended MPI; the loss is on the picture and on what the mask lets through."""

    def __init__(self, options: MaskTrainOptions, device: torch.device) -> None:
        self.options = options
        self.image_loss = make_image_loss(options.image_loss, vgg_weights=options.vgg_weights, device=device)
        worlds = WorldOptions(size=options.img_hw, moving=True, shadow_share=SHADOW_SHARE)
        self.source = SyntheticSource(worlds, options.seed, device, options.val_samples)

    def loss(self, model: MaskVolumeModel, batch: SyntheticSample) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``training.Task``."""
        model.mpi_net.eval()
        made = self._frame(model, batch)
        rendering = made.mpi.render(batch.target)
        seen = rendering.opacity.detach()
        loss = self.image_loss(rendering.color, batch.target_image, seen)
        scalars = {"image_loss": loss.detach(), "psnr": psnr(rendering.color.detach(), batch.target_image, seen)}
        if self.options.loss_type == "full_loss":
            term = mask_loss(self._moving_opacity(made, batch), batch.matte)
            loss = loss + MASK_WEIGHT * term
            scalars["mask_loss"] = term.detach()
        if self.options.loss_type != "image":
            loss = loss + SPARSITY_WEIGHT * made.mask.mean()
            scalars["mask_mean"] = made.mask.detach().mean()
        return loss, scalars

    def evaluate(self, model: MaskVolumeModel, sample: SyntheticSample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See ``training.Task``: the blended MPI beside the frame's own."""
        made = self._frame(model, sample)
        rendering, alone = made.mpi.render(sample.target), made.dynamic.render(sample.target)
        moving = self._moving_opacity(made, sample)
        scalars = {
            "psnr": psnr(rendering.color, sample.target_image, rendering.opacity),
            "psnr_without_mask": psnr(alone.color, sample.target_image, alone.opacity),
            "psnr_moving": psnr(rendering.color, sample.target_image, sample.matte),
            "psnr_moving_without_mask": psnr(alone.color, sample.target_image, sample.matte),
            "mask_loss": mask_loss(moving, sample.matte),
        }
        disparity = disparity_picture(rendering, sample.near)
        views = side_by_side(sample.target_image[0], rendering.color[0], moving[0], disparity[0])
        return scalars, {"views": views}

    def _frame(self, model: MaskVolumeModel, batch: SyntheticSample) -> FrameMPI:
        margin = self.options.margin if model.arch.uses_margin else 0
        camera, depths = mpi_frustum(batch, self.options.num_planes, margin)
        with torch.no_grad():
            background: Background = model.background(batch.backgrounds, batch.sources, camera, depths)
            sweep = model.sweep(batch.images, batch.sources, camera, depths)
            dynamic = model.mpi_from_sweep(sweep, camera, depths)
        mask = model.mask_from_sweeps(sweep, background, dynamic)
        return FrameMPI(blend(mask, dynamic, background.mpi), mask, dynamic)

    @staticmethod
    def _moving_opacity(made: FrameMPI, batch: SyntheticSample) -> Tensor:
        """Opacity ``[B, 1, H, W]`` of mask * dynamic MPI in the target."""
        masked = made.dynamic.rgba * made.mask.movedim(-4, -3)
        return replace(made.dynamic, rgba=masked).render(batch.target).opacity


def load_mask_network(model: MaskVolumeModel, path: str) -> None:
    """Start from the mask network of a checkpoint.

    Raises:
        InputError: no checkpoint of stage two, or one of another architecture.
    """
    other = load_model(path, stage="mask")
    if other.meta.arch != model.meta.arch:
        raise InputError(
            f"{path}: architecture {other.meta.arch!r}, but --arch is {model.meta.arch!r}; make them agree"
        )
    if other.meta.sampling != model.meta.sampling:
        raise InputError(
            f"{path}: was trained on {other.meta.sampling!r} plane sweeps, but --mpi_model on "
            f"{model.meta.sampling!r} ones; give two that agree"
        )
    assert model.mask_net is not None
    assert other.mask_net is not None
    model.mask_net.load_state_dict(other.mask_net.state_dict())


def main() -> None:
    """Read the options, build the model on a trained stage one, and train its mask network."""
    options = settle_options(parse_options(MaskTrainOptions, prog="train.py", description=__doc__ or ""))
    if options.dataset_name != "synthetic":
        raise InputError(f"root_dir {options.root_dir or '(not given)'}: {HOW_TO_GET}")

    def make_model() -> MaskVolumeModel:
        first = load_stage_one(options.mpi_model, options.arch)
        model = MaskVolumeModel(CheckpointMeta("mask", options.arch, first.meta.sampling, options.num_planes))
        model.mpi_net.load_state_dict(first.mpi_net.state_dict())
        model.mpi_net.requires_grad_(False)
        if options.init_ckpt:
            load_mask_network(model, options.init_ckpt)
        return model

    def make_task(device: torch.device, _: Processes) -> MaskTask:
        return MaskTask(options, device)

    path = run_training(options, make_model, make_task)
    if path is not None:
        print(f"written: {path}")


if __name__ == "__main__":
    run_program(main)
