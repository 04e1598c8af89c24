"""Times of single operations beside the bytes that they must move: views of finished MPIs, sweeps, paths, blends."""

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

CALLS = 20  # in a row on a GPU, where one is shorter than its start
PLANE_TYPES = ("float32", "float16", "uint8")
Entry = dict[str, Any]


def with_floor(times: list[float], moved: int, bandwidth: float) -> Entry:
    """A time beside its floor: the bytes that must be moved, at the speed at which the device copies."""
    seconds = statistics.median(times)
    return {
        **spread(times),
        "bytes": moved,
        "floor": round(moved / bandwidth, 8),
        "gb_a_second": round(moved / seconds / 1e9, 2),
        "of_copy": round(moved / seconds / bandwidth, 3),
    }


def calls_in_a_row(setting: Setting) -> int:
    """How often to call an operation between two looks at the clock."""
    return CALLS if setting.device.type == "cuda" else 1


@torch.no_grad()
def device_times(setting: Setting, repeats: int, function: Callable[[], Any]) -> list[float]:
    """Seconds that the device takes for a call.

    On a GPU the call is recorded and replayed some times in a row, so that its start from Python doesn't count.
    """
    if setting.device.type != "cuda":
        return setting.clock.repeated(repeats, function)
    graph, result = record(lambda _: function(), (torch.empty(0, device=setting.device),))
    times = setting.clock.repeated(repeats, graph.replay, calls=CALLS)
    del result  # what the graph writes to
    return times


def mpi_of(renderer: ClipRenderer) -> MultiplaneImage:
    """What the networks made of the first frame, ready for many views."""
    return renderer.frame_mpi(0).mpi.prepared()


@torch.no_grad()
def measure_views(setting: Setting, renderer: ClipRenderer, repeats: int) -> Entry:
    """Views of finished MPIs by both: of random planes, and of what the networks made of the first frame."""
    made, target = mpi_of(renderer), setting.target.to(setting.device)
    reference_camera = setting.cameras()[0].to(setting.device)
    margin = [round(float(a - b)) for a, b in zip(made.camera.K[:2, 2], reference_camera.K[:2, 2], strict=True)]
    inside = (
        ...,
        slice(margin[1], margin[1] + setting.size[0]),
        slice(margin[0], margin[0] + setting.size[1]),
    )
    random = random_planes(setting.num_planes, setting.size).to(setting.device)
    premultiplied = torch.cat([random[:, :3] * random[:, 3:], random[:, 3:]], dim=1)
    pairs = {
        "random MPI": (random, MultiplaneImage(premultiplied, reference_camera, made.depths).prepared()),
        "network's MPI": (straight(made)[inside].contiguous(), made),
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
    """The sweep of a frame's pictures by both, each in its own frustum."""
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
    """The kernel of a view by itself, its homographies at hand, for the types that planes may have."""
    made, target = mpi_of(renderer), setting.target.to(setting.device)
    H, inverse = warps.mpi_homographies(made.rgba, made.camera, made.depths, target)
    result = {}
    for name in PLANE_TYPES:
        kind = getattr(torch, name)
        planes = (made.rgba * 255).round().to(kind) if kind is torch.uint8 else made.rgba.to(kind)
        arguments = (planes[None], H, inverse, *target.size, made.premultiplied)
        times = device_times(setting, repeats, partial(fused.render_planes, *arguments))
        moved = view_bytes(len(planes), made.camera.size, target.size, element=planes.element_size())
        result[name] = with_floor(times, moved, bandwidth)
    return result


def path_of(setting: Setting, count: int) -> Camera:
    """``[count]`` cameras of a spiral through the rig, on the device."""
    path = render_path(setting.clip.poses, "spiral", max(1, -(-count // 4))).scaled(setting.size)[:count]
    return path.to(setting.device, torch.float32)


@torch.no_grad()
def measure_path(setting: Setting, renderer: ClipRenderer, repeats: int, views: int, bandwidth: float) -> Entry:
    """All views of a path of one MPI: in one launch, and in a launch for each."""
    made, path = mpi_of(renderer), path_of(setting, views)
    backend = renderer.model.backend
    at_once = device_times(setting, repeats, partial(made.render, path, backend))
    targets = [path[index] for index in range(views)]

    def one_by_one() -> list[Tensor]:
        return [made.render(target, backend).color for target in targets]

    apart = setting.clock.repeated(repeats, one_by_one)
    moved = view_bytes(setting.num_planes, made.camera.size, setting.size, views)
    return {
        "views": views,
        "one launch": with_floor(at_once, moved, bandwidth),
        "a launch each": spread(apart),
        "ratio": ratio(apart, at_once),
        "a_view": round(statistics.median(at_once) / views, 8),
    }


@torch.no_grad()
def measure_blend(setting: Setting, renderer: ClipRenderer, repeats: int, bandwidth: float) -> Entry | None:
    """A view that blends as it reads, and one of an MPI that was blended before; None where nothing is blended."""
    made, target = renderer.frame_mpi(0), setting.target.to(setting.device)
    if not isinstance(made, FrameMPI) or made.background is None:
        return None
    backend, sizes = renderer.model.backend, (setting.num_planes, renderer.camera.size, setting.size)

    def stored() -> Tensor:
        return made.mpi.render(target, backend).color

    def fused_view() -> Tensor:
        return made.render(target, backend).color

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
