"""Several processes that work together: torchrun starts them, torch.distributed joins them."""

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

TIMEOUT = timedelta(minutes=30)  # that a process waits for the others: a validation must fit in


@dataclass(frozen=True)
class Processes:
    """This process among those that work together.

    Attributes:
        rank: its number.
        world: how many there are, on all machines.
        local_rank: its number on this machine: the GPU that it takes.
        local_world: how many there are on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether any process has raised it. All processes must call this together."""
        if self.world == 1:
            return flags
        values = torch.tensor(flags, dtype=torch.int32, device=_collective_device())
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return tuple(bool(value) for value in values.tolist())

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, value)
        return gathered

    def from_first(self, value: Any) -> Any:
        """The value of the first process."""
        if self.world == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, device=_collective_device())
        return held[0]

    def first_does(self, act: Callable[[], Result]) -> Result:
        """What the first process gets from ``act``, which it alone runs. All processes must call this together.

        Raises:
            InputError: in all processes, where the first one fails at something that its user can mend.
        """
        if self.world == 1:
            return act()
        result, wrong = self.from_first(_attempt(act) if self.is_first else (None, ""))
        if wrong:
            raise InputError(wrong)
        return result

    def all_do(self, act: Callable[[], Result]) -> Result:
        """What this process gets from ``act``, which all of them run. All processes must call this together.

        Raises:
            InputError: in all processes, where one of them fails at something that its user can mend.
        """
        if self.world == 1:
            return act()
        result, wrong = _attempt(act)
        failed = [text for text in self.gather(wrong) if text]
        if failed:
            raise InputError(failed[0])
        return cast(Result, result)


ALONE = Processes()


def _attempt(act: Callable[[], Result]) -> tuple[Result | None, str]:
    """What ``act`` gives, or in words what its user has to mend."""
    try:
        return act(), ""
    except InputError as error:
        return None, str(error)
    except OSError as error:
        return None, describe_os_error(error) or str(error)


@contextmanager
def open_processes(device: torch.device, timeout: timedelta = TIMEOUT) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started; yields this one and its device. Without torchrun there is one.

    Args:
        device: that was asked for; of several GPUs each process takes one.
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
    """Where tensors must lie that processes exchange."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
