"""Options of the training loop, independent of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from maskvolume.data.draws import BatchPlan
from maskvolume.options import check_ranges, option
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.processes import Processes

FREE = "free"  # mark of options that a resumed run may change; the others define the model, its data and its loss
PRIVATE = "private"  # mark of options that checkpoints leave out: paths on the machine that trains


@dataclass(frozen=True)
class TrainOptions:
    """Options of the loop; training programs extend them. The text of a field is its --help."""

    exp_name: str = option("default", "name of the run; a folder of log_dir and of ckpt_dir", marks=(FREE,))
    log_dir: str = option("runs/logs", "where TensorBoard logs go", marks=(FREE, PRIVATE))
    ckpt_dir: str = option("runs/checkpoints", "where checkpoints go", marks=(FREE, PRIVATE))
    num_steps: int = option(20000, "total number of optimizer steps", low=1, marks=(FREE,))
    num_epochs: int = option(
        0, "passes over a recorded data set, instead of num_steps; 0: num_steps counts", low=0, marks=(FREE,)
    )
    batch_size: int = option(1, "samples per batch in each process", low=1)
    accumulate: int = option(1, "batches whose gradients are averaged before a step", low=1)
    num_gpus: int = option(
        1, "training processes, one per GPU; 0: on the CPU; torchrun does the same", low=0, high=1024, marks=(FREE,)
    )
    num_workers: int = option(2, "processes that read and decode recorded data", low=0, high=256, marks=(FREE,))
    optimizer: str = option("adamw", "adam, adamw, sgd or radam", choices=("adam", "adamw", "sgd", "radam"))
    lr: float = option(1e-3, "highest learning rate", low=1e-12, high=1e3, marks=(FREE,))
    lr_scheduler: str = option(
        "cosine", "learning rate schedule: cosine and poly fall to 1 %, steplr in steps",
        choices=("cosine", "steplr", "poly", "none"), marks=(FREE,),
    )  # fmt: skip
    warmup_steps: int = option(200, "steps of linear warm-up", low=0, marks=(FREE,))
    decay_at: tuple[float, ...] = option(
        (0.34, 0.68), "steplr: shares of all steps after which the learning rate falls", low=0, high=1, marks=(FREE,)
    )
    decay_gamma: float = option(0.1, "steplr: factor of each fall", low=1e-6, high=1, marks=(FREE,))
    poly_exp: float = option(0.9, "poly: exponent of the share of remaining steps", low=0, high=100, marks=(FREE,))
    weight_decay: float = option(1e-4, "weight decay (not with adam)", low=0, high=1e3)
    clip_grad: float = option(1.0, "largest norm of the gradient; 0: no limit", low=0, marks=(FREE,))
    ema_decay: float = option(
        0.998, "decay of the averaged weights that are validated and shipped; 0 for none", low=0, high=0.999999
    )
    seed: int = option(0, "random seed of data and initial weights", low=0, high=2**31)
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"), marks=(FREE,))
    precision: str = option("auto", "auto, fp32 or bf16 (autocast)", choices=("auto", "fp32", "bf16"), marks=(FREE,))
    compile: bool = option(
        False, "compile the networks (torch.compile): slow to start, then faster on a GPU", marks=(FREE,)
    )
    save_every: int = option(200, "steps between checkpoints to resume from", low=1, marks=(FREE,))
    val_every: int = option(500, "steps between validations", low=1, marks=(FREE,))
    val_samples: int = option(16, "number of fixed validation samples", low=1, marks=(FREE,))
    keep_best: int = option(1, "checkpoints to keep, the best in validation", low=1, high=1000, marks=(FREE,))
    max_minutes: float = option(0.0, "stop (resumably) after this many minutes; 0 for no limit", low=0, marks=(FREE,))
    resume: bool = option(True, "continue from the last checkpoint of the same exp_name", marks=(FREE,))
    debug: bool = option(False, "4 steps with a validation, to try the set-up", marks=(FREE,))


Options = TypeVar("Options", bound=TrainOptions)


def check_train_options(options: TrainOptions) -> None:
    """Reject options out of their ranges before any work starts.

    Raises:
        InputError: an option is out of its range; the message names it, what is expected and its value.
    """
    check_ranges(options)
    if not options.exp_name or Path(options.exp_name).name != options.exp_name:
        raise InputError(f"--exp_name: a plain name for a folder expected, got {options.exp_name!r}")


def settle_options(options: Options) -> Options:
    """Check the options, and replace them by those of a short run if ``debug`` is set.

    Args:
        options: the options of a training program.

    Returns:
        The options to train with.

    Raises:
        InputError: an option is out of its range; the message names it, what is expected and its value.
    """
    check_train_options(options)
    if not options.debug:
        return options
    return replace(
        options, num_steps=4, num_epochs=0, val_every=2, save_every=2, val_samples=1, exp_name="debug", resume=False
    )


def batch_plan(options: TrainOptions, processes: Processes) -> BatchPlan:
    """The plan that assigns samples to the steps of this process."""
    return BatchPlan(options.batch_size, options.accumulate, processes.rank, processes.world)
