"""Stage two: the loss falls and stage one stays, the program runs on worlds and on rigs, wrong input is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_helpers import draw, final_loss_ratio, interrupt_start

from maskvolume.losses import masked_l1_loss
from maskvolume.mpi.checkpoints import load_model, save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from train_mask.train import MASK_WEIGHT, SPARSITY_WEIGHT, MaskTask, MaskTrainOptions

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--img_hw", "48", "64", "--num_planes", "8", "--margin", "8", "--device", "cpu", "--precision", "fp32")
TINY = ("--img_hw", 32, 48, "--num_planes", 8, "--margin", 8, "--device", "cpu", "--precision", "fp32")


@pytest.fixture
def first_stage(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta("mpi", "semiglobal", num_planes=8)))
    return path


def test_the_loss_of_stage_two_falls_and_stage_one_stays() -> None:
    torch.manual_seed(0)
    options = MaskTrainOptions(mpi_model="", img_hw=(48, 64), num_planes=8, margin=8)
    model = MaskVolumeModel(CheckpointMeta("mask", "semiglobal", num_planes=8))
    model.mpi_net.requires_grad_(False)
    before = {key: value.clone() for key, value in model.mpi_net.state_dict().items()}
    assert final_loss_ratio(MaskTask(options, torch.device("cpu")), model, 12) < 0.98
    assert all(torch.equal(value, before[key]) for key, value in model.mpi_net.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["semiglobal", "matching", "original"])
def test_it_runs_from_the_command_line(call_program: Callable[..., Any], tmp_path: Path, arch: str) -> None:
    torch.manual_seed(0)
    first = tmp_path / "first.safetensors"
    save_checkpoint(first, MaskVolumeModel(CheckpointMeta("mpi", arch, num_planes=8)))  # type: ignore[arg-type]
    words = (*SMALL, "--arch", arch, "--debug", "--log_dir", tmp_path / "logs", "--ckpt_dir", tmp_path / "ckpt")
    words = (*words, "--num_sources", 2, 2 if arch == "original" else 3, "--mpi_model", first)
    run = call_program("train_mask/train.py", "--config", "train_mask_synthetic.txt", *words, cwd=ROOT / "train_mask")
    assert run.rc == 0, run.stderr
    model = load_model(tmp_path / "ckpt" / "debug" / "model.safetensors")
    assert model.meta.stage == "mask"
    stage_one = load_model(first).mpi_net.state_dict()
    assert all(torch.equal(value, stage_one[key]) for key, value in model.mpi_net.state_dict().items())


def test_missing_data_says_how_to_get_it(call_program: Callable[..., Any]) -> None:
    run = call_program("train_mask/train.py", "--config", "train_mask.txt", cwd=ROOT / "train_mask")
    run.check_input_error("root_dir", "scene", "synthetic")


def test_stage_two_starts_from_a_mask_network(call_program: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = MaskVolumeModel(CheckpointMeta("mask", "matching"))
    save_checkpoint(tmp_path / "two.safetensors", model)
    save_checkpoint(tmp_path / "one.safetensors", MaskVolumeModel(CheckpointMeta("mpi", "semiglobal")))
    words = ("--mpi_model", tmp_path / "one.safetensors", "--num_steps", 1, "--val_samples", 1, "--lr", 1e-9)
    given = ("--init_ckpt", tmp_path / "two.safetensors")
    run = call_program("train_mask/train.py", *SMALL, *words, *given, cwd=tmp_path)
    assert run.rc == 0, run.stderr
    trained = load_model(tmp_path / "runs" / "checkpoints" / "default" / "model.safetensors")
    assert trained.mask_net is not None
    assert model.mask_net is not None
    for key, value in model.mask_net.state_dict().items():
        torch.testing.assert_close(trained.mask_net.state_dict()[key], value, atol=1e-6, rtol=0)
    wrong = call_program("train_mask/train.py", *words, "--init_ckpt", tmp_path / "one.safetensors", cwd=tmp_path)
    wrong.check_input_error("one.safetensors", "stage-one")


def test_stage_two_refuses_what_is_no_stage_one(call_program: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta("mpi", "original")))
    run = call_program("train_mask/train.py", "--mpi_model", path, "--arch", "matching", cwd=tmp_path)
    run.check_input_error("one.safetensors", "original")
    call_program("train_mask/train.py", "--mpi_model", tmp_path / "none.pt", cwd=tmp_path).check_input_error("none.pt")


@pytest.mark.slow
def test_the_config_trains_on_recorded_rigs(
    run_program: Callable[..., Any], data: Path, first_stage: Path, tmp_path: Path
) -> None:
    words = (*TINY, "--mpi_model", first_stage, "--root_dir", data, "--val_dir", data, "--num_cams", 4)
    run = run_program(
        "train_mask/train.py", "--config", "train_mask.txt", *words, "--temporal_weight", 1, "--debug", cwd=tmp_path
    )
    assert run.rc == 0, run.stderr
    model = load_model(tmp_path / "runs/checkpoints/debug/model.safetensors")
    assert model.meta.stage == "mask"
    kept = load_model(first_stage).mpi_net.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in model.mpi_net.state_dict().items())
    events = EventAccumulator(str(tmp_path / "runs/logs/debug"))
    events.Reload()
    shapes = {tag.rsplit("/", 1)[1]: events.Images(tag)[0] for tag in events.Tags()["images"]}
    # Truth, prediction, dynamic and background rendering, disparity; mask beside matte; planes of the mask volume.
    assert {name: (event.height, event.width) for name, event in shapes.items()} == {
        "views": (32, 5 * 48), "mask_and_matte": (32, 2 * 48), "mask_slices": (48, 8 * 64),
    }  # fmt: skip


def test_the_first_stage_learns_along_where_asked(
    call_program: Callable[..., Any], data: Path, first_stage: Path, tmp_path: Path
) -> None:
    kept = load_model(first_stage).mpi_net.state_dict()
    words = (*TINY, "--mpi_model", first_stage, "--dataset_name", "mixed", "--root_dir", data, "--val_dir", data)
    words = (*words, "--num_steps", 2, "--val_samples", 1, "--optimizer", "sgd", "--lr", 1e-3, "--weight_decay", 0)
    moved = {}
    for rate in (1e-3, 1e-5):
        run = call_program(
            "train_mask/train.py", *words, "--finetune_mpi", "--mpi_lr", rate, "--exp_name", f"r{rate}", cwd=tmp_path
        )
        assert run.rc == 0, run.stderr
        model = load_model(tmp_path / f"runs/checkpoints/r{rate}/model.safetensors")
        moved[rate] = sum(float((value - kept[key]).abs().sum()) for key, value in model.mpi_net.state_dict().items())
    assert moved[1e-3] > 10 * moved[1e-5] > 0


@pytest.mark.parametrize("loss_type", ["full_loss", "no_mask", "image", "masked_l1", "l1", "mse"])
def test_every_loss_is_the_sum_of_its_terms(loss_type: str) -> None:
    torch.manual_seed(0)
    model = MaskVolumeModel(CheckpointMeta("mask", "semiglobal", num_planes=8))
    options = MaskTrainOptions(
        mpi_model="",
        img_hw=(32, 48),
        num_planes=8,
        margin=8,
        loss_type=loss_type,
        temporal_weight=0.5,
        moving_weight=2.0,
    )
    task = MaskTask(options, torch.device("cpu"))
    batch = draw(task, 3)
    with torch.no_grad():
        loss, scalars = task.loss(model, batch)
    expected = scalars["image_loss"] + 0.5 * scalars["temporal_loss"]
    assert ("mask_loss" in scalars) == (loss_type == "full_loss")
    assert ("mask_mean" in scalars) == (loss_type in ("full_loss", "no_mask"))
    expected = expected + MASK_WEIGHT * scalars.get("mask_loss", 0) + SPARSITY_WEIGHT * scalars.get("mask_mean", 0)
    torch.testing.assert_close(loss, expected)
    background = task._background(model, batch)
    with torch.no_grad():
        rendering = task._frame(model, batch, batch.images, background).mpi.render(batch.target)
    near = F.max_pool2d(batch.matte, 5, stride=1, padding=2)  # within a twentieth of the width of 48
    weight = rendering.opacity * (1 + 2.0 * (2 * batch.matte + near) / 3)
    error = (rendering.color - batch.target_image).abs()
    if loss_type == "l1":
        torch.testing.assert_close(
            scalars["image_loss"], (error * weight).sum() / weight.sum() / 3, rtol=1e-4, atol=1e-6
        )
    if loss_type == "mse":
        torch.testing.assert_close(
            scalars["image_loss"], (error**2 * weight).sum() / weight.sum() / 3, rtol=1e-4, atol=1e-6
        )
    if loss_type == "masked_l1":
        found = masked_l1_loss(rendering.color, batch.target_image, weight, batch.matte)
        torch.testing.assert_close(scalars["image_loss"], found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--num_cams", 2), ("--num_cams", "3 or more")),
        (("--scale", 2, 1), ("--scale",)),
        (("--temporal_weight", -1), ("--temporal_weight",)),
        (("--dataset_name", "rig", "--root_dir", ".", "--val_dir", "."), ("rig training data", "compress_rig.py")),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(
    call_program: Callable[..., Any],
    first_stage: Path,
    tmp_path: Path,
    arguments: tuple[Any, ...],
    words: tuple[str, ...],
) -> None:
    run = call_program("train_mask/train.py", "--mpi_model", first_stage, *arguments, cwd=tmp_path)
    run.check_input_error(*words)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.pt"))


def test_an_interruption_while_the_program_starts_is_silent(tmp_path: Path) -> None:
    interrupt_start(ROOT / "train_mask" / "train.py", tmp_path)
