"""Times of single operations and the bytes that they must move: views of finished MPIs, sweeps, paths, blends."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.cost import original
from benchmarks.cost.sides import (
    Setting,
    our_view,
    random_planes,
    straight,
    their_sweep,
    their_view,
)
from benchmarks.cost.timing import ratio, spread
from benchmarks.cost.traffic import (
    blended_view_bytes,
    stored_blend_bytes,
    sweep_bytes,
    view_bytes,
)
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import render_path
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.mpi.model import FrameMPI
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.ops import operators as fused
from maskvolume.ops.reference import warps
from maskvolume.runtime.cuda_graphs import record

CALLS = 20  # consecutive calls on a GPU, where launching one takes longer than running it
PLANE_TYPES = ("float32", "float16", "uint8")
Entry = dict[str, Any]


def with_floor(times: list[float], moved: int, bandwidth: float) -> Entry:
    """A time with its floor: the bytes that must be moved, at the device's copy bandwidth."""
    seconds = statistics.median(times)
    return {
        **spread(times),
        "bytes": moved,
        "floor": round(moved / bandwidth, 8),
        "gb_a_second": round(moved / seconds / 1e9, 2),
        "of_copy": round(moved / seconds / bandwidth, 3),
    }


def calls_in_a_row(setting: Setting) -> int:
    """Number of calls of an operation between two readings of the clock."""
    return CALLS if setting.device.type == "cuda" else 1


@torch.no_grad()
def device_times(setting: Setting, repeats: int, function: Callable[[], Any]) -> list[float]:
    """Seconds of the device for a call.

    On a GPU the call is recorded and replayed several times in a row, so that launches from Python don't count.
    """
    if setting.device.type != "cuda":
        return setting.clock.repeated(repeats, function)
    graph, result = record(lambda _: function(), (torch.empty(0, device=setting.device),))
    times = setting.clock.repeated(repeats, graph.replay, calls=CALLS)
    del result  # the graph writes to it
    return times


def mpi_of(renderer: ClipRenderer) -> MultiplaneImage:
    """The MPI of the first frame, prepared for many views."""
    return renderer.frame_mpi(0).mpi.prepared()


@torch.no_grad()
def measure_views(setting: Setting, renderer: ClipRenderer, repeats: int) -> Entry:
    """Time views of finished MPIs on both sides: of random planes, and of the first frame's MPI."""
    network_mpi, target = mpi_of(renderer), setting.target.to(setting.device)
    reference_camera = setting.cameras()[0].to(setting.device)
    margin = [round(float(a - b)) for a, b in zip(network_mpi.camera.K[:2, 2], reference_camera.K[:2, 2], strict=True)]
    inside = (
        ...,
        slice(margin[1], margin[1] + setting.size[0]),
        slice(margin[0], margin[0] + setting.size[1]),
    )
    random = random_planes(setting.num_planes, setting.size).to(setting.device)
    premultiplied = torch.cat([random[:, :3] * random[:, 3:], random[:, 3:]], dim=1)
    pairs = {
        "random MPI": (random, MultiplaneImage(premultiplied, reference_camera, network_mpi.depths).prepared()),
        "network's MPI": (straight(network_mpi)[inside].contiguous(), network_mpi),
    }
    result = {}
    for name, (rgba, mpi) in pairs.items():
        plain = original.Mpi(rgba, mpi.depths.cpu(), their_view(reference_camera))
        theirs: list[float] = []
        ours: list[float] = []
        for _ in range(repeats):  # turn by turn
            theirs += setting.clock.repeated(1, original.render, plain, their_view(setting.target))
            ours += setting.clock.repeated(1, our_view, mpi, target, renderer.model, calls=calls_in_a_row(setting))
        result[name] = {"original": spread(theirs), "ours": spread(ours), "ratio": ratio(theirs, ours)}
        if setting.device.type == "cuda":
            replayed = device_times(setting, repeats, partial(our_view, mpi, target, renderer.model))
            result[name] |= {"replayed": spread(replayed), "ratio_replayed": ratio(theirs, replayed)}
    return result


@torch.no_grad()
def measure_sweep(setting: Setting, renderer: ClipRenderer, repeats: int, bandwidth: float) -> Entry:
    """Time the sweep of a frame's pictures on both sides, each in its own frustum."""
    model = renderer.model
    images = torch.stack([setting.picture(camera, 0) for camera in setting.indices])
    depths = renderer.depths.cpu()
    theirs = setting.clock.repeated(max(1, repeats // 5), their_sweep, setting, images, depths)
    sources, camera = renderer.sources, renderer.camera
    ours = device_times(setting, repeats, partial(model.sweep, images, sources, camera, renderer.depths))
    element = model.sweep(images, sources, camera, renderer.depths[:1]).element_size()
    moved = sweep_bytes(len(images), setting.num_planes, setting.size, camera.size, element)
    return {"original": spread(theirs), "ours": with_floor(ours, moved, bandwidth), "ratio": ratio(theirs, ours)}


@torch.no_grad()
def measure_planes(setting: Setting, renderer: ClipRenderer, repeats: int, bandwidth: float) -> Entry:
    """Time the kernel of a view alone, with its homographies precomputed, for the supported plane types."""
    mpi, target = mpi_of(renderer), setting.target.to(setting.device)
    H, inverse = warps.mpi_homographies(mpi.rgba, mpi.camera, mpi.depths, target)
    result = {}
    for name in PLANE_TYPES:
        kind = getattr(torch, name)
        planes = (mpi.rgba * 255).round().to(kind) if kind is torch.uint8 else mpi.rgba.to(kind)
        arguments = (planes[None], H, inverse, *target.size, mpi.premultiplied)
        times = device_times(setting, repeats, partial(fused.render_planes, *arguments))
        moved = view_bytes(len(planes), mpi.camera.size, target.size, element=planes.element_size())
        result[name] = with_floor(times, moved, bandwidth)
    return result


def path_of(setting: Setting, count: int) -> Camera:
    """``[count]`` cameras of a spiral around the rig, on the device."""
    path = render_path(setting.clip.poses, "spiral", max(1, -(-count // 4))).scaled(setting.size)[:count]
    return path.to(setting.device, torch.float32)


@torch.no_grad()
def measure_path(setting: Setting, renderer: ClipRenderer, repeats: int, views: int, bandwidth: float) -> Entry:
    """Time all views of a path of one MPI: in one launch, and with a launch for each."""
    mpi, path = mpi_of(renderer), path_of(setting, views)
    backend = renderer.model.backend
    at_once = device_times(setting, repeats, partial(mpi.render, path, backend))
    targets = [path[index] for index in range(views)]

    def one_by_one() -> list[Tensor]:
        return [mpi.render(target, backend).color for target in targets]

    separate = setting.clock.repeated(repeats, one_by_one)
    moved = view_bytes(setting.num_planes, mpi.camera.size, setting.size, views)
    return {
        "views": views,
        "one launch": with_floor(at_once, moved, bandwidth),
        "a launch each": spread(separate),
        "ratio": ratio(separate, at_once),
        "a_view": round(statistics.median(at_once) / views, 8),
    }


@torch.no_grad()
def measure_blend(setting: Setting, renderer: ClipRenderer, repeats: int, bandwidth: float) -> Entry | None:
    """Time a view that blends while reading, and one of an MPI blended before; None if nothing is blended."""
    frame_mpi, target = renderer.frame_mpi(0), setting.target.to(setting.device)
    if not isinstance(frame_mpi, FrameMPI) or frame_mpi.background is None:
        return None
    backend, sizes = renderer.model.backend, (setting.num_planes, renderer.camera.size, setting.size)

    def stored() -> Tensor:
        return frame_mpi.mpi.render(target, backend).color

    def fused_view() -> Tensor:
        return frame_mpi.render(target, backend).color

    parts: list[tuple[str, Callable[[], Tensor], int]] = [
        ("fused", fused_view, blended_view_bytes(*sizes)),
        ("blend, then render", stored, stored_blend_bytes(*sizes)),
    ]
    result: Entry = {}
    times = {}
    for name, function, moved in parts:
        times[name] = device_times(setting, repeats, function)
        result[name] = with_floor(times[name], moved, bandwidth)
    return {**result, "ratio": ratio(times["blend, then render"], times["fused"])}
