"""Both training programs: the loss falls on a world, they run from the command line, wrong input is one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from maskvolume.checkpoints import load_model, save_checkpoint
from maskvolume.model import CheckpointMeta, MaskVolumeModel

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--img_hw", "48", "64", "--num_planes", "8", "--margin", "8", "--device", "cpu", "--precision", "fp32")


def load(program: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(program.replace("/", "_"), ROOT / program / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def fall(task: Any, model: MaskVolumeModel, steps: int) -> float:
    """Last loss over first on one world."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    batch = task.sample(0)
    losses = []
    for _ in range(steps):
        loss, _ = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[-1] / losses[0]


def test_the_loss_of_stage_one_falls() -> None:
    program = load("train_mpi")
    torch.manual_seed(0)
    options = program.MPITrainOptions(img_hw=(48, 64), num_planes=8, margin=8)
    model = MaskVolumeModel(CheckpointMeta("mpi", "matching", num_planes=8))
    assert fall(program.MPITask(options, torch.device("cpu")), model, 24) < 0.95


def test_the_loss_of_stage_two_falls_and_stage_one_stays() -> None:
    program = load("train_mask")
    torch.manual_seed(0)
    options = program.MaskTrainOptions(mpi_model="", img_hw=(48, 64), num_planes=8, margin=8)
    model = MaskVolumeModel(CheckpointMeta("mask", "matching", num_planes=8))
    model.mpi_net.requires_grad_(False)
    before = {key: value.clone() for key, value in model.mpi_net.state_dict().items()}
    assert fall(program.MaskTask(options, torch.device("cpu")), model, 12) < 0.98
    assert all(torch.equal(value, before[key]) for key, value in model.mpi_net.state_dict().items())


@pytest.mark.parametrize("arch", ["matching", "original"])
def test_samples_depend_on_seed_and_step_alone(arch: str) -> None:
    program = load("train_mpi")
    options = program.MPITrainOptions(img_hw=(48, 64), arch=arch, batch_size=2)
    first, again = (program.MPITask(options, torch.device("cpu")).sample(7) for _ in range(2))
    assert torch.equal(first.images, again.images)
    other = program.MPITask(options, torch.device("cpu")).sample(8)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("arch", ["matching", "original"])
def test_both_stages_run_from_the_command_line(run_program: Callable[..., Any], tmp_path: Path, arch: str) -> None:
    views = "2 3" if arch == "matching" else "2 2"
    common = (
        *SMALL,
        "--arch",
        arch,
        "--num_sources",
        *views.split(),
        "--debug",
        "--log_dir",
        tmp_path / "logs",
        "--ckpt_dir",
        tmp_path / "ckpt",
    )
    run = run_program("train_mpi/train.py", "--config", "train_synthetic.txt", *common, cwd=ROOT / "train_mpi")
    assert run.rc == 0, run.stderr
    first = tmp_path / "ckpt" / "debug" / "model.safetensors"
    assert load_model(first).meta.stage == "mpi"
    kept = first.rename(tmp_path / "first.safetensors")
    common = (*common, "--no-resume", "--mpi_model", kept)
    run = run_program("train_mask/train.py", "--config", "train_mask_synthetic.txt", *common, cwd=ROOT / "train_mask")
    assert run.rc == 0, run.stderr
    model = load_model(first)
    assert model.meta.stage == "mask"
    stage_one = load_model(kept).mpi_net.state_dict()
    assert all(torch.equal(value, stage_one[key]) for key, value in model.mpi_net.state_dict().items())


@pytest.mark.parametrize(
    ("program", "config", "word"),
    [("train_mpi", "train_realestate10k.txt", "RealEstate10K"), ("train_mask", "train_mask.txt", "scene")],
)
def test_missing_data_says_how_to_get_it(run_program: Callable[..., Any], program: str, config: str, word: str) -> None:
    run = run_program(f"{program}/train.py", "--config", config, cwd=ROOT / program)
    run.check_input_error("root_dir", word, "synthetic")


def test_more_views_than_the_architecture_takes_are_refused(run_program: Callable[..., Any], tmp_path: Path) -> None:
    run = run_program("train_mpi/train.py", "--arch", "original", "--num_sources", "2", "3", cwd=tmp_path)
    run.check_input_error("num_sources", "original")


def test_stage_two_refuses_what_is_no_stage_one(run_program: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta("mpi", "original")))
    run = run_program("train_mask/train.py", "--mpi_model", path, "--arch", "matching", cwd=tmp_path)
    run.check_input_error("one.safetensors", "original")
    run_program("train_mask/train.py", "--mpi_model", tmp_path / "none.pt", cwd=tmp_path).check_input_error("none.pt")
