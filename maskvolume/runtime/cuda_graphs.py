"""Functions of tensors recorded as CUDA graphs: one driver call launches thousands of small kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

WARM_UPS = 3  # calls before recording: they compile and select kernels and allocate workspace


class Replayed(Generic[Result]):
    """A function that is recorded at its first call and replayed at each later one.

    The function must do the same work at each call, for tensors of one shape, and never wait for the device. All
    tensors that it uses besides its arguments must stay at their addresses. If recording fails, one line says why and
    the function is called directly instead.

    Args:
        function: takes CUDA tensors and returns anything that holds tensors.
        what: a name for the function, for the message.
    """

    def __init__(self, function: Callable[..., Result], what: str) -> None:
        self._function, self._what = function, what
        self._shapes: tuple[Any, ...] | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._graph: Any = None
        self._result: Result | None = None
        self._failed = False

    def __call__(self, *inputs: Tensor) -> Result:
        """The function's result for the inputs; the next call overwrites it, on the stream of that call."""
        if self._failed:
            return self._function(*inputs)
        shapes = tuple((x.shape, x.dtype, x.device) for x in inputs)
        if self._shapes != shapes:
            self._record(shapes, inputs)
            if self._failed:
                return self._function(*inputs)
        for buffer, x in zip(self._inputs, inputs, strict=True):
            buffer.copy_(x)
        self._graph.replay()
        assert self._result is not None
        return self._result

    def _record(self, shapes: tuple[Any, ...], inputs: tuple[Tensor, ...]) -> None:
        self._graph = self._result = None  # frees the memory of an earlier recording
        try:
            self._inputs = tuple(x.clone() for x in inputs)
            self._graph, self._result = record(self._function, self._inputs)
            self._shapes = shapes
        except (RuntimeError, NotImplementedError) as error:  # torch.OutOfMemoryError is a RuntimeError
            self._failed, self._inputs = True, ()
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            print(f"{self._what}: runs without a CUDA graph, which is slower: {reason}")


def record(function: Callable[..., Result], inputs: tuple[Tensor, ...]) -> tuple[Any, Result]:
    """Record ``function(*inputs)`` as a CUDA graph; returns the graph and the result, which each replay overwrites.

    Raises:
        RuntimeError: the function does something that a graph can't record, or memory runs out.
    """
    with torch.cuda.device(inputs[0].device):
        current, side, graph = torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*inputs)
        current.wait_stream(side)
        # Other threads may wait for copies during the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function(*inputs)
    return graph, result
