"""Render the example clip with Blender: a robot and a ball, ten cameras in two rows, three held-out views.

The frames are path traced on the CPU. The program can be stopped at any time and keeps finished files.
Lossless frames go to ``--masters``; the JPEG pictures, the masks, the depths of the held-out views and the poses
go to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.runtime.errors import InputError, run_program

FOCAL = 520.0 / 640.0  # relative to the picture's width
PITCH = -6.0  # degrees; the rig looks slightly down
SPACING = 0.1  # metres between neighbours of a row, and between the rows
RIG_CENTRE = (0.0, 0.0, 1.05)
POSITION_NOISE, ROTATION_NOISE = 0.004, 0.3  # standard deviations: metres, degrees
NOISE_SEED = 3
FULL = {"size": (640, 360), "samples": 16, "frames": 20}
PREVIEW = {"size": (160, 90), "samples": 8, "frames": 20}
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class View:
    """A camera of the clip: its name, its folder in the clip, its pose and whether it is held out.

    Attributes:
        c2w: ``[3, 4]`` camera to world, OpenCV axes (right, down, forward), metres.
        focal: focal length, in widths of the picture.
    """

    name: str
    folder: str
    c2w: np.ndarray
    held_out: bool
    focal: float = FOCAL


@dataclass(frozen=True)
class Job:
    """One picture to render: its path relative to the clip, and its lossless file."""

    view: View
    frame: int
    is_mask: bool
    path: str
    master: str


def base_rotation(pitch: float) -> np.ndarray:
    """``[3, 3]`` camera to world of a level OpenCV camera that looks along +y, pitched by an angle in degrees."""
    a = np.deg2rad(pitch)
    right, forward = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(a), np.sin(a)])
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def small_rotation(degrees: np.ndarray) -> np.ndarray:
    """``[3, 3]`` rotation about the axis ``degrees [3]`` by its length in degrees."""
    return cv2.Rodrigues(np.deg2rad(degrees).astype(np.float64))[0]


def rig_views() -> list[View]:
    """The ten cameras of the rig (upper row first, left to right) and the three held-out ones."""
    rng = np.random.default_rng(NOISE_SEED)
    rotation, centre = base_rotation(PITCH), np.asarray(RIG_CENTRE)
    views: list[View] = []

    def add(name: str, folder: str, right: float, up: float, ahead: float, held_out: bool) -> None:
        place = centre + np.array([right, ahead, up]) + rng.normal(0.0, POSITION_NOISE, 3)
        turn = rotation @ small_rotation(rng.normal(0.0, ROTATION_NOISE, 3))
        views.append(View(name, folder, np.concatenate([turn, place[:, None]], axis=1), held_out))

    half = SPACING / 2
    for k in range(10):
        row, column = divmod(k, 5)
        add(f"cam{k:02d}", f"cam{k:02d}", (column - 2) * SPACING, half - row * SPACING, 0.0, False)
    add("target0", "targets/target0", half, half, 0.0, True)
    add("target1", "targets/target1", -half, 0.0, 0.0, True)
    add("target2", "targets/target2", 2 * SPACING + half, half, 0.03, True)
    return views


def llff_rows(views: Sequence[View], size: tuple[int, int], bounds: np.ndarray) -> np.ndarray:
    """Rows of ``poses_bounds.npy``.

    Args:
        views: N views.
        size: (h, w) in pixels.
        bounds: ``[N, 2]`` nearest and farthest depth in metres.

    Returns:
        ``[N, 17]`` float64: 3 x 5 matrices [down, right, back, centre, (H, W, f)], then the bounds.
    """
    h, w = size
    rows = []
    for view, bound in zip(views, bounds, strict=True):
        right, down, forward, place = view.c2w.T
        hwf = np.array([[h], [w], [view.focal * w]])
        pose = np.concatenate([np.stack([down, right, -forward, place], axis=1), hwf], axis=1)
        rows.append(np.concatenate([pose.ravel(), bound]))
    return np.array(rows)


def list_jobs(views: Sequence[View], frames: int) -> list[Job]:
    """All pictures: all cameras of an instant, then the next instant; the masks come last."""
    jobs = [
        Job(view, t, False, f"{view.folder}/{t:05d}.jpg", f"{view.name}/{t:05d}.png")
        for t in range(frames)
        for view in views
    ]
    for t in range(frames):
        for view in views:
            name = f"masks/{view.name}/{t:05d}.png"
            jobs.append(Job(view, t, True, f"targets/{name}", name))
    return jobs


def depth_path(out: Path, view: View) -> Path:
    """Path of the static scene's depth in a held-out view."""
    return out / "targets" / "depth" / f"{view.name}.png"


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """JPEG file of a BGR picture ``[H, W, 3]``."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    return cv2.imencode(".jpg", picture, flags)[1].tobytes()


def encode_mask(alpha: np.ndarray) -> bytes:
    """PNG file of the mask of a BGRA picture ``[H, W, 4]``: 255 where a mover is visible."""
    mask = np.where(alpha[..., 3] > 8, 255, 0).astype(np.uint8)
    return cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def encode_depth(depth: np.ndarray, near: float) -> bytes:
    """16-bit PNG file of 65535 near / depth for ``depth [H, W]``, 0 where that is nan."""
    steps = np.nan_to_num(np.round(65535 * near / depth)).clip(0, 65535).astype(np.uint16)
    return cv2.imencode(".png", steps, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def write_poses(out: Path, views: Sequence[View], size: tuple[int, int], bounds: np.ndarray) -> None:
    """Write ``poses_bounds.npy`` of the rig and of the held-out views."""
    for path, held_out in ((out / "poses_bounds.npy", False), (out / "targets" / "poses_bounds.npy", True)):
        chosen = [k for k, view in enumerate(views) if view.held_out == held_out]
        with atomic_path(path) as partial:
            np.save(partial, llff_rows([views[k] for k in chosen], size, bounds[chosen]))


def finish(job: Job, out: Path, masters: Path, quality: int) -> None:
    """Encode the clip's picture from the lossless one."""
    picture = cv2.imread(str(masters / job.master), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise InputError(f"{masters / job.master}: cannot be read; delete it and run again")
    data = encode_mask(picture) if job.is_mask else encode_jpeg(picture[..., :3], quality)
    with atomic_path(out / job.path) as partial:
        partial.write_bytes(data)


def with_progress(jobs: Sequence[Job]) -> Iterable[Job]:
    """Iterate with a progress bar if tqdm is installed, else with a line for every tenth picture."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _plain_progress(jobs)
    return tqdm(jobs, unit="picture", smoothing=0.1)


def _plain_progress(jobs: Sequence[Job]) -> Iterator[Job]:
    start = time.monotonic()
    for k, job in enumerate(jobs):
        yield job
        if (k + 1) % 10 == 0:
            pace = (time.monotonic() - start) / (k + 1)
            print(f"{k + 1} of {len(jobs)} pictures, {pace:.1f} s each", flush=True)


def silence_blender() -> None:
    """Discard what Blender prints for each picture; ``sys.stdout`` still works."""
    sys.stdout.flush()
    real = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    sys.stdout = real


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer interruptions to the end of the block: Blender swallows them, and they can break its start-up."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda signum, frame: received.append(signum))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


def require_bpy() -> None:
    """Start Blender's module on an empty file.

    Raises:
        InputError: the module is not installed.
    """
    try:
        with uninterrupted():
            import bpy

            bpy.ops.wm.read_factory_settings(use_empty=True)
    except ImportError as error:
        raise InputError(
            f"bpy: Blender's Python module cannot be imported ({error}); install it in a separate environment, "
            "see examples/rig/README.md"
        ) from None


def check_settings(masters: Path, size: tuple[int, int], samples: int, frames: int) -> None:
    """Record the settings beside the lossless frames, and refuse to mix frames of different settings."""
    path = masters / "settings.json"
    settings = {"size": list(size), "samples": samples, "frames": frames}
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = "unreadable settings"
        if known != settings:
            raise InputError(
                f"{path}: these frames were made with {known}, not with {settings}; choose another --masters "
                "and --out, or delete both folders"
            )
        return
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: a number is out of range.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--out", type=Path, help="the clip's folder (examples/rig; a preview: out/rig_preview)")
    parser.add_argument("--masters", type=Path, help="folder of the lossless frames (out/NAME_masters)")
    parser.add_argument("--frames", type=int, help=f"instants of the loop ({FULL['frames']})")
    parser.add_argument("--samples", type=int, help=f"light paths per pixel ({FULL['samples']})")
    parser.add_argument("--size", type=int, nargs=2, metavar=("W", "H"), help="size in pixels (640 360)")
    parser.add_argument("--quality", type=int, default=80, help="JPEG quality, 1 to 100 (80)")
    parser.add_argument("--preview", action="store_true", help="small, coarse pictures: minutes, not an hour")
    parser.add_argument("--again", action="store_true", help="encode all pictures again from the lossless frames")
    options = parser.parse_args(argv)
    for name, value in (PREVIEW if options.preview else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.size = tuple(options.size)
    if min(*options.size, options.samples, options.frames) < 1:
        raise InputError("command line: --size, --samples and --frames must be at least 1")
    if not 1 <= options.quality <= 100:
        raise InputError(f"--quality {options.quality}: a number from 1 to 100 is expected")
    options.out = options.out or ROOT / ("out/rig_preview" if options.preview else "examples/rig")
    options.masters = options.masters or ROOT / "out" / f"{options.out.name}_masters"
    return options


def render_clip(jobs: Sequence[Job], views: Sequence[View], options: argparse.Namespace) -> None:
    """Render and encode the pictures of ``jobs``, and write the poses and the depths."""
    target_poses = options.out / "targets" / "poses_bounds.npy"
    held_out = [view for view in views if view.held_out]
    has_poses = target_poses.exists()
    has_depths = all(depth_path(options.out, view).exists() for view in held_out)
    if not jobs and has_poses and has_depths:
        return
    from scenes.courtyard.movers import Movers
    from scenes.courtyard.scene import build_courtyard
    from scenes.courtyard.studio import Studio, measure_bounds

    size = (options.size[1], options.size[0])
    build_courtyard()
    studio = Studio(Movers(), views, size, options.samples, options.frames)
    is_masking = False
    for job in with_progress(jobs):
        master = options.masters / job.master
        if not master.exists():
            if job.is_mask and not is_masking:
                studio.show_movers_only()
                is_masking = True
            with uninterrupted():
                studio.render(job.view, job.frame, master)
        finish(job, options.out, options.masters, options.quality)
    if options.again or not has_poses:
        write_poses(options.out, views, size, measure_bounds(studio, views, options.frames))
    if options.again or not has_poses or not has_depths:
        for view, row in zip(held_out, np.load(target_poses), strict=True):
            data = encode_depth(studio.cast(view, None, size)[0], near=row[15])
            with atomic_path(depth_path(options.out, view)) as partial:
                partial.write_bytes(data)


def main() -> None:
    options = parse()
    require_bpy()
    out = require_writable_folder(options.out)
    masters = require_writable_folder(options.masters)
    check_settings(masters, options.size, options.samples, options.frames)
    views = rig_views()
    jobs = list_jobs(views, options.frames)
    silence_blender()
    render_clip([job for job in jobs if options.again or not (out / job.path).exists()], views, options)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {len(jobs)} pictures, {total / 1e6:.1f} MB; lossless frames in {masters}")


if __name__ == "__main__":
    run_program(main)
