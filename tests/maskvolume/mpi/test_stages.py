"""What the training of both stages shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskvolume.data.draws import MixedSource
from maskvolume.data.synthetic import SyntheticSource, WorldOptions
from maskvolume.mpi.checkpoints import load_model, save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.stage_options import StageOptions
from maskvolume.mpi.stages import StageTask, choose_source, load_start, mpi_frustum, new_model
from maskvolume.networks.matching import MatchingMPINet
from maskvolume.networks.semiglobal import SemiglobalMPINet
from maskvolume.runtime.errors import InputError


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


def source(seed: int = 0) -> SyntheticSource:
    return SyntheticSource(WorldOptions(size=(16, 24)), seed, torch.device("cpu"), 2)


@pytest.mark.parametrize(("name", "opened"), [("synthetic", 0), ("realestate10k", 1), ("mixed", 1)])
def test_the_source_is_the_one_that_is_named(name: str, opened: int) -> None:
    worlds, recorded, calls = source(0), source(1), []

    def open_recorded() -> SyntheticSource:
        calls.append(name)
        return recorded

    chosen = choose_source(StageOptions(dataset_name=name, synthetic_share=0.3), worlds, open_recorded)
    assert len(calls) == opened
    if name == "mixed":
        assert chosen == MixedSource(((worlds, 0.3), (recorded, 0.7)), 0)
    else:
        assert chosen is (recorded if opened else worlds)


def test_the_frustum_is_wider_than_the_first_source() -> None:
    sample = source().validation()[0]
    camera, depths = mpi_frustum(sample, 8, 5)
    assert camera.size == (16 + 10, 24 + 10)
    assert depths.shape == (1, 8)
    torch.testing.assert_close(camera.T_cam_world, sample.sources.T_cam_world[:, 0])


def test_a_stage_compiles_its_networks_and_ships_a_described_checkpoint(tmp_path: Path) -> None:
    task, model = StageTask(), new_model(StageOptions(arch="matching", num_planes=4))
    assert task.compiled_modules(model) == [model.mpi_net]
    both = MaskVolumeModel(CheckpointMeta("mask", "matching"))
    assert task.compiled_modules(both) == [both.mpi_net, both.mask_net]
    task.save(tmp_path / f"a{task.suffix}", model, {"steps": 3})
    assert load_model(tmp_path / "a.safetensors").meta == CheckpointMeta("mpi", "matching", "exact", 4, {"steps": 3})
