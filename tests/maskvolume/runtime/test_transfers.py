"""Copies beside the computing: what waits for what, which memory is used again, and that nothing waits on the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskvolume.geometry.cameras import Camera, relative_pose
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


class HostTraffic(TorchDispatchMode):
    """Records the operations that use values of the host: a tensor that is there, or one that has values.

    The tensors of the device have none, so that whoever asks for them gets an exception. Python's numbers are not
    tensors: a kernel is called with them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        self.count += 1
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if not all(isinstance(x, FakeTensor) and x.device.type == "cuda" for x in tensors):
            self.found.append(f"{function} of {[f'{type(x).__name__} on {x.device}' for x in tensors]}")
        return out


@pytest.fixture
def without_values() -> Iterator[None]:
    """Tensors without values on a GPU that need not be there: ``bool`` and ``item`` of one raise."""
    with FakeTensorMode(), torch.no_grad():
        if not torch.cuda.is_available():
            try:
                torch.empty(1, device="cuda")[0]
            except RuntimeError:
                pytest.skip("this release of PyTorch asks the CUDA driver even for tensors without values")
        yield


def cameras(*axes: int) -> Camera:
    pose, K = torch.eye(4, device="cuda"), torch.eye(3, device="cuda")
    return Camera(pose.expand(*axes, 4, 4), K.expand(*axes, 3, 3), SIZE)


@pytest.mark.parametrize("stage", ["mask", "mpi"])
@pytest.mark.parametrize("targets", [(), (5,)])
@pytest.mark.usefixtures("without_values")
def test_from_pictures_on_a_gpu_to_pixels_nothing_waits_for_values(stage: Any, targets: tuple[int, ...]) -> None:
    pytest.importorskip("triton")
    with torch.device("cuda"):
        model = MaskVolumeModel(CheckpointMeta(stage, "semiglobal")).requires_grad_(False)
    images, depths = torch.rand(2, 3, *SIZE, device="cuda"), torch.rand(8, device="cuda")
    background = model.background(images, cameras(2), cameras(), depths)
    with HostTraffic() as traffic:
        if stage == "mask":
            rendering = model.frame(images, cameras(2), background).render(cameras(*targets))
        else:
            rendering = model.dynamic(images, cameras(2), cameras(), depths).render(cameras(*targets))
        filled = fill_unseen(rendering)
        pixels, steps = to_bytes(filled.color), to_steps(filled.disparity, 1.5)
    assert traffic.count > 100
    assert not traffic.found
    assert pixels.shape == (*targets, *SIZE, 3)
    assert (pixels.dtype, steps.dtype) == (torch.uint8, torch.int16)


@pytest.mark.parametrize("targets", [(), (5,)])
@pytest.mark.usefixtures("without_values")
def test_blending_references_on_a_gpu_waits_for_no_values(targets: tuple[int, ...]) -> None:
    seen = [
        Rendering(*(torch.rand(*targets, channels, *SIZE, device="cuda") for channels in (3, 1, 1))) for _ in range(3)
    ]
    weights = torch.rand(*targets, 4, device="cuda")
    references, target = [cameras() for _ in range(3)], cameras(*targets)
    with HostTraffic() as traffic:
        shares = [weights[..., number, None, None, None] for number in (0, 2, 3)]
        blended = blend_renderings(along_one_axis(seen, references, target, shares), shares)
    assert traffic.count > 30
    assert not traffic.found
    assert blended.disparity.shape == (*targets, 1, *SIZE)


@pytest.mark.usefixtures("without_values")
def test_cameras_on_a_gpu_change_without_waiting() -> None:
    camera, views = cameras(), cameras(5)
    with HostTraffic() as traffic:
        views.scaled((24, 32)).cropped(1, 2, (8, 9)).padded((3, 4))
        relative_pose(camera, views)
        _ = views.center
    assert not traffic.found


HOST_TRAFFIC = {
    "a copy to the host": lambda x: x.cpu(),
    "a copy to the host as another type": lambda x: x.to("cpu", torch.float16),
    "a tensor of numbers": lambda x: x.new_tensor([1.0]),
    "a tensor of one number": lambda x: torch.tensor(1.0, device="cuda"),
    "numbers as a tensor": lambda x: torch.as_tensor([1.0], device="cuda"),
    "an array": lambda x: torch.from_numpy(np.zeros(3, np.float32)).to(x),
    "a list of indices": lambda x: x[[0, 1]],
    "an assigned tensor of the host": lambda x: x[:2].copy_(torch.zeros(2)),
    "an assigned number of the host": lambda x: x[0].copy_(torch.tensor(1.0)),
    "a slice of a tensor of the host": lambda x: x.__setitem__(slice(2), torch.ones(2)),
}
ON_DEVICE = {
    "numbers in kernels": lambda x: (x * 2 + 1).clamp_min(0.5),
    "a number that fills": lambda x: x[..., 1:].fill_(1),
    "new tensors": lambda x: (x.new_zeros(3), torch.full((2,), 3.0, device="cuda"), torch.arange(3, device="cuda")),
    "a choice": lambda x: torch.where(x > 0, x, 0.0),
    "another type": lambda x: x.to(torch.float16),
}
VALUES = {
    "a condition": lambda x: bool((x > 0).all()),
    "a number": lambda x: x[0].item(),
    "a list": lambda x: x.tolist(),
    "a choice of as many as there are": lambda x: x[x > 0],
}


@pytest.mark.parametrize("name", HOST_TRAFFIC)
@pytest.mark.usefixtures("without_values")
def test_the_watch_finds_copies(name: str) -> None:
    x = torch.rand(3, device="cuda")
    with HostTraffic() as traffic:
        HOST_TRAFFIC[name](x)
    assert traffic.found


@pytest.mark.parametrize("name", ON_DEVICE)
@pytest.mark.usefixtures("without_values")
def test_the_watch_leaves_alone_what_stays_on_the_device(name: str) -> None:
    x = torch.rand(3, device="cuda")
    with HostTraffic() as traffic:
        ON_DEVICE[name](x)
    assert traffic.count > 0
    assert not traffic.found


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.usefixtures("without_values")
def test_tensors_without_values_cannot_be_asked_for_any(name: str) -> None:
    x = torch.rand(3, device="cuda")
    with pytest.raises(Exception, match=r"item|scalar|data|nonzero"):
        VALUES[name](x)
