"""The state of a training run: saved, loaded, and the checkpoints that it ships."""

from __future__ import annotations

import io
import math
import random
import subprocess
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskvolume.io.files import atomic_path, link_or_copy
from maskvolume.options import marked
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.processes import Processes
from maskvolume.training.options import FREE, PRIVATE, TrainOptions
from maskvolume.training.schedule import Averaged
from maskvolume.training.task import Task

LAST_NAME = "last.pt"
BEST_STEM, MODEL_STEM = "best", "model"  # names of shipped checkpoints, with the task's suffix
FORMER_NAME = "former"  # folder for the files of an earlier run of the same name that is not resumed


@dataclass
class RunState:
    """Everything that a step changes, and the folder that it is saved in."""

    folder: Path
    task: Task[Any]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: Averaged
    options: TrainOptions
    processes: Processes
    samples_per_step: int

    def __post_init__(self) -> None:
        self.first_step, self.first_sample = 0, 0  # at the start of the program
        self.validated_at = 0  # the step of the last validation
        self.metrics: dict[str, float] = {}
        self.best: list[tuple[float, int]] = []  # PSNR in validation and step, the best first
        free = marked(self.options, FREE)
        fixed = {key: value for key, value in vars(self.options).items() if key not in free}
        self.setup = {key: list(value) if isinstance(value, tuple) else value for key, value in fixed.items()}

    def save(self, step: int) -> None:
        """Write last.pt; all processes must call this together."""
        states = self.processes.gather(_random_state())
        content = {
            "step": step,
            "samples": self.first_sample + (step - self.first_step) * self.samples_per_step,
            "validated_at": self.validated_at,
            "setup": self.setup,
            "samples_per_step": self.samples_per_step,
            "best": self.best,
            "metrics": self.metrics,
            "model": self.model.state_dict(),
            "averaged": self.averaged.values,
            "optimizer": self.optimizer.state_dict(),
            "random": states,
        }
        self.processes.first_does(lambda: _save_tensors(self.folder / LAST_NAME, content))

    def load(self) -> int:
        """Restore what the first process finds in last.pt; returns the number of steps done, 0 where there is none."""
        path = self.folder / LAST_NAME

        def read() -> dict[str, Any] | None:
            suffix = self.task.suffix
            # Files of a process that was killed while it wrote.
            for pattern in (".last.*.pt", f".{BEST_STEM}*{suffix}", f".{MODEL_STEM}.*{suffix}"):
                for leftover in self.folder.glob(pattern):
                    with suppress(OSError):
                        leftover.unlink()
            return self._read(path) if path.exists() else None

        content = self.processes.first_does(read)
        if content is None:
            return 0
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            for name, value in content["averaged"].items():
                self.averaged.values[name].copy_(value)
            self.best = [(float(psnr), int(step)) for psnr, step in content["best"] if math.isfinite(psnr)]
            self.metrics = content["metrics"]
            if self.processes.rank < len(content["random"]):
                _restore_random_state(content["random"][self.processes.rank])
            if content["samples_per_step"] != self.samples_per_step and self.processes.is_first:
                before = content["samples_per_step"]
                print(f"{path}: written at {before} samples per step, continues at {self.samples_per_step}")
            self.first_step = int(content["step"])
            self.first_sample = int(content.get("samples", self.first_step * content["samples_per_step"]))
            self.validated_at = int(content.get("validated_at", self.first_step))
            return self.first_step
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: not a complete state ({type(error).__name__}); remove it to start again"
            ) from None

    def set_aside(self) -> None:
        """Move the files of an earlier run of this name into a folder of its own, so that none of them is used."""

        def move() -> None:
            patterns = (LAST_NAME, f"{BEST_STEM}*{self.task.suffix}", f"{MODEL_STEM}{self.task.suffix}")
            former = [path for pattern in patterns for path in self.folder.glob(pattern)]
            for path in former:
                target = self.folder / FORMER_NAME
                target.mkdir(exist_ok=True)
                path.replace(target / path.name)

        self.processes.first_does(move)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            setup = dict(content["setup"])
        except Exception as error:
            raise InputError(f"{path}: can't be read ({type(error).__name__}); remove it to start again") from None
        if setup != self.setup:
            pairs = [(key, setup.get(key), value) for key, value in self.setup.items()]
            changed = ", ".join(f"{key} {old} (now {new})" for key, old, new in pairs if old != new)
            changed = changed or "options that this version does not know"
            raise InputError(
                f"{path}: comes from a run with other options: {changed}; choose another --exp_name or --no-resume"
            )
        return content

    def validated(self, metrics: dict[str, float], step: int) -> None:
        """Note the result of a validation; the weights in the model are kept where they are among the best.

        "best" is the best of all; with ``keep_best`` above 1 the best ones are in "best_stepNNNNNN" as well. All with
        the task's suffix.
        """
        self.metrics, self.validated_at = metrics, step
        entry = (metrics["psnr"], step)
        if not math.isfinite(entry[0]):
            return
        ranked = sorted([*(other for other in self.best if other[1] != step), entry], key=lambda other: -other[0])
        dropped, self.best = ranked[self.options.keep_best :], ranked[: self.options.keep_best]

        def write() -> None:
            for _, old in dropped:
                self._best_path(old).unlink(missing_ok=True)
            if entry not in self.best:
                return
            several = self.options.keep_best > 1
            best = self.folder / f"{BEST_STEM}{self.task.suffix}"
            path = self._best_path(step) if several else best
            self.task.save(path, self.model, self._info(step))
            if several and self.best[0] == entry:
                link_or_copy(path, best)

        self.processes.first_does(write)

    def write_model(self, step: int) -> Path:
        """Write the checkpoint of the weights in the model; returns its path."""
        path = self.folder / f"{MODEL_STEM}{self.task.suffix}"
        self.processes.first_does(lambda: self.task.save(path, self.model, self._info(step)))
        return path

    def _best_path(self, step: int) -> Path:
        return self.folder / f"{BEST_STEM}_step{step:06d}{self.task.suffix}"

    def _info(self, step: int) -> dict[str, Any]:
        """The description of the run that its checkpoints carry."""
        private = marked(self.options, PRIVATE)
        return {
            "steps": step,
            "metrics": {name: round(value, 4) for name, value in self.metrics.items()},
            "samples_per_step": self.samples_per_step,
            "options": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in vars(self.options).items()
                if key not in private
            },
            "commit": current_commit(),
        }

    def save_broken_batch(self, step: int, batches: list[Any], indices: list[tuple[int, ...]], loss: float) -> Path:
        """Write the batches of a step whose loss or gradient is not finite, with the weights before the step."""
        path = self.folder / f"not_finite_step{step:06d}_rank{self.processes.rank}.pt"
        content = {
            "step": step,
            "loss": loss,
            "indices": indices,
            "batches": [_plain(batch) for batch in batches],
            "model": self.model.state_dict(),
        }
        _save_tensors(path, content)
        return path


def current_commit() -> str:
    """The commit of the checkout that runs, "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _save_tensors(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        buffer = io.BytesIO()  # so that a full disk is an operating system's error that names the file
        torch.save(content, buffer)
        temporary.write_bytes(buffer.getbuffer())


def _random_state() -> dict[str, Any]:
    """The state of all random generators that a step may use, as plain values and tensors."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 libraries use it
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _plain(value: Any) -> Any:
    """Tensors on the CPU, dataclasses as dictionaries: what ``torch.load`` reads with ``weights_only``."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
