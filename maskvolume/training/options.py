"""Options that the training of both stages shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from maskvolume.data.draws import BatchPlan
from maskvolume.networks import ARCHITECTURES
from maskvolume.options import option
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.processes import Processes

# Options that a resumed run may change: the others decide what is learned from what.
CHANGEABLE = frozenset(
    (
        *("exp_name", "log_dir", "ckpt_dir", "root_dir", "val_dir", "val_triplets", "vgg_weights", "mpi_model"),
        *("init_ckpt", "resume", "debug", "num_steps", "num_epochs", "lr", "lr_scheduler", "warmup_steps", "decay_at"),
        *("decay_gamma", "poly_exp", "clip_grad", "max_minutes", "device", "num_gpus", "num_workers", "precision"),
        *("compile", "save_every", "val_every", "val_samples", "keep_best"),
    )
)
# Options that a checkpoint does not tell to others: where things lie on the machine that trained it.
PRIVATE = frozenset(
    ("log_dir", "ckpt_dir", "root_dir", "val_dir", "val_triplets", "vgg_weights", "mpi_model", "init_ckpt")
)


@dataclass(frozen=True)
class TrainOptions:
    """Options that both stages share. The text of a field is its --help."""

    exp_name: str = option("default", "name of the run; a folder of log_dir and of ckpt_dir")
    log_dir: str = option("runs/logs", "where TensorBoard logs go")
    ckpt_dir: str = option("runs/checkpoints", "where checkpoints go")
    num_steps: int = option(20000, "optimizer steps in all")
    num_epochs: int = option(0, "passes over a recorded data set, instead of num_steps; 0: num_steps counts")
    batch_size: int = option(1, "samples of one step of one process")
    accumulate: int = option(1, "batches whose gradients are averaged before a step")
    num_gpus: int = option(1, "processes to train with, one a GPU; 0: on the CPU; torchrun does the same")
    num_workers: int = option(2, "processes that read and decode recorded data")
    img_hw: tuple[int, int] = option((144, 192), "height and width of the training pictures")
    num_sources: tuple[int, int] = option((2, 2), "fewest and most source views; the steps take turns")
    num_planes: int = option(32, "planes of the multiplane images")
    margin: int = option(24, "pixels that the MPI's frustum is wider than the reference view, on each side")
    arch: str = option("semiglobal", "architecture of the networks", choices=tuple(ARCHITECTURES))
    optimizer: str = option("adamw", "adam, adamw, sgd or radam", choices=("adam", "adamw", "sgd", "radam"))
    lr: float = option(1e-3, "learning rate at its highest")
    lr_scheduler: str = option(
        "cosine", "how it falls: cosine and poly to 1 %, steplr in steps", choices=("cosine", "steplr", "poly", "none")
    )
    warmup_steps: int = option(200, "steps of linear warm-up")
    decay_at: tuple[float, ...] = option((0.34, 0.68), "steplr: the shares of all steps after which it falls")
    decay_gamma: float = option(0.1, "steplr: what it is multiplied by then")
    poly_exp: float = option(0.9, "poly: exponent of the share of steps that are left")
    weight_decay: float = option(1e-4, "weight decay (not with adam)")
    clip_grad: float = option(1.0, "largest norm of the gradient; 0: no limit")
    ema_decay: float = option(0.998, "decay of the averaged weights that are validated and shipped; 0 for none")
    seed: int = option(0, "of data and initial weights")
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "auto, fp32 or bf16 (autocast)", choices=("auto", "fp32", "bf16"))
    compile: bool = option(False, "compile the networks (torch.compile): slow to start, then faster on a GPU")
    save_every: int = option(200, "steps between checkpoints to resume from")
    val_every: int = option(500, "steps between validations")
    val_samples: int = option(16, "fixed samples that are validated on")
    keep_best: int = option(1, "checkpoints to keep, the best in validation")
    max_minutes: float = option(0.0, "stop (resumably) after so many minutes; 0 for no limit")
    resume: bool = option(True, "go on from the last checkpoint of the same exp_name")
    debug: bool = option(False, "4 steps with a validation, to try the set-up")


Options = TypeVar("Options", bound=TrainOptions)


def check_train_options(options: TrainOptions) -> None:
    """Find the numbers that can't be meant, before anything is made.

    Raises:
        InputError: names the option and what is expected.
    """
    limits: list[tuple[str, float, float, float]] = [
        ("num_steps", options.num_steps, 1, math.inf),
        ("num_epochs", options.num_epochs, 0, math.inf),
        ("batch_size", options.batch_size, 1, math.inf),
        ("accumulate", options.accumulate, 1, math.inf),
        ("num_gpus", options.num_gpus, 0, 1024),
        ("num_workers", options.num_workers, 0, 256),
        ("img_hw", min(options.img_hw), 16, math.inf),
        ("num_planes", options.num_planes, 2, 1024),
        ("margin", options.margin, 0, 4096),
        ("lr", options.lr, 1e-12, 1e3),
        ("warmup_steps", options.warmup_steps, 0, math.inf),
        ("decay_at", min(options.decay_at, default=0), 0, 1),
        ("decay_at", max(options.decay_at, default=0), 0, 1),
        ("decay_gamma", options.decay_gamma, 1e-6, 1),
        ("poly_exp", options.poly_exp, 0, 100),
        ("weight_decay", options.weight_decay, 0, 1e3),
        ("clip_grad", options.clip_grad, 0, math.inf),
        ("ema_decay", options.ema_decay, 0, 0.999999),
        ("seed", options.seed, 0, 2**31),
        ("save_every", options.save_every, 1, math.inf),
        ("val_every", options.val_every, 1, math.inf),
        ("val_samples", options.val_samples, 1, math.inf),
        ("keep_best", options.keep_best, 1, 1000),
        ("max_minutes", options.max_minutes, 0, math.inf),
    ]
    for name, value, low, high in limits:
        if not low <= value <= high:
            wanted = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
            raise InputError(f"--{name}: {wanted} expected, got {value:g}")
    if not options.exp_name or Path(options.exp_name).name != options.exp_name:
        raise InputError(f"--exp_name: a plain name for a folder expected, got {options.exp_name!r}")
    fewest, most = options.num_sources
    limit = ARCHITECTURES[options.arch].max_views or most
    if not 2 <= fewest <= most <= limit:
        wanted = "2 or more, the fewest first," if limit >= most else f"at most {limit} for --arch {options.arch}"
        raise InputError(f"num_sources: {wanted} expected, got {fewest} {most}")


def settle_options(options: Options) -> Options:
    """The options as they count: checked, and made short with ``debug``.

    Raises:
        InputError: see ``check_train_options``.
    """
    check_train_options(options)
    if not options.debug:
        return options
    return replace(
        options, num_steps=4, num_epochs=0, val_every=2, save_every=2, val_samples=1, exp_name="debug", resume=False
    )


def batch_plan(options: TrainOptions, processes: Processes) -> BatchPlan:
    """Which samples this process draws."""
    return BatchPlan(options.batch_size, options.accumulate, processes.rank, processes.world, options.num_sources)
