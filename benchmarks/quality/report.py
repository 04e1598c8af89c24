"""Writes the result of an evaluation as JSON and as Markdown tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.figures import MEASURES, TRUTH
from benchmarks.quality.motorcycle import stereo_table
from benchmarks.record import markdown_table
from maskvolume.io.files import atomic_path

HEADINGS = {
    **{"psnr": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"},
    **{"psnr_dynamic": "moving: PSNR", "ssim_dynamic": "SSIM"},
    **{"psnr_disoccluded": "uncovered: PSNR", "ssim_disoccluded": "SSIM"},
    "flicker": "flicker",
}
WHOLE = ("psnr", "ssim", "ms_ssim", "lpips")  # the measures of static worlds
_NUMBERS = re.compile(r"\[[\s\d.,eE+\-nul]*\]")


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result atomically as JSON, with each list of numbers on one line."""
    text = json.dumps(result, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(_NUMBERS.sub(lambda match: re.sub(r"\s+", " ", match[0]), text) + "\n", encoding="utf-8")


def report(result: Mapping[str, Any]) -> str:
    """The Markdown tables of a result, with the command, commit and checkpoints."""
    lines = ["# Novel views beside the truth", ""]
    columns = [name for name in MEASURES if name != "lpips" or result["lpips"]]
    rows = [row["name"] for row in result["rows"]]
    for part in ("clip", "extrapolation"):
        if part in result:
            lines += [_clip_heading(part, result[part]), ""]
            lines += [_table({**_target_means(result[part]), "mean": result[part]["mean"]}, rows, columns), ""]
    for part in ("static", "moving"):
        if part in result:
            lines += [_worlds_heading(part, result[part]), ""]
            bands = {name: band["mean"] for name, band in result[part]["bands"].items() if band["num_worlds"]}
            measures = columns if part == "moving" else [name for name in columns if name in WHOLE]
            lines += [_table({**bands, "mean": result[part]["mean"]}, rows, measures), ""]
    if "motorcycle" in result:
        lines += [stereo_table(result["motorcycle"]), ""]
    lines += _provenance(result)
    return "\n".join(lines) + "\n"


def _clip_heading(part: str, entry: Mapping[str, Any]) -> str:
    what = "held-out cameras" if part == "clip" else "a camera from pairs that are spacings away"
    sources = "; ".join(f"{name} from {' '.join(target['sources'])}" for name, target in entry["targets"].items())
    return f"{entry['clip']}, {what}, {len(entry['frames'])} frames, {_size(entry)} ({sources}):"


def _worlds_heading(part: str, entry: Mapping[str, Any]) -> str:
    bands = ", ".join(
        f"{name} {band['disparity_px'][0]:g} to {band['disparity_px'][1]:g}" for name, band in entry["bands"].items()
    )
    what = f"{entry['num_worlds']} {part} worlds, {_size(entry)}, {_counted(entry['instants'], 'instant')}"
    return f"{what}; largest disparity between neighbouring cameras in pixels: {bands}:"


def _target_means(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: target["mean"] for name, target in part["targets"].items()}


def _table(entries: Mapping[str, Mapping[str, Any]], rows: Sequence[str], columns: Sequence[str]) -> str:
    body = [
        [f"{place}, {name}", *(_cell(column, figures[name].get(column)) for column in columns)]
        for place, figures in entries.items()
        for name in (*rows, TRUTH)
        if name in figures
    ]
    return markdown_table(["view, method", *(HEADINGS[column] for column in columns)], body)


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if column.startswith("psnr") or column == "flicker" else f"{value:.3f}"


def _provenance(result: Mapping[str, Any]) -> list[str]:
    machine, lpips = result["machine"], result["lpips"]
    commit = result["commit"][:7] + (" with changes" if "+" in result["commit"] else "")
    lines = [f"`{result['command']}`, commit {commit}, torch {result['torch']}, {machine['cpu']}", ""]
    for label, entry in result["checkpoints"].items():
        description = f"stage {entry['stage']}, {entry['arch']}, {entry['num_planes']} planes, {entry['precision']}"
        lines.append(f"- {label}: {entry['path']} ({description}; {entry['digest']})")
    if lpips:
        lines.append(f"- LPIPS: {lpips['backbone']}, {lpips['weights']} ({lpips['digest']}), {lpips['input_range']}")
    return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _size(part: Mapping[str, Any]) -> str:
    return f"{part['size_wh'][0]} x {part['size_wh'][1]}"
