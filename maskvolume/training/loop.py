"""The loop: steps, validations and checkpoints in their turn."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from maskvolume.data.draws import READER_KILLED, Draw
from maskvolume.io.files import require_writable_folder
from maskvolume.options import save_options
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.processes import Processes
from maskvolume.training.distributed import StopFlag
from maskvolume.training.log import TrainLog
from maskvolume.training.options import TrainOptions, batch_plan, check_train_options
from maskvolume.training.schedule import (
    RATE_SHARE,
    Averaged,
    learning_rate,
    make_optimizer,
)
from maskvolume.training.state import RunState
from maskvolume.training.task import Model, Task, TaskLoss

KILLED_WORKER = "DataLoader worker"  # in the error that a signal handler of torch raises anywhere
LOGGED_SAMPLES = 3  # fixed samples whose pictures go into the log


def train(task: Task[Model], model: Model, options: TrainOptions, processes: Processes | None = None) -> Path:
    """Train until ``num_steps``, a signal, or ``max_minutes``.

    Writes into ``ckpt_dir/exp_name``: options.json, last.pt (to resume from) and, in the task's own form, the averaged
    weights: "best" by validation PSNR and, at the end, "model". All processes must call this together; the first one
    writes.

    Args:
        task: source of the samples, loss, validation and form of the checkpoints.
        model: what is trained, on its device.
        options: of the loop, and those of the task, which are recorded with them.
        processes: those that train together; None for this one alone.

    Returns:
        The path of the written model.

    Raises:
        InputError: the loss is not finite, data is damaged, or last.pt belongs to another set-up.
        KeyboardInterrupt: stopped by a signal, after last.pt has been written.
    """
    processes = processes or Processes()
    check_train_options(options)
    plan = batch_plan(options, processes)
    if options.num_epochs:
        _samples_of_epoch(task)
    folder = Path(options.ckpt_dir) / options.exp_name
    processes.first_does(lambda: require_writable_folder(folder))
    optimizer = make_optimizer(options, model, task.rate_shares)
    averaged = Averaged(model, options.ema_decay)
    state = RunState(folder, task, model, optimizer, averaged, options, processes, plan.samples_per_step)
    if not options.resume:
        state.set_aside()
    first_step = state.load()
    if options.num_epochs:
        remaining = options.num_epochs * _samples_of_epoch(task) - state.first_sample
        num_steps = max(first_step + math.ceil(remaining / plan.samples_per_step), 1)
        options = state.options = replace(options, num_steps=num_steps)
    processes.first_does(lambda: save_options(options, folder / "options.json"))
    if options.compile:
        for module in task.compiled_modules(model):
            # In place, so that the names of the weights stay. One program a size: compiling for any size fails.
            module.compile(dynamic=False)
    loss_module: nn.Module = TaskLoss(task, model)
    if processes.world > 1:
        # Convolution kernels of one pixel have strides that differ and mean the same.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        loss_module = DistributedDataParallel(loss_module)
    draws = plan.draws(first_step, state.first_sample)
    with (
        TrainLog(options, processes, first_step, plan.samples_per_step) as log,
        StopFlag() as stop,
        closing(task.source.batches(draws)) as batches,
    ):
        stepper = _Stepper(loss_module, optimizer, state, log, zip(draws, batches, strict=False))
        return _Loop(task, state, log, stop, stepper).run(first_step)


class _Loop:
    """Steps, validations and checkpoints in their turn; every process goes through the same ones."""

    def __init__(self, task: Task[Any], state: RunState, log: TrainLog, stop: StopFlag, stepper: _Stepper) -> None:
        self.task, self.state, self.log, self.stop, self.stepper = task, state, log, stop, stepper
        self.options, self.processes = state.options, state.processes
        self.started = time.monotonic()

    def run(self, first_step: int) -> Path:
        """Train from a step on; returns the path of the written model."""
        options, state, step = self.options, self.state, first_step
        state.model.train()
        try:
            if step and self._validation_due(step) and state.validated_at != step:
                self._validate(step)  # the previous start was stopped in it
            while step < options.num_steps:
                scalars, rate = self.stepper.step(step), learning_rate(options, step)
                state.averaged.update(state.model, step)
                step += 1
                self.log.step(step, scalars, rate)
                minutes = (time.monotonic() - self.started) / 60
                stopped, overtime = self.processes.agree(self.stop.requested, 0 < options.max_minutes < minutes)
                if stopped or overtime or self._validation_due(step) or step % options.save_every == 0:
                    self._save(step)
                if stopped:
                    raise self._interruption()
                if self._validation_due(step):
                    self._validate(step)
                if overtime:
                    self.log.say(
                        f"stopped after {options.max_minutes:g} minutes at step {step}; {self._how_to_continue()}"
                    )
                    break
        except InputError:
            if step > first_step:
                self._save_at_the_end(step)
            raise
        except RuntimeError as error:
            if KILLED_WORKER not in str(error):
                raise
            _ignore_readers()
            raise InputError(READER_KILLED) from error
        with state.averaged.swapped_in(state.model):
            return state.write_model(step)

    def _validation_due(self, step: int) -> bool:
        return step % self.options.val_every == 0 or step == self.options.num_steps

    def _save(self, step: int) -> None:
        self.state.save(step)
        self.log.pause()

    def _save_at_the_end(self, step: int) -> None:
        """Save the steps before an error, even if torch reports only now that a reader was killed."""
        try:
            _ignore_readers()
            self._save(step)
        except RuntimeError as error:
            if KILLED_WORKER not in str(error):
                raise
            self._save(step)

    def _how_to_continue(self) -> str:
        return f"run the same command again{'' if self.options.resume else ' without --no-resume'} to go on"

    def _interruption(self) -> KeyboardInterrupt:
        return KeyboardInterrupt(self._how_to_continue())

    def _validate(self, step: int) -> None:
        """Evaluate the averaged weights on the fixed samples, which the processes share among them.

        Raises:
            InputError: damaged data, in all processes.
            KeyboardInterrupt: stopped by a signal; the evaluated samples are lost, last.pt is there.
        """
        state, processes, samples = self.state, self.processes, self.task.source.validation()
        results_here: dict[int, tuple[dict[str, float], dict[str, Tensor]]] = {}
        rounds = tqdm(
            range(0, len(samples), processes.world), desc="validation", leave=False, disable=not processes.is_first
        )
        with state.averaged.swapped_in(state.model), torch.no_grad():
            for start in rounds:
                index, error = start + processes.rank, None
                try:
                    if index < len(samples):
                        results_here[index] = self._evaluate(samples, index)
                except InputError as caught:
                    error = caught
                failed, stopped = processes.agree(error is not None, self.stop.requested)
                if failed:
                    raise error or _other_process()
                if stopped:
                    raise self._interruption()
            by_sample = {index: result for part in processes.gather(results_here) for index, result in part.items()}
            # In the order of the samples: the same sum for any number of processes.
            results = [by_sample[index] for index in sorted(by_sample)]
            means = {name: sum(scalars[name] for scalars, _ in results) / len(results) for name in results[0][0]}
            state.validated(means, step)
        pictures = {
            f"sample{index}/{name}": picture
            for index, (_, logged) in enumerate(results[:LOGGED_SAMPLES])
            for name, picture in logged.items()
        }
        self.log.validation(step, means, pictures)
        self._save(step)

    def _evaluate(self, samples: Sequence[Any], index: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        scalars, pictures = self.task.evaluate(self.state.model, samples[index])
        logged = {name: picture.float().cpu() for name, picture in pictures.items()} if index < LOGGED_SAMPLES else {}
        return {name: float(value) for name, value in scalars.items()}, logged


def _ignore_readers() -> None:
    """Keep torch from raising an error at any point of the program when another reader ends: the program ends too."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _other_process() -> InputError:
    return InputError("another process of this run has failed; see its message")


class _Stepper:
    """Optimizer steps: draw, loss, gradient, update."""

    def __init__(
        self,
        loss_module: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: RunState,
        log: TrainLog,
        batches: Iterator[tuple[Draw, Any]],
    ) -> None:
        self.loss_module, self.optimizer, self.state, self.log = loss_module, optimizer, state, log
        self.batches = batches
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, step: int) -> dict[str, Tensor]:
        """One optimizer step; returns its scalars.

        Raises:
            InputError: the loss or its gradient is not finite; the weights stay as they were, the batch is written.
        """
        options = self.state.options
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(options, step) * group.get(RATE_SHARE, 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        drawn: list[tuple[Draw, Any]] = []
        sums: dict[str, Tensor] = {}
        for micro in range(options.accumulate):
            drawn.append(self._draw())
            batch = drawn[-1][1]
            last = micro == options.accumulate - 1
            accumulates = isinstance(self.loss_module, DistributedDataParallel) and not last
            with self.loss_module.no_sync() if accumulates else nullcontext():  # type: ignore[operator]
                loss, scalars = self.loss_module(batch)
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

    def _draw(self) -> tuple[Draw, Any]:
        """The next batch of this process.

        Raises:
            InputError: damaged data, in all processes.
        """
        start, drawn, error = time.monotonic(), None, None
        try:
            drawn = next(self.batches)
        except InputError as caught:
            error = caught
        self.log.waited += time.monotonic() - start
        (failed,) = self.state.processes.agree(error is not None)
        if failed:
            raise error or _other_process()
        assert drawn is not None
        return drawn

    def _not_finite(self, step: int, drawn: list[tuple[Draw, Any]], loss: float) -> InputError:
        batches, indices = [batch for _, batch in drawn], [draw.indices for draw, _ in drawn]
        path = self.state.save_broken_batch(step, batches, indices, loss)
        return InputError(
            f"{self.state.options.exp_name}: the loss or its gradient is not finite at step {step}; its batch is in "
            f"{path}; lower --lr or take --precision fp32, and run again (it continues from the last checkpoint)"
        )


def _samples_of_epoch(task: Task[Any]) -> int:
    samples = task.source.epoch_samples
    if samples is None:
        raise InputError("--num_epochs: synthetic worlds and mixtures have no epochs; give --num_steps instead")
    return samples
