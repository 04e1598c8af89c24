"""Training in several processes: torchrun starts them, torch.distributed joins them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from maskvolume.errors import InputError, describe_os_error

Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=30)  # that a process waits for the others: a validation must fit in


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number.
        world: how many there are, on all machines.
        local_rank: its number on this machine: the GPU that it takes.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

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
        result, wrong = None, ""
        if self.is_first:
            try:
                result = act()
            except InputError as error:
                wrong = str(error)
            except OSError as error:
                wrong = describe_os_error(error) or str(error)
        result, wrong = self.from_first((result, wrong))
        if wrong:
            raise InputError(wrong)
        return result


def start_processes(num_gpus: int) -> None:
    """Start this program anew in ``num_gpus`` processes, unless torchrun has started it or one is enough.

    Raises:
        InputError: there are fewer GPUs than that, or torchrun started another number of processes.
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
    there = torch.cuda.device_count()
    if there < num_gpus:
        raise InputError(f"--num_gpus {num_gpus}: this machine has {there} GPUs; give a number up to that")
    run_anew(num_gpus)


def run_anew(processes: int) -> NoReturn:
    """Replace this process by torchrun with the same program and arguments."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, *sys.argv])


@contextmanager
def open_processes(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started; yields this one and its device. Without torchrun there is one.

    Raises:
        InputError: more processes on this machine than GPUs.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Processes(), device
        return
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    processes = Processes(rank, world, local)
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
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield processes, device
    finally:
        dist.destroy_process_group()


def _collective_device() -> torch.device:
    """Where tensors must lie that processes exchange."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


class StopFlag:
    """SIGINT and SIGTERM ask for a stop at the end of the step, so that no state is half updated."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopFlag:
        self._previous = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True
