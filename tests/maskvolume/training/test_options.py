"""Options of the loop: which are refused, which a resumed run may change, which stay private."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from training_helpers import NearestPicture, PictureOptions, PictureTask

from maskvolume.options import marked
from maskvolume.runtime.errors import InputError
from maskvolume.training import FREE, PRIVATE, Processes, TrainOptions, batch_plan, settle_options, train


@pytest.mark.parametrize(
    ("name", "value"),
    [("val_every", 0), ("save_every", 0), ("val_samples", 0), ("batch_size", 0), ("lr", 0.0), ("ema_decay", 2.0),
     ("num_steps", 0), ("num_gpus", -1), ("num_epochs", -1), ("accumulate", 0), ("keep_best", 0), ("num_workers", -1),
     ("clip_grad", -1.0), ("decay_at", (0.5, 2.0)), ("exp_name", ""), ("exp_name", "a/b"), ("num_pictures", 1)],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_named(options: PictureOptions, name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"--{name}: .* expected, got"):
        train(PictureTask(), NearestPicture(), replace(options, **{name: value}))  # type: ignore[arg-type]
    assert not Path(options.ckpt_dir).exists()


def test_options_that_decide_what_is_learned_are_fixed() -> None:
    fixed = {"batch_size", "accumulate", "optimizer", "weight_decay", "ema_decay", "seed"}
    assert vars(TrainOptions()).keys() - marked(TrainOptions, FREE) == fixed
    assert marked(TrainOptions, PRIVATE) == {"log_dir", "ckpt_dir"}


def test_a_debug_run_is_short_and_starts_over() -> None:
    options = TrainOptions(num_steps=100, num_epochs=3, exp_name="x")
    assert settle_options(options) is options
    short = settle_options(replace(options, debug=True))
    assert (short.num_steps, short.num_epochs, short.val_samples, short.exp_name) == (4, 0, 1, "debug")
    assert not short.resume


def test_the_plan_follows_options_and_processes() -> None:
    plan = batch_plan(TrainOptions(batch_size=3, accumulate=2), Processes())
    assert (plan.batch_size, plan.accumulate, plan.rank, plan.world) == (3, 2, 0, 1)
