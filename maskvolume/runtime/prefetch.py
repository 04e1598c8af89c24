"""Threads that read ahead of the computation and write its finished results."""

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

WRITERS = max(2, min(8, (os.cpu_count() or 2) // 2))  # threads that encode and write images
WAITING = 4 * WRITERS  # poses whose images may wait in memory for a thread
AHEAD = 3  # frames that are being read or are waiting, besides the one in use


class Writers:
    """Threads that run submitted calls; a context manager that joins them and raises their errors.

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
    read: Callable[[tuple[int, int]], Read], groups: Sequence[Sequence[tuple[int, int]]]
) -> Generator[dict[tuple[int, int], Read], None, None]:
    """Yield the images of each group, reading up to ``AHEAD`` groups ahead of the consumer.

    Each camera has its own thread, so that its video is decoded in order. An error is raised at the group that it
    belongs to. The caller must close the generator, which joins the threads.

    Args:
        read: returns the image of a (camera, frame).
        groups: the (camera, frame) pairs of each group.

    Yields:
        The images of one group by (camera, frame).
    """
    with ExitStack() as stack:
        threads: dict[int, ThreadPoolExecutor] = {}
        for camera, _ in (source for group in groups for source in group):
            if camera not in threads:
                threads[camera] = stack.enter_context(ThreadPoolExecutor(1))
        pending: deque[dict[tuple[int, int], Future[Read]]] = deque()
        try:
            for group in groups:
                pending.append({source: threads[source[0]].submit(read, source) for source in group})
                if len(pending) > AHEAD:
                    yield {source: future.result() for source, future in pending.popleft().items()}
            while pending:
                yield {source: future.result() for source, future in pending.popleft().items()}
        finally:
            for future in (future for futures in pending for future in futures.values()):
                future.cancel()


def read_frames(
    read: Callable[[int, int], Read], cameras: Sequence[int], frames: Sequence[int]
) -> Generator[list[Read], None, None]:
    """Yield the images of all cameras, frame by frame; see :func:`read_ahead`.

    Args:
        read: returns the image of a camera and a frame.
        cameras: in the order of the images in each list.
        frames: in the order in which they are yielded.

    Yields:
        The images of one frame, one per camera.
    """
    groups = [[(camera, frame) for camera in cameras] for frame in frames]
    with closing(read_ahead(lambda source: read(*source), groups)) as images_of_groups:
        for images in images_of_groups:
            yield list(images.values())


def read_files(
    paths: Sequence[Path], read: Callable[[Path], Read], waiting: int = WAITING
) -> Generator[Read, None, None]:
    """Yield the images of files in order, at most ``waiting`` in memory; closing the generator joins the threads."""
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
