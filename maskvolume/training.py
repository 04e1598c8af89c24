"""The training loop that both stages use: optimizer, schedule, precision, logging, checkpoints, resume.

A stage brings a ``Task``: where samples come from, what the loss is, what is validated. Samples are a pure function
of (seed, step), so a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import io
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from maskvolume.checkpoints import save_checkpoint
from maskvolume.errors import InputError
from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.model import MaskVolumeModel
from maskvolume.options import option, save_options

GRADIENT_CLIP = 1.0
# Options that a resumed run may change: the others decide what is learned from what.
CHANGEABLE = frozenset(
    (
        *("exp_name", "log_dir", "ckpt_dir", "root_dir", "val_dir", "resume", "debug"),
        *("num_steps", "lr", "lr_scheduler", "warmup_steps", "max_minutes"),
        *(
            "device",
            "num_gpus",
            "num_epochs",
            "mpi_model",
            "init_ckpt",
            "precision",
            "save_every",
            "val_every",
            "val_samples",
        ),
    )
)
# Options that a checkpoint does not tell to others: where things lie on the machine that trained it.
PRIVATE = frozenset(("log_dir", "ckpt_dir", "root_dir", "val_dir", "mpi_model", "init_ckpt"))
LAST_NAME, BEST_NAME, MODEL_NAME = "last.pt", "best.safetensors", "model.safetensors"


@dataclass(frozen=True)
class TrainOptions:
    """Options that both stages share. The text of a field is its --help."""

    exp_name: str = option("default", "name of the run; a folder of log_dir and of ckpt_dir")
    log_dir: str = option("runs/logs", "where TensorBoard logs go")
    ckpt_dir: str = option("runs/checkpoints", "where checkpoints go")
    num_steps: int = option(20000, "optimizer steps in all")
    batch_size: int = option(1, "samples a step")
    num_epochs: int = option(0, "the original's option; made worlds have no epochs: num_steps takes its place")
    num_gpus: int = option(1, "accepted as the original has it: 1, or 0 for the CPU; more can't be used yet")
    img_hw: tuple[int, int] = option((144, 192), "height and width of the training pictures")
    num_sources: tuple[int, int] = option((2, 2), "fewest and most source views; the steps take turns")
    num_planes: int = option(32, "planes of the multiplane images")
    margin: int = option(24, "pixels that the MPI's frustum is wider than the reference view, on each side")
    arch: str = option("matching", "architecture of the networks", choices=("matching", "original"))
    optimizer: str = option("adamw", "adam, adamw or sgd", choices=("adam", "adamw", "sgd"))
    lr: float = option(1e-3, "learning rate at its highest")
    lr_scheduler: str = option("cosine", "how it falls to 1 % of that", choices=("cosine", "steplr", "none"))
    warmup_steps: int = option(200, "steps of linear warm-up")
    weight_decay: float = option(1e-4, "weight decay (adamw and sgd)")
    ema_decay: float = option(0.998, "decay of the averaged weights that are validated and shipped; 0 for none")
    seed: int = option(0, "of data and initial weights")
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "auto, fp32 or bf16 (autocast)", choices=("auto", "fp32", "bf16"))
    save_every: int = option(200, "steps between checkpoints to resume from")
    val_every: int = option(500, "steps between validations")
    val_samples: int = option(16, "fixed samples that are validated on")
    max_minutes: float = option(0.0, "stop (resumably) after so many minutes; 0 for no limit")
    resume: bool = option(True, "go on from the last checkpoint of the same exp_name")
    debug: bool = option(False, "4 steps with a validation, to try the set-up")


class Task(Protocol):
    """What a stage brings to the loop."""

    def sample(self, step: int) -> Any:
        """The batch of a step: the same for the same seed and step."""
        ...

    def loss(self, model: MaskVolumeModel, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and named scalars to log, "psnr" among them."""
        ...

    def validate(self, model: MaskVolumeModel) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Named scalars over the fixed samples ("psnr" among them) and pictures [3, H, W] of some of them."""
        ...


def learning_rate(options: TrainOptions, step: int) -> float:
    """The learning rate of a step: linear warm-up, then the schedule over the rest of the steps."""
    warm = min(1.0, (step + 1) / max(options.warmup_steps, 1))
    progress = min(step / max(options.num_steps, 1), 1.0)
    if options.lr_scheduler == "cosine":
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    elif options.lr_scheduler == "steplr":
        factor = 0.1 ** (int(progress * 100) // 34)
    else:
        factor = 1.0
    return options.lr * warm * factor


def make_optimizer(options: TrainOptions, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the parameters that require a gradient, and no others."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=options.lr)
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=0.9, weight_decay=options.weight_decay)
    return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)


class Averaged:
    """Exponential moving average of the trained weights, with a start that forgets the initial ones."""

    def __init__(self, model: MaskVolumeModel, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def update(self, model: MaskVolumeModel, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(value, 1 - decay)

    @contextmanager
    def swapped_in(self, model: MaskVolumeModel) -> Iterator[None]:
        """The averaged weights in the model, in eval mode, for the length of the context."""
        kept = {name: value.detach().clone() for name, value in model.named_parameters() if name in self.values}
        self._assign(model, self.values)
        model.eval()
        try:
            yield
        finally:
            self._assign(model, kept)
            model.train()

    @staticmethod
    @torch.no_grad()
    def _assign(model: MaskVolumeModel, values: dict[str, Tensor]) -> None:
        for name, value in model.named_parameters():
            if name in values:
                value.copy_(values[name])


class _StopFlag:
    """SIGINT and SIGTERM ask for a stop at the end of the step, so that no state is half updated."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _StopFlag:
        self._previous = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True


def check_train_options(options: TrainOptions) -> None:
    """Find the numbers that can't be meant, before anything is made.

    Raises:
        InputError: names the option and what is expected.
    """
    limits: list[tuple[str, float, float, float]] = [
        ("num_steps", options.num_steps, 1, math.inf),
        ("batch_size", options.batch_size, 1, math.inf),
        ("img_hw", min(options.img_hw), 16, math.inf),
        ("num_planes", options.num_planes, 2, 1024),
        ("margin", options.margin, 0, 4096),
        ("lr", options.lr, 1e-12, 1e3),
        ("warmup_steps", options.warmup_steps, 0, math.inf),
        ("weight_decay", options.weight_decay, 0, 1e3),
        ("ema_decay", options.ema_decay, 0, 0.999999),
        ("seed", options.seed, 0, 2**31),
        ("save_every", options.save_every, 1, math.inf),
        ("val_every", options.val_every, 1, math.inf),
        ("val_samples", options.val_samples, 1, math.inf),
        ("max_minutes", options.max_minutes, 0, math.inf),
        ("num_gpus", options.num_gpus, 0, 1),
        ("num_epochs", options.num_epochs, 0, 0),
    ]
    for name, value, low, high in limits:
        if not low <= value <= high:
            wanted = (
                "0 (num_steps takes its place)"
                if high == 0
                else f"{low:g} to {high:g}"
                if high < math.inf
                else f"{low:g} or more"
            )
            raise InputError(f"--{name}: {wanted} expected, got {value:g}")


def train(task: Task, model: MaskVolumeModel, options: TrainOptions) -> Path:
    """Train until ``num_steps``, a signal, or ``max_minutes``; returns the path of the written model.

    Writes into ``ckpt_dir/exp_name``: options.json, last.pt (to resume from), best.safetensors (by validation PSNR)
    and, at the end, model.safetensors, both with the averaged weights.

    Raises:
        InputError: the loss is not finite, or last.pt belongs to another set-up.
        KeyboardInterrupt: stopped by a signal, after last.pt has been written.
    """
    check_train_options(options)
    if options.debug:
        options = replace(
            options, num_steps=4, val_every=2, save_every=2, val_samples=1, exp_name="debug", resume=False
        )
    folder = Path(options.ckpt_dir) / options.exp_name
    require_writable_folder(folder)
    optimizer = make_optimizer(options, model)
    averaged = Averaged(model, options.ema_decay)
    state = _Progress(folder, model, optimizer, averaged, options)
    step = state.load() if options.resume else 0
    save_options(options, folder / "options.json")
    started = time.monotonic()
    log_folder = Path(options.log_dir) / options.exp_name
    require_writable_folder(log_folder)
    bar = tqdm(total=options.num_steps, initial=step, desc=options.exp_name, dynamic_ncols=True, file=sys.stdout)
    with SummaryWriter(str(log_folder), purge_step=step or None) as writer, bar, _StopFlag() as stop:
        model.train()
        while step < options.num_steps:
            scalars = _train_step(task, model, optimizer, options, step)
            averaged.update(model, step)
            step += 1
            bar.update()
            if step % 10 == 0:
                bar.set_postfix({name: f"{value:.3f}" for name, value in scalars.items() if name in ("loss", "psnr")})
                for name, value in scalars.items():
                    writer.add_scalar(f"train/{name}", value, step)
                writer.add_scalar("train/lr", learning_rate(options, step), step)
            if step % options.val_every == 0 or step == options.num_steps:
                state.validate(task, writer, step)
            overtime = options.max_minutes > 0 and time.monotonic() - started > 60 * options.max_minutes
            if step % options.save_every == 0 or step == options.num_steps or stop.asked or overtime:
                state.save(step)
            if stop.asked:
                raise KeyboardInterrupt
            if overtime:
                bar.write(f"stopped after {options.max_minutes:g} minutes at step {step}; the same command goes on")
                break
    with averaged.swapped_in(model):
        save_checkpoint(folder / MODEL_NAME, state.described(step))
    return folder / MODEL_NAME


def _train_step(
    task: Task, model: MaskVolumeModel, optimizer: torch.optim.Optimizer, options: TrainOptions, step: int
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(options, step)
    batch = task.sample(step)
    loss, scalars = task.loss(model, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
    if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(norm)):
        raise InputError(
            f"{options.exp_name}: the loss or its gradient is not finite at step {step}; lower --lr or take "
            "--precision fp32, and run again (it goes on from the last checkpoint)"
        )
    optimizer.step()
    named = {"loss": loss.detach(), "gradient_norm": norm, **scalars}
    return {name: float(value) for name, value in named.items()}


class _Progress:
    """What a run has reached: saved, loaded, validated."""

    def __init__(
        self,
        folder: Path,
        model: MaskVolumeModel,
        optimizer: torch.optim.Optimizer,
        averaged: Averaged,
        options: TrainOptions,
    ) -> None:
        self.folder, self.model, self.optimizer = folder, model, optimizer
        self.averaged, self.options = averaged, options
        self.best = float("-inf")
        self.metrics: dict[str, float] = {}
        fixed = {key: value for key, value in vars(options).items() if key not in CHANGEABLE}
        self.setup = {key: list(value) if isinstance(value, tuple) else value for key, value in fixed.items()}

    def save(self, step: int) -> None:
        content = {
            "step": step,
            "setup": self.setup,
            "best": self.best,
            "metrics": self.metrics,
            "model": self.model.state_dict(),
            "averaged": self.averaged.values,
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(self.folder / LAST_NAME) as temporary:
            buffer = io.BytesIO()  # a full disk is then an error of the system that names the file
            torch.save(content, buffer)
            temporary.write_bytes(buffer.getbuffer())

    def load(self) -> int:
        """Restore the last saved state; returns the number of steps done, 0 where there is none."""
        path = self.folder / LAST_NAME
        if not path.exists():
            return 0
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            setup = dict(content["setup"])
        except Exception as error:
            raise InputError(f"{path}: can't be read ({type(error).__name__}); remove it to start anew") from None
        if setup != self.setup:
            pairs = [(key, setup.get(key), value) for key, value in self.setup.items()]
            changed = ", ".join(f"{key} {old} (now {new})" for key, old, new in pairs if old != new)
            changed = changed or "options that this version does not know"
            raise InputError(
                f"{path}: comes from a run with other options: {changed}; choose another --exp_name or --no-resume"
            )
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            for name, value in content["averaged"].items():
                self.averaged.values[name].copy_(value)
            self.best, self.metrics = content["best"], content["metrics"]
            return int(content["step"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not a whole state ({type(error).__name__}); remove it to start anew") from None

    def validate(self, task: Task, writer: SummaryWriter, step: int) -> None:
        with self.averaged.swapped_in(self.model):
            with torch.no_grad():
                scalars, pictures = task.validate(self.model)
            for name, value in scalars.items():
                writer.add_scalar(f"val/{name}", value, step)
            for name, picture in pictures.items():
                writer.add_image(f"val/{name}", picture.clamp(0, 1), step)
            tqdm.write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scalars.items()))
            self.metrics = scalars
            if scalars["psnr"] > self.best:
                self.best = scalars["psnr"]
                save_checkpoint(self.folder / BEST_NAME, self.described(step))

    def described(self, step: int) -> MaskVolumeModel:
        """The model with what its checkpoint is to say of it."""
        info = {
            "steps": step,
            "metrics": {name: round(value, 4) for name, value in self.metrics.items()},
            "options": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in vars(self.options).items()
                if key not in PRIVATE
            },
            "commit": current_commit(),
        }
        self.model.meta = replace(self.model.meta, info=info)
        return self.model


def current_commit() -> str:
    """The commit of the checkout that runs, "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
