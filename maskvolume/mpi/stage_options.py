"""Training options shared by both stages, besides those of the training loop: multiplane images and data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maskvolume.networks import ARCHITECTURES
from maskvolume.options import option
from maskvolume.runtime.errors import InputError
from maskvolume.training import FREE, PRIVATE, TrainOptions

MIN_SCALE = 0.01  # of recorded pictures; a smaller factor leaves nothing of them


@dataclass(frozen=True)
class StageOptions(TrainOptions):
    """Options of both stages. ``dataset_name`` is synthetic, mixed or the name of a recorded data set."""

    img_hw: tuple[int, int] = option((144, 192), "height and width of the training pictures", low=16)
    num_sources: tuple[int, int] = option(
        (2, 2), "fewest and most source views; the number alternates between steps", low=2, ascending=True
    )
    num_planes: int = option(32, "planes of the multiplane images", low=2, high=1024)
    margin: int = option(
        24, "pixels that the MPI's frustum is wider than the reference view, on each side", low=0, high=4096
    )
    arch: str = option("semiglobal", "architecture of the networks", choices=tuple(ARCHITECTURES))
    dataset_name: str = option("synthetic", "where views come from: synthetic (random worlds)")
    root_dir: str = option("", "training data (not for synthetic)", marks=(FREE, PRIVATE))
    val_dir: str = option("", "validation data (not for synthetic)", marks=(FREE, PRIVATE))
    synthetic_share: float = option(0.5, "mixed: share of the steps that learn from random worlds", above=0, below=1)
    scale: tuple[float, float] = option(
        (1.0, 1.0), "factors that recorded pictures are enlarged by, then cropped", low=MIN_SCALE, ascending=True
    )
    jitter: float = option(
        0.0, "largest change of brightness, contrast, saturation or hue of recorded pictures; 0: none", low=0, below=1
    )
    vgg_weights: str = option(
        "", "vgg losses: VGG-19-BN state dict; torchvision's cache or download when empty", marks=(FREE, PRIVATE)
    )
    init_ckpt: str = option("", "checkpoint whose networks to start from", marks=(FREE, PRIVATE))


def check_stage_options(options: StageOptions, how_to_get: str) -> None:
    """Reject conflicting options before any work starts.

    Args:
        options: the options of either stage.
        how_to_get: how to obtain the recorded data, for the error message.

    Raises:
        InputError: there are more views than the architecture takes, or a data folder is missing.
    """
    fewest, most = options.num_sources
    limit = ARCHITECTURES[options.arch].max_views
    if limit is not None and most > limit:
        raise InputError(f"--num_sources: at most {limit} for --arch {options.arch} expected, got {fewest} {most}")
    if options.dataset_name != "synthetic":
        for name, folder in (("root_dir", options.root_dir), ("val_dir", options.val_dir)):
            if not Path(folder or " ").is_dir():
                raise InputError(f"{name} {folder or '(not given)'}: no such folder; {how_to_get}")
