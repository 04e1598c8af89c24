"""Worker processes: their results, and that none is waited for once it, or the program, is gone."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from maskvolume.runtime.errors import InputError
from preprocessing.workers import run_jobs

KILLED = "--workers: a process was killed, most likely because memory ran out; give a lower number"


def wait_and_return(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def end_if_negative(seconds: float) -> None:
    """A worker that is killed, or one that works for long."""
    if seconds < 0:
        os._exit(9)
    time.sleep(seconds)


def end_amid_a_result(size: int) -> bytes:
    """A large result is still being sent when the worker ends."""
    if size:
        threading.Timer(1.0, os._exit, [9]).start()
    return bytes(size)


def fill_the_disk(name: str) -> None:
    raise OSError(errno.ENOSPC, "full", name)


def end_by_both_signals(_: int) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return os.getpid()


def test_results_come_in_order_or_as_jobs_end() -> None:
    jobs = [0.5, 0.0, 0.01, 0.02, 0.03, 0.04]
    with run_jobs(wait_and_return, jobs, 2, in_order=True) as results:
        assert list(results) == jobs
    with run_jobs(wait_and_return, [30.0, *jobs[1:]], 2, in_order=False) as results:
        assert [next(results) for _ in jobs[1:]] == jobs[1:]
    assert not multiprocessing.active_children()


def test_only_a_few_jobs_are_taken_ahead() -> None:
    taken = []
    with run_jobs(wait_and_return, (taken.append(k) or 0.01 * k for k in range(100)), 2, in_order=True) as results:
        for k in range(10):
            assert next(results) == 0.01 * k
            assert len(taken) <= k + 5


@pytest.mark.parametrize("in_order", [True, False])
def test_a_worker_that_is_killed_is_said_and_ends_the_others(in_order: bool) -> None:
    started = time.monotonic()
    with (
        pytest.raises(InputError, match=KILLED),
        run_jobs(end_if_negative, [60, 60, -1], 3, in_order=in_order) as results,
    ):
        list(results)
    assert time.monotonic() - started < 20
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_while_it_sends_holds_up_nobody() -> None:
    # One worker: nothing is read of the second result while the first one is looked at.
    with run_jobs(end_amid_a_result, [0, 10_000_000], 1, in_order=False) as results:
        assert next(results) == b""
        time.sleep(2)
        with pytest.raises(InputError, match=KILLED):
            next(results)
    assert not multiprocessing.active_children()


def test_what_a_job_raises_is_raised_here() -> None:
    with (
        pytest.raises(OSError, match="full") as caught,
        run_jobs(fill_the_disk, ["a"], 1, in_order=True) as results,
    ):
        next(results)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "a")
    assert "fill_the_disk" in str(caught.value.__cause__)


def test_interruptions_are_left_to_the_program() -> None:
    with run_jobs(end_by_both_signals, [0, 0], 1, in_order=True) as results:
        assert next(results) == next(results) != os.getpid()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


PROGRAM = """
import sys, time
sys.path.insert(0, {root!r})
from preprocessing.workers import run_jobs
if __name__ == "__main__":
    with run_jobs(time.sleep, [0, 0, 600, 600], 2, in_order=True) as results:
        next(results), next(results)
        print("ready", flush=True)
        next(results)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_program(tmp_path: Path, repo_root: Path, number: signal.Signals) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(root=str(repo_root)))
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    program.send_signal(number)
    _, errors = program.communicate(timeout=20)  # also waits for the workers, which have the same pipe
    assert program.returncode == -number
    assert errors.count(b"Traceback") == (number == signal.SIGINT), errors
