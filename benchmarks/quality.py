"""How good the views of held-out cameras are: the nearest camera, classical stereo and ours.

Every method sees the same two cameras of the rig, those nearest to the held-out one; the last row shows what ours
makes of the four nearest, as the renderer takes them by default. Figures are means over
frames of PSNR (dB) and SSIM of the whole picture, of the pixels where something moves, and of the interior.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.classical import plane_sweep_stereo
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
from maskvolume.devices import resolve_device, resolve_precision
from maskvolume.errors import InputError, run_program
from maskvolume.io.images import resize_image, write_image
from maskvolume.metrics import psnr, ssim
from maskvolume.model import MaskVolumeModel
from maskvolume.options import option, parse_options
from maskvolume.pipeline import ClipRenderer
from maskvolume.rig import RigClip

METHODS = ("nearest camera", "classical plane sweep", "ours")
MORE_CAMERAS = 4
OURS_MORE = f"ours, {MORE_CAMERAS} cameras"  # where the checkpoint's architecture takes more than two
MEASURES = ("psnr", "ssim", "psnr_dynamic", "ssim_dynamic", "psnr_interior", "ssim_interior")
INTERIOR = 32  # pixels off every border; less where that is more than an eighth of the picture
SHEET_WIDTH = 320  # of a picture on the contact sheet
ERROR_GAIN = 4.0  # an error of 1/4 is as bright as the sheet goes


@dataclass(frozen=True)
class QualityOptions:
    """The options of this program."""

    root_dir: str = option(str(REPO_ROOT / "examples" / "rig"), "the clip")
    target_dir: str | None = option(None, "its held-out cameras; root_dir/targets by default")
    bg_dir: str | None = option(None, "its background pictures; made for the run where there are none")
    ckpt_path: str | None = option(None, "checkpoint; the shipped one of stage two by default")
    every: int = option(1, "look at every k-th frame")
    img_wh: tuple[int, int] | None = option(None, "picture width and height; the clip's own by default")
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "of the networks: auto, fp32 or bf16", choices=("auto", "fp32", "bf16"))
    contact_sheet: str | None = option(None, "also write this PNG: pictures and error maps of every target")
    out: str = option(str(RESULTS_FOLDER / "quality.json"), "where the figures are written")


@dataclass(frozen=True)
class Comparison:
    """One frame of one held-out camera: the truth and what each method made of it, ``[3, h, w]`` in 0..1."""

    truth: Tensor
    dynamic: Tensor
    pictures: dict[str, Tensor]


def main() -> None:
    """Measure, print the table, write the figures."""
    options = parse_options(QualityOptions, prog="quality.py", description=__doc__ or "")
    if options.every < 1:
        raise InputError(f"--every: 1 or more expected, got {options.every}")
    device = resolve_device(options.device)
    checkpoint = Path(options.ckpt_path) if options.ckpt_path else default_checkpoint()
    model = load_model(checkpoint, device, resolve_precision(options.precision, device))
    root = Path(options.root_dir)
    start = time.perf_counter()
    with open_with_background(root, Path(options.bg_dir) if options.bg_dir else None) as clip:
        size = (options.img_wh[1], options.img_wh[0]) if options.img_wh else clip.size
        targets = Targets.open(Path(options.target_dir) if options.target_dir else root / "targets", size)
        frames = range(0, clip.num_frames, options.every)
        result = _measure(clip, targets, model, frames, options.contact_sheet)
    result = {
        **run_record(),
        "checkpoint": shown_path(checkpoint),
        "stage": model.meta.stage,
        "precision": model.precision,
        "clip": shown_path(root),
        "size_wh": [size[1], size[0]],
        "frames": list(frames),
        "interior_px": interior_margin(size),
        "seconds": round(time.perf_counter() - start, 1),
        **result,
    }
    write_result(Path(options.out), result)
    print(format_table(result))
    print(f"\n{len(frames)} frames of {size[1]} x {size[0]}; checkpoint {result['checkpoint']}; {options.out}")


def _measure(
    clip: RigClip, targets: Targets, model: MaskVolumeModel, frames: range, sheet_path: str | None
) -> dict[str, Any]:
    methods = [*METHODS, OURS_MORE] if model.arch.max_views is None else list(METHODS)
    result: dict[str, Any] = {"methods": methods, "targets": {}}
    sheet = []
    bar = tqdm(total=len(targets.names) * len(frames), unit="view", disable=None)
    for index, name in enumerate(targets.names):
        indices = nearest_cameras(clip.cameras(targets.size), targets.camera(index), MORE_CAMERAS)
        values: dict[str, list[list[float]]] = {method: [] for method in methods}
        for frame, item in zip(frames, compare(clip, targets, index, model, indices, frames), strict=True):
            for method in methods:
                values[method].append(_figures(item.pictures[method], item.truth, item.dynamic))
            if sheet_path and frame == frames[len(frames) // 2]:
                sheet.append(_sheet_row(name, item))
            bar.update()
        result["targets"][name] = {
            "sources": [clip.names[i] for i in indices],
            **{method: _mean_over(values[method]) for method in methods},
        }
    bar.close()
    result["mean"] = {
        method: _mean_over([list(entry[method].values()) for entry in result["targets"].values()]) for method in methods
    }
    if sheet_path:
        write_image(sheet_path, np.concatenate(sheet))
    return result


def compare(
    clip: RigClip,
    targets: Targets,
    index: int,
    model: MaskVolumeModel,
    indices: tuple[int, ...],
    frames: range,
) -> Iterator[Comparison]:
    """The views of a held-out camera by every method, frame after frame.

    Args:
        clip: the rig's pictures.
        targets: the held-out cameras.
        index: which of them.
        model: ours.
        indices: the source cameras, the nearest first: two for every method, all for the last row.
        frames: numbers of the frames.
    """
    camera = targets.camera(index)
    near, far = clip.near_far()
    cameras = clip.cameras(targets.size)
    sources = stack_cameras([cameras[i] for i in indices[:2]])
    views = {"ours": indices[:2]}
    if model.arch.max_views is None:
        views[OURS_MORE] = indices
    batch = camera_batch(camera)
    renderers = {
        method: ClipRenderer(clip, model, chosen, targets=batch, size=targets.size) for method, chosen in views.items()
    }
    for frame in frames:
        images = torch.stack([to_tensor(clip.read(i, frame, targets.size)) for i in indices[:2]])
        name = clip.frame_names[frame]
        pictures = {
            "nearest camera": images[0],
            "classical plane sweep": plane_sweep_stereo(images, sources, camera, near, far).color,
            **{method: r.render(frame, camera).color.float().cpu() for method, r in renderers.items()},
        }
        clamped = {method: picture.clamp(0, 1) for method, picture in pictures.items()}
        yield Comparison(targets.picture(index, name), targets.dynamic(index, name), clamped)


def camera_batch(camera: Camera) -> Camera:
    """A single camera as a batch of one."""
    return stack_cameras([camera])


def _figures(picture: Tensor, truth: Tensor, dynamic: Tensor) -> list[float]:
    """The values of ``MEASURES``."""
    height, width = truth.shape[-2:]
    margin = interior_margin((height, width))
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    values = []
    for a, b, mask in (
        (picture, truth, None),
        (picture, truth, dynamic),
        (picture[inside], truth[inside], None),
    ):
        values += [float(psnr(a, b, mask)), float(ssim(a, b, mask))]
    return values


def interior_margin(size: tuple[int, int]) -> int:
    """Pixels off every border of a picture of ``size`` (h, w) that its interior leaves out."""
    return min(INTERIOR, min(size) // 8)


def _mean_over(values: list[list[float]]) -> dict[str, float | None]:
    """Means by measure; frames in which nothing moves don't count for the moving pixels."""
    means: dict[str, float | None] = {}
    for measure, column in zip(MEASURES, np.array(values, dtype=np.float64).T, strict=True):
        there = column[~np.isnan(column)]
        mean = float(there.mean()) if there.size else math.nan
        means[measure] = round(mean, 4) if math.isfinite(mean) else None
    return means


def format_table(result: dict[str, Any]) -> str:
    """The Markdown table of a result."""
    header = [
        "target, method",
        "PSNR",
        "SSIM",
        "PSNR moving",
        "SSIM moving",
        "PSNR interior",
        "SSIM interior",
    ]
    rows = []
    for name, entry in [*result["targets"].items(), ("mean", result["mean"])]:
        for method in result["methods"]:
            rows.append([f"{name}, {method}", *(_cell_text(measure, entry[method][measure]) for measure in MEASURES)])
    return markdown_table(header, rows)


def _cell_text(measure: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if measure.startswith("psnr") else f"{value:.3f}"


def _sheet_row(name: str, item: Comparison) -> np.ndarray:
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
