"""A thread pool for compiled loops."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def share(work: Callable[[int], None], items: range) -> None:
    """Call ``work`` on each item, with as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        for item in items:
            work(item)
        return
    queue = iter(items)

    def take() -> None:
        for item in queue:  # an idle thread takes the next item
            work(item)

    for task in [_pool(multiprocessing.current_process().pid).submit(take) for _ in range(threads)]:
        task.result()


@cache
def _pool(process: int | None) -> ThreadPoolExecutor:
    """Return the thread pool of a process; a forked process does not inherit its parent's threads."""
    return ThreadPoolExecutor(multiprocessing.cpu_count(), thread_name_prefix="maskvolume")
