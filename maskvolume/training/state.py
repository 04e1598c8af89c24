"""What a training run has reached: saved, loaded, and the models that it hands out."""

from __future__ import annotations

import io
import random
import subprocess
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskvolume.checkpoints import save_checkpoint
from maskvolume.errors import InputError
from maskvolume.io.files import atomic_path, link_or_copy
from maskvolume.model import MaskVolumeModel
from maskvolume.training.distributed import Processes
from maskvolume.training.options import CHANGEABLE, PRIVATE, TrainOptions
from maskvolume.training.schedule import Averaged

LAST_NAME, BEST_NAME, MODEL_NAME = "last.pt", "best.safetensors", "model.safetensors"


@dataclass
class RunState:
    """Everything that a step changes, and the folder that it is kept in."""

    folder: Path
    model: MaskVolumeModel
    optimizer: torch.optim.Optimizer
    averaged: Averaged
    options: TrainOptions
    processes: Processes
    samples_per_step: int

    def __post_init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.best: list[tuple[float, int]] = []  # PSNR in validation and step, the best first
        fixed = {key: value for key, value in vars(self.options).items() if key not in CHANGEABLE}
        self.setup = {key: list(value) if isinstance(value, tuple) else value for key, value in fixed.items()}

    def save(self, step: int) -> None:
        """Write last.pt; all processes must call this together."""
        states = self.processes.gather(_random_state())
        if not self.processes.is_first:
            return
        content = {
            "step": step,
            "setup": self.setup,
            "samples_per_step": self.samples_per_step,
            "best": self.best,
            "metrics": self.metrics,
            "model": self.model.state_dict(),
            "averaged": self.averaged.values,
            "optimizer": self.optimizer.state_dict(),
            "random": states,
        }
        _save_tensors(self.folder / LAST_NAME, content)

    def load(self) -> int:
        """Restore what the first process finds in last.pt; returns the number of steps done, 0 where there is none."""
        path = self.folder / LAST_NAME
        content = None
        if self.processes.is_first:
            for leftover in self.folder.glob(".last.*.pt"):  # of a process that was killed while it wrote
                with suppress(OSError):
                    leftover.unlink()
            content = self._read(path) if path.exists() else None
        content = self.processes.from_first(content)
        if content is None:
            return 0
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            for name, value in content["averaged"].items():
                self.averaged.values[name].copy_(value)
            self.best = [(float(psnr), int(step)) for psnr, step in content["best"]]
            self.metrics = content["metrics"]
            if self.processes.rank < len(content["random"]):
                _restore_random_state(content["random"][self.processes.rank])
            if content["samples_per_step"] != self.samples_per_step and self.processes.is_first:
                before = content["samples_per_step"]
                print(f"{path}: written at {before} samples a step, goes on at {self.samples_per_step}")
            return int(content["step"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not a whole state ({type(error).__name__}); remove it to start anew") from None

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
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
        return content

    def validated(self, metrics: dict[str, float], step: int) -> None:
        """Note the result of a validation; the weights in the model are kept where they are among the best.

        best.safetensors holds the best of all; with ``keep_best`` above 1 the best ones lie in
        best_stepNNNNNN.safetensors as well.
        """
        self.metrics = metrics
        ranked = sorted([*self.best, (metrics["psnr"], step)], key=lambda entry: -entry[0])
        dropped, self.best = ranked[self.options.keep_best :], ranked[: self.options.keep_best]
        if not self.processes.is_first or (metrics["psnr"], step) not in self.best:
            return
        several = self.options.keep_best > 1
        path = self.folder / (_best_name(step) if several else BEST_NAME)
        save_checkpoint(path, self.described(step))
        if several:
            for _, old in dropped:
                (self.folder / _best_name(old)).unlink(missing_ok=True)
            link_or_copy(self.folder / _best_name(self.best[0][1]), self.folder / BEST_NAME)

    def write_model(self, step: int) -> Path:
        """Write model.safetensors of the weights in the model; returns its path."""
        path = self.folder / MODEL_NAME
        if self.processes.is_first:
            save_checkpoint(path, self.described(step))
        return path

    def described(self, step: int) -> MaskVolumeModel:
        """The model with what its checkpoint is to say of it."""
        info = {
            "steps": step,
            "metrics": {name: round(value, 4) for name, value in self.metrics.items()},
            "samples_per_step": self.samples_per_step,
            "options": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in vars(self.options).items()
                if key not in PRIVATE
            },
            "commit": current_commit(),
        }
        self.model.meta = replace(self.model.meta, info=info)
        return self.model

    def save_broken_batch(self, step: int, batches: list[Any], indices: list[tuple[int, ...]], loss: float) -> Path:
        """Write the batches of a step whose loss or gradient is not finite, with the weights that met them."""
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


def _best_name(step: int) -> str:
    return f"best_step{step:06d}.safetensors"


def _save_tensors(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        buffer = io.BytesIO()  # a full disk is then an error of the system that names the file
        torch.save(content, buffer)
        temporary.write_bytes(buffer.getbuffer())


def _random_state() -> dict[str, Any]:
    """The state of all generators that code of a step may draw from, as plain values and tensors."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 what libraries draw from
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
