"""Compute the background of each camera of a clip: the median over time of each pixel.

    python data_tools/make_backgrounds.py FRAMES

writes ``FRAMES/background/camNN.png``. Poses are not needed. By default it uses 100 frames, evenly spaced over the
clip; the median is correct where a pixel shows the empty scene in more than half of them. Memory does not grow with the
clip.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_tools.clips.selection import FrameChoice, choose_cameras
from maskvolume.clips.backgrounds import MedianMethod, make_backgrounds
from maskvolume.clips.layouts import (
    BACKGROUND_NAME,
    Layout,
    list_pictures,
    open_layout,
)
from maskvolume.io.files import require_writable_folder
from maskvolume.options import option, parse_options, positional
from maskvolume.runtime.errors import InputError, run_program


@dataclass(frozen=True)
class BackgroundOptions:
    """Options of make_backgrounds."""

    frames: str = positional("folder of the clip, in any layout; no poses are needed")
    out_dir: str | None = option(None, "folder for the backgrounds; none: FRAMES/background")
    exclude: tuple[str, ...] = option((), "cameras to leave out, by name")
    first: int | None = option(None, "number of the first frame; none: the clip's first")
    end: int | None = option(None, "number after the last frame's; none: the clip's end")
    every: int | None = option(None, "use one of this many frames; none: --count frames in all")
    frame_list: tuple[int, ...] = option((), "numbers of the frames to use, instead of --first, --end and --every")
    count: int | None = option(
        None, "most frames to use, evenly spaced; none: 100, or all with --every or --frame_list"
    )
    method: Literal["exact", "histogram"] = option(
        "exact",
        "exact, or histogram: reads each frame once, is off by up to 2 of 256 grey levels, and needs "
        "64 bytes for each value of a picture (128 from 256 frames on)",
    )
    overwrite: bool = option(False, "replace existing backgrounds")


def update_backgrounds(
    layout: Layout,
    cameras: Sequence[int],
    folder: Path,
    frames: Sequence[int],
    *,
    folder_option: str,
    method: MedianMethod = "exact",
    overwrite: bool = False,
) -> None:
    """Compute the backgrounds that a folder lacks, and print a summary.

    Args:
        layout: the recording.
        cameras: positions of the cameras.
        folder: of the backgrounds; created if missing.
        frames: positions in the recording of the frames for the median.
        folder_option: the option for another folder, for the message.
        method: of the median.
        overwrite: replace existing ones.

    Raises:
        InputError: ``folder`` holds pictures of other cameras, or a frame cannot be read.
    """
    names = [layout.names[camera] for camera in cameras]
    existing = list_pictures(require_writable_folder(folder))
    if foreign := [name for name in existing if name not in names]:
        # A collected clip without its record finds its backgrounds by their order.
        raise InputError(
            f"{existing[foreign[0]]}: is no camera of this clip ({', '.join(names)}); remove it, or choose "
            f"another folder with {folder_option}"
        )
    written = make_backgrounds(layout, cameras, folder, frames, method=method, overwrite=overwrite)
    for camera in cameras:
        if camera not in written and _is_older(existing[layout.names[camera]], layout, camera):
            name = layout.names[camera]
            print(f"{existing[name]}: kept, though frames of {name} are newer; --overwrite replaces it")
    print(f"{folder}: {len(cameras)} backgrounds, {len(cameras) - len(written)} of them kept")


def _is_older(background: Path, layout: Layout, camera: int) -> bool:
    newest = max(layout.source.file(camera, frame).stat().st_mtime for frame in range(len(layout.frame_names)))
    return background.stat().st_mtime < newest


def main(argv: Sequence[str] | None = None) -> None:
    """Compute the backgrounds of one clip."""
    options = parse_options(
        BackgroundOptions,
        argv,
        prog="make_backgrounds.py",
        description="Compute the background of each camera of a clip, the median over time of each pixel.",
    )
    layout = open_layout(options.frames)
    choice = FrameChoice(options.first, options.end, options.every, options.frame_list, options.count)
    frames = choice.positions(layout)
    folder = Path(options.out_dir) if options.out_dir else layout.root / BACKGROUND_NAME
    print(f"{layout.root}: {options.method} median over {len(frames)} of {len(layout.frame_names)} frames")
    update_backgrounds(
        layout,
        choose_cameras(layout, options.exclude),
        folder,
        frames,
        folder_option="--out_dir",
        method=options.method,
        overwrite=options.overwrite,
    )


if __name__ == "__main__":
    run_program(main)
