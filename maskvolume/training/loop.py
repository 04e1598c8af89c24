"""The loop itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from maskvolume.errors import InputError
from maskvolume.io.files import require_writable_folder
from maskvolume.model import MaskVolumeModel
from maskvolume.options import save_options
from maskvolume.samples import Draw, SampleSource
from maskvolume.training.distributed import Processes, StopFlag
from maskvolume.training.log import TrainLog
from maskvolume.training.options import TrainOptions, batch_plan, check_train_options
from maskvolume.training.schedule import Averaged, learning_rate, make_optimizer
from maskvolume.training.state import RunState

LOGGED_SAMPLES = 3  # fixed samples whose pictures go into the log


class Task(Protocol):
    """What a stage brings to the loop."""

    @property
    def source(self) -> SampleSource:
        """Where batches and validation samples come from."""
        ...

    def loss(self, model: MaskVolumeModel, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, a mean over the samples, and named scalars to log, "psnr" among them."""
        ...

    def evaluate(self, model: MaskVolumeModel, sample: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Named scalars of a validation sample, "psnr" among them, and named pictures ``[3, H, W]`` in 0..1."""
        ...


class _LossOf(nn.Module):
    """The loss as a module's forward pass: what averages gradients over processes needs that form."""

    def __init__(self, task: Task, model: MaskVolumeModel) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.loss(self.model, batch)


def train(task: Task, model: MaskVolumeModel, options: TrainOptions, processes: Processes | None = None) -> Path:
    """Train until ``num_steps``, a signal, or ``max_minutes``; returns the path of the written model.

    Writes into ``ckpt_dir/exp_name``: options.json, last.pt (to resume from), best.safetensors (by validation PSNR)
    and, at the end, model.safetensors, the last two with the averaged weights. All processes must call this together;
    the first one writes.

    Raises:
        InputError: the loss is not finite, or last.pt belongs to another set-up.
        KeyboardInterrupt: stopped by a signal, after last.pt has been written.
    """
    processes = processes or Processes()
    check_train_options(options)
    plan = batch_plan(options, processes)
    if options.num_epochs:
        options = replace(options, num_steps=_steps_of_epochs(options.num_epochs, task, plan.samples_per_step))
    folder = Path(options.ckpt_dir) / options.exp_name
    if processes.is_first:
        require_writable_folder(folder)
    model.to(memory_format=torch.channels_last_3d)
    optimizer = make_optimizer(options, model)
    averaged = Averaged(model, options.ema_decay)
    state = RunState(folder, model, optimizer, averaged, options, processes, plan.samples_per_step)
    step = state.load() if options.resume else 0
    if processes.is_first:
        save_options(options, folder / "options.json")
    if options.compile:
        _compile(model)
    loss_of: nn.Module = _LossOf(task, model)
    if processes.world > 1:
        loss_of = DistributedDataParallel(loss_of, broadcast_buffers=False)
    started = time.monotonic()
    with TrainLog(options, processes, step, plan.samples_per_step) as log, StopFlag() as stop:
        model.train()
        draws = plan.draws(step)
        stepper = _Stepper(loss_of, optimizer, state, log, zip(draws, task.source.batches(draws), strict=False))
        while step < options.num_steps:
            scalars, rate = stepper.step(step), learning_rate(options, step)
            averaged.update(model, step)
            step += 1
            log.step(step, scalars, rate)
            overtime = options.max_minutes > 0 and time.monotonic() - started > 60 * options.max_minutes
            asked, overtime = processes.agree(stop.asked, overtime)
            if not asked and (step % options.val_every == 0 or step == options.num_steps):
                _validate(task, state, log, step)
                (asked,) = processes.agree(stop.asked)
            if step % options.save_every == 0 or step == options.num_steps or asked or overtime:
                state.save(step)
                log.pause()
            if asked:
                raise KeyboardInterrupt
            if overtime:
                log.say(f"stopped after {options.max_minutes:g} minutes at step {step}; the same command goes on")
                break
        with averaged.swapped_in(model):
            return state.write_model(step)


class _Stepper:
    """Optimizer steps: draw, loss, gradient, update."""

    def __init__(
        self,
        loss_of: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: RunState,
        log: TrainLog,
        batches: Iterator[tuple[Draw, Any]],
    ) -> None:
        self.loss_of, self.optimizer, self.state, self.log, self.batches = loss_of, optimizer, state, log, batches
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, step: int) -> dict[str, Tensor]:
        """One optimizer step; returns its scalars.

        Raises:
            InputError: the loss or its gradient is not finite; the weights stay as they were, the batch is written.
        """
        options = self.state.options
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(options, step)
        self.optimizer.zero_grad(set_to_none=True)
        drawn: list[tuple[Draw, Any]] = []
        sums: dict[str, Tensor] = {}
        for micro in range(options.accumulate):
            began = time.monotonic()
            draw, batch = next(self.batches)
            self.log.waited += time.monotonic() - began
            drawn.append((draw, batch))
            last = micro == options.accumulate - 1
            together = isinstance(self.loss_of, DistributedDataParallel) and not last
            with self.loss_of.no_sync() if together else nullcontext():  # type: ignore[operator]
                loss, scalars = self.loss_of(batch)
                (loss / options.accumulate).backward()
            for name, value in {"loss": loss.detach(), **scalars}.items():
                share = value / options.accumulate
                sums[name] = sums[name] + share if name in sums else share
        limit = options.clip_grad or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        finite = torch.isfinite(sums["loss"]) & torch.isfinite(norm)
        (broken,) = self.state.processes.agree(not bool(finite))
        if broken:
            raise self._not_finite(step, drawn, float(sums["loss"]))
        self.optimizer.step()
        return {**sums, "gradient_norm": norm}

    def _not_finite(self, step: int, drawn: list[tuple[Draw, Any]], loss: float) -> InputError:
        batches, indices = [batch for _, batch in drawn], [draw.indices for draw, _ in drawn]
        path = self.state.save_broken_batch(step, batches, indices, loss)
        return InputError(
            f"{self.state.options.exp_name}: the loss or its gradient is not finite at step {step}; its batch is in "
            f"{path}; lower --lr or take --precision fp32, and run again (it goes on from the last checkpoint)"
        )


def _validate(task: Task, state: RunState, log: TrainLog, step: int) -> None:
    """Evaluate the averaged weights on the fixed samples, which the processes share among them."""
    processes, samples = state.processes, task.source.validation()
    mine: dict[int, tuple[dict[str, float], dict[str, Tensor]]] = {}
    with state.averaged.swapped_in(state.model):
        with torch.no_grad():
            numbers = range(processes.rank, len(samples), processes.world)
            for index in tqdm(numbers, desc="validation", leave=False, disable=not processes.is_first):
                scalars, pictures = task.evaluate(state.model, samples[index])
                shown = {name: picture.float().cpu() for name, picture in pictures.items()}
                numbers_of = {name: float(value) for name, value in scalars.items()}
                mine[index] = numbers_of, shown if index < LOGGED_SAMPLES else {}
        found = {index: result for part in processes.gather(mine) for index, result in part.items()}
        # In the order of the samples: the same sum for any number of processes.
        results = [found[index] for index in sorted(found)]
        means = {name: sum(scalars[name] for scalars, _ in results) / len(results) for name in results[0][0]}
        state.validated(means, step)
    pictures = {
        f"sample{index}/{name}": picture
        for index, (_, shown) in enumerate(results[:LOGGED_SAMPLES])
        for name, picture in shown.items()
    }
    log.validation(step, means, pictures)
    log.pause()


def _steps_of_epochs(num_epochs: int, task: Task, samples_per_step: int) -> int:
    samples = task.source.epoch_samples
    if samples is None:
        raise InputError("--num_epochs: made worlds and mixtures have no epochs; give --num_steps instead")
    return math.ceil(num_epochs * samples / samples_per_step)


def _compile(model: MaskVolumeModel) -> None:
    """Compile the networks where they are: the names of their weights stay."""
    for net in (model.mpi_net, model.mask_net):
        if net is not None:
            net.compile()
