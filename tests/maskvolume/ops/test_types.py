"""What every implementation offers."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from maskvolume import ops
from maskvolume.ops.reference import ReferenceBackend
from maskvolume.ops.types import Backend

METHODS = [name for name, value in vars(Backend).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_implementations_have_the_arguments_of_the_reference(name: str) -> None:
    wanted = [*inspect.signature(getattr(Backend, name)).parameters]
    for backend in (ReferenceBackend(), ops.select_backend("compiled", torch.device("cpu"))):
        assert [*inspect.signature(getattr(type(backend), name)).parameters] == wanted


def test_settings_can_not_change_under_a_kernel() -> None:
    settings = ops.PathPrices(step=0.05, jump=0.8, edge=20.0, least_jump=0.075)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.step = 1.0  # type: ignore[misc]
