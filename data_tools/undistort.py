"""Remove the lens distortion from a clip, so that LLFF poses can represent its cameras.

    python data_tools/undistort.py BOARDS --board 9 6 --square 0.025 --out_dir OUT     calibrates: OUT/calibration
    python data_tools/undistort.py FRAMES --calibration OUT/calibration --out_dir STRAIGHT

A calibration is a file in OpenCV's format for all cameras, or a folder with cam00.json ... for each camera.
The new clip has the layout of the old one, and calibration/camNN.json of its cameras: one focal length, principal
point in the middle, no distortion. A poses_bounds.npy is copied with the new focal lengths.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from data_tools.clips.writing import (
    Form,
    OutputCamera,
    OutputClip,
    prepare_output,
    write_clip,
)
from data_tools.poses.chessboard import board_folders, calibrate, find_boards
from maskvolume.clips.layouts import (
    POSES_NAME,
    Layout,
    Videos,
    open_layout,
)
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import (
    fit_lens,
    llff_obstacles,
    pinhole,
    straight,
)
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.calibrations import read_calibrations, write_calibration
from maskvolume.io.files import require_writable_folder
from maskvolume.io.llff import read_poses_bounds, write_poses_bounds
from maskvolume.io.posed import remaining_names
from maskvolume.options import (
    option,
    parse_options,
    positional,
    required,
)
from maskvolume.runtime.errors import InputError, run_program

CALIBRATION_NAME = "calibration"
# Poses of undistorted pictures agree with a calibration within this share; poses of distorted ones rarely do.
FOCAL_TOLERANCE = 0.02


@dataclass(frozen=True)
class UndistortOptions:
    """Options of undistort."""

    frames: str = positional("the clip, in any layout; with --board: pictures of a chessboard, a folder per camera")
    out_dir: str = required("folder for the new clip; with --board: for the folder calibration")
    calibration: str | None = option(None, "calibration of all cameras, or a folder with cam00.json ... or all.json")
    model: Literal["pinhole", "fisheye"] | None = option(
        None, "lens model for --board and for calibrations that do not name one; none: pinhole"
    )
    keep_all: bool = option(False, "keep the full field of view; parts of the new pictures' border are black")
    focal: float | None = option(None, "focal length of the new cameras in pixels; none: the widest view without black")
    board: tuple[int, int] | None = option(
        None, "calibrate: columns and rows of inner corners of the chessboard, where four squares meet"
    )
    square: float = option(1.0, "side of a square of the chessboard, in any unit")
    exclude: tuple[str, ...] = option((), "cameras to leave out, by name")
    overwrite: bool = option(False, "replace existing files")


def calibrate_folder(options: UndistortOptions) -> None:
    """Calibrate each camera from its pictures of a chessboard; existing calibrations are kept."""
    board, folder = options.board, Path(options.frames)
    assert board is not None
    cameras = board_folders(folder)
    names = remaining_names(list(cameras), options.exclude, folder)
    out = require_writable_folder(Path(options.out_dir) / CALIBRATION_NAME)
    for name in names:
        path, pictures = out / f"{name}.json", cameras[name]
        if path.exists() and not options.overwrite:
            print(f"{path}: kept; --overwrite replaces it")
            continue
        boards = find_boards(pictures, board)
        for picture in boards.without_board:
            print(f"{picture}: no board of {board[0]} x {board[1]} inner corners")
        lens, error = calibrate(boards, board, options.square, options.model or "pinhole", pictures[0].parent)
        notes = {
            "board_width": board[0],
            "board_height": board[1],
            "square_size": options.square,
            "nr_of_frames": len(boards.corners),
            "avg_reprojection_error": error,
        }
        write_calibration(path, lens, notes)
        print(
            f"{path}: focal length {lens.K[0, 0]:.2f}, {lens.K[1, 1]:.2f} pixels, reprojection error {error:.3f} "
            f"pixels, boards in {len(boards.corners)} of {len(pictures)} pictures"
        )


def choose_cameras(layout: Layout, options: UndistortOptions) -> tuple[OutputCamera, ...]:
    """The lens and the ideal camera of each camera that is not excluded.

    Raises:
        InputError: ``exclude`` is wrong, or a calibration is missing, damaged or of another aspect ratio.
    """
    names = remaining_names(layout.names, options.exclude, layout.root)
    assert options.calibration is not None
    h, w = layout.size
    # Videos need even sizes.
    size = (h - h % 2, w - w % 2) if layout.kind == "videos" else (h, w)
    cameras = []
    for name, (path, lens) in read_calibrations(options.calibration, names, options.model).items():
        lens = fit_lens(lens, layout.size, path)
        try:
            target = pinhole(straight(lens, size, keep_all=options.keep_all, focal=options.focal), size)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        is_kept = size == layout.size and not llff_obstacles(lens) and options.focal is None
        cameras.append(OutputCamera(name, layout.names.index(name), lens, lens if is_kept else target))
    return tuple(cameras)


def read_poses(layout: Layout) -> RigPoses | None:
    """The poses of a clip at the size of its pictures; None if it has none.

    Raises:
        InputError: the file is damaged, or the number of poses is not that of cameras.
    """
    path = layout.poses_path
    if not path.is_file():
        return None
    poses = read_poses_bounds(path)
    if len(poses) != len(layout.names):
        raise InputError(
            f"{path}: {len(poses)} poses for {len(layout.names)} cameras ({', '.join(layout.names)}); one row for "
            f"each camera is needed, in the order of their names"
        )
    return RigPoses(poses.cameras.scaled(layout.size), poses.bounds)


def compare_focals(poses: RigPoses, cameras: Sequence[OutputCamera], path: Path) -> list[str]:
    """A warning for each camera whose focal length in the poses differs from its calibration."""
    lines = []
    for camera in cameras:
        calibrated = float(camera.lens.K[0, 0] + camera.lens.K[1, 1]) / 2
        posed = float(poses.cameras.K[camera.number, 0, 0] + poses.cameras.K[camera.number, 1, 1]) / 2
        if abs(posed - calibrated) > FOCAL_TOLERANCE * calibrated:
            lines.append(
                f"warning: {path}: {camera.name}: focal length {posed:.1f} pixels, calibration {calibrated:.1f} "
                f"({100 * (posed - calibrated) / calibrated:+.0f}%); positions estimated with it do not fit the new "
                f"pictures, estimate the poses again from them"
            )
    return lines


def new_poses(poses: RigPoses, cameras: Sequence[OutputCamera]) -> RigPoses:
    """The same positions and depths with the new cameras' focal lengths."""
    rows, size = [camera.number for camera in cameras], cameras[0].target.size
    K = np.stack([straight(camera.target, size) for camera in cameras])
    return RigPoses(Camera(poses.cameras.T_cam_world[rows], torch.from_numpy(K), size), poses.bounds[rows])


def undistort_clip(options: UndistortOptions) -> None:
    """Write the clip as taken by ideal cameras, with their calibrations and poses."""
    layout, out_dir = open_layout(options.frames), Path(options.out_dir)
    cameras, poses = choose_cameras(layout, options), read_poses(layout)
    if poses is not None:
        for line in compare_focals(poses, cameras, layout.poses_path):
            print(line)
    source = layout.source
    clip = OutputClip(
        source,
        cameras,
        {name: frame for frame, name in enumerate(layout.frame_names)},
        out_dir,
        cast(Form, layout.kind),  # open_layout finds no other kind
        fps=source.videos[0].fps if isinstance(source, Videos) else 30.0,
    )
    entries = [*clip.entries(), CALIBRATION_NAME, POSES_NAME]
    prepare_output(out_dir, clip.settings(out_dir), entries, overwrite=options.overwrite)
    for camera in cameras:
        size = camera.target.size
        write_calibration(out_dir / CALIBRATION_NAME / f"{camera.name}.json", pinhole(straight(camera.target), size))
    write_clip(clip)
    if poses is not None:
        folders = [out_dir / name for name in layout.frame_names] if layout.kind == "collected" else [out_dir]
        for folder in folders:
            write_poses_bounds(folder / POSES_NAME, new_poses(poses, cameras))
    (h, w), num_kept = cameras[0].target.size, sum(camera.is_kept for camera in cameras)
    print(f"{out_dir}: {len(layout.frame_names)} frames of {len(cameras)} cameras, {w} x {h}")
    if num_kept:
        print(f"{num_kept} of them had no distortion and are unchanged")
    if poses is None:
        print(f"{layout.poses_path}: missing, so the new clip has no poses either")


def _check_options(options: UndistortOptions) -> None:
    if (options.board is None) == (options.calibration is None):
        raise InputError("give --calibration to undistort a clip, or --board COLUMNS ROWS to calibrate from pictures")
    if options.board is not None and min(options.board) < 3:
        raise InputError(f"--board {options.board[0]} {options.board[1]}: at least 3 inner corners each way are needed")
    if options.square <= 0:
        raise InputError(f"--square {options.square:g}: a length above 0 expected")
    if options.focal is not None and (options.focal <= 0 or options.keep_all):
        raise InputError(f"--focal {options.focal:g}: a length above 0 expected, and no --keep_all with it")


def main(argv: Sequence[str] | None = None) -> None:
    """Calibrate, or undistort."""
    options = parse_options(
        UndistortOptions,
        argv,
        prog="undistort.py",
        description="Remove the lens distortion from a clip (--calibration), or calibrate lenses from pictures "
        "of a chessboard (--board).",
    )
    _check_options(options)
    if options.board is not None:
        calibrate_folder(options)
    else:
        undistort_clip(options)


if __name__ == "__main__":
    run_program(main)
