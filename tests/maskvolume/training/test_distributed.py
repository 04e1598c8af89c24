"""Two processes train as one does with their batches joined."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import shipped

from maskvolume.runtime.errors import InputError
from maskvolume.training import Processes, start_processes

ROOT = Path(__file__).resolve().parents[3]


def torchrun(processes: int, *command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in several processes, or as it is in one."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [*(launcher if processes > 1 else []), *map(str, command)]
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_the_joined_batch(tmp_path: Path) -> None:
    found: dict[int, Any] = {}
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        batch = 2 // processes
        run = torchrun(processes, ROOT / "tests/maskvolume/training/gradient_worker.py", out, batch, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        found[processes] = torch.load(out, weights_only=True)
    assert found[2]["loss"] == pytest.approx(found[1]["loss"], abs=1e-6)
    largest = max(float(value.abs().max()) for value in found[1]["gradients"].values())
    assert largest > 1e-4
    for name, value in found[1]["gradients"].items():
        torch.testing.assert_close(found[2]["gradients"][name], value, rtol=1e-5, atol=1e-5 * largest, msg=name)


@pytest.mark.slow
def test_two_processes_train_validate_write_once_and_resume(tmp_path: Path) -> None:
    options = {
        "optimizer": "sgd", "lr": 0.05, "lr_scheduler": "none", "warmup_steps": 0, "ema_decay": 0, "val_samples": 3,
        "val_every": 3, "save_every": 2,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    program = ROOT / "tests" / "training_helpers.py"

    def train(processes: int, name: str, steps: int) -> str:
        batch = 2 // processes
        run = torchrun(
            processes, program, *words, "--batch_size", batch, "--exp_name", name, "--num_steps", steps,
            cwd=tmp_path,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        return run.stdout

    train(1, "one", 4)
    train(2, "two", 2)
    printed = train(2, "two", 4)
    assert printed.count("written:") == 1
    # An error of the first process ends all, each with one line.
    wrong = torchrun(2, program, *words, "--exp_name", "two", "--num_steps", 5, "--seed", 7, cwd=tmp_path)
    assert wrong.returncode != 0
    assert wrong.stderr.count("comes from a run with other options") == 2
    assert "training_helpers.py" not in "".join(re.findall(r"Traceback.*?Error", wrong.stderr, re.DOTALL))
    one, two = (shipped(tmp_path / "runs/checkpoints" / name / "model.npz") for name in ("one", "two"))
    for (key, value), other in zip(one[0].state_dict().items(), two[0].state_dict().values(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-6, msg=key)
    for name, value in one[1]["metrics"].items():
        assert two[1]["metrics"][name] == pytest.approx(value, abs=1e-3)


def test_one_process_agrees_with_itself() -> None:
    alone = Processes()
    assert alone.agree(True, False) == (True, False)
    assert alone.gather(3) == [3]
    assert alone.from_first("x") == "x"


def test_more_gpus_than_there_are_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match="--num_gpus 999"):
        start_processes(999)
    monkeypatch.setenv("WORLD_SIZE", "2")
    start_processes(1)
    start_processes(2)
    with pytest.raises(InputError, match="torchrun has started 2"):
        start_processes(4)


def test_num_gpus_starts_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def execv(path: str, words: list[str]) -> None:
        started.append(words)
        raise SystemExit

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr("os.execv", execv)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(sys, "argv", ["train.py", "--num_gpus", "4", "--exp_name", "x"])
    with pytest.raises(SystemExit):
        start_processes(4)
    assert started[0][1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    assert started[0][5:] == ["train.py", "--num_gpus", "4", "--exp_name", "x"]
