"""Runs jobs in worker processes, any of which may be killed at any time, as may the program itself.

Each worker has its own pipe and shares nothing with the others, so a worker that is killed, even while it sends a
result, blocks nobody: its pipe closes. concurrent.futures has one pipe for all results and would wait forever.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import cv2

from maskvolume.runtime.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 2  # jobs per worker that run or whose results wait for earlier ones
KILLED = "--workers: a process was killed, most likely because memory ran out; give a lower number"


@contextmanager
def run_jobs(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int, *, in_order: bool
) -> Iterator[Iterator[Result]]:
    """Yield an iterator over the results of ``work``, in the order of the jobs or as they finish.

    All workers are killed at the end of the block, also after an interruption. They also end when this process is
    killed.

    Raises:
        InputError: a worker was killed.
        Exception: the error of a job.
    """
    pool: list[tuple[BaseProcess, Connection]] = []
    resource_tracker.ensure_running()  # otherwise it starts with the first worker and unblocks signals
    try:
        with _signals_blocked():
            for _ in range(workers):
                pool.append(_start(work))
        yield _results([pipe for _, pipe in pool], jobs, in_order)
    finally:
        for process, pipe in pool:
            process.kill()
            pipe.close()
        for process, _ in pool:
            process.join()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold back interruptions; processes started in the block never receive any."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _start(work: Callable[[Job], Result]) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs))
    process.start()
    theirs.close()  # only the worker holds it, so that it closes when the worker ends
    return process, ours


def _serve(work: Callable[[Job], Result], pipe: Connection) -> None:
    """The main loop of a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            pipe.send(_outcome(work, pipe.recv()))


def _outcome(work: Callable[[Job], Result], job: Job) -> tuple[Result | None, Exception | None, str]:
    """The result of a job, or its error and traceback."""
    try:
        return work(job), None, ""
    except Exception as error:
        return None, error, traceback.format_exc()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _results(idle: list[Connection], jobs: Iterable[Job], in_order: bool) -> Iterator[Any]:
    """Send jobs to idle workers and yield their results."""
    most = AHEAD * len(idle)
    remaining = enumerate(jobs)
    running: dict[Connection, int] = {}
    done: dict[int, Any] = {}
    next_number = 0
    while True:
        while idle and len(running) + len(done) < most and (numbered := next(remaining, None)):
            running[idle[-1]] = numbered[0]
            _send(idle.pop(), numbered[1])
        if done and (next_number in done or not in_order):
            yield done.pop(next_number if in_order else next(iter(done)))
            next_number += 1
        elif running:
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                done[running.pop(pipe)] = _receive(pipe)
                idle.append(pipe)
        else:
            return


def _send(pipe: Connection, job: Any) -> None:
    try:
        pipe.send(job)
    except OSError:
        raise InputError(KILLED) from None


def _receive(pipe: Connection) -> Any:
    try:
        result, error, place = pipe.recv()
    except (EOFError, OSError):
        raise InputError(KILLED) from None
    if error is not None:
        raise error from RuntimeError(f"in a worker:\n{place}")
    return result
