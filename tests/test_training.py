"""The loop: the loss falls, a resumed run equals an uninterrupted one, wrong set-ups are refused."""

from __future__ import annotations

import errno
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maskvolume.checkpoints import load_model
from maskvolume.devices import resolve_device
from maskvolume.errors import InputError, describe_os_error
from maskvolume.losses import l1_ssim_grad_loss, mask_loss, psnr, ssim_map
from maskvolume.model import CheckpointMeta, MaskVolumeModel
from maskvolume.training import (
    LAST_NAME,
    TrainOptions,
    learning_rate,
    make_optimizer,
    train,
)


class FitTask:
    """Fit the opacity that the MPI network gives a fixed sweep: fast, and enough to see the loop work."""

    def __init__(self, stop_at: int | None = None, nan_at: int | None = None) -> None:
        self.stop_at, self.nan_at = stop_at, nan_at

    def sample(self, step: int) -> Tensor:
        if step == self.stop_at:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return torch.rand(1, 2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(step))

    def loss(self, model: MaskVolumeModel, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        rgba = model.mpi_net(batch)
        loss = ((rgba[:, 2, 3] - 0.9) ** 2).mean()
        if self.nan_at is not None and torch.equal(batch, self.sample(self.nan_at)):
            loss = loss * math.nan
        return loss, {"psnr": -loss.detach()}

    def validate(self, model: MaskVolumeModel) -> tuple[dict[str, float], dict[str, Tensor]]:
        loss, _ = self.loss(model, self.sample(10_000))
        return {"psnr": -float(loss)}, {"picture": torch.zeros(3, 4, 4)}


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
    before = task.validate(model)[0]["psnr"]
    path = train(task, model, options)
    assert task.validate(load_model(path))[0]["psnr"] > before
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


def test_a_loss_that_is_not_finite_stops(options: TrainOptions) -> None:
    with pytest.raises(InputError, match="not finite at step 12"):
        train(FitTask(nan_at=12), make_model(), options)
    assert torch.load(Path(options.ckpt_dir) / "default" / LAST_NAME, weights_only=True)["step"] == 10


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
     ("margin", -1), ("lr", 0.0), ("ema_decay", 2.0), ("num_steps", 0), ("num_gpus", 4), ("num_epochs", 10)],
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


@pytest.mark.parametrize("schedule", ["cosine", "steplr", "none"])
def test_schedules_warm_up_and_do_not_rise_again(options: TrainOptions, schedule: str) -> None:
    chosen = replace(options, lr_scheduler=schedule, num_steps=1000, warmup_steps=100)
    rates = [learning_rate(chosen, step) for step in range(1000)]
    assert rates[0] == pytest.approx(chosen.lr / 100)
    assert max(rates) <= chosen.lr
    assert all(a >= b for a, b in pairwise(rates[100:]))
    assert rates[-1] < 0.02 * chosen.lr or schedule == "none"


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_frozen_weights_stay_out_of_the_optimizer(options: TrainOptions, name: str) -> None:
    model = MaskVolumeModel(CheckpointMeta("mask", "matching"))
    model.mpi_net.requires_grad_(False)
    optimizer = make_optimizer(replace(options, optimizer=name), model)
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert model.mask_net is not None
    assert given == {id(p) for p in model.mask_net.parameters()}


def test_a_device_that_is_not_there_is_named() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda: not available"):
            resolve_device("cuda")
    assert resolve_device("cpu").type == "cpu"


def test_ssim_is_one_for_equal_pictures_and_lower_for_others() -> None:
    a = torch.rand(1, 3, 20, 24)
    torch.testing.assert_close(ssim_map(a, a), torch.ones_like(a))
    assert ssim_map(a, torch.rand(1, 3, 20, 24)).mean() < 0.5


def test_image_loss_counts_only_weighted_pixels() -> None:
    target, weight = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    weight[..., :12] = 1
    wrong = target.clone()
    wrong[..., 20:] = 0  # farther from the weighted part than any window reaches
    assert l1_ssim_grad_loss(wrong, target, weight) < 1e-6
    assert l1_ssim_grad_loss(wrong, target, torch.ones_like(weight)) > 0.05


def test_mask_loss_is_zero_for_the_matte_itself() -> None:
    matte = torch.zeros(1, 1, 16, 16)
    matte[..., 4:9, 4:9] = 1
    assert mask_loss(matte, matte) == 0
    assert mask_loss(1 - matte, matte) > 0.9


def test_psnr_clamps() -> None:
    assert psnr(torch.full((1, 3, 2, 2), 1.7), torch.ones(1, 3, 2, 2)) == 100
    assert psnr(torch.full((1, 3, 2, 2), 0.9), torch.ones(1, 3, 2, 2)) == pytest.approx(20, abs=1e-3)
