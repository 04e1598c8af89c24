"""The loop: the loss falls, a resumed run equals an uninterrupted one, wrong set-ups are refused."""

from __future__ import annotations

import errno
import math
import os
import random
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from maskvolume.data.draws import Draws
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.runtime.errors import InputError, describe_os_error
from maskvolume.training import TrainOptions, train
from maskvolume.training.state import LAST_NAME


class FitSource:
    """Random volumes by the number of the sample."""

    epoch_samples: int | None = 8

    def __init__(self, on_draw: Callable[[int], None] = lambda step: None) -> None:
        self.on_draw = on_draw

    def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
        for draw in draws:
            self.on_draw(draw.step)
            yield torch.cat([self.volume(index) for index in draw.indices])

    def validation(self) -> list[Tensor]:
        return [self.volume(10_000), self.volume(10_001)]

    @staticmethod
    def volume(index: int) -> Tensor:
        return torch.rand(1, 2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(index))


class FitTask:
    """Fit the opacity that the MPI network gives a fixed sweep: fast, and enough to see the loop work."""

    rate_shares: Mapping[str, float] = {}

    def __init__(self, stop_at: int | None = None, nan_at: int | None = None) -> None:
        self.stop_at, self.step = stop_at, -1
        self.nan_at = nan_at
        self.source = FitSource(self._drawn)

    def _drawn(self, step: int) -> None:
        self.step = step
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def loss(self, model: MaskVolumeModel, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = ((model.mpi_net(batch)[:, 2, 3] - 0.9) ** 2).mean()
        if self.step == self.nan_at and torch.is_grad_enabled():
            loss = loss * math.nan
        return loss, {"psnr": -loss.detach()}

    def evaluate(self, model: MaskVolumeModel, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        loss, _ = self.loss(model, sample)
        return {"psnr": -loss}, {"picture": torch.zeros(3, 4, 4)}

    def score(self, model: MaskVolumeModel) -> float:
        """Of the fixed samples."""
        with torch.no_grad():
            values = [self.evaluate(model, sample)[0]["psnr"] for sample in self.source.validation()]
        return float(torch.stack(values).mean())


def make_model() -> MaskVolumeModel:
    torch.manual_seed(0)
    return MaskVolumeModel(CheckpointMeta("mpi", "matching", num_planes=4))


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    return TrainOptions(
        log_dir=str(tmp_path / "logs"), ckpt_dir=str(tmp_path / "ckpt"), num_steps=30, save_every=10, val_every=15,
        warmup_steps=3, lr=3e-3, precision="fp32", device="cpu", num_planes=4,
    )  # fmt: skip


def weights(path: Path) -> dict[str, Tensor]:
    return load_model(path).state_dict()


def test_the_loss_falls_and_the_model_is_written(options: TrainOptions) -> None:
    model, task = make_model(), FitTask()
    before = task.score(model)
    path = train(task, model, options)
    assert task.score(load_model(path)) > before
    assert load_model(path).meta.info["steps"] == 30
    folder = Path(options.ckpt_dir) / options.exp_name
    assert {p.name for p in folder.iterdir()} == {"options.json", "last.pt", "best.safetensors", "model.safetensors"}
    assert list((Path(options.log_dir) / options.exp_name).glob("events*"))


def test_a_resumed_run_equals_an_uninterrupted_one(options: TrainOptions) -> None:
    whole = weights(train(FitTask(), make_model(), replace(options, exp_name="whole")))
    with pytest.raises(KeyboardInterrupt):
        train(FitTask(stop_at=16), make_model(), replace(options, exp_name="parts"))
    resumed = weights(train(FitTask(), make_model(), replace(options, exp_name="parts")))
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_a_loss_that_is_not_finite_stops_with_its_batch_saved(options: TrainOptions) -> None:
    with pytest.raises(InputError, match=r"not finite at step 12; its batch is in .*not_finite_step000012_rank0\.pt"):
        train(FitTask(nan_at=12), make_model(), replace(options, batch_size=2))
    folder = Path(options.ckpt_dir) / "default"
    assert torch.load(folder / LAST_NAME, weights_only=True)["step"] == 12
    saved = torch.load(folder / "not_finite_step000012_rank0.pt", weights_only=True)
    assert saved["indices"] == [(24, 25)]
    assert torch.equal(saved["batches"][0], torch.cat([FitSource.volume(24), FitSource.volume(25)]))
    assert all(bool(torch.isfinite(value).all()) for value in saved["model"].values())


def test_a_gradient_that_is_not_finite_stops_before_it_is_used(options: TrainOptions) -> None:
    class Task(FitTask):
        def loss(self, model: MaskVolumeModel, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            loss, scalars = super().loss(model, batch)
            poison = torch.sqrt(loss.detach() * 0 + 0 * loss)  # 0, with an infinite slope
            return loss + poison, scalars

    model = make_model()
    with pytest.raises(InputError, match="gradient is not finite at step 0"):
        train(Task(), model, options)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def test_another_set_up_is_not_resumed(options: TrainOptions) -> None:
    train(FitTask(), make_model(), options)
    with pytest.raises(InputError, match=r"last\.pt.*margin 24 \(now 8\), seed 0 \(now 1\)"):
        train(FitTask(), make_model(), replace(options, seed=1, margin=8))
    train(FitTask(), make_model(), replace(options, num_steps=35, lr=1e-3))


def test_a_damaged_state_is_named(options: TrainOptions) -> None:
    folder = Path(options.ckpt_dir) / options.exp_name
    folder.mkdir(parents=True)
    (folder / LAST_NAME).write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"last\.pt"):
        train(FitTask(), make_model(), options)


@pytest.mark.parametrize(
    ("name", "value"),
    [("val_every", 0), ("save_every", 0), ("val_samples", 0), ("batch_size", 0), ("num_planes", 1), ("img_hw", (1, 64)),
     ("margin", -1), ("lr", 0.0), ("ema_decay", 2.0), ("num_steps", 0), ("num_gpus", -1), ("num_epochs", -1),
     ("accumulate", 0), ("keep_best", 0), ("num_workers", -1), ("clip_grad", -1.0), ("decay_at", (0.5, 2.0)),
     ("num_sources", (1, 2)), ("num_sources", (4, 2)), ("exp_name", ""), ("exp_name", "a/b")],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_named(options: TrainOptions, name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        train(FitTask(), make_model(), replace(options, **{name: value}))  # type: ignore[arg-type]
    assert not Path(options.ckpt_dir).exists()


def test_a_full_disk_is_an_error_that_names_the_file(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "last" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as failure:
        train(FitTask(), make_model(), options)
    assert describe_os_error(failure.value) is not None
    assert not list(Path(options.ckpt_dir).rglob("*.pt"))


def test_accumulated_batches_train_as_one_large_batch(options: TrainOptions) -> None:
    options = replace(options, num_steps=3, val_every=10, optimizer="sgd", lr=0.1)
    large = weights(train(FitTask(), make_model(), replace(options, exp_name="large", batch_size=4)))
    parts = weights(train(FitTask(), make_model(), replace(options, exp_name="parts", batch_size=2, accumulate=2)))
    for key, value in large.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-4, atol=1e-6)


def test_epochs_are_passes_over_the_data(options: TrainOptions) -> None:
    path = train(FitTask(), make_model(), replace(options, num_epochs=3, batch_size=2, accumulate=2))
    assert load_model(path).meta.info["steps"] == 3 * 8 / 4


def test_worlds_without_end_have_no_epochs(options: TrainOptions) -> None:
    task = FitTask()
    task.source.epoch_samples = None
    with pytest.raises(InputError, match="num_epochs"):
        train(task, make_model(), replace(options, num_epochs=1))


def test_the_best_checkpoints_are_kept(options: TrainOptions) -> None:
    class Task(FitTask):
        """Validates best in the middle."""

        def evaluate(self, model: MaskVolumeModel, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            return {"psnr": torch.tensor(-abs(float(self.step) - 14))}, {}

    path = train(Task(), make_model(), replace(options, val_every=5, keep_best=2, exp_name="k"))
    folder = path.parent
    assert {p.name for p in folder.glob("best*")} == {
        "best.safetensors", "best_step000015.safetensors", "best_step000010.safetensors",
    }  # fmt: skip
    assert load_model(folder / "best.safetensors").meta.info["steps"] == 15
    assert load_model(folder / "best_step000010.safetensors").meta.info["metrics"]["psnr"] == -5


def test_gradients_are_clipped_only_where_asked(options: TrainOptions) -> None:
    moved = {}
    for clip in (0.0, 1e-9):
        chosen = replace(options, clip_grad=clip, num_steps=1, optimizer="sgd", weight_decay=0.0, ema_decay=0.0,
                         warmup_steps=0, exp_name=f"clip{clip}")  # fmt: skip
        before, after = make_model().state_dict(), weights(train(FitTask(), make_model(), chosen))
        moved[clip] = max(float((after[key] - before[key]).abs().max()) for key in before)
    assert moved[0.0] > 1e-6
    assert moved[1e-9] < 1e-10


def test_the_time_limit_stops_resumably(options: TrainOptions) -> None:
    path = train(FitTask(), make_model(), replace(options, max_minutes=1e-6))
    assert load_model(path).meta.info["steps"] == 1
    path = train(FitTask(), make_model(), options)
    assert load_model(path).meta.info["steps"] == 30


def test_the_log_tells_speed_waiting_rate_and_pictures(options: TrainOptions) -> None:
    train(FitTask(), make_model(), options)
    found = EventAccumulator(str(Path(options.log_dir) / options.exp_name))
    found.Reload()
    tags = found.Tags()
    wanted = {f"train/{name}" for name in ("loss", "psnr", "lr", "samples_per_second", "data_wait", "gradient_norm")}
    assert wanted | {"val/psnr"} <= set(tags["scalars"])
    assert {"val/sample0/picture", "val/sample1/picture"} == set(tags["images"])
    assert [event.step for event in found.Scalars("train/loss")] == [10, 20, 30]
    assert all(0 <= event.value <= 1 for event in found.Scalars("train/data_wait"))


def test_random_state_goes_on_where_it_was(options: TrainOptions) -> None:
    class Task(FitTask):
        """Its loss draws from the global generators."""

        def loss(self, model: MaskVolumeModel, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            noise = torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002
            loss, scalars = super().loss(model, batch)
            return loss * noise, scalars

    options = replace(options, num_steps=8, val_every=100)
    start_generators()
    whole = weights(train(Task(), make_model(), replace(options, exp_name="whole")))
    start_generators()
    with pytest.raises(KeyboardInterrupt):
        train(Task(stop_at=3), make_model(), replace(options, exp_name="parts"))
    resumed = weights(train(Task(), make_model(), replace(options, exp_name="parts")))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def start_generators() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


def steps_of(options: TrainOptions, tag: str) -> list[int]:
    found = EventAccumulator(str(Path(options.log_dir) / options.exp_name))
    found.Reload()
    return [event.step for event in found.Scalars(tag)]


def last(options: TrainOptions) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(Path(options.ckpt_dir) / options.exp_name / LAST_NAME, weights_only=True)
    return content


def test_a_stop_in_a_validation_loses_nothing(options: TrainOptions) -> None:
    """last.pt is there before; the next start makes up for the validation and equals an uninterrupted run."""

    class Task(FitTask):
        def evaluate(self, model: MaskVolumeModel, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(model, sample)

    whole = weights(train(FitTask(), make_model(), replace(options, exp_name="whole")))
    options = replace(options, exp_name="parts")
    with pytest.raises(KeyboardInterrupt, match="run the same command again to go on"):
        train(Task(), make_model(), options)
    assert last(options)["step"] == 15
    assert last(options)["best"] == []
    resumed = weights(train(FitTask(), make_model(), options))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert steps_of(options, "val/psnr") == [15, 30]


def test_a_resumed_log_has_every_point_once(options: TrainOptions) -> None:
    train(FitTask(), make_model(), replace(options, num_steps=20, val_every=10))
    train(FitTask(), make_model(), replace(options, num_steps=40, val_every=10))
    assert steps_of(options, "train/loss") == [10, 20, 30, 40]
    assert steps_of(options, "val/psnr") == [10, 20, 30, 40]


def test_damaged_data_ends_the_run_with_what_was_done_saved(options: TrainOptions) -> None:
    class Source(FitSource):
        def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
            for draw, batch in zip(draws, super().batches(draws), strict=False):
                if draw.step == 17:
                    raise InputError("shard-00000.tar: damaged")
                yield batch

    task = FitTask()
    task.source = Source(task._drawn)
    with pytest.raises(InputError, match="damaged"):
        train(task, make_model(), options)
    assert last(options)["step"] == 17


def test_what_reads_ahead_is_closed_whatever_ends_the_run(options: TrainOptions) -> None:
    closed = []

    class Source(FitSource):
        def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
            try:
                yield from super().batches(draws)
            finally:
                closed.append(True)

    for count, (stop_at, ends) in enumerate(((None, None), (3, KeyboardInterrupt))):
        task = FitTask(stop_at=stop_at)
        task.source = Source(task._drawn)
        with pytest.raises(ends) if ends else nullcontext():
            train(task, make_model(), replace(options, num_steps=5, exp_name=str(count)))
        assert len(closed) == count + 1


def test_a_killed_data_worker_is_one_line(options: TrainOptions) -> None:
    class Task(FitTask):
        """torch raises this from a signal handler, wherever the program is."""

        def loss(self, model: MaskVolumeModel, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            if self.step == 12:
                raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")
            return super().loss(model, batch)

    with pytest.raises(InputError, match="--num_workers"):
        train(Task(), make_model(), options)
    assert last(options)["step"] == 10


class ScoreTask(FitTask):
    """Validates as it is told."""

    def __init__(self, scores: dict[int, float]) -> None:
        super().__init__()
        self.scores = scores

    def evaluate(self, model: MaskVolumeModel, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"psnr": torch.tensor(self.scores[self.step + 1])}, {}


def test_a_score_that_is_no_number_is_never_the_best(options: TrainOptions) -> None:
    scores = {5: math.nan, 10: 20.0, 15: 25.0, 20: math.nan, 25: 22.0, 30: 21.0}
    path = train(ScoreTask(scores), make_model(), replace(options, val_every=5))
    assert last(options)["best"] == [(25.0, 15)]
    assert load_model(path.parent / "best.safetensors").meta.info["steps"] == 15


def test_the_number_of_checkpoints_to_keep_may_change(options: TrainOptions) -> None:
    scores = {step: float(score) for step, score in zip(range(5, 41, 5), (9, 8, 7, 1, 2, 3, 4, 5), strict=True)}
    options = replace(options, val_every=5)
    train(ScoreTask(scores), make_model(), replace(options, num_steps=10))
    folder = train(ScoreTask(scores), make_model(), replace(options, num_steps=30, keep_best=3)).parent
    assert load_model(folder / "best.safetensors").meta.info["steps"] == 5
    # That of step 5 was written under the one name that it had then; that of step 10 was not among the best.
    assert {path.name for path in folder.glob("best_*")} == {
        "best_step000015.safetensors",
        "best_step000030.safetensors",
    }
    train(ScoreTask(scores), make_model(), replace(options, num_steps=40, keep_best=1))
    assert load_model(folder / "best.safetensors").meta.info["steps"] == 5


def test_a_run_that_starts_anew_sets_the_former_aside(options: TrainOptions) -> None:
    train(FitTask(), make_model(), replace(options, num_steps=20))
    with pytest.raises(KeyboardInterrupt, match="without --no-resume"):
        train(FitTask(stop_at=3), make_model(), replace(options, resume=False))
    folder = Path(options.ckpt_dir) / options.exp_name
    assert {path.name for path in (folder / "former").iterdir()} == {"last.pt", "best.safetensors", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == {"last.pt", "options.json", "former"}
    assert last(options)["step"] == 4


def test_epochs_go_on_with_another_number_of_samples(options: TrainOptions) -> None:
    """As with another number of processes: no sample is passed over, none comes twice."""
    drawn: list[tuple[int, ...]] = []

    class Source(FitSource):
        def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
            for draw, batch in zip(draws, super().batches(draws), strict=False):
                drawn.append(draw.indices)
                yield batch

    def run(**changes: Any) -> Path:
        task = FitTask(stop_at=changes.pop("stop_at", None))
        task.source = Source(task._drawn)
        return train(task, make_model(), replace(options, **changes))

    with pytest.raises(KeyboardInterrupt):
        run(num_epochs=2, batch_size=2, stop_at=2)
    # batch_size is no option that may change, so the number of samples of a step is changed as processes would.
    content = last(options)
    assert content["samples"] == 6
    content["setup"]["batch_size"] = 1
    torch.save(content, Path(options.ckpt_dir) / options.exp_name / LAST_NAME)
    path = run(num_epochs=2, batch_size=1)
    assert [index for indices in drawn for index in indices] == list(range(16))
    assert load_model(path).meta.info["steps"] == 3 + 10


def test_training_goes_on_without_a_log_where_the_disk_of_the_log_is_full(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    assert load_model(train(FitTask(), make_model(), options)).meta.info["steps"] == 30
    printed = capsys.readouterr().out
    assert printed.count("the disk is full") == 1
    assert str(Path(options.log_dir) / "default") in printed
    assert "training goes on without a log" in printed
