"""The state of a run: what is resumed, what is refused, which checkpoints are kept."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_helpers import (
    NearestPicture,
    PictureOptions,
    PictureSource,
    PictureTask,
    last_state,
    shipped,
    weights_of,
)

from maskvolume.data.draws import Draws
from maskvolume.runtime.errors import InputError, describe_os_error
from maskvolume.training import train
from maskvolume.training.state import LAST_NAME


def test_another_set_up_is_not_resumed(options: PictureOptions) -> None:
    train(PictureTask(), NearestPicture(), options)
    with pytest.raises(InputError, match=r"last\.pt.*accumulate 1 \(now 2\), seed 0 \(now 1\)"):
        train(PictureTask(), NearestPicture(), replace(options, seed=1, accumulate=2))
    train(PictureTask(), NearestPicture(), replace(options, num_steps=35, lr=1e-3))


def test_a_damaged_state_is_named(options: PictureOptions) -> None:
    folder = Path(options.ckpt_dir) / options.exp_name
    folder.mkdir(parents=True)
    (folder / LAST_NAME).write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"last\.pt"):
        train(PictureTask(), NearestPicture(), options)


def test_a_full_disk_is_an_error_that_names_the_file(options: PictureOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "last" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as failure:
        train(PictureTask(), NearestPicture(), options)
    assert describe_os_error(failure.value) is not None
    assert not list(Path(options.ckpt_dir).rglob("*.pt"))


def test_the_best_checkpoints_are_kept(options: PictureOptions) -> None:
    class Task(PictureTask):
        """Validates best in the middle."""

        def evaluate(self, model: nn.Module, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            return {"psnr": torch.tensor(-abs(float(self.step) - 14))}, {}

    path = train(Task(), NearestPicture(), replace(options, val_every=5, keep_best=2, exp_name="k"))
    folder = path.parent
    assert {p.name for p in folder.glob("best*")} == {
        "best.npz", "best_step000015.npz", "best_step000010.npz",
    }  # fmt: skip
    assert shipped(folder / "best.npz")[1]["steps"] == 15
    assert shipped(folder / "best_step000010.npz")[1]["metrics"]["psnr"] == -5


def test_random_state_goes_on_where_it_was(options: PictureOptions) -> None:
    class Task(PictureTask):
        """Its loss draws from the global generators."""

        def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            noise = torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002
            loss, scalars = super().loss(model, batch)
            return loss * noise, scalars

    options = replace(options, num_steps=8, val_every=100)
    start_generators()
    whole = weights_of(train(Task(), NearestPicture(), replace(options, exp_name="whole")))
    start_generators()
    with pytest.raises(KeyboardInterrupt):
        train(Task(stop_at=3), NearestPicture(), replace(options, exp_name="parts"))
    resumed = weights_of(train(Task(), NearestPicture(), replace(options, exp_name="parts")))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def start_generators() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


class ScoreTask(PictureTask):
    """Validates as it is told."""

    def __init__(self, scores: dict[int, float]) -> None:
        super().__init__()
        self.scores = scores

    def evaluate(self, model: nn.Module, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"psnr": torch.tensor(self.scores[self.step + 1])}, {}


def test_a_score_that_is_no_number_is_never_the_best(options: PictureOptions) -> None:
    scores = {5: math.nan, 10: 20.0, 15: 25.0, 20: math.nan, 25: 22.0, 30: 21.0}
    path = train(ScoreTask(scores), NearestPicture(), replace(options, val_every=5))
    assert last_state(options)["best"] == [(25.0, 15)]
    assert shipped(path.parent / "best.npz")[1]["steps"] == 15


def test_the_number_of_checkpoints_to_keep_may_change(options: PictureOptions) -> None:
    scores = {step: float(score) for step, score in zip(range(5, 41, 5), (9, 8, 7, 1, 2, 3, 4, 5), strict=True)}
    options = replace(options, val_every=5)
    train(ScoreTask(scores), NearestPicture(), replace(options, num_steps=10))
    folder = train(ScoreTask(scores), NearestPicture(), replace(options, num_steps=30, keep_best=3)).parent
    assert shipped(folder / "best.npz")[1]["steps"] == 5
    # That of step 5 was written under the one name that it had then; that of step 10 was not among the best.
    assert {path.name for path in folder.glob("best_*")} == {
        "best_step000015.npz",
        "best_step000030.npz",
    }
    train(ScoreTask(scores), NearestPicture(), replace(options, num_steps=40, keep_best=1))
    assert shipped(folder / "best.npz")[1]["steps"] == 5


def test_a_run_that_starts_anew_sets_the_former_aside(options: PictureOptions) -> None:
    train(PictureTask(), NearestPicture(), replace(options, num_steps=20))
    with pytest.raises(KeyboardInterrupt, match="without --no-resume"):
        train(PictureTask(stop_at=3), NearestPicture(), replace(options, resume=False))
    folder = Path(options.ckpt_dir) / options.exp_name
    assert {path.name for path in (folder / "former").iterdir()} == {"last.pt", "best.npz", "model.npz"}
    assert {path.name for path in folder.iterdir()} == {"last.pt", "options.json", "former"}
    assert last_state(options)["step"] == 4


def test_epochs_go_on_with_another_number_of_samples(options: PictureOptions) -> None:
    """As with another number of processes: no sample is passed over, none comes twice."""
    drawn: list[tuple[int, ...]] = []

    class Source(PictureSource):
        def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
            for draw, batch in zip(draws, super().batches(draws), strict=False):
                drawn.append(draw.indices)
                yield batch

    def run(**changes: Any) -> Path:
        task = PictureTask(stop_at=changes.pop("stop_at", None))
        task.source = Source(task.drawn)
        return train(task, NearestPicture(), replace(options, **changes))

    with pytest.raises(KeyboardInterrupt):
        run(num_epochs=2, batch_size=2, stop_at=2)
    # batch_size is no option that may change, so the number of samples of a step is changed as processes would.
    content = last_state(options)
    assert content["samples"] == 6
    content["setup"]["batch_size"] = 1
    torch.save(content, Path(options.ckpt_dir) / options.exp_name / LAST_NAME)
    path = run(num_epochs=2, batch_size=1)
    assert [index for indices in drawn for index in indices] == list(range(16))
    assert shipped(path)[1]["steps"] == 3 + 10
