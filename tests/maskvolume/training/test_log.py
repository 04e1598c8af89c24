"""The log of a run."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter
from training_helpers import (
    NearestPicture,
    PictureOptions,
    PictureTask,
    logged,
    logged_steps,
    shipped,
)

from maskvolume.training import train


def test_the_log_tells_speed_waiting_rate_and_pictures(options: PictureOptions) -> None:
    train(PictureTask(), NearestPicture(), options)
    found = logged(options)
    tags = found.Tags()
    wanted = {f"train/{name}" for name in ("loss", "psnr", "lr", "samples_per_second", "data_wait", "gradient_norm")}
    assert wanted | {"val/psnr"} <= set(tags["scalars"])
    assert {"val/sample0/picture", "val/sample1/picture"} == set(tags["images"])
    assert [event.step for event in found.Scalars("train/loss")] == [10, 20, 30]
    assert all(0 <= event.value <= 1 for event in found.Scalars("train/data_wait"))


def test_a_resumed_log_has_every_point_once(options: PictureOptions) -> None:
    train(PictureTask(), NearestPicture(), replace(options, num_steps=20, val_every=10))
    train(PictureTask(), NearestPicture(), replace(options, num_steps=40, val_every=10))
    assert logged_steps(options, "train/loss") == [10, 20, 30, 40]
    assert logged_steps(options, "val/psnr") == [10, 20, 30, 40]


def test_training_continues_without_a_log_where_the_disk_of_the_log_is_full(
    options: PictureOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    assert shipped(train(PictureTask(), NearestPicture(), options))[1]["steps"] == 30
    printed = capsys.readouterr().out
    assert printed.count("the disk is full") == 1
    assert str(Path(options.log_dir) / "default") in printed
    assert "training continues without a log" in printed
