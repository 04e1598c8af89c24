"""How fast the pipeline is, beside a plain reading of the original's computation in the same run.

Both make frames of the same clip for the same target, turn by turn, and both render views of finished
multiplane images. Pictures are in memory before the clock starts; peak memory is that of a process for each.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import original
from benchmarks.costs import gflop, peak_bytes
from benchmarks.holdout import Targets, open_with_background, to_tensor
from benchmarks.record import (
    REPO_ROOT,
    RESULTS_FOLDER,
    default_checkpoint,
    markdown_table,
    run_record,
    shown_path,
    write_result,
)
from maskvolume.cameras import Camera, nearest_cameras, stack_cameras
from maskvolume.checkpoints import load_model
from maskvolume.devices import resolve_precision
from maskvolume.errors import InputError, run_program
from maskvolume.model import FrameMPI, MaskVolumeModel, StoredFrame
from maskvolume.mpi import MultiplaneImage
from maskvolume.options import option, parse_options
from maskvolume.pipeline import ClipRenderer, fill_unseen
from maskvolume.rig import RigClip

T = TypeVar("T")
Seconds = dict[str, list[float]]  # times of each part, one a repeat
MEMORY_MARK = "peak bytes:"
RANDOM_OPAQUE = 0.1  # of the pixels of a random MPI's plane are covered


@dataclass(frozen=True)
class SpeedOptions:
    """The options of this program."""

    root_dir: str = option(str(REPO_ROOT / "examples" / "rig"), "the clip")
    target_dir: str | None = option(None, "its held-out cameras; root_dir/targets by default")
    ckpt_path: str | None = option(None, "our checkpoint; the shipped one of stage two by default")
    img_wh: tuple[int, int] = option((640, 360), "picture width and height, multiples of 8")
    num_planes: int = option(32, "planes of both, a multiple of 8")
    repeats: int = option(3, "frames of both; views are rendered five times as often")
    threads: int | None = option(None, "processor threads; all cores by default")
    precision: str = option("auto", "of our networks: auto, fp32 or bf16", choices=("auto", "fp32", "bf16"))
    memory_of: str | None = option(
        None, "only run this one and print its peak memory: ours or original", choices=("ours", "original")
    )
    out: str = option(str(RESULTS_FOLDER / "speed.json"), "where the figures are written")


@dataclass(frozen=True)
class Setting:
    """What both sides work on."""

    clip: RigClip
    size: tuple[int, int]
    num_planes: int
    indices: tuple[int, ...]
    target: Camera

    def cameras(self) -> Camera:
        """``[2]`` the source cameras."""
        cameras = self.clip.cameras(self.size)
        return stack_cameras([cameras[index] for index in self.indices])

    def picture(self, camera: int, frame: int) -> Tensor:
        """``[3, H, W]`` in 0..1."""
        return to_tensor(self.clip.read(camera, frame, self.size))

    def background(self, camera: int) -> Tensor:
        """``[3, H, W]`` in 0..1."""
        return to_tensor(self.clip.read_background(camera, self.size))


def main() -> None:
    """Measure, print the tables, write the figures."""
    options = parse_options(SpeedOptions, prog="speed.py", description=__doc__ or "")
    width, height = options.img_wh
    if width % 8 or height % 8 or options.num_planes % 8:
        raise InputError("--img_wh, --num_planes: multiples of 8 expected, as the plain reading takes no other")
    if options.repeats < 1:
        raise InputError(f"--repeats: 1 or more expected, got {options.repeats}")
    if options.threads:
        torch.set_num_threads(options.threads)
    root = Path(options.root_dir)
    # Before this process grows: until it starts a program, a child counts the memory of its parent.
    memory = {} if options.memory_of else {side: _peak_memory(options, side) for side in ("ours", "original")}
    with open_with_background(root, None) as clip:
        targets = Targets.open(Path(options.target_dir) if options.target_dir else root / "targets", (height, width))
        indices = nearest_cameras(clip.cameras(targets.size), targets.camera(0), 2)
        setting = Setting(clip, (height, width), options.num_planes, indices, targets.camera(0))
        if options.memory_of:
            _run_alone(setting, options)
            return
        result = _measure(setting, options)
    result = {**run_record(), **result, "peak_memory_gb": memory}
    write_result(Path(options.out), result)
    _print_result(result)
    print(f"\n{options.out}")


def load_ours(options: SpeedOptions) -> tuple[MaskVolumeModel, Path]:
    """Our model as the options ask for it, on the CPU, and where it comes from."""
    path = Path(options.ckpt_path) if options.ckpt_path else default_checkpoint()
    return load_model(path, "cpu", resolve_precision(options.precision, torch.device("cpu"))), path


def make_renderer(setting: Setting, model: MaskVolumeModel) -> ClipRenderer:
    """Our pipeline for the setting."""
    return ClipRenderer(
        setting.clip,
        model,
        setting.indices,
        targets=stack_cameras([setting.target]),
        size=setting.size,
        num_planes=setting.num_planes,
    )


def _measure(setting: Setting, options: SpeedOptions) -> dict[str, Any]:
    model, path = load_ours(options)
    renderer = make_renderer(setting, model)
    networks = original.random_networks()
    theirs: Seconds = {}
    ours: Seconds = {}
    once: Seconds = {}
    _timed(once, "total", renderer.background)
    bar = tqdm(total=2 * (options.repeats + 1), unit="frame", disable=None)
    for repeat in range(options.repeats + 1):
        # The first frame doesn't count: it also pays for what each side sets up once.
        into = (theirs, ours) if repeat else ({}, {})
        _original_frame(networks, setting, repeat, into[0])
        bar.update()
        _our_frame(renderer, setting, repeat, into[1])
        bar.update()
    bar.close()
    views = _measure_views(setting, renderer, 5 * options.repeats)
    return {
        "checkpoint": shown_path(path),
        "precision": model.precision,
        "size_wh": [setting.size[1], setting.size[0]],
        "num_planes": setting.num_planes,
        "mpi_size_wh": [renderer.camera.size[1], renderer.camera.size[0]],
        "repeats": options.repeats,
        "frame": {"original": _summary(theirs), "ours": _summary(ours), "ratio": _ratio(theirs, ours)},
        "background_once_a_clip": round(once["total"][0], 5),
        "view": {
            name: {"original": _summary(pair[0]), "ours": _summary(pair[1]), "ratio": _ratio(*pair)}
            for name, pair in views.items()
        },
        "gflop": _count_flops(setting, renderer, networks),
    }


def _original_frame(networks: original.Networks, setting: Setting, repeat: int, seconds: Seconds) -> None:
    """One frame by the plain reading; its parts' times are added to ``seconds``."""
    frame = repeat % setting.clip.num_frames
    timer = original.PartTimer()
    images = [setting.picture(camera, frame) for camera in setting.indices]
    backgrounds = [setting.background(camera) for camera in setting.indices]
    cameras = setting.cameras()
    sources = [_original_view(cameras[index]) for index in range(len(cameras))]
    near, far = setting.clip.near_far()
    depths = original.plane_depths(near, far, setting.num_planes)
    start = time.perf_counter()
    mpi = original.make_mpi(networks, images, backgrounds, sources, depths, timer)
    original.render(mpi, _original_view(setting.target), timer)
    seconds.setdefault("total", []).append(time.perf_counter() - start)
    for part, value in timer.seconds.items():
        seconds.setdefault(part, []).append(value)


@torch.no_grad()
def _our_frame(renderer: ClipRenderer, setting: Setting, repeat: int, seconds: Seconds) -> None:
    """One frame by our pipeline: once as it is run, for the total, and once more part by part."""
    pictures = renderer.read(repeat % setting.clip.num_frames)
    background = renderer.background()

    def whole() -> Tensor:
        renderer.frame_mpi(repeat, pictures)  # numbered by the repeat, so that no MPI is found ready
        return renderer.render(repeat, setting.target).color

    _timed(seconds, "total", whole)
    model, still = renderer.model, background.mpi
    images = renderer.to_tensor(pictures)
    sweep = _timed(seconds, "sweep", model.sweep, images, renderer.sources, still.camera, still.depths)
    dynamic = _timed(seconds, "mpi network", model.mpi_from_sweep, sweep, still.camera, still.depths)
    made: FrameMPI | StoredFrame = StoredFrame(dynamic)
    if model.has_mask:
        mask = _timed(seconds, "mask network", model.mask_from_sweeps, sweep, background, dynamic)
        made = FrameMPI(mask, dynamic, still)
    del sweep
    part = "blend and render" if model.has_mask else "render"
    rendering = _timed(seconds, part, made.render, setting.target, model.backend)
    if model.meta.sampling == "exact":
        _timed(seconds, "fill unseen", fill_unseen, rendering)


def _measure_views(setting: Setting, renderer: ClipRenderer, repeats: int) -> dict[str, tuple[Seconds, Seconds]]:
    """Views of finished MPIs by both: of random planes, and of what the networks made of the first frame."""
    made = renderer.frame_mpi(0).mpi.prepared()
    reference = setting.cameras()[0]
    margin = [round(float(a - b)) for a, b in zip(made.camera.K[:2, 2], reference.K[:2, 2], strict=True)]
    inside = (
        ...,
        slice(margin[1], margin[1] + setting.size[0]),
        slice(margin[0], margin[0] + setting.size[1]),
    )
    straight = _straight(made)[inside].contiguous()
    random = random_planes(setting.num_planes, setting.size)
    premultiplied = torch.cat([random[:, :3] * random[:, 3:], random[:, 3:]], dim=1)
    pairs = {
        "random MPI": (random, MultiplaneImage(premultiplied, reference, made.depths).prepared()),
        "network's MPI": (straight, made),
    }
    target = _original_view(setting.target)
    result = {}
    for name, (rgba, mpi) in pairs.items():
        theirs: Seconds = {}
        ours: Seconds = {}
        plain = original.Mpi(rgba, mpi.depths, _original_view(reference))
        for repeat in range(repeats + 1):
            into = (theirs, ours) if repeat else ({}, {})
            _timed(into[0], "total", original.render, plain, target)
            _timed(into[1], "total", _our_view, mpi, setting.target, renderer.model)
        result[name] = (theirs, ours)
    return result


def _our_view(mpi: MultiplaneImage, target: Camera, model: MaskVolumeModel) -> Tensor:
    """The view as ``ClipRenderer`` makes it."""
    rendering = mpi.render(target, model.backend)
    return (fill_unseen(rendering) if model.meta.sampling == "exact" else rendering).color


def random_planes(count: int, size: tuple[int, int]) -> Tensor:
    """``[D, 4, H, W]`` straight alpha: blobs of random colours on every plane, the farthest one covered."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    coarse = torch.rand(count, 4, height // 8, width // 8, generator=generator)
    rgba = nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    rgba[:, 3] = ((rgba[:, 3] - (1 - RANDOM_OPAQUE)) * 20 + 0.5).clamp(0, 1)
    rgba[0, 3] = 1.0
    return rgba


def _straight(mpi: MultiplaneImage) -> Tensor:
    rgba = mpi.rgba.float()
    if not mpi.premultiplied:
        return rgba
    return torch.cat([rgba[:, :3] / rgba[:, 3:].clamp_min(1e-6), rgba[:, 3:]], dim=1)


def _original_view(camera: Camera) -> original.View:
    return original.View(camera.T_cam_world.float(), camera.K.float())


def _timed(seconds: Seconds, part: str, function: Callable[..., T], *arguments: Any) -> T:
    with torch.no_grad():
        start = time.perf_counter()
        value = function(*arguments)
        seconds.setdefault(part, []).append(time.perf_counter() - start)
    return value


def _summary(seconds: Seconds) -> dict[str, dict[str, float]]:
    """Median and spread (slowest minus fastest) of each part, in seconds."""
    return {
        part: {"median": round(statistics.median(times), 5), "spread": round(max(times) - min(times), 5)}
        for part, times in seconds.items()
    }


def _ratio(theirs: Seconds, ours: Seconds) -> float:
    """How many times faster ours is, by the medians."""
    return round(statistics.median(theirs["total"]) / statistics.median(ours["total"]), 2)


@torch.no_grad()
def _count_flops(setting: Setting, renderer: ClipRenderer, networks: original.Networks) -> dict[str, float]:
    """Work of one run of each network in GFLOP, two a multiply-add."""
    planes, size = setting.num_planes, setting.size
    model, wide = renderer.model, renderer.camera.size
    views = len(setting.indices)

    sweep = torch.full((1, views, 3, planes, *wide), 0.5)
    rgba = torch.full((1, planes, 4, *wide), 0.5)
    volume = torch.empty(1, 12, planes, *size, device="meta")  # nothing is computed on this device
    counts = {
        "original, mpi network": gflop(networks.mpi.to("meta"), volume[:, :6]),
        "original, mask network": gflop(networks.mask.to("meta"), volume),
        "ours, mpi network": gflop(model.mpi_net, sweep),
    }
    if model.mask_net is not None:
        counts["ours, mask network"] = gflop(model.mask_net, sweep, sweep, rgba, rgba)
    return counts


def _peak_memory(options: SpeedOptions, side: str) -> float:
    """GB (1e9 bytes) at most held by a process that runs only one side."""
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--memory_of", side]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    marks = [line for line in done.stdout.splitlines() if line.startswith(MEMORY_MARK)]
    if done.returncode or not marks:
        raise InputError(f"--memory_of {side}: ended with status {done.returncode}; run it by itself to see why")
    return round(int(marks[0].removeprefix(MEMORY_MARK)) / 1e9, 3)


def _run_alone(setting: Setting, options: SpeedOptions) -> None:
    """Make two frames by one side and print the peak of this process."""
    if options.memory_of == "ours":
        renderer = make_renderer(setting, load_ours(options)[0])
        for frame in range(2):
            renderer.render(frame % setting.clip.num_frames, setting.target)
    else:
        networks = original.random_networks()
        _original_frame(networks, setting, 0, {})
    print(f"{MEMORY_MARK}{peak_bytes()}")


def _print_result(result: dict[str, Any]) -> None:
    width, height = result["size_wh"]
    print(f"A frame of {width} x {height}, {result['num_planes']} planes, seconds (median, spread):\n")
    print(_parts_table(result["frame"]))
    print(f"\nOurs makes the background's MPI once a clip: {result['background_once_a_clip']:.2f} s.")
    print("\nA view of a finished MPI, seconds (median, spread):\n")
    rows = [[name, *_cells(pair), f"{pair['ratio']:.1f}"] for name, pair in result["view"].items()]
    print(markdown_table(["MPI", "original", "ours", "ratio"], rows))
    print("\nPeak memory of a process that makes frames:\n")
    memory = result["peak_memory_gb"]
    print(markdown_table(["", "original", "ours"], [["GB", f"{memory['original']:.2f}", f"{memory['ours']:.2f}"]]))
    print("\nWork of the networks, GFLOP a run:\n")
    rows = [[name, f"{value:.0f}"] for name, value in result["gflop"].items()]
    print(markdown_table(["network", "GFLOP"], rows))


def _parts_table(frame: dict[str, Any]) -> str:
    parts = list(dict.fromkeys([*frame["original"], *frame["ours"]]))
    parts = [part for part in parts if part != "total"]
    rows = [[part, _seconds(frame["original"].get(part)), _seconds(frame["ours"].get(part)), ""] for part in parts]
    total = frame["original"]["total"], frame["ours"]["total"]
    rows.append(["a frame", *(_seconds(value) for value in total), f"{frame['ratio']:.1f}"])
    return markdown_table(["part", "original", "ours", "ratio"], rows)


def _cells(pair: dict[str, Any]) -> list[str]:
    return [_seconds(pair[side]["total"]) for side in ("original", "ours")]


def _seconds(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    digits = max(0, 2 - math.floor(math.log10(max(value["median"], 1e-9))))
    return f"{value['median']:.{digits}f} +{value['spread']:.{digits}f}"


if __name__ == "__main__":
    run_program(main)
