"""An architecture is one entry: all that the method asks of it is there."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.stage_options import StageOptions
from maskvolume.mpi.stages import load_start
from maskvolume.networks import ARCHITECTURES, MatchingMPINet, SemiglobalMPINet
from maskvolume.runtime.errors import InputError


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


def test_training_may_start_from_a_matching_network(tmp_path: Path) -> None:
    torch.manual_seed(7)
    matching_model = MaskVolumeModel(CheckpointMeta("mask", "matching"))
    torch.nn.init.normal_(matching_model.mpi_net.unet.head.weight)  # type: ignore[union-attr, arg-type]
    save_checkpoint(tmp_path / "matching.safetensors", matching_model)
    model = load_start(str(tmp_path / "matching.safetensors"), "mask", "semiglobal")
    assert model.meta.arch == "semiglobal"
    features = torch.rand(1, SemiglobalMPINet.FEATURES, 4, 8, 8)
    torch.testing.assert_close(
        model.mpi_net.unet(features),  # type: ignore[operator]
        matching_model.mpi_net.unet(features[:, : MatchingMPINet.FEATURES]),  # type: ignore[operator]
    )
    assert model.mask_net is not None
    assert matching_model.mask_net is not None
    for found, wanted in zip(model.mask_net.parameters(), matching_model.mask_net.parameters(), strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(InputError, match="make them agree"):
        load_start(str(tmp_path / "matching.safetensors"), "mask", "original")
