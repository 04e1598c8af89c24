"""CUDA graphs of functions: results of a replay, conditions of a new recording, fallback if recording fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from maskvolume.runtime import cuda_graphs as graphs
from maskvolume.runtime.cuda_graphs import Replayed


class Graph:
    """A graph of the processor: runs the function again on the same inputs and lays its result into the same place."""

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], result: Tensor) -> None:
        self.function, self.inputs, self.result = function, inputs, result

    def replay(self) -> None:
        self.result.copy_(self.function(*self.inputs))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """The shapes that were recorded."""
    shapes: list[tuple[torch.Size, ...]] = []

    def record(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Any, Tensor]:
        shapes.append(tuple(x.shape for x in inputs))
        # What is recorded is not computed: the result holds nothing before the first replay.
        result = torch.full_like(function(*inputs), float("nan"))
        return Graph(function, inputs, result), result

    monkeypatch.setattr(graphs, "record", record)
    return shapes


def product(a: Tensor, b: Tensor) -> Tensor:
    return a * b + 1


def test_a_replay_computes_with_the_inputs_of_its_call(recorded: list[Any]) -> None:
    replayed = Replayed(product, "product")
    for seed in range(3):
        torch.manual_seed(seed)
        a, b = torch.rand(4, 5), torch.rand(4, 5)
        before = a.clone(), b.clone()
        torch.testing.assert_close(replayed(a, b), product(a, b), rtol=0, atol=0)
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])
    assert len(recorded) == 1


def test_the_next_call_overwrites_a_result(recorded: list[Any]) -> None:
    replayed = Replayed(product, "product")
    first = replayed(torch.zeros(3), torch.zeros(3))
    second = replayed(torch.ones(3), torch.ones(3))
    assert second is first
    assert first.tolist() == [2, 2, 2]


def test_other_shapes_and_types_are_recorded_anew(recorded: list[Any]) -> None:
    replayed = Replayed(product, "product")
    for shape in [(3,), (3,), (2, 2)]:
        assert replayed(torch.ones(shape), torch.ones(shape)).shape == shape
    assert len(recorded) == 2
    assert replayed(*[torch.ones(2, 2, dtype=torch.float64)] * 2).dtype == torch.float64
    assert len(recorded) == 3


@pytest.mark.parametrize("error", [RuntimeError("no room\nand a stack"), torch.OutOfMemoryError("CUDA out of memory")])
def test_what_can_not_be_recorded_is_called_and_said_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(function: Any, inputs: Any) -> Any:
        raise error

    monkeypatch.setattr(graphs, "record", fail)
    replayed = Replayed(product, "networks")
    for value in (1.0, 2.0):
        a = torch.full((3,), value)
        assert torch.equal(replayed(a, a), product(a, a))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"networks: runs without a CUDA graph, which is slower: {str(error).splitlines()[0]}"
