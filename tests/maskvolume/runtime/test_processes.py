"""Processes that work together: one alone, and two that torch.distributed joins."""

from __future__ import annotations

import multiprocessing
import os
import socket
from datetime import timedelta
from multiprocessing.queues import Queue
from typing import Any

import pytest
import torch

from maskvolume.runtime.errors import InputError
from maskvolume.runtime.processes import ALONE, Processes, open_processes

CPU = torch.device("cpu")


def fail() -> None:
    raise InputError("clip: damaged")


def test_one_process_alone_is_the_first_and_agrees_with_itself() -> None:
    assert ALONE.is_first
    assert ALONE.agree(True, False) == (True, False)
    assert ALONE.gather("a") == ["a"]
    assert ALONE.from_first("a") == "a"
    assert ALONE.first_does(lambda: 3) == 3
    assert ALONE.all_do(lambda: 4) == 4
    with pytest.raises(InputError, match="clip: damaged"):
        ALONE.all_do(fail)


def test_without_torchrun_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with open_processes(CPU) as (processes, device):
        assert processes == ALONE
        assert device == CPU


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(InputError, match="process 3 of this machine has no GPU, there are 2; lower --nproc_per_node"),
        open_processes(torch.device("cuda")),
    ):
        pass


def work(rank: int, port: int, answers: Queue[Any]) -> None:
    """One of two processes: what each of the calls gives it."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with open_processes(CPU, timedelta(seconds=60)) as (processes, _):
        got: dict[str, Any] = {"processes": processes}
        got["agree"] = processes.agree(rank == 1, False)
        got["gather"] = processes.gather(f"of {rank}")
        got["from_first"] = processes.from_first(f"of {rank}")
        got["first_does"] = processes.first_does(lambda: f"done by {rank}")
        got["all_do"] = processes.all_do(lambda: f"done by {rank}")
        for name, act in (("first_fails", processes.first_does), ("one_fails", processes.all_do)):
            try:
                act(fail if rank == (0 if name == "first_fails" else 1) else lambda: None)
            except InputError as error:
                got[name] = str(error)
        try:
            processes.all_do(lambda: (_ for _ in ()).throw(FileNotFoundError(2, "no", "cam00.png")))
        except InputError as error:
            got["os_error"] = str(error)
    answers.put((rank, got))


def test_two_processes_have_the_same_answers_and_the_same_errors() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # which has the imports already
    answers = context.Queue()
    workers = [context.Process(target=work, args=(rank, port, answers)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = dict(answers.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    for rank, got in results.items():
        assert got["processes"] == Processes(rank, 2, rank, 2)
        assert got["agree"] == (True, False)
        assert got["gather"] == ["of 0", "of 1"]
        assert got["from_first"] == "of 0"
        assert got["first_does"] == "done by 0"
        assert got["all_do"] == f"done by {rank}"
        assert got["first_fails"] == got["one_fails"] == "clip: damaged"
        assert got["os_error"] == "cam00.png: no such file or folder; check the path"
