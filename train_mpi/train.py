"""Stage one: learn to make multiplane images from posed views.

python train.py --config train_synthetic.txt
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the imports are done an interrupt needs no clean-up

import torch
from torch import Tensor

from maskvolume.data.draws import SampleSource
from maskvolume.data.samples import ViewBatch
from maskvolume.data.synthetic import SyntheticSource, WorldOptions
from maskvolume.geometry.cameras import Camera
from maskvolume.losses import LOSS_NAMES, make_image_loss, weighted_psnr
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.stage_options import MIN_SCALE, StageOptions, check_stage_options
from maskvolume.mpi.stages import (
    StageTask,
    choose_source,
    disparity_picture,
    load_start,
    mpi_frustum,
    new_model,
    run_training,
    side_by_side,
)
from maskvolume.networks import ARCHITECTURES
from maskvolume.options import option, parse_options
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.training import FREE, PRIVATE, Processes, settle_options
from train_mpi.realestate10k import ViewDrawing, open_realestate10k

HOW_TO_GET = (
    "RealEstate10K is made by preprocessing/: download_data.py, extract_frames.py and compress_data.py turn the camera "
    "files of google.github.io/realestate10k into such a folder (docs/training.md); --dataset_name synthetic needs none"
)


@dataclass(frozen=True)
class MPITrainOptions(StageOptions):
    """Options of stage one."""

    dataset_name: str = option(
        "synthetic",
        "synthetic (random worlds), realestate10k, or mixed (both)",
        choices=("synthetic", "realestate10k", "mixed"),
    )
    root_dir: str = option("", "training data that compress_data.py wrote (not for synthetic)", marks=(FREE, PRIVATE))
    val_dir: str = option("", "validation data that compress_data.py wrote (not for synthetic)", marks=(FREE, PRIVATE))
    val_triplets: str = option(
        "", "list of the views to validate on; triplets.txt of val_dir when empty", marks=(FREE, PRIVATE)
    )
    subsequence: int = option(10, "realestate10k: frames that the views of a sample are drawn from")
    stride: tuple[int, int] = option(
        (3, 10), "realestate10k: smallest and largest step between these frames", low=1, ascending=True
    )
    scale: tuple[float, float] = option(
        (1.0, 2.0), "realestate10k: factors of enlargement before pictures are cropped", low=MIN_SCALE, ascending=True
    )
    jitter: float = option(
        0.2, "realestate10k: largest change of brightness, contrast, saturation or hue; 0: none", low=0, below=1
    )
    depth_range: tuple[float, float] = option(
        (1.0, 100.0), "near and far of scenes whose bounds are not known", low=1e-9, ascending=True
    )
    loss_type: str = option("l1_msssim_grad", "loss on the rendered view", choices=LOSS_NAMES)
    depth_weight: float = option(
        0.0,
        "weight of a loss on the planes of the reference view, where samples know its depth (random worlds do)",
        low=0,
    )
    sampling: Literal["auto", "exact", "original"] = option(
        "auto",
        "sampling of the plane sweeps; original: up to half a pixel off and with a colour for missing data, as in the "
        "original architecture; auto: as in init_ckpt, or exact",
    )
    init_ckpt: str = option("", "checkpoint whose MPI network to start from", marks=(FREE, PRIVATE))


class MPITask(StageTask):
    """Renders the target from the MPI of the sources; the loss counts the pixels that the MPI covers."""

    def __init__(self, options: MPITrainOptions, device: torch.device) -> None:
        self.options = options
        self.image_loss = make_image_loss(options.loss_type, vgg_weights=options.vgg_weights, device=device)
        self.source = make_source(options, device)

    def loss(self, model: MaskVolumeModel, batch: ViewBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the scalars "psnr" and, for samples with known depth, "plane_loss".

        The loss is the image loss plus, for samples with known depth, the weighted loss on the planes.
        """
        camera, depths = self._frustum(model, batch)
        depth: Tensor | None = getattr(batch, "source_depth", None)
        if depth is None:
            mpi = model.dynamic(batch.images, batch.sources, camera, depths)
        else:
            mpi, logits = model.dynamic_with_logits(batch.images, batch.sources, camera, depths)
        rendering = mpi.render(batch.target)
        coverage = rendering.opacity.detach()
        loss = self.image_loss(rendering.color, batch.target_image, coverage)
        scalars = {"psnr": weighted_psnr(rendering.color.detach(), batch.target_image, coverage)}
        if depth is not None:
            m, (h, w) = self.options.margin, batch.images.shape[-2:]
            term = plane_loss(logits[..., m : m + h, m : m + w], depth[:, 0], depths)
            loss = loss + self.options.depth_weight * term
            scalars["plane_loss"] = term.detach()
        return loss, scalars

    def evaluate(self, model: MaskVolumeModel, sample: ViewBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return scalars "psnr" and "loss", and picture "views": true view, rendered view and disparity."""
        camera, depths = self._frustum(model, sample)
        rendering = model.dynamic(sample.images, sample.sources, camera, depths).render(sample.target)
        scalars = {
            "psnr": weighted_psnr(rendering.color, sample.target_image, rendering.opacity),
            "loss": self.image_loss(rendering.color, sample.target_image, rendering.opacity),
        }
        disparity = disparity_picture(rendering, sample.near)
        return scalars, {"views": side_by_side(sample.target_image[0], rendering.color[0], disparity[0])}

    def _frustum(self, model: MaskVolumeModel, batch: ViewBatch) -> tuple[Camera, Tensor]:
        margin = self.options.margin if model.arch.uses_margin else 0
        return mpi_frustum(batch, self.options.num_planes, margin)


def plane_loss(
    logits: Tensor,  # [B, D, H, W] of the planes along each ray
    depth: Tensor,  # [B, 1, H, W] true depth
    depths: Tensor,  # [B, D] of the planes, the farthest first
) -> Tensor:
    """Return the mean cross entropy of the distribution over planes, relative to the true depth.

    The true depth is a distribution over the two nearest planes, linear in disparity. The planes must be uniform in
    disparity.
    """
    disparity = 1 / depths[:, :, None, None]
    farthest, nearest, last = disparity[:, :1], disparity[:, -1:], depths.shape[1] - 1
    place = ((1 / depth - farthest) / (nearest - farthest)).clamp(0, 1) * last
    index = torch.arange(last + 1, device=logits.device)[:, None, None]
    distribution = (1 - (place - index).abs()).clamp_min(0)
    return -(distribution * logits.log_softmax(dim=1)).sum(dim=1).mean()


def make_source(options: MPITrainOptions, device: torch.device) -> SampleSource:
    """Open the source of samples that the options name.

    Raises:
        InputError: recorded data that is missing or damaged.
    """
    with_depth = options.depth_weight > 0
    worlds = SyntheticSource(
        WorldOptions(size=options.img_hw, source_depth=with_depth).to_train_on(),
        options.seed,
        device,
        options.val_samples,
        options.num_sources,
    )
    drawing = ViewDrawing(
        options.img_hw, options.scale, options.subsequence, options.stride, options.jitter, options.depth_range
    )

    def open_recorded() -> SampleSource:
        return open_realestate10k(
            options.root_dir,
            options.val_dir,
            options.val_triplets,
            drawing,
            seed=options.seed,
            num_sources=options.num_sources,
            max_views=ARCHITECTURES[options.arch].max_views,
            val_samples=options.val_samples,
            device=device,
            num_workers=options.num_workers,
        )

    return choose_source(options, worlds, open_recorded)


def check_options(options: MPITrainOptions) -> None:
    """Reject inconsistent options before any work starts.

    Raises:
        InputError: inconsistent options; the message names the option and the expected value.
    """
    check_stage_options(options, HOW_TO_GET)
    near, far = options.depth_range
    if near == far:
        raise InputError(f"--depth_range: two different depths expected, got {near:g} {far:g}")
    if options.depth_weight and not ARCHITECTURES[options.arch].gives_logits:
        raise InputError(f"--depth_weight: not with --arch {options.arch}, which predicts no distribution over planes")
    if options.sampling == "original" and options.arch != "original":
        raise InputError(f"--sampling: original is only for --arch original, not for {options.arch}")
    if options.subsequence <= options.num_sources[1]:
        raise InputError(f"--subsequence: more than the {options.num_sources[1]} sources expected")


def main() -> None:
    """Read the options, build the model and train it."""
    options = settle_options(parse_options(MPITrainOptions, prog="train.py", description=__doc__ or ""))
    check_options(options)

    def make_model() -> MaskVolumeModel:
        model = new_model(options)
        if options.sampling != "auto":
            model.meta = replace(model.meta, sampling=options.sampling)
        if options.init_ckpt:
            first = load_start(options.init_ckpt, "mpi", options.arch)
            model.mpi_net.load_state_dict(first.mpi_net.state_dict())
            if options.sampling not in ("auto", first.meta.sampling):
                raise InputError(
                    f"{options.init_ckpt}: was trained on {first.meta.sampling!r} plane sweeps; give --sampling "
                    f"{first.meta.sampling}"
                )
            model.meta = replace(model.meta, sampling=first.meta.sampling)
        return model

    def make_task(device: torch.device, _: Processes) -> MPITask:
        return MPITask(options, device)

    path = run_training(options, make_model, make_task)
    if path is not None:
        print(f"written: {path}")


if __name__ == "__main__":
    run_program(main)
