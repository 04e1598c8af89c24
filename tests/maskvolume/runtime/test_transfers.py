"""Copies beside the computing: what waits for what, which memory is used again, and that nothing waits on the host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskvolume.geometry.cameras import Camera
from maskvolume.mpi.blending import along_one_axis, blend_renderings
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.ops import Rendering, fill_unseen
from maskvolume.rendering.pictures import to_bytes, to_steps
from maskvolume.runtime.transfers import Downloader, HostRuntime, Uploader

CPU = torch.device("cpu")
SIZE = (48, 64)


def pictures(value: int, views: int = 2) -> list[np.ndarray]:
    return [np.full((4, 6, 3), 10 * value + view, np.uint8) for view in range(views)]


class LoggedEvent:
    """An event of a device that is late: what is recorded is done when somebody waits for it."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name, self.recorded_on = log, name, None

    def record(self, stream: LoggedStream) -> None:
        self.log.append(f"{self.name} recorded on {stream.name}")

    def synchronize(self) -> None:
        self.log.append(f"host waits for {self.name}")


class LoggedStream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_event(self, event: LoggedEvent) -> None:
        self.log.append(f"{self.name} waits for {event.name}")


class LoggedRuntime:
    """Streams that write down what they are told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.compute = LoggedStream(self.log, "compute")
        self.buffers: list[Tensor] = []
        self.events = 0

    def new_stream(self) -> LoggedStream:
        return LoggedStream(self.log, "copies")

    def new_event(self) -> LoggedEvent:
        self.events += 1
        return LoggedEvent(self.log, f"event {self.events}")

    def current_stream(self) -> LoggedStream:
        return self.compute

    @contextmanager
    def on(self, stream: LoggedStream):
        self.log.append(f"on {stream.name}")
        yield
        self.log.append(f"off {stream.name}")

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        self.buffers.append(torch.empty(tuple(shape), dtype=dtype))
        return self.buffers[-1]

    def keep_for(self, x: Tensor, stream: LoggedStream) -> None:
        self.log.append(f"kept for {stream.name}")


def test_what_is_uploaded_stays_when_the_buffers_go_round() -> None:
    upload = Uploader(CPU, slots=2)
    arrived = [upload(pictures(value)) for value in range(5)]
    for value, got in enumerate(arrived):
        np.testing.assert_array_equal(got.numpy(), np.stack(pictures(value)))


def test_the_computing_waits_for_a_copy_and_the_host_does_not() -> None:
    runtime = LoggedRuntime()
    Uploader(CPU, slots=2, runtime=runtime)(pictures(0))
    assert runtime.log == [
        "host waits for event 1",  # which has never been recorded: no wait
        "on copies",
        "event 1 recorded on copies",
        "off copies",
        "compute waits for event 1",
        "kept for compute",
    ]


def test_a_buffer_is_filled_again_only_when_its_own_copy_is_done() -> None:
    runtime = LoggedRuntime()
    upload = Uploader(CPU, slots=2, runtime=runtime)
    held: list[tuple[str, list[int]]] = []
    for slot in upload._slots:
        real = slot.copied.synchronize

        def waiting(slot: Any = slot, real: Any = real) -> None:
            real()
            held.append((slot.copied.name, slot.buffer.flatten()[:1].tolist()))

        slot.copied.synchronize = waiting
    for value in range(5):
        upload(pictures(value))
    # As the host comes to wait, a buffer holds what was laid into it two calls before.
    assert held == [("event 1", []), ("event 2", []), ("event 1", [0]), ("event 2", [10]), ("event 1", [20])]
    assert len(runtime.buffers) == 2


def test_pictures_of_another_size_get_buffers_of_their_own() -> None:
    upload = Uploader(CPU, slots=1)
    upload(pictures(1))
    np.testing.assert_array_equal(upload(pictures(2, views=3)).numpy(), np.stack(pictures(2, views=3)))


def test_a_download_waits_on_the_device_for_what_is_computed_and_its_reader_for_the_copy() -> None:
    runtime = LoggedRuntime()
    x = torch.arange(6.0)
    arriving = Downloader(CPU, runtime)([x])
    assert runtime.log == [
        "event 1 recorded on compute",
        "on copies",
        "copies waits for event 1",
        "kept for copies",
        "event 2 recorded on copies",
        "off copies",
    ]
    x.zero_()  # what is computed next
    (array,) = arriving.arrays()
    assert runtime.log[-1] == "host waits for event 2"
    np.testing.assert_array_equal(array, np.arange(6.0))


def test_the_runtime_of_the_host_obeys_the_same_calls() -> None:
    runtime = HostRuntime()
    stream, event = runtime.new_stream(), runtime.new_event()
    with runtime.on(stream):
        event.record(stream)
    runtime.current_stream().wait_event(event)
    event.synchronize()


class StaysOnDevice(TorchDispatchMode):
    """Writes down the operations that move something between devices or take values from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        self.count += 1
        devices = {x.device.type for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}
        if devices - {"cuda"} or "lift_fresh" in str(function):
            self.wrong.append(f"{function} on {sorted(devices)}")
        return out


def cameras(*axes: int) -> Camera:
    pose, K = torch.eye(4, device="cuda"), torch.eye(3, device="cuda")
    return Camera(pose.expand(*axes, 4, 4), K.expand(*axes, 3, 3), SIZE)


@pytest.mark.parametrize("stage", ["mask", "mpi"])
@pytest.mark.parametrize("targets", [(), (5,)])
def test_from_pictures_on_a_gpu_to_pixels_nothing_waits_for_values(stage: Any, targets: tuple[int, ...]) -> None:
    """Tensors without values, which can't be asked for any: ``bool`` and ``item`` of one raise."""
    pytest.importorskip("triton")
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            model = MaskVolumeModel(CheckpointMeta(stage, "semiglobal")).requires_grad_(False)
        images, depths = torch.rand(2, 3, *SIZE, device="cuda"), torch.rand(8, device="cuda")
        background = model.background(images, cameras(2), cameras(), depths)
        with StaysOnDevice() as watched:
            if stage == "mask":
                rendering = model.frame(images, cameras(2), background).render(cameras(*targets))
            else:
                rendering = model.dynamic(images, cameras(2), cameras(), depths).render(cameras(*targets))
            filled = fill_unseen(rendering)
            pixels, steps = to_bytes(filled.color), to_steps(filled.disparity, 1.5)
        assert watched.count > 100
        assert not watched.wrong
        assert pixels.shape == (*targets, *SIZE, 3)
        assert (pixels.dtype, steps.dtype) == (torch.uint8, torch.int16)


@pytest.mark.parametrize("targets", [(), (5,)])
def test_blending_references_on_a_gpu_waits_for_no_values(targets: tuple[int, ...]) -> None:
    with FakeTensorMode(), torch.no_grad():
        seen = [
            Rendering(*(torch.rand(*targets, channels, *SIZE, device="cuda") for channels in (3, 1, 1)))
            for _ in range(3)
        ]
        weights = torch.rand(*targets, 4, device="cuda")
        references, target = [cameras() for _ in range(3)], cameras(*targets)
        with StaysOnDevice() as watched:
            shares = [weights[..., number, None, None, None] for number in (0, 2, 3)]
            blended = blend_renderings(along_one_axis(seen, references, target, shares), shares)
        assert watched.count > 30
        assert not watched.wrong
        assert blended.disparity.shape == (*targets, 1, *SIZE)


def test_the_watch_finds_what_it_is_for() -> None:
    with FakeTensorMode():
        x = torch.rand(3, device="cuda")
        with StaysOnDevice() as watched:
            x.new_tensor([1.0])
            x.cpu()
        assert len(watched.wrong) >= 2
        with pytest.raises(Exception, match=r"item|scalar|data"):
            bool((x > 0).all())
