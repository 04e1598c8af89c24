"""The quality of novel views: for a clip's held-out cameras, for viewpoints outside the rig, and for random worlds.

Every method sees the same two cameras, those nearest to the novel view; the last rows show ours with the four nearest,
the renderer's default. Pictures are clamped to 0..1. The measures are means over frames: PSNR (dB), SSIM, MS-SSIM and
LPIPS of the whole picture, except for borders of 5 pixels that SSIM ignores, and MS-SSIM at each of its scales; PSNR
and SSIM of moving pixels and of uncovered ones, which a mover hides from at least one of the two cameras. Flicker is
the mean absolute change, in levels of 255, from one frame to the next in static pixels.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.quality.contact_sheet import sheet_row
from benchmarks.quality.figures import (
    Moment,
    borders,
    mean_of,
    means,
    measure,
)
from benchmarks.quality.finished_units import FinishedUnits, UnitResult
from benchmarks.quality.held_out_worlds import (
    BANDS,
    WorldSet,
    describe,
    seen_disparity,
    world_moments,
)
from benchmarks.quality.holdout import Mattes, Targets, open_with_background
from benchmarks.quality.learned_similarity import SMALLEST_SIDE, LearnedSimilarity
from benchmarks.quality.methods import (
    METHODS,
    MORE_CAMERAS,
    Row,
    choose_rows,
    first_stage,
)
from benchmarks.quality.motorcycle import measure_stereo
from benchmarks.quality.report import report, write_json
from benchmarks.quality.rig_views import (
    KnownView,
    held_out_views,
    outside_views,
    view_moments,
)
from benchmarks.record import (
    REPO_ROOT,
    RESULTS_FOLDER,
    default_checkpoint,
    display_path,
    run_record,
)
from maskvolume.clips.rig import RigClip
from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.io.images import write_image
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.options import Size, check_ranges, option, parse_options
from maskvolume.rendering.output_folder import digest
from maskvolume.runtime.allocator import give_back_large_blocks
from maskvolume.runtime.devices import resolve_device, resolve_precision
from maskvolume.runtime.errors import InputError, run_program

CLIP, EXTRAPOLATION, STATIC, MOVING, MOTORCYCLE = "clip", "extrapolation", "static", "moving", "motorcycle"
PARTS = (CLIP, EXTRAPOLATION, STATIC, MOVING, MOTORCYCLE)
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
SMALLEST_PICTURE = 32  # pixels
QUOTED_METHODS = ", ".join(f'"{name}"' for name in METHODS)


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of this program."""

    parts: tuple[str, ...] = option(PARTS, "what to measure: clip, extrapolation, static, moving, motorcycle")
    ckpt_path: tuple[str, ...] = option((), "checkpoints, each a set of rows; the shipped one of stage two by default")
    methods: tuple[str, ...] = option((), f"rows: {QUOTED_METHODS}; all by default")
    root_dir: str = option(str(REPO_ROOT / "examples" / "rig"), "the clip")
    target_dir: str | None = option(None, "its held-out cameras and mattes; root_dir/targets by default")
    bg_dir: str | None = option(None, "its background pictures; temporary ones by default if it has none")
    every: int = option(1, "use every k-th frame of the clip", low=1)
    img_wh: Size | None = option(None, "width and height of the clip's pictures; its own by default")
    num_static: int = option(100, "worlds of the static set", low=1)
    num_moving: int = option(40, "worlds of the moving set", low=1)
    world_wh: Size = option(Size(192, 256), "width and height of their pictures; 256 192 for the standard sets")
    stereo_planes: int = option(64, "planes for the stereo pair, whose depth range is large", low=2)
    shrink: int = option(1, "divide the size of the stereo pair by this", low=1, high=8)
    lpips_weights: str | None = option(
        None, "torchvision's weights of AlexNet, VGG-16 or SqueezeNet 1.1, for LPIPS; none: no LPIPS"
    )
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "precision of the networks: auto, fp32 or bf16", choices=("auto", "fp32", "bf16"))
    contact_sheet: str | None = option(None, "also write this PNG: pictures and error maps of every target")
    out: str = option(str(RESULTS_FOLDER / "evaluate.json"), "file for the figures; the tables are beside it, as .md")
    resume: bool = option(True, "reuse finished parts of an interrupted run with the same options")


@dataclass
class Evaluation:
    """The state of a run.

    Attributes:
        options: of the program.
        models: the checkpoints by name.
        rows: of the tables.
        lpips: the LPIPS metric; None: not measured.
        finished: stored results of finished units.
        sheet: rows of the contact sheet, uint8 ``[h, w, 3]`` each.
        seconds: total time of the units, including those of interrupted runs.
    """

    options: EvaluateOptions
    models: Mapping[str, MaskVolumeModel]
    rows: tuple[Row, ...]
    lpips: LearnedSimilarity | None
    finished: FinishedUnits
    sheet: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0

    def view(self, part: str, name: str, moments: Iterable[Moment], keep: int) -> dict[str, Any]:
        """The figures of a view by frame; ``moments`` are only computed if they are not stored, and fill the sheet."""

        def compute() -> UnitResult:
            start = time.perf_counter()
            moment, table = measure(moments, keep, self.lpips)
            row = sheet_row(name, moment) if self.options.contact_sheet else None
            return {"table": table, "seconds": round(time.perf_counter() - start, 2)}, row

        return self.unit(f"{part}, {name}", compute)

    def unit(self, name: str, compute: Any) -> dict[str, Any]:
        """A unit's figures; its picture is added to the sheet."""
        figures, picture = self.finished.take(name, compute)
        self.seconds += figures["seconds"]
        if picture is not None:
            self.sheet.append(picture)
        return figures


def main() -> None:
    """Measure, print the tables, write figures, tables and contact sheet."""
    options = parse_options(EvaluateOptions, prog="evaluate.py", description=__doc__ or "")
    give_back_large_blocks()
    methods = check_options(options)
    views = open_views(options)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    paths = label_checkpoints(options.ckpt_path or (str(default_checkpoint()),))
    models = {label: load_model(path, device, precision) for label, path in paths.items()}
    rows = choose_rows(models, methods)
    if not rows:
        raise InputError("--methods: the checkpoints of --ckpt_path support none of them (stage one has no mask)")
    lpips = LearnedSimilarity(Path(options.lpips_weights), device) if options.lpips_weights else None
    record = {
        **run_record(),
        "checkpoints": {label: describe_checkpoint(paths[label], model) for label, model in models.items()},
        "rows": [{"name": row.name, "method": row.method, "checkpoint": row.checkpoint} for row in rows],
        "lpips": lpips.record() if lpips else None,
        "borders": borders(),
    }
    finished = FinishedUnits(Path(options.out), run_key(options, record, str(device), precision), resume=options.resume)
    run = Evaluation(options, models, rows, lpips, finished)
    result = {**record, **measure_parts(run, views), "seconds": round(run.seconds, 1)}
    write_json(Path(options.out), result)
    tables = report(result)
    with atomic_path(Path(options.out).with_suffix(".md")) as temporary:
        temporary.write_text(tables, encoding="utf-8")
    if options.contact_sheet and run.sheet:
        write_image(options.contact_sheet, np.concatenate(run.sheet))
    finished.remove()
    print(tables)
    print(f"{options.out}; {result['seconds']:.0f} s")


def check_options(options: EvaluateOptions) -> tuple[str, ...]:
    """Reject out-of-range options; returns the methods.

    Raises:
        InputError: an option is out of range.
    """
    check_ranges(options)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown or not options.parts:
        raise InputError(f"--parts: one or more of {', '.join(PARTS)} expected, got {' '.join(options.parts)}")
    methods: list[str] = []
    for name in options.methods or METHODS:
        if name == f"{MORE_CAMERAS} cameras" and methods and f"{methods[-1]}, {name}" in METHODS:
            methods[-1] += f", {name}"  # the comma in the name also separates the items of a list
        else:
            methods.append(name)
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"--methods: some of {QUOTED_METHODS} expected, got {', '.join(unknown)}")
    smallest = SMALLEST_SIDE if options.lpips_weights else SMALLEST_PICTURE
    for name in ("img_wh", "world_wh"):
        size: Size | None = getattr(options, name)
        if size is not None and min(size) < smallest:
            why = ", which LPIPS needs" if options.lpips_weights else ""
            raise InputError(f"--{name}: at least {smallest} x {smallest} expected{why}, got {size.w} {size.h}")
    if options.contact_sheet and Path(options.contact_sheet).suffix.lower() not in SHEET_SUFFIXES:
        raise InputError(
            f"--contact_sheet: {options.contact_sheet}: a name with {' or '.join(SHEET_SUFFIXES)} expected"
        )
    if Path(options.out).suffix != ".json":
        raise InputError(f"--out: {options.out}: a name with .json expected; the tables are written beside it as .md")
    require_writable_folder(Path(options.out).parent)
    return tuple(methods)


def open_views(options: EvaluateOptions) -> dict[str, list[KnownView]]:
    """The views of the clip by part; only names, headers and depths are read.

    Raises:
        InputError: the clip or its held-out cameras are missing, or no camera has others in a row beside it.
    """
    views: dict[str, list[KnownView]] = {}
    if not {CLIP, EXTRAPOLATION} & {*options.parts}:
        return views
    clip = RigClip.open(options.root_dir, options.bg_dir)
    size = clip_size(options, clip)
    if min(size) < (SMALLEST_SIDE if options.lpips_weights else SMALLEST_PICTURE):
        raise InputError(f"{options.root_dir}: pictures of {size[1]} x {size[0]} pixels are too small to be measured")
    if len(clip.names) < 2:
        raise InputError(f"{options.root_dir}: one camera; two are needed, since every method sees two")
    if CLIP in options.parts:
        views[CLIP] = held_out_views(clip, Targets.open(target_folder(options), size))
    if EXTRAPOLATION in options.parts:
        views[EXTRAPOLATION] = outside_views(clip, size)
        if not views[EXTRAPOLATION]:
            raise InputError(
                f"{options.root_dir}: no camera with two others in a row beside it, as the part {EXTRAPOLATION} needs; "
                "leave it out of --parts"
            )
    return views


def clip_size(options: EvaluateOptions, clip: RigClip) -> tuple[int, int]:
    """``(h, w)`` to read the clip at."""
    return options.img_wh or clip.size


def target_folder(options: EvaluateOptions) -> Path:
    """The folder of held-out cameras and mattes."""
    return Path(options.target_dir) if options.target_dir else Path(options.root_dir) / "targets"


def label_checkpoints(paths: Iterable[str]) -> dict[str, Path]:
    """Checkpoints by their labels in the row names."""
    labels: dict[str, Path] = {}
    for path in paths:
        label = Path(path).stem
        while label in labels:
            label += "'"
        labels[label] = Path(path)
    return labels


def describe_checkpoint(path: Path, model: MaskVolumeModel) -> dict[str, Any]:
    """A description of a checkpoint, for the record."""
    meta = model.meta
    return {
        "path": display_path(path),
        "digest": digest(path),
        "stage": meta.stage,
        "arch": meta.arch,
        "num_planes": meta.num_planes,
        "precision": model.precision,
    }


def run_key(options: EvaluateOptions, record: Mapping[str, Any], device: str, precision: str) -> str:
    """A digest of everything that a unit's figures depend on: code, rows, checkpoints and options."""
    names = ("root_dir", "target_dir", "bg_dir", "every", "img_wh", "world_wh", "stereo_planes", "shrink")
    settings = {name: getattr(options, name) for name in names}
    settings |= {name: record[name] for name in ("checkpoints", "rows", "lpips", "torch")}
    settings |= {"device": device, "precision": precision, "sheet": options.contact_sheet is not None}
    code = (path for folder in ("maskvolume", "benchmarks") for path in (REPO_ROOT / folder).rglob("*.py"))
    return digest(json.dumps(settings, sort_keys=True).encode(), *sorted(code))


def measure_parts(run: Evaluation, views: Mapping[str, list[KnownView]]) -> dict[str, Any]:
    """The figures of every requested part, in the order of ``PARTS``."""
    figures = measure_rig(run, views) if views else {}
    options = run.options
    for part, count in ((STATIC, options.num_static), (MOVING, options.num_moving)):
        if part in options.parts:
            figures[part] = measure_worlds(run, part, count)
    if MOTORCYCLE in options.parts:
        figures[MOTORCYCLE] = measure_motorcycle(run)
    return figures


def measure_rig(run: Evaluation, views: Mapping[str, list[KnownView]]) -> dict[str, Any]:
    """The figures of the clip's held-out cameras and outside views."""
    options, figures = run.options, {}
    with open_with_background(Path(options.root_dir), Path(options.bg_dir) if options.bg_dir else None) as clip:
        size = clip_size(options, clip)
        mattes = Mattes(target_folder(options) / "masks", size)
        frames = range(0, clip.num_frames, options.every)
        for part, chosen in views.items():
            with tqdm(total=len(chosen) * len(frames), desc=part, unit="view", disable=None) as bar:
                targets = {}
                for view in chosen:
                    before = bar.n
                    moments = _counted(view_moments(clip, view, mattes, run.models, run.rows, frames), bar)
                    table = run.view(part, view.name, moments, len(frames) // 2)["table"]
                    bar.update(len(frames) - (bar.n - before))
                    sources = [clip.names[i] for i in view.indices]
                    targets[view.name] = {"sources": sources, "mean": means(table), "per_frame": table}
            figures[part] = {
                "clip": display_path(options.root_dir),
                "size_wh": [size[1], size[0]],
                "frames": list(frames),
                "mean": mean_of([target["mean"] for target in targets.values()]),
                "targets": targets,
            }
    return figures


def _counted(moments: Iterable[Moment], bar: Any) -> Iterator[Moment]:
    for moment in moments:
        yield moment
        bar.update()


def measure_worlds(run: Evaluation, part: str, count: int) -> dict[str, Any]:
    """The figures of the first worlds of a set; the contact sheet shows one of each band."""
    world_set = WorldSet(part == MOVING, run.options.world_wh)
    worlds = []
    for index in tqdm(range(count), desc=part, unit="world", disable=None):

        def compute(index: int = index) -> UnitResult:
            start = time.perf_counter()
            sample, band = world_set.sample(index), world_set.band(index)
            moment, table = measure(world_moments(sample, run.models, run.rows), 0, run.lpips)
            is_shown = run.options.contact_sheet is not None and index < len(BANDS)
            return {
                "band": band,
                "seed": world_set.seed(index),
                "disparity_px": seen_disparity(sample),
                "table": table,
                "seconds": round(time.perf_counter() - start, 2),
            }, sheet_row(f"{part}, {band}", moment) if is_shown else None

        worlds.append(run.unit(f"{part}, {index}", compute))
    result = describe(world_set, count)
    tables = [(world["band"], means(world["table"])) for world in worlds]
    for band, entry in result["bands"].items():
        entry["mean"] = mean_of([figures for name, figures in tables if name == band])
    result["mean"] = mean_of([figures for _, figures in tables])
    result["worlds"] = [
        {**{key: world[key] for key in ("band", "seed", "disparity_px")}, "per_frame": world["table"]}
        for world in worlds
    ]
    return result


def measure_motorcycle(run: Evaluation) -> dict[str, Any]:
    """The errors of the stereo pair's disparity."""
    options = run.options

    def compute() -> UnitResult:
        start = time.perf_counter()
        models = {label: first_stage(model) for label, model in run.models.items()}
        figures = measure_stereo(models, options.stereo_planes, options.shrink)
        return {"figures": figures, "seconds": round(time.perf_counter() - start, 2)}, None

    figures: dict[str, Any] = run.unit(MOTORCYCLE, compute)["figures"]
    return figures


if __name__ == "__main__":
    run_program(main)
