"""Make a small data set in RealEstate10K's format, with videos of random worlds and true cameras.

    python preprocessing/make_example_data.py --out_dir data/example

writes the files of the real one, so that each program can be tried without it:

    OUT/cameras/train/SCENE.txt, OUT/cameras/test/SCENE.txt     the address of the video, then a camera per line
    OUT/videos/ID.mp4                                           named as by download_data.py
    OUT/served/NAME.mp4                                         the same files, named as in the addresses
    OUT/bounds.txt                                              nearest and farthest depth of each scene

Several scenes are clips of one video; the frames between them belong to no scene.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tqdm import tqdm

from maskvolume.data.synthetic import StaticWorld, WorldOptions
from maskvolume.data.synthetic.rigs import rotation_about
from maskvolume.io.files import atomic_path, link_or_copy, require_writable_folder
from maskvolume.io.realestate10k import (
    SceneCameras,
    read_bounds,
    video_stem,
    write_bounds,
    write_scene_cameras,
)
from maskvolume.io.video import VideoWriter
from maskvolume.options import Size, check_ranges, option, parse_options, required
from maskvolume.runtime.devices import resolve_device
from maskvolume.runtime.errors import InputError, run_program

CAMERAS, VIDEOS, SERVED, BOUNDS_NAME, SETTINGS_NAME = "cameras", "videos", "served", "bounds.txt", "example.json"
# The visible depths are between the default planes of training, 1 and 100, once the poses are scaled.
NEAREST = (1.0, 1.3)
FAR_RATIO = (4.0, 30.0)
FOCAL = (0.55, 1.1)  # in widths, as RealEstate10K's wide lenses
GAP = (4, 12)  # frames before, between and after the clips
VIEWS_AT_ONCE = 4
# The path of the camera: slow sways and a hand's shake; amplitudes and periods in seconds.
SWAY = ((0.25, 0.45), (0.03, 0.12), (0.1, 0.28))  # right, down, ahead, in units of the world's near
TURN = ((0.5, 2.0), (2.0, 6.0), (0.2, 1.0))  # pitch, yaw, roll in degrees
SLOW, QUICK = (6.0, 12.0), (0.4, 1.0)
SHAKE, SHAKE_TURN = 0.003, 0.08


@dataclass(frozen=True)
class ExampleOptions:
    """Options of make_example_data."""

    out_dir: str = required("folder for the data set, created if missing")
    num_videos: int = option(4, "videos, each through its own world", low=1)
    test_videos: int = option(1, "number of videos, the last ones, that go to cameras/test")
    clips_per_video: int = option(2, "scenes of each video", low=1)
    frames_per_clip: int = option(60, "frames of each scene", low=1)
    img_wh: Size = option(Size(360, 640), "width and height of the videos, even numbers", low=16)
    fps: float = option(30.0, "frames a second", above=0, high=240)
    seed: int = option(0, "seed of the random worlds", low=0)
    url_prefix: str = option("http://127.0.0.1:8000", "prefix of the videos' addresses; serve OUT/served there")
    device: Literal["auto", "cuda", "mps", "cpu"] = option(
        "auto", "where to render; auto prefers cuda, then mps, then cpu"
    )
    overwrite: bool = option(False, "replace existing files")


@dataclass(frozen=True)
class ExampleVideo:
    """The plan of one video.

    Attributes:
        name: in its address.
        url: its address.
        split: ``train`` or ``test``.
        scenes: name and range of frames of each clip.
        timestamps: ``[N]`` int64, of all frames in microseconds.
        world: the filmed world, in its own units.
        T_cam_world: ``[N, 4, 4]`` float64, in the world's units.
        nearest: depth of the nearest thing in each scene, in the unit of the scene's poses.
    """

    name: str
    url: str
    split: str
    scenes: tuple[tuple[str, range], ...]
    timestamps: np.ndarray
    world: StaticWorld
    T_cam_world: np.ndarray
    nearest: float


def plan_video(options: ExampleOptions, index: int) -> ExampleVideo:
    """Draw the world and the path of a video; equal options and index give equal plans."""
    path_seed, clip_seed, world_seed = np.random.SeedSequence([options.seed, index]).spawn(3)
    rng = np.random.default_rng(clip_seed)
    h, w = options.img_wh
    world_options = WorldOptions(size=(h, w), far_ratio=FAR_RATIO, focal=FOCAL, num_textures=64)
    device = resolve_device(options.device)
    world = StaticWorld(world_options, int(world_seed.generate_state(1)[0]), device)
    scenes, frame = [], int(rng.integers(*GAP))
    for clip in range(options.clips_per_video):
        name = hashlib.sha256(f"{options.seed} {index} {clip}".encode()).hexdigest()[:16]
        scenes.append((name, range(frame, frame + options.frames_per_clip)))
        frame += options.frames_per_clip + int(rng.integers(*GAP))
    seconds = np.arange(frame) / options.fps
    name = f"example{options.seed}_{index:04d}"
    return ExampleVideo(
        name=name,
        url=f"{options.url_prefix.rstrip('/')}/{name}.mp4",
        split="train" if index < options.num_videos - options.test_videos else "test",
        scenes=tuple(scenes),
        timestamps=np.round(seconds * 1e6).astype(np.int64),
        world=world,
        T_cam_world=draw_path(np.random.default_rng(path_seed), seconds, world.near),
        nearest=float(rng.uniform(*NEAREST)),
    )


def draw_path(rng: np.random.Generator, seconds: np.ndarray, near: float) -> np.ndarray:
    """World-to-camera ``[N, 4, 4]`` at times ``[N]`` in seconds: a slow hand-held dolly around the origin."""

    def sway(amplitude: float, periods: tuple[float, float]) -> np.ndarray:
        return amplitude * np.sin(2 * np.pi * (seconds / rng.uniform(*periods) + rng.random()))

    centers = [near * (sway(rng.uniform(*a), SLOW) + sway(SHAKE, QUICK)) for a in SWAY]
    angles = [sway(rng.uniform(*a), SLOW) + sway(SHAKE_TURN, QUICK) for a in TURN]
    T = np.tile(np.eye(4), (len(seconds), 1, 1))
    T[:, :3, :3] = [rotation_about(*turn) for turn in zip(*angles, strict=True)]
    T[:, :3, 3] = -(T[:, :3, :3] @ np.stack(centers, -1)[..., None])[..., 0]
    return T


def scene_cameras(video: ExampleVideo, scene: int, scale: float) -> SceneCameras:
    """The true cameras of a clip; ``scale`` converts the world's unit to the scene's."""
    name, frames = video.scenes[scene]
    h, w = video.world.options.size
    T = video.T_cam_world[frames.start : frames.stop, :3].copy()
    T[:, :, 3] *= scale
    K = np.tile([video.world.focal / w, video.world.focal / h, 0.5, 0.5], (len(frames), 1))
    return SceneCameras(name, video.url, video.timestamps[frames.start : frames.stop], K, T)


def make_example_data(options: ExampleOptions) -> Path:
    """Make the data set; existing videos are kept.

    Returns:
        The folder.

    Raises:
        InputError: an option is out of range, or the folder holds a data set made with other options.
    """
    _check_options(options)
    out = require_writable_folder(options.out_dir)
    bounds = _prepare_folder(out, options)
    num_frames = options.num_videos * options.clips_per_video * options.frames_per_clip
    with tqdm(total=num_frames, desc="frames of clips", unit="frame", disable=None) as progress:
        for index in range(options.num_videos):
            video = plan_video(options, index)
            if not all(name in bounds for name, _ in video.scenes):
                bounds.update(_make_video(video, out, options.fps, progress))
                write_bounds(out / BOUNDS_NAME, bounds)
            else:
                progress.update(options.clips_per_video * options.frames_per_clip)
    return out


def _make_video(video: ExampleVideo, out: Path, fps: float, progress: tqdm) -> dict[str, tuple[float, float]]:
    """Write a video, then its scenes' text files; returns the depths of the scenes."""
    cameras = video.world.camera(torch.from_numpy(video.T_cam_world))
    depths = []
    clip_frames = {frame for _, frames in video.scenes for frame in frames}
    path = out / VIDEOS / f"{video_stem(video.url)}.mp4"
    with VideoWriter(path, video.world.options.size, fps) as writer:
        for start in range(0, len(cameras), VIEWS_AT_ONCE):
            pictures, depth = video.world.render(cameras[start : start + VIEWS_AT_ONCE])
            depths += [(float(d.min()), float(d.max())) for d in depth]
            for picture in (255 * pictures).round().byte().permute(0, 2, 3, 1).numpy():
                writer.append(np.ascontiguousarray(picture))
            progress.update(len(clip_frames & set(range(start, start + len(depth)))))
    link_or_copy(path, out / SERVED / f"{video.name}.mp4")
    bounds = {}
    for scene, (name, frames) in enumerate(video.scenes):
        near, far = (pick(depths[i][k] for i in frames) for k, pick in enumerate((min, max)))
        scale = video.nearest / near
        write_scene_cameras(out / CAMERAS / video.split / f"{name}.txt", scene_cameras(video, scene, scale))
        bounds[name] = near * scale, far * scale
    return bounds


def _prepare_folder(out: Path, options: ExampleOptions) -> dict[str, tuple[float, float]]:
    """Check that existing files were made with these options; returns the depths of the existing scenes."""
    record = out / SETTINGS_NAME
    settings = dataclasses.asdict(options)
    for name in ("out_dir", "device", "overwrite"):
        del settings[name]
    settings["img_wh"] = list(options.img_wh.wh)
    try:
        is_same = json.loads(record.read_text(encoding="utf-8")) == settings
    except FileNotFoundError:
        is_same = not any((out / name).exists() for name in (CAMERAS, VIDEOS, BOUNDS_NAME))
    except ValueError:
        is_same = False
    if not is_same and not options.overwrite:
        raise InputError(f"{out}: was made with other options; choose another --out_dir, or give --overwrite")
    if options.overwrite:
        for pattern in (f"{CAMERAS}/*/*.txt", f"{VIDEOS}/example*.mp4", f"{SERVED}/example*.mp4", BOUNDS_NAME):
            for path in out.glob(pattern):
                path.unlink()
    with atomic_path(record) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return read_bounds(out / BOUNDS_NAME) if (out / BOUNDS_NAME).exists() else {}


def _check_options(options: ExampleOptions) -> None:
    check_ranges(options)
    if not 0 <= options.test_videos <= options.num_videos:
        raise InputError(
            f"--test_videos {options.test_videos}: 0 to {options.num_videos} expected, the number of videos"
        )
    if any(side % 2 for side in options.img_wh):
        h, w = options.img_wh
        raise InputError(f"--img_wh {w} {h}: even numbers expected, since videos need them")
    if not options.url_prefix.startswith(("http://", "https://")) or len(options.url_prefix.split()) != 1:
        raise InputError(f"--url_prefix {options.url_prefix}: an address prefix expected, http://...")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the data set."""
    options = parse_options(
        ExampleOptions,
        argv,
        prog="make_example_data.py",
        description="Make a small data set in RealEstate10K's format, with videos of random worlds and true cameras.",
    )
    out = make_example_data(options)
    num_scenes = options.num_videos * options.clips_per_video
    print(f"{out}: {options.num_videos} videos, {num_scenes} scenes of {options.frames_per_clip} frames")


if __name__ == "__main__":
    run_program(main)
