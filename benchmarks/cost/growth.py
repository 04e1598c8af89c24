"""Times of the whole pipeline over many frames, and their growth with planes, pixels and views."""

from __future__ import annotations

import gc
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cost import original
from benchmarks.cost.operations import calls_in_a_row, mpi_of, path_of
from benchmarks.cost.sides import Setting, make_renderer, their_frame
from benchmarks.cost.timing import Seconds, format_time, spread
from benchmarks.record import markdown_table
from maskvolume.geometry.cameras import stack_cameras
from maskvolume.io.images import write_image
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.rendering.loop import render_shots
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.pictures import to_bytes, to_uint8
from maskvolume.rendering.shots import path_shots
from maskvolume.runtime.transfers import Download, Downloader

PLANES = (8, 16, 32, 64, 128)
SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)  # of width and height: 1/4 to 4 times the pixels
VIEWS = (1, 4, 16, 64)
SMALLEST = 16  # pixels
Entry = dict[str, Any]


@torch.no_grad()
def measure_pipeline(
    setting: Setting, renderer: ClipRenderer, networks: original.Networks, their_seconds: float, frames: int
) -> Entry:
    """Time consecutive frames with one view each: from pictures in memory, and from files to files.

    Args:
        setting: of the benchmark.
        renderer: ours, after a first frame.
        networks: of the plain implementation.
        their_seconds: of a frame of the plain implementation from pictures in memory.
        frames: most frames; limited by the clip's.
    """
    count = min(frames, setting.clip.num_frames)
    in_memory = _from_memory(setting, renderer, count)
    with tempfile.TemporaryDirectory(prefix="speed_") as folder:
        ours = _from_files(setting, renderer, count, Path(folder) / "ours")
        start = time.perf_counter()
        write_image(Path(folder) / "theirs.png", to_uint8(their_frame(networks, setting, 0, {})))
        theirs = time.perf_counter() - start
    return {
        "frames": count,
        "from memory": _pace(in_memory, their_seconds),
        "from files to files": _pace(ours, theirs),
    }


def _pace(ours: float, theirs: float) -> Entry:
    return {
        "original": round(theirs, 5),
        "ours": round(ours, 5),
        "frames_a_second": round(1 / ours, 2),
        "ratio": round(theirs / ours, 2),
    }


def _from_memory(setting: Setting, renderer: ClipRenderer, count: int) -> float:
    """Seconds per frame, from its pictures to the bytes of its view on the host."""
    pictures = [renderer.read(frame) for frame in range(count)]
    target, download = setting.target.to(setting.device, renderer.camera.K.dtype), Downloader(setting.device)
    numbers = itertools.count(10**6)  # beyond all frames, so that no MPI is cached

    def run() -> Download:
        for frame_pictures in pictures:
            number = next(numbers)
            renderer.frame_mpi(number, frame_pictures)
            result = download([to_bytes(renderer.render(number, target).color)])
        return result

    seconds: Seconds = {}
    setting.clock.timed(seconds, "", lambda: run().arrays())
    return seconds[""][0] / count


def _from_files(setting: Setting, renderer: ClipRenderer, count: int, folder: Path) -> float:
    """Seconds per frame, from picture files to picture files."""
    shots = path_shots(stack_cameras([setting.target] * count), "loop", setting.clip.num_frames)
    seconds: Seconds = {}
    arguments = (BlendedRenderer([renderer]), shots, RenderFolder(folder), range(count))
    setting.clock.timed(seconds, "", lambda: render_shots(*arguments, quiet=True))
    return seconds[""][0] / count


def measure_growth(setting: Setting, model: MaskVolumeModel, repeats: int, planes: Sequence[int] = PLANES) -> Entry:
    """Seconds of a frame and of a view of its MPI for growing numbers of planes and pixels; and of views of one MPI.

    On the CPU it uses a quarter of the width and height.
    """
    if setting.device.type != "cuda":
        setting = _resized(setting, 0.25)
    return {
        "size_wh": [setting.size[1], setting.size[0]],
        "num_planes": setting.num_planes,
        "planes": [_point(count, replace(setting, num_planes=count), model, repeats) for count in planes],
        "pixels": [_point(scale**2, _resized(setting, scale), model, repeats) for scale in SCALES],
        "views": _views(setting, model, repeats),
    }


def _resized(setting: Setting, scale: float) -> Setting:
    height, width = (max(SMALLEST, round(side * scale)) for side in setting.size)
    return replace(setting, size=(height, width), target=setting.target.scaled((height, width)))


@torch.no_grad()
def _point(value: float, setting: Setting, model: MaskVolumeModel, repeats: int) -> Entry:
    gc.collect()  # frees the previous renderer and its CUDA graphs
    renderer = make_renderer(setting, model)
    pictures, numbers = renderer.read(0), itertools.count(1)
    frame = setting.clock.repeated(repeats, lambda: renderer.frame_mpi(next(numbers), pictures))
    mpi, target = mpi_of(renderer), setting.target.to(setting.device)
    view = setting.clock.repeated(repeats, mpi.render, target, model.backend, calls=calls_in_a_row(setting))
    return {
        "value": value,
        "size_wh": [setting.size[1], setting.size[0]],
        "num_planes": setting.num_planes,
        "frame": spread(frame),
        "view": spread(view),
    }


@torch.no_grad()
def _views(setting: Setting, model: MaskVolumeModel, repeats: int) -> list[Entry]:
    mpi = mpi_of(make_renderer(setting, model))
    rows = []
    for count in VIEWS:
        times = setting.clock.repeated(repeats, mpi.render, path_of(setting, count), model.backend)
        rows.append({"value": count, "launch": spread(times), "a_view": round(spread(times)["median"] / count, 8)})
    return rows


def print_pipeline(result: Entry) -> None:
    """Print the table of ``measure_pipeline``."""
    print(f"\nThe pipeline over {result['frames']} frames, seconds per frame:\n")
    rows = []
    for name in ("from memory", "from files to files"):
        row = result[name]
        cells = [f"{row['original']:.4f}", f"{row['ours']:.4f}", f"{row['frames_a_second']:.1f}", f"{row['ratio']:.1f}"]
        rows.append([name, *cells])
    print(markdown_table(["", "original", "ours", "frames/s", "ratio"], rows))


def print_growth(result: Entry) -> None:
    """Print the tables of ``measure_growth``."""
    width, height = result["size_wh"]
    print(f"\nHow time grows from {width} x {height} and {result['num_planes']} planes:\n")
    rows = [
        [axis, f"{row['value']:g}", format_time(row["frame"]), format_time(row["view"])]
        for axis in ("planes", "pixels")
        for row in result[axis]
    ]
    print(markdown_table(["", "", "a frame's MPI", "a view of it"], rows))
    rows = [[f"{row['value']}", format_time(row["launch"]), f"{row['a_view'] * 1e6:.0f} us"] for row in result["views"]]
    print("\nViews of one MPI in one launch:\n")
    print(markdown_table(["views", "launch", "each"], rows))
