"""Clocks, and what is told of times."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.cost import original
from benchmarks.cost.timing import (
    Clock,
    Seconds,
    copy_bandwidth,
    format_time,
    ratio,
    spread,
    summary,
)

CLOCK = Clock(torch.device("cpu"))


def test_a_clock_times_each_call_and_waits_before_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    now = iter([10.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: events.append("look") or next(now))
    monkeypatch.setattr(Clock, "wait", lambda self: events.append("wait"))
    seconds: Seconds = {}
    assert CLOCK.timed(seconds, "part", lambda x: events.append("call") or x, 3, calls=3) == 3
    assert events == ["wait", "look", "call", "call", "call", "wait", "look"]
    assert seconds == {"part": [2.0]}


def test_the_first_call_does_not_count() -> None:
    calls: list[int] = []

    def slow_at_first() -> None:
        if not calls:
            time.sleep(0.2)
        calls.append(1)

    times = CLOCK.repeated(3, slow_at_first, calls=2)
    assert len(times) == 3
    assert len(calls) == 1 + 3 * 2
    assert max(times) < 0.1


def test_the_parts_of_the_plain_reading_are_waited_for() -> None:
    events: list[str] = []
    timer = original.PartTimer(lambda: events.append("wait"))
    timer("part", lambda: events.append("call"))
    assert events == ["wait", "call", "wait"]


def test_medians_spreads_and_ratios() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "spread": 2.0}
    assert spread([3.12e-5])["median"] == pytest.approx(3.12e-5)
    assert summary({"a": [1.0], "b": [2.0, 4.0]})["b"] == {"median": 3.0, "spread": 2.0}
    assert ratio([4.0, 8.0, 6.0], [2.0, 2.0, 9.0]) == 3.0
    assert format_time({"median": 1.234, "spread": 0.2}) == "1.23 +0.20 s"
    assert format_time({"median": 0.01234, "spread": 0.002}) == "12.3 +2.0 ms"
    assert format_time({"median": 4.56e-5, "spread": 1e-6}) == "45.6 +1.0 us"
    assert format_time(None) == "-"


def test_memory_is_copied_at_some_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.cost.timing.COPY_BYTES", {"cpu": 2**20})
    assert 1e7 < copy_bandwidth(CLOCK, 3) < 1e13
