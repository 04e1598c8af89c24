"""Schedules, optimizers, averaged weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.training import TrainOptions
from maskvolume.training.schedule import (
    RATE_SHARE,
    Averaged,
    learning_rate,
    make_optimizer,
)

OPTIONS = TrainOptions(num_steps=1000, warmup_steps=100, lr=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "steplr", "poly", "none"])
def test_schedules_warm_up_and_do_not_rise_again(schedule: str) -> None:
    options = replace(OPTIONS, lr_scheduler=schedule)
    rates = [learning_rate(options, step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) <= 1e-3
    assert all(a >= b for a, b in pairwise(rates[100:]))
    assert rates[-1] < 0.02 * 1e-3 or schedule == "none"


def test_schedules_at_known_places() -> None:
    def rate(step: int, **changes: object) -> float:
        return learning_rate(replace(OPTIONS, warmup_steps=0, **changes), step) / 1e-3  # type: ignore[arg-type]

    assert rate(500, lr_scheduler="cosine") == pytest.approx(0.505)
    assert rate(1000, lr_scheduler="cosine") == pytest.approx(0.01)
    assert rate(250, lr_scheduler="poly", poly_exp=2.0) == pytest.approx(0.01 + 0.99 * 0.75**2)
    steps = {"lr_scheduler": "steplr", "decay_at": (0.2, 0.7), "decay_gamma": 0.5}
    assert [rate(step, **steps) for step in (199, 200, 699, 700)] == [1, 0.5, 0.5, 0.25]
    assert rate(999, lr_scheduler="none") == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("radam", torch.optim.RAdam)],
)
def test_frozen_weights_stay_out_of_the_optimizer(name: str, kind: type) -> None:
    model = MaskVolumeModel(CheckpointMeta("mask", "matching"))
    model.mpi_net.requires_grad_(False)
    optimizer = make_optimizer(replace(OPTIONS, optimizer=name, weight_decay=0.25), model)
    assert type(optimizer) is kind
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert model.mask_net is not None
    assert given == {id(p) for p in model.mask_net.parameters()}
    assert optimizer.param_groups[0]["weight_decay"] == (0 if name == "adam" else 0.25)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "radam"])
def test_every_optimizer_finds_the_bottom_of_a_bowl(name: str) -> None:
    point = torch.nn.Linear(1, 4, bias=False)
    rate = 0.02 if name == "sgd" else 0.1
    optimizer = make_optimizer(replace(OPTIONS, optimizer=name, lr=rate, weight_decay=0.0), point)
    for _ in range(150):
        optimizer.zero_grad()
        ((point.weight - 0.3) ** 2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(point.weight, torch.full((4, 1), 0.3), rtol=0, atol=0.02)


def test_averaged_weights_follow_and_are_put_back() -> None:
    model = torch.nn.Linear(2, 2)
    averaged = Averaged(model, 0.9)
    first = averaged.values["weight"].clone()
    with torch.no_grad():
        model.weight += 1
    averaged.update(model, 1000)
    torch.testing.assert_close(averaged.values["weight"], first + 0.1)
    trained = model.weight.detach().clone()
    with averaged.swapped_in(model):
        torch.testing.assert_close(model.weight.detach(), first + 0.1)
        assert not model.training
    assert torch.equal(model.weight, trained)
    assert model.training


def test_without_averaging_the_trained_weights_are_taken() -> None:
    model = torch.nn.Linear(2, 2)
    averaged = Averaged(model, 0.0)
    with torch.no_grad():
        model.weight += 1
    averaged.update(model, 0)
    assert torch.equal(averaged.values["weight"], model.weight)


def test_networks_may_have_a_part_of_the_learning_rate() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mpi_net, self.mask_net = nn.Linear(2, 2), nn.Linear(2, 2)

    model = Two()
    groups = make_optimizer(OPTIONS, model, {"mpi_net": 0.1}).param_groups
    shares = {id(parameter): group[RATE_SHARE] for group in groups for parameter in group["params"]}
    assert {shares[id(parameter)] for parameter in model.mpi_net.parameters()} == {0.1}
    assert {shares[id(parameter)] for parameter in model.mask_net.parameters()} == {1.0}
    model.mpi_net.requires_grad_(False)
    assert len(make_optimizer(OPTIONS, model, {"mpi_net": 0.1}).param_groups) == 1
