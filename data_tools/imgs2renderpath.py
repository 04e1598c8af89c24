"""Write a path of novel views for rendering a clip.

python data_tools/imgs2renderpath.py FRAMES/qual
python data_tools/imgs2renderpath.py FRAMES --kind spiral circle --num 60 --out spiral.npy --plot rig.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_tools.inspection.plot import plot_rig
from maskvolume.clips.layouts import PATH_NAME, POSES_NAME
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import (
    PARTS_OF_ALL,
    PATH_KINDS,
    PathKind,
    join_paths,
    render_path,
)
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.files import require_writable_folder
from maskvolume.io.llff import read_poses_bounds, write_path
from maskvolume.options import option, parse_options, positional
from maskvolume.runtime.errors import InputError, run_program


@dataclass(frozen=True)
class PathOptions:
    """Options of imgs2renderpath."""

    scene: str = positional("a folder with poses_bounds.npy, a collected clip, or a poses_bounds.npy itself")
    out: str | None = option(None, f"path file to write, .txt or .npy; none: {PATH_NAME} beside the poses")
    kind: tuple[PathKind, ...] = option(
        ("all",),
        f"one path or several in sequence, of {', '.join(PATH_KINDS)}; all = {' '.join(PARTS_OF_ALL)}",
    )
    num: int = option(30, "poses in a straight segment; a circle has twice as many, a spiral four times as many")
    focus: float | None = option(None, "distance of the point that all views look at; none: from the rig's bounds")
    scale: float = option(1.0, "width of the path; 1 is about the width of the rig")
    plot: str | None = option(None, "PNG for a drawing of the rig and the path from above and from the front")


def find_poses(scene: str | Path) -> Path:
    """The poses_bounds.npy of a scene: the file itself, that in the folder, or that in a collected clip's first frame.

    Raises:
        InputError: there is none.
    """
    scene = Path(scene)
    if not scene.exists():
        raise InputError(f"{scene}: no such file or folder; check the path")
    if scene.is_file():
        return scene
    frames = sorted(entry for entry in scene.iterdir() if entry.name.isdigit() and entry.is_dir())
    for folder in (scene, *frames[:1]):
        if (folder / POSES_NAME).is_file():
            return folder / POSES_NAME
    raise InputError(f"{scene}: holds no {POSES_NAME}; give the folder of a rig, of a clip or of its first frame")


def make_path(
    poses: RigPoses,
    kinds: Sequence[PathKind] = ("all",),
    num: int = 30,
    *,
    focus: float | None = None,
    scale: float = 1.0,
) -> Camera:
    """The cameras ``[P]`` of several paths in sequence.

    The arguments are those of ``maskvolume.geometry.paths.render_path``, for each of ``kinds``.

    Raises:
        InputError: no kind, or as ``render_path``.
    """
    if not kinds:
        raise InputError(f"--kind: name at least one path of {', '.join(PATH_KINDS)}")
    return join_paths([render_path(poses, kind, num, focus=focus, scale=scale) for kind in kinds])


def main(argv: Sequence[str] | None = None) -> None:
    """Compute the path, write it and, with ``--plot``, draw it."""
    options = parse_options(
        PathOptions,
        argv,
        prog="imgs2renderpath.py",
        description="Write a path of novel views for rendering a clip.",
    )
    poses_path = find_poses(options.scene)
    out = Path(options.out) if options.out else poses_path.with_name(PATH_NAME)
    if out.suffix not in (".txt", ".npy"):
        raise InputError(f"{out}: a path file ends in .txt or .npy; choose one of the two")
    if options.plot and Path(options.plot).suffix.lower() != ".png":
        raise InputError(f"{options.plot}: the plot is a PNG; choose a name that ends in .png")
    poses = read_poses_bounds(poses_path)
    path = make_path(poses, options.kind, options.num, focus=options.focus, scale=options.scale)
    require_writable_folder(out.parent)
    write_path(out, path)
    count = len(poses.cameras)
    print(f"{out}: {len(path)} poses around {count} camera{'s' if count > 1 else ''}")
    if options.plot:
        plot_rig(Path(options.plot), poses, path, options.focus)
        print(f"{options.plot}: the rig and the path")


if __name__ == "__main__":
    run_program(main)
