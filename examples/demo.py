"""Render a novel-view video of the bundled clip with the shipped weights, and a contact sheet of it.

python examples/demo.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.sheets import Row, draw_sheet
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.paths import render_path
from maskvolume.io.files import require_writable_folder
from maskvolume.io.images import read_image
from maskvolume.io.llff import write_path
from maskvolume.mpi.session import background_folder
from maskvolume.options import Size, option, parse_options
from maskvolume.rendering.loop import RenderReport
from maskvolume.rendering.pictures import color_map, read_disparity
from maskvolume.runtime.devices import resolve_device
from maskvolume.runtime.errors import run_program
from maskvolume.runtime.processes import ALONE
from render.render_llff_video import RenderOptions, render

ROOT = Path(__file__).resolve().parents[1]
SHEET_POSES = 4  # poses on the contact sheet


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demo."""

    root_dir: str = option(str(ROOT / "examples/rig"), "the clip")
    ckpt_path: str = option(str(ROOT / "checkpoints/mask_volume.safetensors"), "the weights")
    out_dir: str = option(str(ROOT / "out/demo"), "folder for the video and the contact sheet")
    indices: tuple[str, ...] | None = option(None, "source cameras; none: those nearest to the middle of the path")
    img_wh: Size | None = option(None, "width and height; none: the clip's")
    scale: float = option(0.6, "width of the spiral; 1 is about the width of the rig")
    num_poses: int = option(80, "poses of the spiral, a multiple of 4")
    fps: float = option(20.0, "frames a second")


def make_sheet(clip: RigClip, report: RenderReport) -> Path:
    """Draw a contact sheet with sources, novel views, disparity and mask of a few poses; returns its path."""
    folder, frames = report.folder, [int(time) for time in report.times]
    clip = replace(clip, background_dir=background_folder(clip, folder))
    size = read_image(folder.frame(0)).shape[:2]
    step, turn = len(frames) // (2 * SHEET_POSES), clip.num_frames // SHEET_POSES  # apart along the path, and in time
    poses = sorted(((2 * i + 1) * step + i * turn) % len(frames) for i in range(SHEET_POSES))
    captions = [f"pose {pose}, frame {frames[pose]}" for pose in poses]
    sources, first = report.indices[:SHEET_POSES], frames[poses[0]]
    names = [clip.names[index] for index in sources]
    rows = [
        Row(
            f"What the cameras saw, frame {first}",
            [clip.read(index, first, size) for index in sources],
            [f"{names[0]}, the reference", *names[1:]],
        ),
        Row(
            "Their backgrounds: medians over time",
            [clip.read_background(index, size) for index in sources],
        ),
        Row("Views from where no camera stood", [read_image(folder.frame(pose)) for pose in poses], captions),
        Row("Disparity", [color_map(read_disparity(folder.disparity(pose))) for pose in poses]),
        Row("Mask: what moves", [read_image(folder.mask(pose)) for pose in poses]),
    ]
    path = folder.root / "contact_sheet.png"
    draw_sheet(path, f"{clip.num_frames} frames of {len(clip.names)} cameras", rows)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Render the video, draw the sheet, and print their paths."""
    start = time.monotonic()
    options = parse_options(
        DemoOptions,
        argv,
        prog="demo.py",
        description="Render a novel-view video of the bundled clip with the shipped weights.",
    )
    out = require_writable_folder(options.out_dir)
    clip = RigClip.open(options.root_dir)
    path = out / "path.txt"
    write_path(path, render_path(clip.poses, "spiral", options.num_poses // 4, scale=options.scale))
    report, viewer = render(
        RenderOptions(
            root_dir=options.root_dir,
            ckpt_path=options.ckpt_path,
            out_dir=options.out_dir,
            img_wh=options.img_wh,
            indices=options.indices,
            path=str(path),
            time="loop",
            fps=options.fps,
            save_disparity=True,
            save_mask=True,
            viewer=True,
            overwrite=True,
        ),
        ALONE,
        resolve_device("auto"),
    )
    sheet = make_sheet(clip, report)
    print(f"video:          {report.folder.video}")
    print(f"disparity:      {report.folder.disparity_video}")
    print(f"contact sheet:  {sheet}")
    print(viewer)
    print(f"{report.made} views of {clip.num_frames} frames in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run_program(main)
