"""The memory that the networks use while they run, and the accuracy of memory plans for whole frames.

Each figure is the peak memory of a separate process, minus its memory before the work. ``maskvolume/mpi/memory.py``
plans with the bytes per voxel printed here; an architecture's entry in ``maskvolume/networks/registry.py`` holds them.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost.costs import peak_bytes
from benchmarks.quality.holdout import open_with_background
from benchmarks.record import (
    REPO_ROOT,
    RESULTS_FOLDER,
    markdown_table,
    run_record,
    write_result,
)
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.memory import GB, need, resident_bytes
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.renderer import ClipRenderer, RenderSettings
from maskvolume.mpi.tiles import Tiling
from maskvolume.networks import ARCHITECTURES
from maskvolume.options import Size, option, parse_options
from maskvolume.runtime.allocator import give_back_large_blocks
from maskvolume.runtime.devices import Precision
from maskvolume.runtime.errors import InputError, run_program

MARK = "memory:"
NETWORKS = ("mpi", "mask")
VIEWS = (2, 4)
REPEATS = 3  # runs in a process, since freed memory is not always returned
SMALL = Size(48, 64)  # width and height of a first run, which includes one-time setup


@dataclass(frozen=True)
class MemoryOptions:
    """The options of this program."""

    root_dir: str = option(str(REPO_ROOT / "examples" / "rig"), "the clip")
    img_wh: Size = option(Size(360, 640), "picture width and height", low=16)
    num_planes: int = option(32, "planes")
    tile_wh: Size | None = option(None, "width and height of tiles; none: whole frames")
    memory_of: str | None = option(
        None, "only run this and print its memory: mpi, mask or frame", choices=(*NETWORKS, "frame")
    )
    arch: str = option("semiglobal", "with memory_of: its architecture", choices=tuple(ARCHITECTURES))
    precision: str = option("bf16", "with memory_of: precision of its networks, fp32 or bf16", choices=("fp32", "bf16"))
    views: int = option(2, "with memory_of: its number of source cameras")
    out: str = option(str(RESULTS_FOLDER / "memory.json"), "file for the figures")


def main() -> None:
    """Measure, print the tables, write the figures."""
    options = parse_options(MemoryOptions, prog="memory.py", description=__doc__ or "")
    if options.memory_of:
        give_back_large_blocks()
        _run_alone(options)
        return
    cases = [
        replace(options, arch=arch, precision=precision, views=views)
        for arch in ARCHITECTURES
        for precision in ("fp32", "bf16")
        for views in VIEWS
        if views <= (ARCHITECTURES[arch].max_views or views)
    ]
    networks, frames, programs = [], [], []
    with tqdm(total=len(cases) * 3, unit="run", disable=None) as bar:
        for case in cases:
            figures: dict[str, Any] = {"arch": case.arch, "precision": case.precision, "views": case.views}
            for network in NETWORKS:
                used, _, voxels = _measure(case, network)
                figures[f"{network}_bytes_a_voxel"] = round(used / voxels, 1)
                bar.update()
            networks.append(figures)
            used, before, planned = _measure(case, "frame")
            programs.append(before)
            keys = {"arch": case.arch, "precision": case.precision, "views": case.views}
            frames.append({**keys, "measured_gb": round(used / GB, 3), "planned_gb": round(planned / GB, 3)})
            bar.update()
    result = {
        **run_record(),
        "size_wh": list(options.img_wh.wh),
        "num_planes": options.num_planes,
        "networks": networks,
        "frames": frames,
        "program_gb": round(max(programs) / GB, 3),
    }
    write_result(Path(options.out), result)
    print(_table(networks))
    print("\nWhole frames, without the program:\n")
    print(_table(frames))
    print(f"\nThe program before it starts: {result['program_gb']} GB\n{options.out}")


def _table(rows: list[dict[str, Any]]) -> str:
    return markdown_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


def _measure(options: MemoryOptions, what: str) -> tuple[int, int, int]:
    """Run one measurement in a separate process and return its figures, those of ``_run_alone``."""
    arguments: dict[str, Iterable[object]] = {
        "memory_of": [what],
        "arch": [options.arch],
        "precision": [options.precision],
        "views": [options.views],
        "root_dir": [options.root_dir],
        "img_wh": options.img_wh.wh,
        "num_planes": [options.num_planes],
    }
    words = [word for name, values in arguments.items() for word in (f"--{name}", *map(str, values))]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *words], stdout=subprocess.PIPE, text=True, check=False
    )
    marks = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not marks:
        raise InputError(f"{' '.join(words)}: ended with status {done.returncode}; run it separately to see why")
    used, before, other = (int(word) for word in marks[0].removeprefix(MARK).split())
    return used, before, other


def _run_alone(options: MemoryOptions) -> None:
    """Print the peak bytes beyond the initial ones, the initial ones, and a network's voxels or a frame's plan."""
    torch.manual_seed(0)
    meta = CheckpointMeta("mask", options.arch, num_planes=options.num_planes)
    precision: Precision = "bf16" if options.precision == "bf16" else "fp32"
    model = MaskVolumeModel(meta, precision).eval()
    if options.memory_of == "frame":
        used, before, planned = frame_memory(model, options)
        print(f"{MARK} {used} {before} {planned}")
        return
    with torch.no_grad():
        for size in (SMALL, options.img_wh):
            used, before = network_memory(model, options, size)
    print(f"{MARK} {used} {before} {math.prod(options.img_wh) * options.num_planes}")


def network_memory(model: MaskVolumeModel, options: MemoryOptions, size: tuple[int, int]) -> tuple[int, int]:
    """Peak bytes of a network, and those of the process before."""
    h, w = size
    K = torch.tensor([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1.0]])
    cameras = []
    for view in range(options.views):
        T = torch.eye(4)
        T[0, 3] = 0.05 * view
        cameras.append(Camera(T, K, size))
    sources, depths = stack_cameras(cameras), disparity_planes(1.0, 10.0, options.num_planes)
    images, still = torch.rand(2, options.views, 3, *size).unbind(0)
    if options.memory_of == "mpi":
        before = resident_bytes()
        for _ in range(REPEATS):
            model.dynamic(images, sources, sources[0], depths)
        return peak_bytes() - before, before
    background = model.background(still, sources, sources[0], depths)
    sweep = model.sweep(images, sources, sources[0], depths)
    dynamic = replace(background.mpi, rgba=background.mpi.rgba.clone())
    before = resident_bytes()
    _forget_peak()
    for _ in range(REPEATS):
        model.mask_from_sweeps(sweep, background, dynamic)
    return peak_bytes() - before, before


def frame_memory(model: MaskVolumeModel, options: MemoryOptions) -> tuple[int, int, int]:
    """Peak bytes of frames, those of the process before, and the planned bytes without the latter."""
    before = resident_bytes()
    with open_with_background(Path(options.root_dir), None) as clip:
        renderer = make_renderer(clip, model, options, options.img_wh)
        tiling = Tiling(renderer.camera.size, renderer.camera.size)
        if options.tile_wh:
            tiling = Tiling(renderer.camera.size, options.tile_wh)
            renderer.use_tiles(tiling)
        for frame in range(min(REPEATS, clip.num_frames)):
            renderer.render(frame, renderer.sources[0])
    return peak_bytes() - before, before, need(renderer.job(renderer.size), tiling).total - before


def make_renderer(clip: RigClip, model: MaskVolumeModel, options: MemoryOptions, size: tuple[int, int]) -> ClipRenderer:
    """A renderer with the first ``options.views`` cameras of the clip."""
    indices = tuple(range(options.views))
    targets = clip.cameras(size)[: options.views]
    return ClipRenderer(clip, model, indices, RenderSettings(size, options.num_planes), targets=targets)


def _forget_peak() -> None:
    """Reset the peak memory of this process to its current memory, where supported (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    run_program(main)
