"""Processes that work together: torchrun starts them, torch.distributed connects them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from maskvolume.runtime.errors import InputError, describe_os_error

Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=30)  # for waiting on other processes; a validation must fit in


@dataclass(frozen=True)
class Processes:
    """This process's place in a group of processes.

    Attributes:
        rank: its number among all processes.
        world: number of processes on all machines.
        local_rank: its number on this machine, which is also the number of its GPU.
        local_world: number of processes on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has raised it. All processes must call this together."""
        if self.world == 1:
            return flags
        values = torch.tensor(flags, dtype=torch.int32, device=_collective_device())
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return tuple(bool(value) for value in values.tolist())

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank. All processes must call this together."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, value)
        return gathered

    def from_first(self, value: Any) -> Any:
        """The value of the first process. All processes must call this together."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=_collective_device())
        return values[0]

    def first_does(self, act: Callable[[], Result]) -> Result:
        """Run ``act`` in the first process only and return its result in all. All processes must call this together.

        Raises:
            InputError: in all processes, if the first one fails with an error that the user can fix.
        """
        if self.world == 1:
            return act()
        result, message = self.from_first(_attempt(act) if self.is_first else (None, ""))
        if message:
            raise InputError(message)
        return result

    def all_do(self, act: Callable[[], Result]) -> Result:
        """Run ``act`` in every process; each gets its own result. All processes must call this together.

        Raises:
            InputError: in all processes, if one of them fails with an error that the user can fix.
        """
        if self.world == 1:
            return act()
        result, message = _attempt(act)
        messages = [text for text in self.gather(message) if text]
        if messages:
            raise InputError(messages[0])
        return cast(Result, result)


ALONE = Processes()


def _attempt(act: Callable[[], Result]) -> tuple[Result | None, str]:
    """The result of ``act`` and no message, or None and the message of an error that the user can fix."""
    try:
        return act(), ""
    except InputError as error:
        return None, str(error)
    except OSError as error:
        return None, describe_os_error(error) or str(error)


@contextmanager
def open_processes(device: torch.device, timeout: timedelta = TIMEOUT) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started and yield this one and its device; without torchrun there is one.

    Args:
        device: the requested one; with several GPUs each process takes its own.
        timeout: how long a process waits for the others.

    Raises:
        InputError: more processes on this machine than GPUs.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Processes(), device
        return
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    processes = Processes(rank, world, local, int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(
                f"torchrun: process {local} of this machine has no GPU, there are {torch.cuda.device_count()}; "
                "lower --nproc_per_node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if world == 1:
        yield processes, device
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        yield processes, device
    finally:
        dist.destroy_process_group()


def _collective_device() -> torch.device:
    """The device for tensors that processes exchange."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
