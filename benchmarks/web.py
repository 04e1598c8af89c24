"""Measures an export for the browser: the player's pictures against the renderer's, its speed, and its downloads.

Everything runs in headless Chromium, which renders on the CPU here; a machine with a GPU is faster.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost.browser import (
    MISSING,
    OpenPage,
    find_chromium,
    launch_chromium,
    new_page,
)
from benchmarks.record import (
    REPO_ROOT,
    RESULTS_FOLDER,
    default_checkpoint,
    display_path,
    markdown_table,
    run_record,
    write_result,
)
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import join_paths
from maskvolume.mpi.session import Session, make_backgrounds
from maskvolume.options import option, parse_options
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.pictures import to_uint8
from maskvolume.runtime.devices import resolve_device
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.web.export import WebReport, psnr
from maskvolume.web.viewpoints import Viewpoints
from render.export_web import ExportOptions, export
from render.render_llff_video import RenderOptions, settings_of

LOOKS = ("center", "left", "right", "above", "below")
PLAYED_FOR = 4.0  # seconds; the frame rate is averaged after the first 1.5
PLANES = 32  # planes of a frame's raw multiplane image, with four bytes per texel


@dataclass(frozen=True)
class WebOptions:
    """The options of this program."""

    root_dir: str = option(str(REPO_ROOT / "examples/rig"), "the clip")
    ckpt_path: str | None = option(None, "checkpoint; the shipped one of stage two by default")
    every: int = option(10, "compare every k-th frame")
    layers: int | None = option(None, "layers of the export; none: its default")
    fps: float = option(30.0, "frames a second of the clip")
    crf: int = option(23, "quality of the moving tiles")
    out: str = option(str(RESULTS_FOLDER / "web.json"), "file for the figures")


def render_references(options: RenderOptions, targets: Camera, frames: list[int]) -> list[list[np.ndarray]]:
    """The renderer's view of each frame from each target, uint8 ``[h, w, 3]``, with the exported planes."""
    clip = RigClip.open(options.root_dir, options.bg_dir)
    settings, folder = settings_of(options, clip.size), RenderFolder(Path(options.out_dir))
    session = Session.open(options, clip, settings, folder, resolve_device(options.device))
    (renderer,) = session.renderer(Viewpoints.of(clip.poses, clip.size).border()).renderers
    return [[to_uint8(renderer.render(frame, target).color) for target in targets] for frame in frames]


def picture_of(page: OpenPage, width: int, height: int) -> np.ndarray:
    """The player's current view, uint8 ``[h, w, 3]``."""
    data = page.run("([w, h]) => player.render(w, h)", [width, height])
    encoded = np.frombuffer(base64.b64decode(data.partition(",")[2]), dtype=np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def compare(
    page: OpenPage, offsets: list[list[float]], frames: list[int], references: list[list[np.ndarray]]
) -> list[list[float]]:
    """PSNR in dB of the player's pictures, by frame and viewpoint."""
    values = []
    for frame, pictures in zip(frames, references, strict=True):
        page.run("(frame) => player.seek(frame)", frame)
        row = []
        for offset, picture in zip(offsets, pictures, strict=True):
            page.run("(offset) => player.setOffset(...offset)", offset)
            row.append(round(psnr(picture_of(page, picture.shape[1], picture.shape[0]), picture), 2))
        values.append(row)
    return values


PLAY = """async ([seconds, limits]) => {
  player.play();
  const start = performance.now();
  const rates = [];
  await new Promise((done) => {
    const step = (now) => {
      const t = (now - start) / 1000;
      player.setOffset(0.8 * limits.x * Math.cos(2 * t), 0.8 * limits.y * Math.sin(2 * t), 0);
      if (t > 1.5) rates.push(player.stats.framesPerSecond);
      if (t < seconds) requestAnimationFrame(step); else done();
    };
    requestAnimationFrame(step);
  });
  player.pause();
  return rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
}"""


def measure(options: WebOptions, folder: Path, chromium: str) -> dict[str, Any]:
    """Export the clip, play it, and compare it with the renderer."""
    ckpt_path = options.ckpt_path or str(default_checkpoint())
    out, backgrounds = folder / "web", folder / "background"
    clip = RigClip.open(options.root_dir, backgrounds)
    make_backgrounds(clip, range(len(clip.names)), backgrounds, keep=False)
    inputs: dict[str, Any] = {"root_dir": options.root_dir, "ckpt_path": ckpt_path, "bg_dir": str(backgrounds)}
    start = time.perf_counter()
    report: WebReport = export(
        ExportOptions(**inputs, out_dir=str(out), layers=options.layers, crf=options.crf, fps=options.fps)
    )
    seconds = time.perf_counter() - start
    manifest = json.loads((out / "manifest.json").read_text())
    x, y = (manifest["view"]["limits"][axis] for axis in "xy")
    viewpoints = Viewpoints.of(clip.poses, clip.size).scaled(manifest["view"]["scale"])
    frames = list(range(0, clip.num_frames, options.every))
    looks = join_paths([viewpoints.center(), viewpoints.edges()])
    references = render_references(RenderOptions(**inputs, out_dir=str(folder), time="fix:0"), looks, frames)
    h, w = clip.size
    with launch_chromium(chromium) as browser, new_page(browser, out, viewport={"width": w, "height": h}) as page:
        page.goto()
        page.run("() => window.playerReady")
        start_up = page.run("() => player.stats")
        offsets = [[0, 0, 0], [-x, 0, 0], [x, 0, 0], [0, -y, 0], [0, y, 0]]
        figures = compare(page, offsets, frames, references)
        rate = page.run(PLAY, [PLAYED_FOR, manifest["view"]["limits"]])
        stats = page.run("() => player.stats")
        version = browser.version
    means = np.mean(figures, axis=0)
    raw = PLANES * 4 * h * w * manifest["fps"]
    cameras = sum(size for name, size in report.sizes.items() if name.startswith("cameras/"))
    played = sum(report.sizes.values()) - cameras - report.sizes.get("offline.js", 0)
    return {
        "clip": display_path(options.root_dir),
        "checkpoint": display_path(ckpt_path),
        "browser": f"Chromium {version}, drawing by the processor",
        "psnr": {
            "frames": frames,
            "looks": list(LOOKS),
            "per_frame": figures,
            "center": round(float(means[0]), 2),
            "edges": round(float(means[1:].mean()), 2),
            "worst_edge": round(float(np.min(np.array(figures)[:, 1:])), 2),
        },
        "range": {"scale": manifest["view"]["scale"], **manifest["view"]["limits"]},
        "layers": len(manifest["layers"]),
        "tiles": dict(report.tiles),
        "bytes": {
            "to_look_around": played,
            "per_second_of_clip": round(played / report.seconds),
            "raw_planes_per_second": round(raw),
            "moving_mbit_per_second": round(report.mbit, 2),
            "cameras": cameras,
            "double_click": report.sizes.get("offline.js", 0),
            "before_first_picture": start_up["firstPictureBytes"],
            "uploaded_per_frame": stats["uploadBytesPerFrame"],
        },
        "first_picture_ms": round(start_up["firstPictureMs"]),
        "frames_per_second_moving": round(rate, 1),
        "export_seconds": round(seconds, 1),
    }


def table_of(figures: dict[str, Any]) -> str:
    """The Markdown table of the main figures."""
    size, fidelity = figures["bytes"], figures["psnr"]
    rows = [
        ["player against renderer, from the centre", f"{fidelity['center']:.1f} dB"],
        ["from the edges of the range: mean, worst", f"{fidelity['edges']:.1f}, {fidelity['worst_edge']:.1f} dB"],
        ["layers", str(figures["layers"])],
        ["moving content", f"{size['moving_mbit_per_second']:.1f} Mbit/s"],
        ["one second of the clip", f"{size['per_second_of_clip'] / 1e6:.2f} MB"],
        ["raw planes of one second", f"{size['raw_planes_per_second'] / 1e6:.0f} MB"],
        ["before the first picture", f"{size['before_first_picture'] / 1e6:.2f} MB, {figures['first_picture_ms']} ms"],
        ["uploaded to the GPU per frame", f"{size['uploaded_per_frame'] / 1e6:.1f} MB"],
        [
            "playing and moving, rendered on the CPU",
            f"{figures['frames_per_second_moving']:.1f} frames/s",
        ],
    ]
    return markdown_table(["", "measured"], rows)


def main() -> None:
    """Measure, print, write."""
    options = parse_options(WebOptions, prog="web.py", description=__doc__ or "")
    if options.every < 1:
        raise InputError(f"--every: 1 or more expected, got {options.every}")
    chromium = find_chromium()
    if chromium is None:
        raise InputError(MISSING)
    with tempfile.TemporaryDirectory(prefix="web_") as folder:
        figures = {**run_record(), **measure(options, Path(folder), chromium)}
    print(table_of(figures))
    write_result(Path(options.out), figures)
    print(f"written: {options.out}")


if __name__ == "__main__":
    run_program(main)
