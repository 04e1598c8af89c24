"""Threads for compiled loops."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def share(work: Callable[[int], None], items: range) -> None:
    """Do the work on each item, with as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        for item in items:
            work(item)
        return
    queue = iter(items)

    def take() -> None:
        for item in queue:  # each item goes to the thread that asks first
            work(item)

    for task in [_pool(multiprocessing.current_process().pid).submit(take) for _ in range(threads)]:
        task.result()


@cache
def _pool(process: int | None) -> ThreadPoolExecutor:
    """The threads of a process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(multiprocessing.cpu_count(), thread_name_prefix="maskvolume")
