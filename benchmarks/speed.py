"""The speed of the pipeline, compared with a plain implementation of the original in the same run.

Both compute frames of the same clip for the same target on the same device, alternately, and both render views of
finished multiplane images. Pictures are in memory before the clock starts. Peak memory is measured in a separate
process for each side, on a GPU as that of the device. Times are compared with floors: the bytes that must be moved,
at the device's copy bandwidth.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost import original
from benchmarks.cost.costs import gflop, peak_bytes
from benchmarks.cost.growth import (
    PLANES,
    measure_growth,
    measure_pipeline,
    print_growth,
    print_pipeline,
)
from benchmarks.cost.operations import (
    measure_blend,
    measure_path,
    measure_planes,
    measure_sweep,
    measure_views,
)
from benchmarks.cost.sides import (
    Setting,
    load_ours,
    make_renderer,
    our_frame,
    their_frame,
    their_networks,
)
from benchmarks.cost.timing import (
    Clock,
    Seconds,
    copy_bandwidth,
    format_time,
    ratio,
    summary,
)
from benchmarks.cost.traffic import network_bytes
from benchmarks.quality.holdout import Targets, open_with_background
from benchmarks.record import (
    REPO_ROOT,
    RESULTS_FOLDER,
    display_path,
    markdown_table,
    run_record,
    write_result,
)
from maskvolume.geometry.cameras import nearest_cameras
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.options import Size, option, parse_options
from maskvolume.runtime.allocator import give_back_large_blocks
from maskvolume.runtime.devices import resolve_device
from maskvolume.runtime.errors import InputError, run_program

MEMORY_MARK = "peak bytes:"
PIPELINE_FRAMES = {"cpu": 3, "cuda": 1000}  # limited by the clip
PATH_VIEWS = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class SpeedOptions:
    """The options of this program."""

    root_dir: str = option(str(REPO_ROOT / "examples" / "rig"), "the clip")
    target_dir: str | None = option(None, "its held-out cameras; root_dir/targets by default")
    ckpt_path: str | None = option(None, "our checkpoint; the shipped one of stage two by default")
    device: Literal["auto", "cuda", "cpu"] = option("auto", "device of both; auto: a GPU if there is one")
    img_wh: Size = option(Size(360, 640), "picture width and height, multiples of 8")
    num_planes: int = option(32, "planes of both, a multiple of 8")
    most_planes: int = option(128, "largest number of planes for the growth of time")
    repeats: int = option(3, "frames of both; views are rendered five times as often", low=1)
    threads: int | None = option(None, "processor threads; all cores by default")
    precision: str = option("auto", "precision of our networks: auto, fp32 or bf16", choices=("auto", "fp32", "bf16"))
    memory_of: str | None = option(
        None, "only run this side and print its peak memory: ours or original", choices=("ours", "original")
    )
    out: str | None = option(
        None, "file for the figures; benchmarks/results/speed.json by default, speed_cuda.json on a GPU"
    )


def main() -> None:
    """Measure, print the tables, write the figures."""
    options = parse_options(SpeedOptions, prog="speed.py", description=__doc__ or "")
    if any(side % 8 for side in options.img_wh) or options.num_planes % 8:
        raise InputError("--img_wh, --num_planes: multiples of 8 expected, as the plain implementation needs them")
    device = resolve_device(options.device)
    if device.type == "mps":
        raise InputError("--device auto: an Apple GPU, which this program can't time; give --device cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    root = Path(options.root_dir)
    # Before this process grows, since a child has its parent's memory until it starts a program.
    memory = {} if options.memory_of else {side: _peak_memory(options, side) for side in ("ours", "original")}
    with open_with_background(root, None) as clip:
        targets = Targets.open(Path(options.target_dir) if options.target_dir else root / "targets", options.img_wh)
        indices = nearest_cameras(clip.cameras(targets.size), targets.camera(0), 2)
        setting = Setting(clip, options.img_wh, options.num_planes, indices, targets.camera(0), device)
        if options.memory_of:
            _run_alone(setting, options)
            return
        result = _measure(setting, options)
    result = {**run_record(), "device": device.type, **result, "peak_memory_gb": memory}
    out = Path(options.out or RESULTS_FOLDER / ("speed_cuda.json" if device.type == "cuda" else "speed.json"))
    write_result(out, result)
    _print_result(result)
    print(f"\n{out}")


def _measure(setting: Setting, options: SpeedOptions) -> dict[str, Any]:
    model, checkpoint = load_ours(options.ckpt_path, options.precision, setting.device)
    renderer = make_renderer(setting, model)
    networks = their_networks(setting)
    bandwidth = copy_bandwidth(Clock(setting.device), 5)
    theirs: Seconds = {}
    ours: Seconds = {}
    once: Seconds = {}
    setting.clock.timed(once, "total", renderer.background)
    bar = tqdm(total=2 * (options.repeats + 1), unit="frame", disable=None)
    for repeat in range(options.repeats + 1):
        # The first frame doesn't count, since it includes one-time setup.
        records = (theirs, ours) if repeat else ({}, {})
        their_frame(networks, setting, repeat % setting.clip.num_frames, records[0])
        bar.update()
        our_frame(renderer, setting, repeat, records[1])
        bar.update()
    bar.close()
    often, kind = 5 * options.repeats, setting.device.type
    their_seconds = statistics.median(theirs["total"])
    view = measure_views(setting, renderer, often)
    path = measure_path(setting, renderer, options.repeats, PATH_VIEWS[kind], bandwidth)
    path["ratio_to_original"] = round(view["network's MPI"]["original"]["median"] / path["a_view"], 2)
    return {
        "checkpoint": display_path(checkpoint),
        "precision": model.precision,
        "size_wh": [setting.size[1], setting.size[0]],
        "num_planes": setting.num_planes,
        "mpi_size_wh": [renderer.camera.size[1], renderer.camera.size[0]],
        "repeats": options.repeats,
        "copy_gb_a_second": round(bandwidth / 1e9, 2),
        "frame": {"original": summary(theirs), "ours": summary(ours), "ratio": ratio(theirs["total"], ours["total"])},
        "background_once_a_clip": round(once["total"][0], 5),
        "view": view,
        "planes": measure_planes(setting, renderer, often, bandwidth),
        "sweep": measure_sweep(setting, renderer, often, bandwidth),
        "path": path,
        "blend": measure_blend(setting, renderer, often, bandwidth),
        "pipeline": measure_pipeline(setting, renderer, networks, their_seconds, PIPELINE_FRAMES[kind]),
        "gflop": _count_flops(setting, renderer),
        "network_bytes": _network_bytes(setting, renderer),
        "growth": measure_growth(
            setting, model, options.repeats, [count for count in PLANES if count <= options.most_planes]
        ),
    }


@torch.no_grad()
def _count_flops(setting: Setting, renderer: ClipRenderer) -> dict[str, float]:
    """Arithmetic of one run of each network in GFLOP; a multiply-add counts as two."""
    planes, size = setting.num_planes, setting.size
    model, wide = renderer.model, renderer.camera.size
    views = len(setting.indices)
    with setting.device:
        sweep = torch.full((1, views, 3, planes, *wide), 0.5)
        rgba = torch.full((1, planes, 4, *wide), 0.5)
    volume = torch.empty(1, 12, planes, *size, device="meta")  # a device that computes nothing
    theirs = original.random_networks()
    counts = {
        "original, mpi network": gflop(theirs.mpi.to("meta"), volume[:, :6]),
        "original, mask network": gflop(theirs.mask.to("meta"), volume),
        "ours, mpi network": gflop(model.mpi_net, sweep),
    }
    if model.mask_net is not None:
        counts["ours, mask network"] = gflop(model.mask_net, sweep, sweep, rgba, rgba)
    return counts


def _network_bytes(setting: Setting, renderer: ClipRenderer) -> int:
    """The bytes that our networks of a frame must move at least."""
    element = 2 if renderer.model.precision == "bf16" else 4
    return network_bytes(len(setting.indices), setting.num_planes, renderer.camera.size, element)


def _peak_memory(options: SpeedOptions, side: str) -> float:
    """Peak memory in GB (1e9 bytes) of a process that runs only one side."""
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--memory_of", side]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    marks = [line for line in done.stdout.splitlines() if line.startswith(MEMORY_MARK)]
    if done.returncode or not marks:
        raise InputError(f"--memory_of {side}: ended with status {done.returncode}; run it separately to see why")
    return round(int(marks[0].removeprefix(MEMORY_MARK)) / 1e9, 3)


def _run_alone(setting: Setting, options: SpeedOptions) -> None:
    """Compute two frames with one side and print the peak memory of this process, or of the GPU."""
    if options.memory_of == "ours":
        give_back_large_blocks()  # as the renderer does
        renderer = make_renderer(setting, load_ours(options.ckpt_path, options.precision, setting.device)[0])
        for frame in range(2):
            renderer.render(frame % setting.clip.num_frames, setting.target)
    else:
        their_frame(their_networks(setting), setting, 0, {})
    on_gpu = setting.device.type == "cuda"
    print(f"{MEMORY_MARK}{torch.cuda.max_memory_reserved(setting.device) if on_gpu else peak_bytes()}")


def _print_result(result: dict[str, Any]) -> None:
    width, height = result["size_wh"]
    print(f"A frame of {width} x {height}, {result['num_planes']} planes, on {result['device']} (median, spread):\n")
    print(_parts_table(result["frame"]))
    print(f"\nOurs computes the background's MPI once per clip: {result['background_once_a_clip']:.2f} s.")
    print("\nA view of a finished MPI, and the sweep of a frame's pictures:\n")
    pairs = {**result["view"], "sweep": result["sweep"]}
    rows = [
        [name, format_time(pair["original"]), format_time(pair["ours"]), f"{pair['ratio']:.1f}"]
        for name, pair in pairs.items()
    ]
    rows += [
        [f"{name}, replayed", "", format_time(pair["replayed"]), f"{pair['ratio_replayed']:.1f}"]
        for name, pair in result["view"].items()
        if "replayed" in pair
    ]
    print(markdown_table(["", "original", "ours", "ratio"], rows))
    print(f"\nTimes and floors; copy bandwidth {result['copy_gb_a_second']:.0f} GB/s:\n")
    print(_floors_table(result))
    path = result["path"]
    microseconds, times = 1e6 * path["a_view"], path["ratio_to_original"]
    print(
        f"\nOne of {path['views']} views in a launch takes {microseconds:.0f} us, "
        f"{times:.1f} times as fast as the original."
    )
    print_pipeline(result["pipeline"])
    print("\nPeak memory of a process that computes frames:\n")
    memory = result["peak_memory_gb"]
    print(markdown_table(["", "original", "ours"], [["GB", f"{memory['original']:.2f}", f"{memory['ours']:.2f}"]]))
    print("\nArithmetic of the networks, GFLOP per run:\n")
    rows = [[name, f"{value:.0f}"] for name, value in result["gflop"].items()]
    print(markdown_table(["network", "GFLOP"], rows))
    print(f"\nOurs must read and write at least {result['network_bytes'] / 1e9:.2f} GB per frame.")
    print_growth(result["growth"])


def _floors_table(result: dict[str, Any]) -> str:
    path, blend = result["path"], result["blend"] or {}
    entries = {f"view, {name} planes": entry for name, entry in result["planes"].items()}
    entries["sweep"] = result["sweep"]["ours"]
    entries[f"{path['views']} views in one launch"] = path["one launch"]
    entries |= {f"view, {name}": blend[name] for name in ("fused", "blend, then render") if name in blend}
    rows = [
        [
            name,
            format_time(entry),
            f"{entry['bytes'] / 1e6:.0f}",
            f"{entry['floor'] * 1e6:.0f} us",
            f"{entry['of_copy']:.0%}",
        ]
        for name, entry in entries.items()
    ]
    rows.append([f"{path['views']} views, a launch each", format_time(path["a launch each"]), "", "", ""])
    return markdown_table(["", "time", "MB", "floor", "of a copy's speed"], rows)


def _parts_table(frame: dict[str, Any]) -> str:
    parts = list(dict.fromkeys([*frame["original"], *frame["ours"]]))
    parts = [part for part in parts if part != "total"]
    rows = [
        [part, format_time(frame["original"].get(part)), format_time(frame["ours"].get(part)), ""] for part in parts
    ]
    totals = frame["original"]["total"], frame["ours"]["total"]
    rows.append(["a frame", *(format_time(value) for value in totals), f"{frame['ratio']:.1f}"])
    return markdown_table(["part", "original", "ours", "ratio"], rows)


if __name__ == "__main__":
    run_program(main)
