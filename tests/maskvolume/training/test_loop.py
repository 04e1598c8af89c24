"""The loop: the loss falls, a resumed run equals an uninterrupted one, what ends a run ends it in order."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_helpers import (
    NearestPicture,
    PictureOptions,
    PictureSource,
    PictureTask,
    last_state,
    logged_steps,
    shipped,
    weights_of,
)

from maskvolume.data.draws import Draws
from maskvolume.runtime.errors import InputError
from maskvolume.training import train
from maskvolume.training.state import LAST_NAME


def test_the_loss_falls_and_the_model_is_written(options: PictureOptions) -> None:
    model, task = NearestPicture(), PictureTask()
    before = task.score(model)
    path = train(task, model, options)
    assert task.score(shipped(path)[0]) > before
    assert shipped(path)[1]["steps"] == 30
    folder = Path(options.ckpt_dir) / options.exp_name
    assert {p.name for p in folder.iterdir()} == {"options.json", "last.pt", "best.npz", "model.npz"}
    assert list((Path(options.log_dir) / options.exp_name).glob("events*"))


def test_a_resumed_run_equals_an_uninterrupted_one(options: PictureOptions) -> None:
    whole = weights_of(train(PictureTask(), NearestPicture(), replace(options, exp_name="whole")))
    with pytest.raises(KeyboardInterrupt):
        train(PictureTask(stop_at=16), NearestPicture(), replace(options, exp_name="parts"))
    resumed = weights_of(train(PictureTask(), NearestPicture(), replace(options, exp_name="parts")))
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_a_loss_that_is_not_finite_stops_with_its_batch_saved(options: PictureOptions) -> None:
    class Task(PictureTask):
        def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            loss, scalars = super().loss(model, batch)
            return loss * (math.nan if self.step == 12 else 1), scalars

    with pytest.raises(InputError, match=r"not finite at step 12; its batch is in .*not_finite_step000012_rank0\.pt"):
        train(Task(), NearestPicture(), replace(options, batch_size=2))
    folder = Path(options.ckpt_dir) / "default"
    assert torch.load(folder / LAST_NAME, weights_only=True)["step"] == 12
    saved = torch.load(folder / "not_finite_step000012_rank0.pt", weights_only=True)
    assert saved["indices"] == [(24, 25)]
    assert torch.equal(saved["batches"][0], torch.cat([PictureSource().pictures(24), PictureSource().pictures(25)]))
    assert all(bool(torch.isfinite(value).all()) for value in saved["model"].values())


def test_a_gradient_that_is_not_finite_stops_before_it_is_used(options: PictureOptions) -> None:
    class Task(PictureTask):
        def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            loss, scalars = super().loss(model, batch)
            poison = torch.sqrt(loss.detach() * 0 + 0 * loss)  # 0, with an infinite slope
            return loss + poison, scalars

    model = NearestPicture()
    with pytest.raises(InputError, match="gradient is not finite at step 0"):
        train(Task(), model, options)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def test_accumulated_batches_train_as_one_large_batch(options: PictureOptions) -> None:
    options = replace(options, num_steps=3, val_every=10, optimizer="sgd", lr=0.1)
    large = weights_of(train(PictureTask(), NearestPicture(), replace(options, exp_name="large", batch_size=4)))
    options = replace(options, batch_size=2, accumulate=2)
    parts = weights_of(train(PictureTask(), NearestPicture(), replace(options, exp_name="parts")))
    for key, value in large.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-4, atol=1e-6)


def test_epochs_are_passes_over_the_data(options: PictureOptions) -> None:
    path = train(PictureTask(), NearestPicture(), replace(options, num_epochs=3, batch_size=2, accumulate=2))
    assert shipped(path)[1]["steps"] == 3 * 8 / 4


def test_worlds_without_end_have_no_epochs(options: PictureOptions) -> None:
    task = PictureTask()
    task.source.epoch_samples = None
    with pytest.raises(InputError, match="num_epochs"):
        train(task, NearestPicture(), replace(options, num_epochs=1))


def test_gradients_are_clipped_only_where_asked(options: PictureOptions) -> None:
    moved = {}
    for clip in (0.0, 1e-9):
        chosen = replace(options, clip_grad=clip, num_steps=1, optimizer="sgd", weight_decay=0.0, ema_decay=0.0,
                         warmup_steps=0, exp_name=f"clip{clip}")  # fmt: skip
        before, after = NearestPicture().state_dict(), weights_of(train(PictureTask(), NearestPicture(), chosen))
        moved[clip] = max(float((after[key] - before[key]).abs().max()) for key in before)
    assert moved[0.0] > 1e-6
    assert moved[1e-9] < 1e-10


def test_the_time_limit_stops_resumably(options: PictureOptions) -> None:
    path = train(PictureTask(), NearestPicture(), replace(options, max_minutes=1e-6))
    assert shipped(path)[1]["steps"] == 1
    path = train(PictureTask(), NearestPicture(), options)
    assert shipped(path)[1]["steps"] == 30


def test_a_stop_in_a_validation_loses_nothing(options: PictureOptions) -> None:
    """last.pt is there before; the next start makes up for the validation and equals an uninterrupted run."""

    class Task(PictureTask):
        def evaluate(self, model: nn.Module, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(model, sample)

    whole = weights_of(train(PictureTask(), NearestPicture(), replace(options, exp_name="whole")))
    options = replace(options, exp_name="parts")
    with pytest.raises(KeyboardInterrupt, match="run the same command again to go on"):
        train(Task(), NearestPicture(), options)
    assert last_state(options)["step"] == 15
    assert last_state(options)["best"] == []
    resumed = weights_of(train(PictureTask(), NearestPicture(), options))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert logged_steps(options, "val/psnr") == [15, 30]


def test_damaged_data_ends_the_run_with_what_was_done_saved(options: PictureOptions) -> None:
    class Source(PictureSource):
        def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
            for draw, batch in zip(draws, super().batches(draws), strict=False):
                if draw.step == 17:
                    raise InputError("shard-00000.tar: damaged")
                yield batch

    task = PictureTask()
    task.source = Source(task.drawn)
    with pytest.raises(InputError, match="damaged"):
        train(task, NearestPicture(), options)
    assert last_state(options)["step"] == 17


def test_what_reads_ahead_is_closed_whatever_ends_the_run(options: PictureOptions) -> None:
    closed = []

    class Source(PictureSource):
        def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
            try:
                yield from super().batches(draws)
            finally:
                closed.append(True)

    for count, (stop_at, ends) in enumerate(((None, None), (3, KeyboardInterrupt))):
        task = PictureTask(stop_at=stop_at)
        task.source = Source(task.drawn)
        with pytest.raises(ends) if ends else nullcontext():
            train(task, NearestPicture(), replace(options, num_steps=5, exp_name=str(count)))
        assert len(closed) == count + 1


def test_a_killed_data_worker_is_one_line(options: PictureOptions) -> None:
    class Task(PictureTask):
        """torch raises this from a signal handler, wherever the program is."""

        def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            if self.step == 12:
                raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")
            return super().loss(model, batch)

    with pytest.raises(InputError, match="--num_workers"):
        train(Task(), NearestPicture(), options)
    assert last_state(options)["step"] == 10
