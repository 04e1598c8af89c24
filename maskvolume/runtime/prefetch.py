"""Threads around the computing: what comes next is read while it goes on, and what is done is written."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

Read = TypeVar("Read")

WRITERS = max(2, min(8, (os.cpu_count() or 2) // 2))  # threads that encode and write pictures
WAITING = 4 * WRITERS  # poses whose pictures may wait for them, in memory
AHEAD = 3  # frames that are read or wait, beside the one that is computed


class Writers:
    """Threads that run what is submitted; a context manager that joins them and raises their errors.

    No more than ``WAITING`` calls wait at once: ``submit`` blocks instead.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WRITERS)
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> Writers:
        return self

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Run ``function(*args)`` in a thread; raises the error of an earlier call that failed."""
        while self._pending and (len(self._pending) >= WAITING or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, *args))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._pending:
                future.result()


def read_frames(
    read: Callable[[int, int], Read], cameras: Sequence[int], frames: Sequence[int]
) -> Generator[list[Read], None, None]:
    """The pictures of all cameras, frame after frame, ``AHEAD`` frames ahead of what is taken.

    Each camera has a thread of its own, so that its video is decoded in order. An error comes with the frame that it
    belongs to. To be closed: that joins the threads.

    Args:
        read: camera and frame to a picture, or to None where it isn't needed.
        cameras: in the order in which their pictures are given.
        frames: in the order in which they are wanted.
    """
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in cameras]
        pending: deque[list[Future[Read]]] = deque()
        try:
            for frame in frames:
                pending.append(
                    [thread.submit(read, camera, frame) for thread, camera in zip(threads, cameras, strict=True)]
                )
                if len(pending) > AHEAD:
                    yield [future.result() for future in pending.popleft()]
            while pending:
                yield [future.result() for future in pending.popleft()]
        finally:
            for future in (future for each in pending for future in each):
                future.cancel()


def read_files(
    paths: Sequence[Path], read: Callable[[Path], Read], waiting: int = WAITING
) -> Generator[Read, None, None]:
    """Pictures of files in order, ``waiting`` at most in memory. To be closed: that joins the threads."""
    with ThreadPoolExecutor(WRITERS) as pool:
        pending: deque[Future[Read]] = deque()
        try:
            for path in paths:
                pending.append(pool.submit(read, path))
                if len(pending) >= waiting:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
