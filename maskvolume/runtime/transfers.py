"""Copies between the host and a device that overlap with computation on the device.

On CUDA, uploads and downloads have a stream each and use page-locked memory. Events order them with the work on the
current stream, so the host never waits for a computation here. On other devices the same calls copy before they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

SLOTS = 3  # staging buffers: one being filled, one being copied, one of slack


class Runtime(Protocol):
    """Streams, events and memory of a device."""

    def new_stream(self) -> Any:
        """A stream for copies, with ``wait_event``."""
        ...

    def new_event(self) -> Any:
        """An event, with ``record`` on a stream and ``synchronize``, which waits on the host."""
        ...

    def current_stream(self) -> Any:
        """The stream that computes."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """A context in which work is issued to a stream."""
        ...

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory that the device can copy from or to while the host does something else."""
        ...

    def keep_for(self, x: Tensor, stream: Any) -> None:
        """Keep the memory of ``x`` until the work that was issued to ``stream`` before its release is done."""
        ...


class HostRuntime:
    """No streams: every call is done when it returns."""

    def new_stream(self) -> Any:
        return torch.cpu.Stream()

    def new_event(self) -> Any:
        return torch.cpu.Event()

    def current_stream(self) -> Any:
        return torch.cpu.current_stream()

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        return torch.cpu.stream(stream)

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype)

    def keep_for(self, x: Tensor, stream: Any) -> None:
        """Do nothing: copies are done when their call returns."""


@dataclass(frozen=True)
class CudaRuntime:
    """Streams of one GPU.

    Attributes:
        device: the GPU.
    """

    device: torch.device

    def new_stream(self) -> Any:
        return torch.cuda.Stream(self.device)

    def new_event(self) -> Any:
        return torch.cuda.Event(blocking=True)  # waiting threads sleep and leave the CPU to others

    def current_stream(self) -> Any:
        return torch.cuda.current_stream(self.device)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        return torch.cuda.stream(stream)

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def keep_for(self, x: Tensor, stream: Any) -> None:
        x.record_stream(stream)


def runtime_of(device: torch.device) -> Runtime:
    """The runtime of a device."""
    return CudaRuntime(device) if device.type == "cuda" else HostRuntime()


@dataclass
class _Slot:
    """A staging buffer, and the event that its copy is done."""

    copied: Any
    buffer: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))


class Uploader:
    """Copies images to a device while it computes. Not thread-safe.

    The current stream waits for each copy, on the device. The host waits only if the staging buffer it needs, last
    used ``slots`` calls ago, has not been copied yet.

    Args:
        device: the destination.
        slots: number of staging buffers.
        runtime: the device's own by default.
    """

    def __init__(self, device: torch.device, slots: int = SLOTS, runtime: Runtime | None = None) -> None:
        self._device = device
        self._runtime = runtime or runtime_of(device)
        self._stream = self._runtime.new_stream()
        self._slots = [_Slot(self._runtime.new_event()) for _ in range(slots)]
        self._calls = 0

    def __call__(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Upload V images of one size, uint8 ``[H, W, C]``; returns ``[V, H, W, C]`` uint8 on the device."""
        slot = self._slots[self._calls % len(self._slots)]
        self._calls += 1
        slot.copied.synchronize()
        shape = (len(pictures), *pictures[0].shape)
        if tuple(slot.buffer.shape) != shape:
            slot.buffer = self._runtime.staging(shape, torch.uint8)
        np.stack(pictures, out=slot.buffer.numpy())
        with self._runtime.on(self._stream):
            # A copy even on the CPU, since the buffer is reused.
            arrived = slot.buffer.to(self._device, non_blocking=self._device.type == "cuda", copy=True)
            slot.copied.record(self._stream)
        current = self._runtime.current_stream()
        current.wait_event(slot.copied)
        self._runtime.keep_for(arrived, current)
        return arrived


@dataclass(frozen=True)
class Download:
    """Tensors on their way to the host.

    Attributes:
        tensors: their destinations; don't read them before ``arrays`` has returned.
        arrived: the event that all copies are done.
    """

    tensors: tuple[Tensor, ...]
    arrived: Any

    def arrays(self) -> list[np.ndarray]:
        """Wait for the copies and return the values. Any number of threads may call it."""
        self.arrived.synchronize()
        return [x.numpy() for x in self.tensors]


class Downloader:
    """Copies tensors from a device while it computes. Not thread-safe.

    Args:
        device: the source.
        runtime: the device's own by default.
    """

    def __init__(self, device: torch.device, runtime: Runtime | None = None) -> None:
        self._runtime = runtime or runtime_of(device)
        self._stream = self._runtime.new_stream()

    def __call__(self, tensors: Sequence[Tensor]) -> Download:
        """Start to copy these tensors once the work issued to the current stream is done."""
        ready, arrived = self._runtime.new_event(), self._runtime.new_event()
        ready.record(self._runtime.current_stream())
        with self._runtime.on(self._stream):
            self._stream.wait_event(ready)
            copies = tuple(self._copy(x) for x in tensors)
            arrived.record(self._stream)
        return Download(copies, arrived)

    def _copy(self, x: Tensor) -> Tensor:
        # PyTorch's allocator reuses page-locked memory only after its copies are done.
        host = self._runtime.staging(x.shape, x.dtype)
        host.copy_(x, non_blocking=x.is_cuda)
        self._runtime.keep_for(x, self._stream)
        return host
