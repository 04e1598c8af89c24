"""Export a clip for the browser: a folder that opens from any static web server, or with a double click.

cd render && python export_web.py --config export_web.txt
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # during imports there is nothing to clean up

from maskvolume.clips.recordings import open_clip
from maskvolume.mpi.options import MPIOptions
from maskvolume.mpi.renderer import RenderSettings
from maskvolume.mpi.session import Session
from maskvolume.options import check_ranges, option, parse_options
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.shots import Shots
from maskvolume.runtime.allocator import give_back_large_blocks
from maskvolume.runtime.devices import resolve_device
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.runtime.processes import ALONE
from maskvolume.web.export import (
    ATLAS,
    LAYERS,
    WORK,
    WebReport,
    WebSettings,
)
from maskvolume.web.viewpoints import Viewpoints
from render.render_llff_video import RenderOptions, open_viewer


@dataclass(frozen=True)
class ExportOptions(MPIOptions):
    """Options of export_web."""

    title: str | None = option(None, "shown by the player; none: the name of the clip's folder")
    reach: float = option(
        1.0, "how far viewpoints go at most, 1: as far as the rig; less where planes don't reach", low=0.01, high=10
    )
    num_frames: int | None = option(None, "export the first frames only, so many; none: all", low=1)
    layers: int | None = option(
        None, f"layers that the planes are merged to; none: {LAYERS}, or all there are", low=1, high=64
    )
    tile: int = option(28, "side of a tile in texels, a multiple of 4", low=8, high=256)
    fps: float = option(30.0, "frames a second", low=0.1, high=1000)
    crf: int = option(23, "quality of what moves, 0 (no loss) to 51 (worst)", low=0, high=51)
    max_mbit: float | None = option(
        None, "maximum megabits per second of the moving tiles; none: no limit beyond crf", low=0.05, high=1000
    )
    atlas: int = option(
        ATLAS, "largest side of atlas and video, in pixels; 4096: phones can play it", low=256, high=16384
    )
    cameras: bool = option(True, "add what the cameras saw, to compare with; loaded when it is looked at")
    offline: bool = option(True, "add a copy of everything for a double click, a third larger than the rest")
    overwrite: bool = option(False, "replace an existing export, which stays until the new one is complete")


def check(options: ExportOptions) -> None:
    """Reject out-of-range options before any work starts."""
    check_ranges(options)
    if options.tile % 4:
        raise InputError(f"--tile: a multiple of 4 expected, got {options.tile}")


def export(options: ExportOptions) -> WebReport:
    """Export a clip.

    Args:
        options: the options of the program.

    Returns:
        A report of the export, which may be finished already.

    Raises:
        InputError: an error for the user to fix, reported before the first frame is rendered where possible.
    """
    check(options)
    root = Path(options.out_dir)
    common = vars(options).keys() & RenderOptions.__dataclass_fields__.keys()
    shared = {name: getattr(options, name) for name in common}
    rendering = RenderOptions(**shared, time="fix:0")
    clip = open_clip(options.root_dir, options.bg_dir, options.images)
    if options.num_frames is not None:
        clip = clip.first_frames(options.num_frames)
    size = options.img_wh or clip.size
    viewpoints = Viewpoints.of(clip.poses, size).scaled(options.reach)
    targets = viewpoints.border()
    folder = RenderFolder(root / WORK)
    # Frames are rendered from several viewpoints, so they are stored.
    settings = RenderSettings(size=size, num_planes=options.num_planes, stored=True)
    session = Session.open(options, clip, settings, folder, resolve_device(options.device))
    renderer = session.renderer(targets)
    plan = session.fit(renderer, Shots(targets, (0.0,) * len(targets)), ALONE)
    exported = open_viewer(rendering, session, renderer, viewpoints, root, web_settings(options, clip.root_dir))
    finished = None if options.overwrite else exported.finished()
    if finished is not None:
        return finished
    continues = exported.prepare(overwrite=options.overwrite)
    session.make_backgrounds(renderer.background_indices, keep=continues)
    names = ", ".join(clip.names[index] for index in renderer.indices)
    lines = [*clip.layout.notes, f"{root}: {clip.num_frames} frames of {size[1]} x {size[0]} from {names}"]
    print(*lines, session.describe_computing(ALONE), plan, sep="\n")
    return exported.run()


def web_settings(options: ExportOptions, root_dir: Path) -> WebSettings:
    """The export settings of the clip in a folder."""
    return WebSettings(
        title=options.title or root_dir.resolve().name,
        fps=options.fps,
        layers=options.layers,
        tile=options.tile,
        crf=options.crf,
        max_mbit=options.max_mbit,
        atlas=options.atlas,
        cameras=options.cameras,
        offline=options.offline,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options, export, and print a report."""
    options = parse_options(
        ExportOptions,
        argv,
        prog="export_web.py",
        description="Export a clip for the browser: a folder to look around in, on any static web server.",
    )
    give_back_large_blocks()
    print(export(options))


if __name__ == "__main__":
    run_program(main)
