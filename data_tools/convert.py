"""Convert a recorded clip from one form to another: frames, videos, a COLMAP model, nerfstudio's transforms.json.

    python data_tools/convert.py INPUT --to frames --out_dir OUT

INPUT is a clip with poses_bounds.npy (a frame folder, videos as in Neural 3D Video, or a collected clip), a folder with
a COLMAP model, or a folder with transforms.json; the form is detected. Unchanged pictures are linked. Pictures of a
camera that the new form cannot represent are resampled for an ideal camera, and the program prints a line about it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from data_tools.clips.writing import (
    OutputCamera,
    OutputClip,
    prepare_output,
    write_clip,
)
from maskvolume.clips.layouts import POSES_NAME
from maskvolume.clips.recordings import BOUNDS_NAME, Recording, open_recording
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import (
    Lens,
    llff_obstacles,
    pinhole,
    straight,
)
from maskvolume.geometry.poses import PosedCamera, RigPoses
from maskvolume.io.colmap import (
    IMAGES_FOLDER,
    MODEL_FOLDER,
    colmap_obstacle,
    write_colmap,
)
from maskvolume.io.llff import write_poses_bounds
from maskvolume.io.nerfstudio import TRANSFORMS_NAME, nerfstudio_obstacle, write_nerfstudio
from maskvolume.io.realestate10k import write_bounds
from maskvolume.options import (
    option,
    parse_options,
    positional,
    required,
)
from maskvolume.runtime.errors import InputError, run_program

_CAMERA_NAME = re.compile(r"cam(era)?[_-]?\d+", re.IGNORECASE)
_RESERVED_NAMES = ("background", "images", "masks", "calibration")


@dataclass(frozen=True)
class ConvertOptions:
    """Options of convert."""

    input: str = positional("a clip with poses_bounds.npy, or a folder with a COLMAP model or transforms.json")
    to: Literal["frames", "videos", "colmap", "nerfstudio"] = required("form to turn it into")
    out_dir: str = required("folder to write")
    images: str | None = option(
        None, "folder of a COLMAP model's pictures, or a clip whose cameras have their names; none: as the model says"
    )
    exclude: tuple[str, ...] = option((), "cameras to leave out, by name")
    first: int = option(0, "first frame to take, counted from 0")
    end: int | None = option(None, "frame after the last one to take; none: all")
    bounds: tuple[float, float] | None = option(
        None, "depths of the nearest and the farthest thing, in the unit of the poses; none: as the input says"
    )
    ext: Literal["jpg", "png"] | None = option(None, "form of the pictures; none: as they are, jpg for videos")
    fps: float | None = option(None, "frames a second of videos; none: those of the input's, or 30", above=0)
    keep_all: bool = option(False, "keep the whole view of resampled pictures; their border is partly black")
    overwrite: bool = option(False, "replace existing files")


def output_names(names: Sequence[str], form: str) -> list[str]:
    """Names of the cameras in the output: unchanged, unless the clip would not be recognised by these names.

    Args:
        names: names of the cameras in the input.
        form: the new form.

    Returns:
        One name per camera, without white space.
    """
    names = ["_".join(name.split()) for name in names]
    if form in ("colmap", "nerfstudio"):
        return names
    are_cameras = [_CAMERA_NAME.fullmatch(name) is not None for name in names]
    plain = [not (name in _RESERVED_NAMES or name.startswith(".") or name.isdecimal()) for name in names]
    if all(are_cameras) or (all(plain) and not any(are_cameras)):
        return names
    return [f"cam{i:02d}" for i in range(len(names))]


def obstacles(lens: Lens, form: str, size: tuple[int, int], models: set[str]) -> list[str]:
    """The properties of a camera that the new form cannot represent, in words.

    Args:
        lens: lens of the camera.
        form: the new form.
        size: (h, w) of the pictures in the output.
        models: lens models of all cameras.

    Returns:
        The properties; empty if the camera can be kept.
    """
    if form in ("frames", "videos"):
        words = llff_obstacles(lens)
        return words if lens.size == size else [*words, f"pictures of {lens.size[1]} x {lens.size[0]} pixels"]
    if form == "colmap":
        found = colmap_obstacle(lens)
    else:
        found = nerfstudio_obstacle(lens)
        if len(models) > 1 and lens.model == "fisheye":
            found = "fisheye lenses beside others"
    return [found] if found else []


def choose_cameras(recording: Recording, options: ConvertOptions) -> tuple[OutputCamera, ...]:
    """Choose how each camera's pictures are written; prints which cameras are resampled or renamed.

    Raises:
        InputError: a lens has no equivalent ideal camera.
    """
    cameras = recording.cameras
    h, w = cameras[0].lens.size
    videos = options.to == "videos"
    names = output_names([camera.name for camera in cameras], options.to)
    models = {str(camera.lens.model) for camera in cameras}
    chosen = []
    for name, number, camera in zip(names, recording.numbers, cameras, strict=True):
        lens = camera.lens
        # All cameras of a clip have the same size, and the size of a video is even.
        size = (h - h % 2, w - w % 2) if videos else (h, w) if options.to == "frames" else lens.size
        found, target = obstacles(lens, options.to, size, models), lens
        if found:
            try:
                target = pinhole(straight(lens, size, keep_all=options.keep_all), size)
            except InputError as error:
                raise InputError(f"{options.input}: {camera.name}: {error}") from error
            print(f"{camera.name}: pictures are resampled, since {options.to} cannot hold {', '.join(found)}")
        if name != camera.name:
            print(f"{camera.name}: is called {name}")
        chosen.append(OutputCamera(name, number, lens, target))
    return tuple(chosen)


def choose_bounds(recording: Recording, options: ConvertOptions) -> list[tuple[float, float] | None]:
    """The nearest and the farthest depth that each camera sees; None if unknown.

    Raises:
        InputError: the new form needs them, and they are unknown.
    """
    found = [options.bounds or camera.bounds for camera in recording.cameras]
    if options.to in ("frames", "videos") and None in found:
        name = recording.cameras[found.index(None)].name
        raise InputError(
            f"{options.input}: nothing says how near and far the things are that {name} sees; give --bounds NEAR FAR, "
            f"depths in the unit of the poses"
        )
    return found


def choose_frames(recording: Recording, options: ConvertOptions) -> dict[str, int]:
    """The frames to convert: their positions in the recording by name.

    Raises:
        InputError: the range in the options is empty or reaches outside the recording.
    """
    count = len(recording.frame_names)
    end = count if options.end is None else options.end
    if not 0 <= options.first < end <= count:
        raise InputError(
            f"--first {options.first} --end {end}: {options.input} has {count} frames; 0 <= first < end <= {count} "
            f"expected"
        )
    return {recording.frame_names[i]: i for i in range(options.first, end)}


def write_cameras(
    clip: OutputClip, recording: Recording, bounds: Sequence[tuple[float, float] | None], form: str, out_dir: Path
) -> None:
    """Write poses and intrinsics in the new form.

    Args:
        clip: the converted clip.
        recording: the input.
        bounds: nearest and farthest depth of each camera; None if unknown.
        form: the new form.
        out_dir: the output folder.
    """
    posed = []
    for position, (camera, known) in enumerate(zip(recording.cameras, bounds, strict=True)):
        output = clip.cameras[position]
        pictures = [] if form == "videos" else [clip.picture(position, name) for name in clip.frames]
        files = tuple(picture.relative_to(clip.folder).as_posix() for picture in pictures)
        posed.append(replace(camera, name=output.name, lens=output.target, files=files, bounds=known))
    if form == "colmap":
        write_colmap(out_dir / MODEL_FOLDER, posed)
        stored = {camera.name: camera.bounds for camera in posed if camera.bounds is not None}
        if stored:
            write_bounds(out_dir / BOUNDS_NAME, stored)
    elif form == "nerfstudio":
        inside = [replace(c, files=tuple(f"{IMAGES_FOLDER}/{file}" for file in c.files)) for c in posed]
        write_nerfstudio(out_dir / TRANSFORMS_NAME, inside)
    else:
        write_poses_bounds(out_dir / POSES_NAME, _rig_poses(posed))


def _rig_poses(cameras: Sequence[PosedCamera]) -> RigPoses:
    size = cameras[0].lens.size
    K = torch.from_numpy(np.stack([straight(camera.lens) for camera in cameras]))
    T = torch.from_numpy(np.stack([camera.T_cam_world for camera in cameras]))
    bounds = torch.tensor([camera.bounds for camera in cameras], dtype=torch.float64)
    return RigPoses(Camera(T, K, size), bounds)


def _check_options(options: ConvertOptions) -> None:
    if options.bounds is not None and not 0 < options.bounds[0] < options.bounds[1]:
        raise InputError(f"--bounds {options.bounds[0]:g} {options.bounds[1]:g}: 0 < NEAR < FAR expected")


def main(argv: Sequence[str] | None = None) -> None:
    """Open the input, write the pictures, then the cameras."""
    options = parse_options(
        ConvertOptions,
        argv,
        prog="convert.py",
        description="Turn a recorded clip of one form into another: a frame folder or videos with LLFF poses, a "
        "COLMAP model, nerfstudio's transforms.json.",
    )
    _check_options(options)
    out_dir = Path(options.out_dir)
    recording = open_recording(options.input, options.images, options.exclude)
    frames, bounds = choose_frames(recording, options), choose_bounds(recording, options)
    print(f"{options.input}: " + "\n".join(recording.describe()))
    clip = OutputClip(
        recording.source,
        choose_cameras(recording, options),
        frames,
        out_dir / IMAGES_FOLDER if options.to in ("colmap", "nerfstudio") else out_dir,
        "videos" if options.to == "videos" else "frames",
        f".{options.ext}" if options.ext else None,
        options.fps or recording.fps or 30.0,
        takes_all=len(frames) == len(recording.frame_names) and options.fps in (None, recording.fps),
    )
    entries = {
        "colmap": [IMAGES_FOLDER, MODEL_FOLDER.split("/")[0], BOUNDS_NAME],
        "nerfstudio": [IMAGES_FOLDER, TRANSFORMS_NAME],
    }.get(options.to, [*clip.entries(), POSES_NAME])
    settings = {"to": options.to, **clip.settings(out_dir)}
    prepare_output(out_dir, settings, entries, overwrite=options.overwrite)
    write_clip(clip)
    write_cameras(clip, recording, bounds, options.to, out_dir)
    print(f"{out_dir}: {options.to}, {len(clip.cameras)} cameras, {len(frames)} frames")


if __name__ == "__main__":
    run_program(main)
