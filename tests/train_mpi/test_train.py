"""Stage one: the loss falls on a world, the program runs and resumes, wrong input is one line."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_helpers import write_shards
from training_helpers import draw, final_loss_ratio, interrupt_start

from maskvolume.io.triplets import ViewChoice, write_triplets
from maskvolume.mpi.checkpoints import load_model, save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from train_mpi.train import MPITask, MPITrainOptions, plane_loss

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--img_hw", "48", "64", "--num_planes", "8", "--margin", "8", "--device", "cpu", "--precision", "fp32")
TINY = ("--img_hw", "32", "32", "--num_planes", "4", "--margin", "4", "--device", "cpu", "--precision", "fp32")


@pytest.mark.slow
def test_the_loss_of_stage_one_falls() -> None:
    torch.manual_seed(0)
    options = MPITrainOptions(img_hw=(48, 64), num_planes=8, margin=8)
    model = MaskVolumeModel(CheckpointMeta("mpi", "semiglobal", num_planes=8))
    assert final_loss_ratio(MPITask(options, torch.device("cpu")), model, 25) < 0.95


def test_samples_depend_on_seed_and_number_alone() -> None:
    task = MPITask(MPITrainOptions(img_hw=(48, 64)), torch.device("cpu"))
    first, again = (draw(task, 7, batch_size=2) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, draw(task, 8, batch_size=2).images)
    assert torch.equal(first.images[1], draw(task, 15).images[0])


def test_batches_of_any_size_and_crop_and_number_of_views_train() -> None:
    model = MaskVolumeModel(CheckpointMeta("mpi", "semiglobal", num_planes=7))
    for hw, views, batch in (((40, 56), (2, 2), 3), ((33, 47), (5, 5), 2), ((64, 32), (3, 3), 1)):
        options = MPITrainOptions(img_hw=hw, num_planes=7, margin=5, num_sources=views, depth_weight=0.1)
        task = MPITask(options, torch.device("cpu"))
        loss, scalars = task.loss(model, draw(task, 0, batch))
        loss.backward()
        assert float(scalars["plane_loss"]) > 0
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_the_loss_on_planes_is_least_at_the_true_depth() -> None:
    depths = 1 / torch.linspace(0.1, 1.0, 10)[None]
    depth = torch.full((1, 1, 2, 3), 1 / 0.55)  # half way between planes 4 and 5
    halves = torch.full((1, 10, 2, 3), -30.0)
    halves[:, 4:6] = 0
    assert plane_loss(halves, depth, depths) == pytest.approx(math.log(2), abs=1e-5)
    single = torch.full((1, 10, 2, 3), -30.0)
    single[:, 4] = 0
    assert plane_loss(single, torch.full_like(depth, 1 / 0.5), depths) == pytest.approx(0, abs=1e-4)
    assert plane_loss(single, depth, depths) > 10
    logits = torch.zeros(1, 10, 2, 3, requires_grad=True)
    plane_loss(logits, depth, depths).backward()
    assert logits.grad is not None
    assert bool((logits.grad[:, 4:6] < 0).all())
    assert bool((logits.grad[:, 6:] > 0).all())


@pytest.mark.parametrize("arch", ["semiglobal", "matching", "original"])
def test_it_runs_from_the_command_line(call_program: Callable[..., Any], tmp_path: Path, arch: str) -> None:
    words = (*SMALL, "--arch", arch, "--debug", "--log_dir", tmp_path / "logs", "--ckpt_dir", tmp_path / "ckpt")
    words = (*words, "--num_sources", 2, 2 if arch == "original" else 3)
    words = (*words, *(("--depth_weight", 0) if arch == "original" else ()))
    run = call_program("train_mpi/train.py", "--config", "train_synthetic.txt", *words, cwd=ROOT / "train_mpi")
    assert run.rc == 0, run.stderr
    assert load_model(tmp_path / "ckpt" / "debug" / "model.safetensors").meta.stage == "mpi"


def test_missing_data_says_how_to_get_it(call_program: Callable[..., Any]) -> None:
    run = call_program("train_mpi/train.py", "--config", "train_realestate10k.txt", cwd=ROOT / "train_mpi")
    run.check_input_error("root_dir", "RealEstate10K", "synthetic")


def test_more_views_than_the_architecture_takes_are_refused(call_program: Callable[..., Any], tmp_path: Path) -> None:
    run = call_program("train_mpi/train.py", "--arch", "original", "--num_sources", "2", "3", cwd=tmp_path)
    run.check_input_error("num_sources", "original")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--arch", "original", "--depth_weight", "1"), ("--depth_weight", "original")),
        (("--arch", "matching", "--sampling", "original"), ("--sampling", "matching")),
        (("--depth_weight", "-1"), ("--depth_weight",)),
        (("--stride", "5", "2"), ("--stride",)),
        (("--scale", "0.001", "2"), ("--scale", "0.01")),
        (("--synthetic_share", "1"), ("--synthetic_share",)),
        (("--subsequence", "2"), ("--subsequence",)),
        (("--jitter", "2"), ("--jitter",)),
        (("--loss_type", "vgg", "--vgg_weights", "none.pth"), ("none.pth",)),
        (("--num_epochs", "3", "--dataset_name", "synthetic"), ("--num_epochs", "--num_steps")),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(
    call_program: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    call_program("train_mpi/train.py", *SMALL, *arguments, cwd=tmp_path).check_input_error(*words)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_all_steps_are_half_a_kill_and_half_bit_for_bit(tmp_path: Path) -> None:
    """On a mixture of made and recorded data that a worker reads."""
    data = write_shards(tmp_path / "data", {"a": 40, "b": 30})
    write_triplets(data / "triplets.txt", [ViewChoice("a", 5000, (3000, 8000))])
    command = [
        sys.executable, str(ROOT / "train_mpi" / "train.py"), *TINY, "--dataset_name", "mixed", "--num_workers", "1",
        "--root_dir", str(data), "--val_dir", str(data), "--num_steps", "24", "--save_every", "3", "--val_every", "12",
        "--val_samples", "2", "--num_sources", "2", "3", "--depth_weight", "0.01", "--keep_best", "2",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--exp_name", name], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    folder = tmp_path / "runs" / "checkpoints"
    whole, parts = run("whole"), run("parts")
    last = folder / "parts" / "last.pt"
    deadline = time.monotonic() + 120
    while not (last.exists() and torch.load(last, weights_only=True)["step"] >= 12):
        assert time.monotonic() < deadline
        assert parts.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    parts.send_signal(signal.SIGKILL)
    parts.wait()
    assert not (folder / "parts" / "model.safetensors").exists()
    assert run("parts").wait(timeout=200) == 0
    assert whole.wait(timeout=200) == 0
    one, two = (load_model(folder / name / "model.safetensors") for name in ("whole", "parts"))
    assert one.meta.info["steps"] == two.meta.info["steps"] == 24
    assert one.meta.info["metrics"] == two.meta.info["metrics"]
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key
    states = [torch.load(folder / name / "last.pt", weights_only=True) for name in ("whole", "parts")]
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key]), key


def test_stage_one_goes_on_from_weights_of_the_original_in_their_convention(
    call_program: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    first = MaskVolumeModel(CheckpointMeta("mpi", "original", sampling="original"))
    save_checkpoint(tmp_path / "one.safetensors", first)
    words = ("--arch", "original", "--init_ckpt", tmp_path / "one.safetensors", "--lr", 1e-9, "--num_steps", 1)
    run = call_program("train_mpi/train.py", *SMALL, *words, "--val_samples", 1, "--num_sources", 2, 2, cwd=tmp_path)
    assert run.rc == 0, run.stderr
    trained = load_model(tmp_path / "runs/checkpoints/default/model.safetensors")
    assert trained.meta.sampling == "original"
    for key, value in first.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[key], value, atol=1e-6, rtol=0)
    wrong = call_program(
        "train_mpi/train.py", *SMALL, *words, "--sampling", "exact", "--num_sources", 2, 2, cwd=tmp_path
    )
    wrong.check_input_error("one.safetensors", "--sampling original")
    words = ("--arch", "original", "--sampling", "original", "--exp_name", "theirs", "--num_steps", 1)
    run = call_program("train_mpi/train.py", *SMALL, *words, "--val_samples", 1, "--num_sources", 2, 2, cwd=tmp_path)
    assert run.rc == 0, run.stderr
    assert load_model(tmp_path / "runs/checkpoints/theirs/model.safetensors").meta.sampling == "original"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_mpi" / "train.py"), *TINY, "--num_steps", "5000", "--save_every", "4000",
         "--val_every", "4000"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    folder = tmp_path / "runs" / "checkpoints" / "default"
    deadline = time.monotonic() + 60
    while not (folder / "options.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert torch.load(folder / "last.pt", weights_only=True)["step"] >= 1
    assert not (folder / "model.safetensors").exists()


def test_an_interruption_while_the_program_starts_is_silent(tmp_path: Path) -> None:
    interrupt_start(ROOT / "train_mpi" / "train.py", tmp_path)
