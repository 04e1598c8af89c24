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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the imports are done an interrupt needs no clean-up

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.data.draws import SampleSource
from maskvolume.data.samples import MovingBatch
from maskvolume.data.synthetic import SyntheticSource, WorldOptions
from maskvolume.losses import (
    LOSS_NAMES,
    make_image_loss,
    mask_loss,
    masked_l1_loss,
    temporal_loss,
    weighted_psnr,
)
from maskvolume.mpi.model import (
    Background,
    CheckpointMeta,
    FrameMPI,
    MaskVolumeModel,
)
from maskvolume.mpi.stage_options import MIN_SCALE, StageOptions, check_stage_options
from maskvolume.mpi.stages import (
    StageTask,
    choose_source,
    disparity_picture,
    load_start,
    mpi_frustum,
    run_training,
    side_by_side,
)
from maskvolume.ops import Rendering
from maskvolume.options import option, parse_options, required
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.training import FREE, PRIVATE, Processes, settle_options
from train_mask.rigs import RigDrawing, open_rigs

HOW_TO_GET = (
    "rig training data is sceneNNN.h5 and sceneNNN_pb.npy, as the original's authors give out "
    "(cseweb.ucsd.edu/~viscomp/projects/ICCV21Deep) and as data_tools/compress_rig.py makes of a clip; "
    "--dataset_name synthetic needs none"
)
MASK_WEIGHT = 0.25  # Lin et al., ICCV 2021, section 3.4
SPARSITY_WEIGHT = 0.10  # the same
SHADOW_SHARE = 0.3  # share of synthetic movers; shadows are in the pictures, but not in the mattes
IMAGE_TERMS = {"vgg_only": "vgg_only", "l1": "l1", "mse": "mse"}  # loss types with only an image loss
NEAR_MOVERS = 0.05  # fraction of the picture width; near movers are areas that not every view sees
SLICES = 8  # number of mask planes in the log


@dataclass(frozen=True)
class MaskTrainOptions(StageOptions):
    """Options of stage two."""

    mpi_model: str = required(
        "checkpoint of stage one; its MPI network is kept as it is, unless finetune_mpi is given", marks=(FREE, PRIVATE)
    )
    finetune_mpi: bool = option(False, "train the MPI network too")
    mpi_lr: float = option(
        1e-4, "finetune_mpi: the highest learning rate of the MPI network; its schedule is that of lr", above=0
    )
    init_ckpt: str = option("", "checkpoint of stage two whose mask network to start from", marks=(FREE, PRIVATE))
    dataset_name: str = option(
        "synthetic", "where views come from: synthetic (random worlds), rig, or mixed (both)",
        choices=("synthetic", "rig", "mixed"),
    )  # fmt: skip
    root_dir: str = option("", "training data of rigs (not for synthetic)", marks=(FREE, PRIVATE))
    val_dir: str = option("", "validation data of rigs (not for synthetic)", marks=(FREE, PRIVATE))
    num_cams: int = option(0, "cameras per sample, the first one the target; 0: num_sources and a target")
    scale: tuple[float, float] = option(
        (1.0, 1.0), "rig: factors of enlargement before pictures are cropped", low=MIN_SCALE, ascending=True
    )
    jitter: float = option(
        0.0, "rig: largest change of brightness, contrast, saturation or hue; 0: none", low=0, below=1
    )
    loss_type: str = option(
        "full_loss",
        "full_loss (image, matte and sparsity), no_mask (image and sparsity), image, masked_l1, or the image losses "
        "vgg_only, l1 and mse",
        choices=("full_loss", "no_mask", "image", "masked_l1", *IMAGE_TERMS),
    )
    image_loss: str = option("l1_msssim_grad", "full_loss, no_mask, image: loss on the view", choices=LOSS_NAMES)
    sparsity_weight: float = option(
        SPARSITY_WEIGHT,
        "full_loss, no_mask: weight of the mean of the mask volume; a lower one lets masks cover whole movers",
        low=0,
    )
    moving_weight: float = option(
        0.0,
        "additional weight of moving pixels in image losses; pixels near movers get a third of it",
        low=0,
    )
    temporal_weight: float = option(0.0, "weight of a loss on flicker, from pairs of frames; 0: single frames", low=0)


class MaskTask(StageTask):
    """Renders the target from the blended MPI; the loss is on the picture and on the mask."""

    def __init__(self, options: MaskTrainOptions, device: torch.device) -> None:
        self.options = options
        self.rate_shares = {"mpi_net": options.mpi_lr / options.lr}
        if options.loss_type != "masked_l1":
            name = IMAGE_TERMS.get(options.loss_type, options.image_loss)
            self.image_loss = make_image_loss(name, vgg_weights=options.vgg_weights, device=device)
        self.source = make_source(options, device)

    def loss(self, model: MaskVolumeModel, batch: MovingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss that ``loss_type`` names, and its terms and "psnr" as scalars."""
        if not self.options.finetune_mpi:
            model.mpi_net.eval()
        background = self._background(model, batch)
        frame_mpi = self._frame(model, batch, batch.images, background)
        rendering = frame_mpi.render(batch.target)
        coverage = rendering.opacity.detach()
        loss = self._picture_loss(rendering.color, batch.target_image, coverage, batch.matte)
        scalars = {
            "image_loss": loss.detach(),
            "psnr": weighted_psnr(rendering.color.detach(), batch.target_image, coverage),
        }
        if self.options.loss_type == "full_loss":
            term = mask_loss(self._moving_opacity(frame_mpi, batch), batch.matte)
            loss = loss + MASK_WEIGHT * term
            scalars["mask_loss"] = term.detach()
        if self.options.loss_type in ("full_loss", "no_mask"):
            loss = loss + self.options.sparsity_weight * frame_mpi.mask.mean()
            scalars["mask_mean"] = frame_mpi.mask.detach().mean()
        if self.options.temporal_weight > 0:
            term = self._flicker(model, batch, background, rendering)
            loss = loss + self.options.temporal_weight * term
            scalars["temporal_loss"] = term.detach()
        return loss, scalars

    def evaluate(self, model: MaskVolumeModel, sample: MovingBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return scalars and pictures of a sample.

        The scalars are the mask loss and PSNRs of the blended MPI and of the dynamic MPI alone: total, moving and
        static. The pictures show views, mattes and planes of the mask.
        """
        background = self._background(model, sample)
        frame_mpi = self._frame(model, sample, sample.images, background)
        rendering, dynamic = frame_mpi.render(sample.target), frame_mpi.dynamic.render(sample.target)
        moving_opacity = self._moving_opacity(frame_mpi, sample)
        truth, coverage = sample.target_image, rendering.opacity
        # Pixels near a mover are neither moving nor static.
        static = (F.max_pool2d(sample.matte, 5, stride=1, padding=2) == 0).float()
        scalars = {
            "psnr": weighted_psnr(rendering.color, truth, coverage),
            "psnr_without_mask": weighted_psnr(dynamic.color, truth, dynamic.opacity),
            "psnr_moving": weighted_psnr(rendering.color, truth, sample.matte),
            "psnr_moving_without_mask": weighted_psnr(dynamic.color, truth, sample.matte),
            "psnr_still": weighted_psnr(rendering.color, truth, coverage * static),
            "psnr_still_without_mask": weighted_psnr(dynamic.color, truth, dynamic.opacity * static),
            "mask_loss": mask_loss(moving_opacity, sample.matte),
        }
        backdrop = background.mpi.render(sample.target)
        disparity = disparity_picture(rendering, sample.near)
        pictures = {
            "views": side_by_side(truth[0], rendering.color[0], dynamic.color[0], backdrop.color[0], disparity[0]),
            "mask_and_matte": side_by_side(moving_opacity[0], sample.matte[0]),
            "mask_slices": side_by_side(*mask_slices(frame_mpi.mask[0])),
        }
        return scalars, pictures

    def _picture_loss(self, color: Tensor, truth: Tensor, seen: Tensor, matte: Tensor) -> Tensor:
        reach = round(NEAR_MOVERS * matte.shape[-1])
        neighbourhood = F.max_pool2d(matte, 2 * reach + 1, stride=1, padding=reach)
        weight = seen * (1 + self.options.moving_weight * (2 * matte + neighbourhood) / 3)
        if self.options.loss_type == "masked_l1":
            return masked_l1_loss(color, truth, weight, matte)
        return self.image_loss(color, truth, weight)

    def _flicker(
        self, model: MaskVolumeModel, batch: MovingBatch, background: Background, rendering: Rendering
    ) -> Tensor:
        """Return the loss on a pair of frames that share a background.

        Raises:
            InputError: the batch has single frames.
        """
        if batch.later_images is None or batch.later_target_images is None or batch.later_mattes is None:
            raise InputError("--temporal_weight: the data has only single frames; give scenes of two or more")
        later_rendering = self._frame(model, batch, batch.later_images[:, 0], background).render(batch.target)
        coverage = torch.minimum(rendering.opacity, later_rendering.opacity).detach()
        return temporal_loss(
            (rendering.color, batch.target_image),
            (later_rendering.color, batch.later_target_images[:, 0]),
            coverage,
            (batch.matte, batch.later_mattes[:, 0]),
        )

    def _background(self, model: MaskVolumeModel, batch: MovingBatch) -> Background:
        margin = self.options.margin if model.arch.uses_margin else 0
        camera, depths = mpi_frustum(batch, self.options.num_planes, margin)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.options.finetune_mpi):
            return model.background(batch.backgrounds, batch.sources, camera, depths)

    def _frame(self, model: MaskVolumeModel, batch: MovingBatch, images: Tensor, background: Background) -> FrameMPI:
        camera, depths = background.mpi.camera, background.mpi.depths
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.options.finetune_mpi):
            sweep = model.sweep(images, batch.sources, camera, depths)
            dynamic = model.mpi_from_sweep(sweep, camera, depths)
        mask = model.mask_from_sweeps(sweep, background, dynamic)
        return FrameMPI(mask, dynamic, background.mpi)

    @staticmethod
    def _moving_opacity(frame_mpi: FrameMPI, batch: MovingBatch) -> Tensor:
        """Render the opacity ``[B, 1, H, W]`` of mask * dynamic MPI in the target."""
        masked = frame_mpi.dynamic.rgba * frame_mpi.mask.movedim(-4, -3)
        return replace(frame_mpi.dynamic, rgba=masked).render(batch.target).opacity


def mask_slices(mask: Tensor) -> list[Tensor]:
    """Return up to ``SLICES`` evenly spaced planes ``[1, H, W]`` of a mask volume ``[1, D, H, W]``, farthest first."""
    planes = mask.shape[1]
    return [mask[:, round(i * (planes - 1) / (min(SLICES, planes) - 1))] for i in range(min(SLICES, planes))]


def make_source(options: MaskTrainOptions, device: torch.device) -> SampleSource:
    """Open the source of samples that the options name.

    Raises:
        InputError: recorded data that is missing or damaged.
    """
    instants = 2 if options.temporal_weight > 0 else 1
    worlds = SyntheticSource(
        WorldOptions(size=options.img_hw, moving=True, shadow_share=SHADOW_SHARE, instants=instants).to_train_on(),
        options.seed,
        device,
        options.val_samples,
        options.num_sources,
    )
    drawing = RigDrawing(options.img_hw, options.scale, options.jitter, instants)

    def open_recorded() -> SampleSource:
        return open_rigs(
            options.root_dir,
            options.val_dir,
            drawing,
            seed=options.seed,
            num_sources=options.num_sources,
            val_samples=options.val_samples,
            device=device,
            num_workers=options.num_workers,
        )

    return choose_source(options, worlds, open_recorded)


def settle_mask_options(options: MaskTrainOptions) -> MaskTrainOptions:
    """Resolve and check the options of a run before any work starts.

    Raises:
        InputError: invalid options; the message names the option and the expected value.
    """
    if options.num_cams:
        if options.num_cams < 3:
            raise InputError(f"--num_cams: 3 or more expected, a target and two sources, got {options.num_cams}")
        options = replace(options, num_sources=(options.num_cams - 1, options.num_cams - 1))
    options = settle_options(options)
    check_stage_options(options, HOW_TO_GET)
    return options


def load_mask_network(model: MaskVolumeModel, path: str) -> None:
    """Load the mask network of a checkpoint into the model, in place.

    Raises:
        InputError: not a checkpoint of stage two, or one with another architecture or other plane sweeps.
    """
    start = load_start(path, "mask", model.meta.arch)
    if start.meta.sampling != model.meta.sampling:
        raise InputError(
            f"{path}: was trained on {start.meta.sampling!r} plane sweeps, but --mpi_model on "
            f"{model.meta.sampling!r} ones; give two that agree"
        )
    assert model.mask_net is not None
    assert start.mask_net is not None
    model.mask_net.load_state_dict(start.mask_net.state_dict())


def main() -> None:
    """Read the options, build the model on a trained stage one, and train its mask network."""
    options = settle_mask_options(parse_options(MaskTrainOptions, prog="train.py", description=__doc__ or ""))

    def make_model() -> MaskVolumeModel:
        first = load_start(options.mpi_model, "mpi", options.arch)
        model = MaskVolumeModel(CheckpointMeta("mask", options.arch, first.meta.sampling, options.num_planes))
        model.mpi_net.load_state_dict(first.mpi_net.state_dict())
        model.mpi_net.requires_grad_(options.finetune_mpi)
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
