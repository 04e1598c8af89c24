"""Threads around the computing: what comes next is read while it goes on, and what is done is written."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
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


def read_ahead(
    read: Callable[[tuple[int, int]], Read], wanted: Sequence[Sequence[tuple[int, int]]]
) -> Generator[dict[tuple[int, int], Read], None, None]:
    """Pictures by (camera, frame), one group of them after the other, ``AHEAD`` groups ahead of what is taken.

    Each camera has a thread of its own, so that its video is decoded in order. An error comes with the group that it
    belongs to. To be closed: that joins the threads.

    Args:
        read: (camera, frame) to a picture.
        wanted: the pictures of each group.
    """
    with ExitStack() as stack:
        threads: dict[int, ThreadPoolExecutor] = {}
        for camera, _ in (source for group in wanted for source in group):
            if camera not in threads:
                threads[camera] = stack.enter_context(ThreadPoolExecutor(1))
        pending: deque[dict[tuple[int, int], Future[Read]]] = deque()
        try:
            for group in wanted:
                pending.append({source: threads[source[0]].submit(read, source) for source in group})
                if len(pending) > AHEAD:
                    yield {source: future.result() for source, future in pending.popleft().items()}
            while pending:
                yield {source: future.result() for source, future in pending.popleft().items()}
        finally:
            for future in (future for group in pending for future in group.values()):
                future.cancel()


def read_frames(
    read: Callable[[int, int], Read], cameras: Sequence[int], frames: Sequence[int]
) -> Generator[list[Read], None, None]:
    """The pictures of all cameras, frame after frame; see :func:`read_ahead`.

    Args:
        read: camera and frame to a picture.
        cameras: in the order in which their pictures are given.
        frames: in the order in which they are wanted.
    """
    wanted = [[(camera, frame) for camera in cameras] for frame in frames]
    with closing(read_ahead(lambda source: read(*source), wanted)) as groups:
        for pictures in groups:
            yield list(pictures.values())


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
