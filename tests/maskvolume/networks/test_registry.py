"""An architecture is one entry: all that the method asks of it is there."""

from __future__ import annotations

import inspect

import pytest
import torch

from maskvolume.mpi.stage_options import StageOptions
from maskvolume.networks import ARCHITECTURES


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_has_been_measured(arch: str) -> None:
    assert set(ARCHITECTURES[arch].work) == {"fp32", "bf16"}


def test_programs_offer_the_architectures_that_there_are() -> None:
    assert StageOptions.__dataclass_fields__["arch"].metadata["choices"] == tuple(ARCHITECTURES)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_networks_take_what_they_need_by_name(arch: str) -> None:
    for make in (ARCHITECTURES[arch].mpi, ARCHITECTURES[arch].mask):
        parameters = inspect.signature(make().forward).parameters.values()
        assert not [one for one in parameters if one.kind is inspect.Parameter.VAR_POSITIONAL]
    assert "context" in inspect.signature(ARCHITECTURES[arch].mpi().forward).parameters


@pytest.mark.parametrize("arch", [name for name, entry in ARCHITECTURES.items() if entry.context])
def test_a_context_is_local_in_its_inputs(arch: str) -> None:
    context, halo = ARCHITECTURES[arch].context, ARCHITECTURES[arch].halo
    assert context is not None
    assert halo is not None
    torch.manual_seed(0)
    sweep = torch.rand(1, 2, 3, 4, 32, 64)
    near = sweep[..., : 32 + context.halo]
    for whole, part in zip(context.inputs(sweep, None), context.inputs(near, None), strict=True):
        torch.testing.assert_close(part[..., :16], whole[..., :16], atol=1e-6, rtol=0)
