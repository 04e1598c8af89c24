"""Both training programs: the loss falls on a world, they run from the command line, wrong input is one line."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from shard_helpers import write_shards

from maskvolume.data.draws import BatchPlan
from maskvolume.io.triplets import ViewChoice, write_triplets
from maskvolume.mpi.checkpoints import load_model, save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--img_hw", "48", "64", "--num_planes", "8", "--margin", "8", "--device", "cpu", "--precision", "fp32")


def load(program: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{program}_program", ROOT / program / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def draw(task: Any, step: int, batch_size: int = 1) -> Any:
    """The batch of a step."""
    return next(iter(task.source.batches(BatchPlan(batch_size).draws(step))))


def fall(task: Any, model: MaskVolumeModel, steps: int) -> float:
    """Last loss over first on one world."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    batch = draw(task, 0)
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
    model = MaskVolumeModel(CheckpointMeta("mpi", "semiglobal", num_planes=8))
    assert fall(program.MPITask(options, torch.device("cpu")), model, 40) < 0.95


def test_the_loss_of_stage_two_falls_and_stage_one_stays() -> None:
    program = load("train_mask")
    torch.manual_seed(0)
    options = program.MaskTrainOptions(mpi_model="", img_hw=(48, 64), num_planes=8, margin=8)
    model = MaskVolumeModel(CheckpointMeta("mask", "semiglobal", num_planes=8))
    model.mpi_net.requires_grad_(False)
    before = {key: value.clone() for key, value in model.mpi_net.state_dict().items()}
    assert fall(program.MaskTask(options, torch.device("cpu")), model, 12) < 0.98
    assert all(torch.equal(value, before[key]) for key, value in model.mpi_net.state_dict().items())


def test_samples_depend_on_seed_and_number_alone() -> None:
    program = load("train_mpi")
    task = program.MPITask(program.MPITrainOptions(img_hw=(48, 64)), torch.device("cpu"))
    first, again = (draw(task, 7, batch_size=2) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, draw(task, 8, batch_size=2).images)
    assert torch.equal(first.images[1], draw(task, 15).images[0])


def test_batches_of_any_size_and_crop_and_number_of_views_train() -> None:
    program = load("train_mpi")
    model = MaskVolumeModel(CheckpointMeta("mpi", "semiglobal", num_planes=7))
    for hw, views, batch in (((40, 56), (2, 2), 3), ((33, 47), (5, 5), 2), ((64, 32), (3, 3), 1)):
        options = program.MPITrainOptions(img_hw=hw, num_planes=7, margin=5, num_sources=views, depth_weight=0.1)
        task = program.MPITask(options, torch.device("cpu"))
        plan = BatchPlan(batch, num_sources=views)
        loss, scalars = task.loss(model, next(iter(task.source.batches(plan.draws(0)))))
        loss.backward()
        assert float(scalars["plane_loss"]) > 0
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_the_loss_on_planes_is_least_at_the_true_depth() -> None:
    program = load("train_mpi")
    depths = 1 / torch.linspace(0.1, 1.0, 10)[None]
    depth = torch.full((1, 1, 2, 3), 1 / 0.55)  # half way between planes 4 and 5
    halves = torch.full((1, 10, 2, 3), -30.0)
    halves[:, 4:6] = 0
    assert program.plane_loss(halves, depth, depths) == pytest.approx(math.log(2), abs=1e-5)
    single = torch.full((1, 10, 2, 3), -30.0)
    single[:, 4] = 0
    assert program.plane_loss(single, torch.full_like(depth, 1 / 0.5), depths) == pytest.approx(0, abs=1e-4)
    assert program.plane_loss(single, depth, depths) > 10
    logits = torch.zeros(1, 10, 2, 3, requires_grad=True)
    program.plane_loss(logits, depth, depths).backward()
    assert logits.grad is not None
    assert bool((logits.grad[:, 4:6] < 0).all())
    assert bool((logits.grad[:, 6:] > 0).all())


@pytest.mark.parametrize("arch", ["semiglobal", "matching", "original"])
def test_both_stages_run_from_the_command_line(run_program: Callable[..., Any], tmp_path: Path, arch: str) -> None:
    views = "2 2" if arch == "original" else "2 3"
    common = (
        *SMALL,
        "--arch",
        arch,
        "--num_sources",
        *views.split(),
        *(("--depth_weight", "0") if arch == "original" else ()),
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
    at = common.index("--depth_weight") if arch == "original" else len(common)
    common = (*common[:at], *common[at + 2 :], "--no-resume", "--mpi_model", kept)
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


def test_stage_two_starts_from_a_mask_network(run_program: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = MaskVolumeModel(CheckpointMeta("mask", "matching"))
    save_checkpoint(tmp_path / "two.safetensors", model)
    save_checkpoint(tmp_path / "one.safetensors", MaskVolumeModel(CheckpointMeta("mpi", "semiglobal")))
    words = ("--mpi_model", tmp_path / "one.safetensors", "--num_steps", 1, "--val_samples", 1, "--lr", 1e-9)
    given = ("--init_ckpt", tmp_path / "two.safetensors")
    run = run_program("train_mask/train.py", *SMALL, *words, *given, cwd=tmp_path)
    assert run.rc == 0, run.stderr
    trained = load_model(tmp_path / "runs" / "checkpoints" / "default" / "model.safetensors")
    assert trained.mask_net is not None
    assert model.mask_net is not None
    for key, value in model.mask_net.state_dict().items():
        torch.testing.assert_close(trained.mask_net.state_dict()[key], value, atol=1e-6, rtol=0)
    wrong = run_program("train_mask/train.py", *words, "--init_ckpt", tmp_path / "one.safetensors", cwd=tmp_path)
    wrong.check_input_error("one.safetensors", "stage-one")


def test_stage_two_refuses_what_is_no_stage_one(run_program: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta("mpi", "original")))
    run = run_program("train_mask/train.py", "--mpi_model", path, "--arch", "matching", cwd=tmp_path)
    run.check_input_error("one.safetensors", "original")
    run_program("train_mask/train.py", "--mpi_model", tmp_path / "none.pt", cwd=tmp_path).check_input_error("none.pt")


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
    run_program: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run_program("train_mpi/train.py", *SMALL, *arguments, cwd=tmp_path).check_input_error(*words)
    assert not list(tmp_path.rglob("*.safetensors"))


TINY = ("--img_hw", "32", "32", "--num_planes", "4", "--margin", "4", "--device", "cpu", "--precision", "fp32")


def test_sixty_steps_are_thirty_a_kill_and_thirty_bit_for_bit(tmp_path: Path) -> None:
    """On a mixture of made and recorded data that a worker reads."""
    data = write_shards(tmp_path / "data", {"a": 40, "b": 30})
    write_triplets(data / "triplets.txt", [ViewChoice("a", 5000, (3000, 8000))])
    command = [
        sys.executable, str(ROOT / "train_mpi" / "train.py"), *TINY, "--dataset_name", "mixed", "--num_workers", "1",
        "--root_dir", str(data), "--val_dir", str(data), "--num_steps", "60", "--save_every", "3", "--val_every", "30",
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
    while not (last.exists() and torch.load(last, weights_only=True)["step"] >= 30):
        assert time.monotonic() < deadline
        assert parts.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    parts.send_signal(signal.SIGKILL)
    parts.wait()
    assert not (folder / "parts" / "model.safetensors").exists()
    assert run("parts").wait(timeout=200) == 0
    assert whole.wait(timeout=200) == 0
    one, two = (load_model(folder / name / "model.safetensors") for name in ("whole", "parts"))
    assert one.meta.info["steps"] == two.meta.info["steps"] == 60
    assert one.meta.info["metrics"] == two.meta.info["metrics"]
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key
    states = [torch.load(folder / name / "last.pt", weights_only=True) for name in ("whole", "parts")]
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key]), key


@pytest.mark.parametrize("program", ["train_mpi/train.py", "train_mask/train.py"])
def test_an_interruption_while_the_program_starts_is_silent(tmp_path: Path, program: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(ROOT / program)], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "torch" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in errors


def test_stage_one_goes_on_from_weights_of_the_original_in_their_convention(
    run_program: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    first = MaskVolumeModel(CheckpointMeta("mpi", "original", sampling="original"))
    save_checkpoint(tmp_path / "one.safetensors", first)
    words = ("--arch", "original", "--init_ckpt", tmp_path / "one.safetensors", "--lr", 1e-9, "--num_steps", 1)
    run = run_program("train_mpi/train.py", *SMALL, *words, "--val_samples", 1, "--num_sources", 2, 2, cwd=tmp_path)
    assert run.rc == 0, run.stderr
    trained = load_model(tmp_path / "runs/checkpoints/default/model.safetensors")
    assert trained.meta.sampling == "original"
    for key, value in first.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[key], value, atol=1e-6, rtol=0)
    wrong = run_program(
        "train_mpi/train.py", *SMALL, *words, "--sampling", "exact", "--num_sources", 2, 2, cwd=tmp_path
    )
    wrong.check_input_error("one.safetensors", "--sampling original")
    words = ("--arch", "original", "--sampling", "original", "--exp_name", "theirs", "--num_steps", 1)
    run = run_program("train_mpi/train.py", *SMALL, *words, "--val_samples", 1, "--num_sources", 2, 2, cwd=tmp_path)
    assert run.rc == 0, run.stderr
    assert load_model(tmp_path / "runs/checkpoints/theirs/model.safetensors").meta.sampling == "original"


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
