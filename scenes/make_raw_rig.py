"""Render a clip like a raw recording: videos of seven cameras with lens distortion, without poses.

    python scenes/make_raw_rig.py

A living room with a toy train and two balloons, path traced with Blender on the CPU. Output:

    OUT/cam00.mp4 ... cam06.mp4       the recording
    OUT/held_out/00000.png ...        views of an ideal camera between those of the rig, at a few instants
    OUT/true_cameras.json             the true cameras, for checking an estimate

Blender renders a wider picture without distortion to ``--masters``, which is then distorted like the lens. The program
can be stopped at any time and keeps finished files. Rendering needs Blender's module, writing the videos does not: if
no Python has both, run the program with one after the other.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.options import Size, option, parse_options
from maskvolume.runtime.errors import InputError, run_program
from scenes.make_example_rig import (
    Job,
    View,
    base_rotation,
    check_settings,
    require_bpy,
    silence_blender,
    small_rotation,
    uninterrupted,
    with_progress,
)

NUM_CAMERAS = 7
SPACING = 0.16  # metres between neighbours
ARC_RADIUS = 3.2  # metres; the cameras are on an arc of this radius and turn inwards by half of its angle
ZIGZAG = 0.03  # metres; the cameras are alternately this much higher and lower
PITCH = -10.0  # degrees
RIG_CENTRE = (0.0, 0.0, 1.3)
POSITION_NOISE, ROTATION_NOISE = 0.008, 0.5  # standard deviations: metres, degrees
FOCAL, FOCAL_SPREAD = 0.742, 0.01  # relative to the picture's width; largest relative deviation
LENS = (-0.12, 0.03)  # OpenCV's k1, k2 of all cameras of the rig
NOISE_SEED = 5
HELD_OUT = "held_out"
NUM_HELD_OUT_FRAMES = 4
TRUE_CAMERAS = "true_cameras.json"
WIDE_FOCAL = 0.75  # focal length of Blender's pictures, relative to the picture's width
SOFTNESS = 1.8
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class RawRigOptions:
    """Options of make_raw_rig."""

    out: str = option(str(ROOT / "out" / "raw_rig"), "folder for the videos")
    masters: str | None = option(None, "folder of the lossless frames; none: OUT_masters")
    frames: int = option(20, "instants of the loop", low=1)
    samples: int = option(6, "light paths per pixel", low=1)
    img_wh: Size = option(Size(360, 640), "width and height of the videos", low=1)
    fps: float = option(10.0, "frames a second of the videos", above=0)


def raw_views() -> list[View]:
    """The cameras of the rig, left to right, and the held-out one between two of them, which looks straight ahead."""
    rng = np.random.default_rng(NOISE_SEED)
    rotation, centre = base_rotation(PITCH), np.asarray(RIG_CENTRE)
    views = []
    for k in range(NUM_CAMERAS):
        angle = (k - NUM_CAMERAS // 2) * SPACING / ARC_RADIUS
        place = centre + ARC_RADIUS * np.array([math.sin(angle), 1 - math.cos(angle), 0])
        place += np.array([0, 0, ZIGZAG * (-1) ** k]) + rng.normal(0, POSITION_NOISE, 3)
        inwards = cv2.Rodrigues(np.array([0.0, 0.0, angle / 2]))[0]
        turn = inwards @ rotation @ small_rotation(rng.normal(0, ROTATION_NOISE, 3))
        focal = FOCAL * (1 + rng.uniform(-FOCAL_SPREAD, FOCAL_SPREAD))
        views.append(View(f"cam{k:02d}", "", np.concatenate([turn, place[:, None]], axis=1), False, focal))
    place = centre + np.array([-SPACING / 2, 0.03, 0.05])
    views.append(View(HELD_OUT, HELD_OUT, np.concatenate([rotation, place[:, None]], axis=1), True, WIDE_FOCAL))
    return views


def distortion(view: View) -> tuple[float, float]:
    """k1 and k2 of a camera's lens."""
    return (0.0, 0.0) if view.held_out else LENS


def wide_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the pictures that Blender renders, which cover the lenses' field of view."""
    h, w = size
    return h + 2 * math.ceil(h / 15), w + 2 * math.ceil(w / 17.5)


def wide_view(view: View, size: tuple[int, int]) -> View:
    """The ideal camera that Blender renders for a view whose pictures have ``size``."""
    return replace(view, focal=WIDE_FOCAL * size[1] / wide_size(size)[1])


def lens_tables(view: View, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The position in the wide picture of each pixel of a camera's picture.

    OpenCV's lens maps a point at distance r from the axis, at depth 1, to r (1 + k1 r^2 + k2 r^4).

    Returns:
        x and y ``[h, w]`` float32, pixel centres at whole numbers.
    """
    (h, w), (wide_h, wide_w), (k1, k2) = size, wide_size(size), distortion(view)
    x = (np.arange(w) + 0.5 - w / 2)[None] / (view.focal * w)
    y = (np.arange(h) + 0.5 - h / 2)[:, None] / (view.focal * w)
    distorted = np.hypot(x, y)
    radius = distorted
    for _ in range(30):
        radius = distorted / (1 + k1 * radius**2 + k2 * radius**4)
    stretch = WIDE_FOCAL * w * radius / np.maximum(distorted, 1e-12)
    tables = (x * stretch + wide_w / 2 - 0.5, y * stretch + wide_h / 2 - 0.5)
    return tables[0].astype(np.float32), tables[1].astype(np.float32)


def list_jobs(views: Sequence[View], frames: int) -> list[Job]:
    """All pictures to render: all cameras of an instant, then the next instant."""
    chosen = set(held_out_frames(frames))
    jobs = []
    for t in range(frames):
        for view in views:
            path = f"{HELD_OUT}/{t:05d}.png" if view.held_out else f"{view.name}.mp4"
            if t in chosen or not view.held_out:
                jobs.append(Job(view, t, False, path, f"{view.name}/{t:05d}.png"))
    return jobs


def held_out_frames(frames: int) -> list[int]:
    """The instants with a held-out picture."""
    return sorted({frames * k // NUM_HELD_OUT_FRAMES for k in range(NUM_HELD_OUT_FRAMES)})


def write_true_cameras(path: Path, views: Sequence[View], size: tuple[int, int], bounds: np.ndarray) -> None:
    """Write the cameras; ``bounds [N, 2]`` are their nearest and farthest depths."""
    h, w = size
    cameras = {
        view.name: {
            "K": [[view.focal * w, 0, w / 2], [0, view.focal * w, h / 2], [0, 0, 1]],
            "distortion": [*distortion(view), 0, 0],
            "c2w": view.c2w.tolist(),
            "bounds": bound.tolist(),
        }
        for view, bound in zip(views, bounds, strict=True)
    }
    text = {
        "convention": "OpenCV: K in pixels with pixel centres at +0.5, distortion k1 k2 p1 p2, c2w camera to world "
        "in metres with axes right, down, forward",
        "image_width": w,
        "image_height": h,
        "cameras": cameras,
    }
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def render_missing(jobs: Sequence[Job], views: Sequence[View], masters: Path, options: RawRigOptions) -> None:
    """Render the wide pictures of ``jobs``, and write the true cameras."""
    require_bpy()
    silence_blender()
    from scenes.courtyard.studio import Studio, measure_bounds
    from scenes.livingroom.movers import Toys
    from scenes.livingroom.scene import build_living_room

    size = options.img_wh
    wide = [wide_view(view, size) for view in views]
    build_living_room()
    studio = Studio(Toys(), wide, wide_size(size), options.samples, options.frames, SOFTNESS)
    for job in with_progress(jobs):
        with uninterrupted():
            studio.render(job.view, job.frame, masters / job.master)
    path = Path(options.out) / TRUE_CAMERAS
    if not path.exists():
        write_true_cameras(path, views, size, measure_bounds(studio, wide, options.frames))


def take_picture(job: Job, masters: Path, size: tuple[int, int]) -> np.ndarray:
    """Distort the wide picture like the camera's lens: uint8 ``[h, w, 3]`` RGB."""
    picture = cv2.imread(str(masters / job.master))
    if picture is None or picture.shape[:2] != wide_size(size):
        raise InputError(f"{masters / job.master}: cannot be read; delete it and run again")
    x, y = lens_tables(job.view, size)
    return cv2.remap(picture, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)[..., ::-1]


def write_clip(jobs: Sequence[Job], out: Path, masters: Path, options: RawRigOptions) -> None:
    """Write the missing videos and held-out pictures."""
    try:
        from maskvolume.io.video import VideoWriter
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"all frames are rendered, but this Python cannot write videos ({error}); run the same command again "
            f"with the Python in which maskvolume is installed"
        ) from None
    size = options.img_wh
    for path in sorted({job.path for job in jobs}):
        own_jobs = [job for job in jobs if job.path == path]
        if path.endswith(".png"):
            data = cv2.imencode(".png", take_picture(own_jobs[0], masters, size)[..., ::-1])[1].tobytes()
            with atomic_path(out / path) as partial:
                partial.write_bytes(data)
            continue
        with VideoWriter(out / path, size, options.fps) as writer:
            for job in own_jobs:
                writer.append(take_picture(job, masters, size))


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        RawRigOptions,
        argv,
        prog="make_raw_rig.py",
        description="Render a clip like a raw recording: videos with lens distortion, without poses.",
    )
    out = require_writable_folder(options.out)
    masters = require_writable_folder(options.masters or out.with_name(f"{out.name}_masters"))
    check_settings(masters, options.img_wh.wh, options.samples, options.frames)
    views = raw_views()
    jobs = [job for job in list_jobs(views, options.frames) if not (out / job.path).exists()]
    missing = [job for job in jobs if not (masters / job.master).exists()]
    wide = {view.name: wide_view(view, options.img_wh) for view in views}
    if missing or not (out / TRUE_CAMERAS).exists():
        render_missing([replace(job, view=wide[job.view.name]) for job in missing], views, masters, options)
    write_clip(jobs, out, masters, options)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {NUM_CAMERAS} videos of {options.frames} frames, {total / 1e6:.1f} MB; lossless frames in {masters}")


if __name__ == "__main__":
    run_program(main)
