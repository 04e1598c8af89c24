"""How good novel views of moving scenes are: held-out cameras of a clip, and random moving worlds.

Every method sees the same two cameras, those nearest to the novel view; the last row shows what ours makes of the four
nearest, as the renderer takes them by default. PSNR (dB) and SSIM are means over frames of the whole picture, of the
pixels where something moves, and of those that motion has uncovered: a mover hides them from one of the two cameras at
least. Flicker is the mean absolute change, in levels of 255, from one frame to the next where the truth stands still.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.holdout import Targets, open_with_background, to_tensor
from benchmarks.methods import MORE_CAMERAS, NovelView, WorldClip, method_names
from benchmarks.record import (
    REPO_ROOT,
    RESULTS_FOLDER,
    default_checkpoint,
    markdown_table,
    run_record,
    shown_path,
    write_result,
)
from benchmarks.regions import disoccluded, flicker, standing_still
from maskvolume.cameras import nearest_cameras
from maskvolume.checkpoints import load_model
from maskvolume.devices import resolve_device, resolve_precision
from maskvolume.errors import InputError, run_program
from maskvolume.io.images import resize_image, write_image
from maskvolume.metrics import psnr, ssim
from maskvolume.model import MaskVolumeModel
from maskvolume.options import option, parse_options
from maskvolume.rig import RigClip
from maskvolume.synthetic import WorldOptions, sample_worlds

PARTS = ("clip", "worlds")
REGIONS = ("", "_dynamic", "_disoccluded")
MEASURES = (*(f"{measure}{region}" for region in REGIONS for measure in ("psnr", "ssim")), "flicker")
HELD_OUT_SEED = 765_432_100_000  # a number that samples of no training reach, and apart from other held-out worlds
INSTANTS = 3
SHADOW_SHARE = 0.3  # of movers, as in training
SHEET_WIDTH = 320  # of a picture on the contact sheet
ERROR_GAIN = 4.0  # an error of 1/4 is as bright as the sheet goes


@dataclass(frozen=True)
class QualityOptions:
    """The options of this program."""

    parts: tuple[str, ...] = option(PARTS, "what to measure: clip, worlds")
    root_dir: str = option(str(REPO_ROOT / "examples" / "rig"), "the clip")
    target_dir: str | None = option(None, "its held-out cameras; root_dir/targets by default")
    bg_dir: str | None = option(None, "its background pictures; made for the run where there are none")
    ckpt_path: str | None = option(None, "checkpoint; the shipped one of stage two by default")
    every: int = option(1, "look at every k-th frame of the clip")
    img_wh: tuple[int, int] | None = option(None, "width and height of the clip's pictures; its own by default")
    num_worlds: int = option(20, "held-out random moving worlds")
    world_wh: tuple[int, int] = option((256, 192), "width and height of their pictures")
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "of the networks: auto, fp32 or bf16", choices=("auto", "fp32", "bf16"))
    contact_sheet: str | None = option(None, "also write this PNG: pictures and error maps of every target")
    out: str = option(str(RESULTS_FOLDER / "quality.json"), "where the figures are written")


@dataclass(frozen=True)
class Moment:
    """A frame of a novel view: the truth, and what each method made of it.

    Attributes:
        truth: ``[3, h, w]`` in 0..1.
        dynamic: ``[1, h, w]`` bool, where something moves.
        uncovered: ``[1, h, w]`` bool, see ``regions.disoccluded``; None: not known.
        pictures: ``[3, h, w]`` in 0..1 by method.
    """

    truth: Tensor
    dynamic: Tensor
    uncovered: Tensor | None
    pictures: dict[str, Tensor]


def main() -> None:
    """Measure, print the tables, write the figures."""
    options = parse_options(QualityOptions, prog="quality.py", description=__doc__ or "")
    check_options(options)
    device = resolve_device(options.device)
    checkpoint = Path(options.ckpt_path) if options.ckpt_path else default_checkpoint()
    model = load_model(checkpoint, device, resolve_precision(options.precision, device))
    start = time.perf_counter()
    result: dict[str, Any] = {
        **run_record(),
        "checkpoint": shown_path(checkpoint),
        "stage": model.meta.stage,
        "precision": model.precision,
        "methods": list(method_names(model)),
    }
    if "clip" in options.parts:
        result["clip"] = measure_clip(options, model)
    if "worlds" in options.parts:
        result["worlds"] = measure_worlds(model, options.num_worlds, options.world_wh[::-1])
    result["seconds"] = round(time.perf_counter() - start, 1)
    write_result(Path(options.out), result)
    print(format_tables(result))
    print(f"\ncheckpoint {result['checkpoint']}; {options.out}")


def check_options(options: QualityOptions) -> None:
    """Find what can't be meant.

    Raises:
        InputError: names the option and what is expected.
    """
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown or not options.parts:
        raise InputError(f"--parts: one or more of {', '.join(PARTS)} expected, got {' '.join(options.parts)}")
    if options.every < 1 or options.num_worlds < 1:
        raise InputError("--every, --num_worlds: 1 or more expected")
    if min(options.world_wh) < 32:
        raise InputError(f"--world_wh: at least 32 x 32 expected, got {options.world_wh[0]} {options.world_wh[1]}")


def measure_clip(options: QualityOptions, model: MaskVolumeModel) -> dict[str, Any]:
    """The figures of the clip's held-out cameras."""
    root = Path(options.root_dir)
    with open_with_background(root, Path(options.bg_dir) if options.bg_dir else None) as clip:
        size = (options.img_wh[1], options.img_wh[0]) if options.img_wh else clip.size
        targets = Targets.open(Path(options.target_dir) if options.target_dir else root / "targets", size)
        frames = range(0, clip.num_frames, options.every)
        result: dict[str, Any] = {"clip": shown_path(root), "size_wh": [size[1], size[0]], "frames": list(frames)}
        result["targets"], tables, sheet = {}, [], []
        for index, name in enumerate(targets.names):
            indices = nearest_cameras(clip.cameras(size), targets.camera(index), MORE_CAMERAS)
            moments = clip_moments(clip, targets, index, model, indices, frames)
            moments = tqdm(moments, desc=name, total=len(frames), unit="view", disable=None)
            kept, table = measure(moments, len(frames) // 2)
            tables.append(table)
            sheet.append(_sheet_row(name, kept))
            sources = [clip.names[i] for i in indices]
            result["targets"][name] = {"sources": sources, **_means(table)}
    result["mean"] = _mean_of([_means(table) for table in tables])
    if options.contact_sheet:
        write_image(options.contact_sheet, np.concatenate(sheet))
    return result


def clip_moments(
    clip: RigClip,
    targets: Targets,
    index: int,
    model: MaskVolumeModel,
    indices: tuple[int, ...],
    frames: range,
) -> Iterator[Moment]:
    """The views of a held-out camera by every method, frame after frame.

    Args:
        clip: the rig's pictures.
        targets: the held-out cameras.
        index: which of them.
        model: ours.
        indices: the source cameras, the nearest first: two for every method, all for the last row.
        frames: numbers of the frames.
    """
    view = NovelView(clip, model, indices, targets.camera(index), targets.size)
    depth = targets.still_depth(index) if targets.tells_depth else None
    for frame in frames:
        name = clip.frame_names[frame]
        dynamic, uncovered = targets.dynamic(index, name), None
        if depth is not None:
            mattes = torch.stack([targets.source_matte(clip.names[i], name) for i in indices[:2]])
            uncovered = disoccluded(depth, view.target, view.sources, mattes) & ~dynamic
        yield Moment(targets.picture(index, name), dynamic, uncovered, view.pictures(frame))


def measure_worlds(model: MaskVolumeModel, count: int, size: tuple[int, int]) -> dict[str, Any]:
    """The figures of random moving worlds that neither training nor validation draws."""
    sources = min(MORE_CAMERAS, model.arch.max_views or MORE_CAMERAS)
    worlds = WorldOptions(size=size, num_sources=sources, moving=True, shadow_share=SHADOW_SHARE, instants=INSTANTS)
    tables = []
    for index in tqdm(range(count), unit="world", disable=None):
        sample = sample_worlds(worlds, 1, generator=HELD_OUT_SEED + index, device="cpu")
        tables.append(measure(world_moments(WorldClip(sample), model), 0)[1])
    return {
        "num_worlds": count,
        "size_wh": [size[1], size[0]],
        "instants": INSTANTS,
        "mean": _mean_of([_means(table) for table in tables]),
    }


def world_moments(clip: WorldClip, model: MaskVolumeModel) -> Iterator[Moment]:
    """The novel view of a world by every method, instant after instant."""
    sample = clip.sample
    target = sample.target[0]
    indices = nearest_cameras(clip.cameras(), target, MORE_CAMERAS)
    view = NovelView(clip, model, indices, target, clip.size)
    for frame in range(clip.num_frames):
        truth, matte = sample.target_image[0], sample.matte[0]
        if frame:
            assert sample.later_target_images is not None
            assert sample.later_mattes is not None
            truth, matte = sample.later_target_images[0, frame - 1], sample.later_mattes[0, frame - 1]
        # A pixel that a mover covers in part is neither.
        mattes = sample.source_mattes[0, frame, list(indices[:2])]
        uncovered = disoccluded(sample.target_background_depth[0], target, view.sources, mattes) & (matte == 0)
        yield Moment(truth, matte >= 0.5, uncovered, view.pictures(frame))


def measure(moments: Iterator[Moment], keep: int) -> tuple[Moment, dict[str, list[list[float]]]]:
    """Figures of each method by moment, in the order of ``MEASURES``; and the moment with number ``keep``."""
    table: dict[str, list[list[float]]] = {}
    before: Moment | None = None
    kept: Moment | None = None
    for number, moment in enumerate(moments):
        still = None
        if before is not None:
            still = standing_still(before.truth, moment.truth, before.dynamic | moment.dynamic)
        for method, picture in moment.pictures.items():
            change = math.nan
            if before is not None and still is not None:
                change = flicker(before.pictures[method], picture, still)
            table.setdefault(method, []).append([*_figures(picture, moment), change])
        if still is not None and before is not None:
            empty = [math.nan] * (len(MEASURES) - 1)
            table.setdefault("truth", []).append([*empty, flicker(before.truth, moment.truth, still)])
        kept = moment if number == keep else kept
        before = moment
    assert kept is not None
    return kept, table


def _figures(picture: Tensor, moment: Moment) -> list[float]:
    """The values of ``MEASURES`` but for the last."""
    values: list[float] = []
    for mask in (None, moment.dynamic, moment.uncovered):
        if mask is None and values and moment.uncovered is None:
            values += [math.nan, math.nan]
            continue
        values += [float(psnr(picture, moment.truth, mask)), float(ssim(picture, moment.truth, mask))]
    return values


def _means(table: dict[str, list[list[float]]]) -> dict[str, dict[str, float | None]]:
    """Means over the moments by method and measure; those without such pixels don't count."""
    return {method: _mean_over(rows) for method, rows in table.items()}


def _mean_over(rows: Sequence[Sequence[float]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for measure_name, column in zip(MEASURES, np.array(rows, dtype=np.float64).T, strict=True):
        there = column[np.isfinite(column)]
        means[measure_name] = round(float(there.mean()), 4) if there.size else None
    return means


def _mean_of(parts: Sequence[dict[str, dict[str, float | None]]]) -> dict[str, dict[str, float | None]]:
    """Means over views of their means."""
    return {
        method: _mean_over(
            [[math.nan if (v := part[method][m]) is None else v for m in MEASURES] for part in parts if method in part]
        )
        for method in parts[0]
    }


def format_tables(result: dict[str, Any]) -> str:
    """The Markdown tables of a result."""
    lines = []
    if "clip" in result:
        part = result["clip"]
        lines.append(f"{len(part['frames'])} frames of {part['clip']}, {_size(part)}:\n")
        entries = [*part["targets"].items(), ("mean", part["mean"])]
        lines += [_table(entries, [*result["methods"], "truth"]), ""]
    if "worlds" in result:
        part = result["worlds"]
        lines.append(f"{part['num_worlds']} random worlds, {part['instants']} instants each, {_size(part)}:\n")
        lines += [_table([("mean", part["mean"])], [*result["methods"], "truth"]), ""]
    return "\n".join(lines).rstrip()


def _table(entries: Sequence[tuple[str, dict[str, Any]]], methods: Sequence[str]) -> str:
    header = ["target, method", "PSNR", "SSIM", "moving: PSNR", "SSIM", "uncovered: PSNR", "SSIM", "flicker"]
    rows = [
        [f"{name}, {method}", *(_cell_text(measure_name, entry[method][measure_name]) for measure_name in MEASURES)]
        for name, entry in entries
        for method in methods
        if method in entry
    ]
    return markdown_table(header, rows)


def _cell_text(measure_name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if measure_name.startswith("ssim") else f"{value:.2f}"


def _size(part: dict[str, Any]) -> str:
    return f"{part['size_wh'][0]} x {part['size_wh'][1]}"


def _sheet_row(name: str, item: Moment) -> np.ndarray:
    """uint8 ``[h, w, 3]``: the truth, every method, and the error of every method."""
    cells = [_cell(item.truth, f"{name}: true")]
    cells += [_cell(picture, method) for method, picture in item.pictures.items()]
    cells += [_cell(_error_map(picture, item.truth), f"error: {method}") for method, picture in item.pictures.items()]
    return np.concatenate(cells, axis=1)


def _error_map(picture: Tensor, truth: Tensor) -> Tensor:
    level = ((picture - truth).abs().mean(dim=0) * ERROR_GAIN).clamp(0, 1)
    colored = cv2.applyColorMap((level * 255).byte().numpy(), cv2.COLORMAP_INFERNO)
    return to_tensor(cv2.cvtColor(colored, cv2.COLOR_BGR2RGB))


def _cell(picture: Tensor, label: str) -> np.ndarray:
    height = round(SHEET_WIDTH * picture.shape[-2] / picture.shape[-1])
    array = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
    array = resize_image(array, (height, SHEET_WIDTH)).copy()
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(array, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, thickness, cv2.LINE_AA)
    return array


if __name__ == "__main__":
    run_program(main)
