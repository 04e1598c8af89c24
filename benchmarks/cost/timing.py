"""Clocks for work on any device, and its copy bandwidth."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Seconds = dict[str, list[float]]  # times of each part, one per repeat
COPY_BYTES = {"cuda": 2**30, "cpu": 2**28}  # much larger than any cache


@dataclass(frozen=True)
class Clock:
    """Wall-clock time of computations on a device, read only when the device is done.

    Attributes:
        device: to wait for.
    """

    device: torch.device

    def wait(self) -> None:
        """Wait until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.no_grad()
    def timed(self, seconds: Seconds, part: str, function: Callable[..., T], *arguments: Any, calls: int = 1) -> T:
        """Call a function, add the seconds of a call to a part, and return the function's value.

        Args:
            seconds: collects the time.
            part: name of the part.
            function: to time.
            arguments: of the function.
            calls: number of consecutive calls without waiting, for work that is shorter than its launch.
        """
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            value = function(*arguments)
        self.wait()
        seconds.setdefault(part, []).append((time.perf_counter() - start) / calls)
        return value

    def repeated(self, repeats: int, function: Callable[..., Any], *arguments: Any, calls: int = 1) -> list[float]:
        """Seconds of a call, measured ``repeats`` times after an untimed call."""
        self.timed({}, "", function, *arguments)
        seconds: Seconds = {}
        for _ in range(repeats):
            self.timed(seconds, "", function, *arguments, calls=calls)
        return seconds[""]


def copy_bandwidth(clock: Clock, repeats: int) -> float:
    """Median bytes per second that the device reads and writes while copying memory."""
    count = COPY_BYTES.get(clock.device.type, 2**28)
    source = torch.zeros(count, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    return 2 * count / statistics.median(clock.repeated(repeats, target.copy_, source))


def spread(times: list[float]) -> dict[str, float]:
    """Median and spread (slowest minus fastest) in seconds."""
    return {"median": _rounded(statistics.median(times)), "spread": _rounded(max(times) - min(times))}


def summary(seconds: Seconds) -> dict[str, dict[str, float]]:
    """Median and spread of each part."""
    return {part: spread(times) for part, times in seconds.items()}


def ratio(slower: list[float], faster: list[float]) -> float:
    """The ratio of the medians, slower to faster."""
    return round(statistics.median(slower) / statistics.median(faster), 2)


def format_time(value: dict[str, float] | None) -> str:
    """Format a median and its spread with three digits, in microseconds, milliseconds or seconds."""
    if value is None:
        return "-"
    median = value["median"]
    unit, scale = next((unit for unit in ((" us", 1e6), (" ms", 1e3)) if median * unit[1] < 100), (" s", 1.0))
    digits = max(0, 2 - math.floor(math.log10(max(median * scale, 1e-9))))
    return f"{median * scale:.{digits}f} +{value['spread'] * scale:.{digits}f}{unit}"


def _rounded(seconds: float) -> float:
    return round(seconds, 5 if seconds >= 0.1 else 8)
