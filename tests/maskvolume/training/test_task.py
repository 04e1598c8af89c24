"""The loop trains a family of methods that is no MPI: its own module, batches, options and form of checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from training_helpers import NearestPicture, PictureOptions, PictureTask, shipped

from maskvolume.runtime.errors import InputError
from maskvolume.training import train
from maskvolume.training.task import TaskLoss


@pytest.fixture
def options(options: PictureOptions) -> PictureOptions:
    return replace(options, num_steps=60, save_every=20, val_every=30, num_pictures=3, folder="/home/me")


def test_it_learns_and_ships_a_checkpoint_of_its_own_form(options: PictureOptions) -> None:
    task, model = PictureTask(num_pictures=3), NearestPicture(3)
    before = task.score(model)
    path = train(task, model, options)
    trained, info = shipped(path)
    assert path.name == "model.npz"
    assert task.score(trained) > before + 5
    assert trained.shares.argmax() == 0
    assert (info["steps"], info["options"]["num_pictures"], set(info["metrics"])) == (60, 3, {"psnr"})


def test_its_own_options_are_guarded_and_private_as_it_declares(options: PictureOptions) -> None:
    path = train(PictureTask(num_pictures=3), NearestPicture(3), replace(options, num_steps=2))
    assert not {"folder", "log_dir", "ckpt_dir"} & set(shipped(path)[1]["options"])
    with pytest.raises(InputError, match=r"other options: num_pictures 3 \(now 2\)"):
        train(PictureTask(), NearestPicture(), replace(options, num_pictures=2))
    with pytest.raises(InputError, match="--num_pictures: 2 or more expected, got 1"):
        train(PictureTask(), NearestPicture(), replace(options, num_pictures=1))
    moved = replace(options, num_steps=4, folder="/elsewhere")
    assert shipped(train(PictureTask(num_pictures=3), NearestPicture(3), moved))[1]["steps"] == 4


def test_it_names_the_modules_to_compile(options: PictureOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compiled.append(module))
    model = NearestPicture(3)
    train(PictureTask(num_pictures=3), model, replace(options, num_steps=1, compile=True))
    assert compiled == [model]


def test_the_loss_is_the_forward_pass_of_a_module() -> None:
    task, model = PictureTask(), NearestPicture()
    batch = task.source.pictures(5)
    loss, scalars = TaskLoss(task, model)(batch)
    assert torch.equal(loss, task.loss(model, batch)[0])
    assert set(scalars) == {"psnr"}
    assert {name for name, _ in TaskLoss(task, model).named_parameters()} == {"model.shares", "model.colour"}
