"""Starts training in several processes, and stops it cleanly."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import torch

from maskvolume.runtime.errors import InputError


def start_processes(num_gpus: int) -> None:
    """Restart this program in ``num_gpus`` processes, unless torchrun has started it or one process is enough.

    Args:
        num_gpus: number of processes; 0 and 1 both mean this process alone.

    Raises:
        InputError: the machine has fewer GPUs, or torchrun has started a different number of processes.
    """
    if "WORLD_SIZE" in os.environ:
        world = int(os.environ["WORLD_SIZE"])
        if num_gpus > 1 and num_gpus != world:
            raise InputError(
                f"--num_gpus {num_gpus}: torchrun has started {world} processes; leave num_gpus out or make them agree"
            )
        return
    if num_gpus <= 1:
        return
    available = torch.cuda.device_count()
    if available < num_gpus:
        raise InputError(f"--num_gpus {num_gpus}: this machine has {available} GPUs; give a number up to that")
    restart(num_gpus)


def restart(processes: int) -> NoReturn:
    """Replace this process by a torchrun of the same program and arguments, with this number of processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, *sys.argv])


class StopFlag:
    """A context in which SIGINT and SIGTERM request a stop at the end of the step, so that no state is half updated.

    Attributes:
        requested: whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopFlag:
        self._previous = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.requested = True
