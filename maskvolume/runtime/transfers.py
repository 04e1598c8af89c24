"""Copies between the host and a device, beside what is computed on the device.

On CUDA pictures go up on one stream and come down on another one, out of and into page-locked memory, and events order
them with what is computed on the current stream: nothing here waits on the host for what is computed. Elsewhere the
same calls have copied when they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

SLOTS = 3  # staging buffers: one that is filled while one is copied, and one of slack


class Runtime(Protocol):
    """Streams, events and memory of a device."""

    def new_stream(self) -> Any:
        """A stream of copies, with ``wait_event``."""
        ...

    def new_event(self) -> Any:
        """An event, with ``record`` on a stream and ``synchronize``, which waits on the host."""
        ...

    def current_stream(self) -> Any:
        """The stream that is computed on."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Issue to a stream what is issued within."""
        ...

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory that the device copies from or to while the host does something else."""
        ...

    def keep_for(self, x: Tensor, stream: Any) -> None:
        """Don't give the memory of ``x`` away before what is issued to ``stream`` until then is done."""
        ...


class HostRuntime:
    """No streams: everything is done when its call returns."""

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
        """Nothing is given away too early."""


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
        return torch.cuda.Event(blocking=True)  # whoever waits sleeps: other threads have work

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
    """A staging buffer, and when the copy out of it is done."""

    copied: Any
    buffer: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))


class Uploader:
    """Pictures to a device while it computes. Not for several threads at once.

    The current stream waits for a copy, on the device. The host waits only where the buffer whose turn it is has not
    been copied yet, ``slots`` calls later.

    Args:
        device: where to.
        slots: number of staging buffers.
        runtime: that of the device by default.
    """

    def __init__(self, device: torch.device, slots: int = SLOTS, runtime: Runtime | None = None) -> None:
        self._device = device
        self._runtime = runtime or runtime_of(device)
        self._stream = self._runtime.new_stream()
        self._slots = [_Slot(self._runtime.new_event()) for _ in range(slots)]
        self._calls = 0

    def __call__(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """V pictures of one size, uint8 ``[H, W, C]``, as ``[V, H, W, C]`` uint8 on the device."""
        slot = self._slots[self._calls % len(self._slots)]
        self._calls += 1
        slot.copied.synchronize()
        shape = (len(pictures), *pictures[0].shape)
        if tuple(slot.buffer.shape) != shape:
            slot.buffer = self._runtime.staging(shape, torch.uint8)
        np.stack(pictures, out=slot.buffer.numpy())
        with self._runtime.on(self._stream):
            # A copy on every device: the buffer is filled again.
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
        tensors: where they arrive; not to be read before ``arrays`` has returned.
        arrived: an event.
    """

    tensors: tuple[Tensor, ...]
    arrived: Any

    def arrays(self) -> list[np.ndarray]:
        """The values, once they are there; waits for them. Any thread may call it, and several."""
        self.arrived.synchronize()
        return [x.numpy() for x in self.tensors]


class Downloader:
    """Tensors from a device while it computes. Not for several threads at once.

    Args:
        device: where from.
        runtime: that of the device by default.
    """

    def __init__(self, device: torch.device, runtime: Runtime | None = None) -> None:
        self._runtime = runtime or runtime_of(device)
        self._stream = self._runtime.new_stream()

    def __call__(self, tensors: Sequence[Tensor]) -> Download:
        """Begin to copy what the current stream makes of these tensors."""
        ready, arrived = self._runtime.new_event(), self._runtime.new_event()
        ready.record(self._runtime.current_stream())
        with self._runtime.on(self._stream):
            self._stream.wait_event(ready)
            copies = tuple(self._copy(x) for x in tensors)
            arrived.record(self._stream)
        return Download(copies, arrived)

    def _copy(self, x: Tensor) -> Tensor:
        # Page-locked memory is given to another one only after its copy: the allocator of PyTorch sees to it.
        host = self._runtime.staging(x.shape, x.dtype)
        host.copy_(x, non_blocking=x.is_cuda)
        self._runtime.keep_for(x, self._stream)
        return host
