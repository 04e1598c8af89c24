"""Clocks for work on any device, and how fast a device copies its memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Seconds = dict[str, list[float]]  # times of each part, one a repeat
COPY_BYTES = {"cuda": 2**30, "cpu": 2**28}  # far more than any cache holds


@dataclass(frozen=True)
class Clock:
    """Wall-clock time of what is computed on a device: it looks only when the device is done.

    Attributes:
        device: that is waited for.
    """

    device: torch.device

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.no_grad()
    def timed(self, seconds: Seconds, part: str, function: Callable[..., T], *arguments: Any, calls: int = 1) -> T:
        """What the function returns; the seconds of a call are added to the part.

        Args:
            seconds: where the time goes.
            part: its name there.
            function: what is timed.
            arguments: of it.
            calls: in a row, without a wait between them: for work that is shorter than its start.
        """
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            value = function(*arguments)
        self.wait()
        seconds.setdefault(part, []).append((time.perf_counter() - start) / calls)
        return value

    def repeated(self, repeats: int, function: Callable[..., Any], *arguments: Any, calls: int = 1) -> list[float]:
        """Seconds of a call, so many times, after a call that doesn't count."""
        self.timed({}, "", function, *arguments)
        seconds: Seconds = {}
        for _ in range(repeats):
            self.timed(seconds, "", function, *arguments, calls=calls)
        return seconds[""]


def copy_bandwidth(clock: Clock, repeats: int) -> float:
    """Bytes a second that the device reads and writes as it copies memory, by the median."""
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
    """How many times faster the second is, by the medians."""
    return round(statistics.median(slower) / statistics.median(faster), 2)


def shown(value: dict[str, float] | None) -> str:
    """A median and its spread to three digits; microseconds and milliseconds where seconds are many zeros."""
    if value is None:
        return "-"
    median = value["median"]
    unit, scale = next((each for each in ((" us", 1e6), (" ms", 1e3)) if median * each[1] < 100), (" s", 1.0))
    digits = max(0, 2 - math.floor(math.log10(max(median * scale, 1e-9))))
    return f"{median * scale:.{digits}f} +{value['spread'] * scale:.{digits}f}{unit}"


def _rounded(seconds: float) -> float:
    return round(seconds, 5 if seconds >= 0.1 else 8)
