"""Inspect a rig: draw and measure it, and warn of conditions that give poor results.

    python data_tools/inspect_rig.py FRAMES

writes ``FRAMES/inspect_rig.png`` and ``FRAMES/inspect_rig.txt`` with distances, disparities for the number of planes,
relative brightness and synchronization of the cameras, and how much moves. Each frame is read once, and memory does not
grow with the clip.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from data_tools.clips.selection import choose_frames
from data_tools.inspection.geometry import Pair, colour_gains, neighbour_pairs
from data_tools.inspection.plot import draw_rig, save_figure
from data_tools.inspection.signals import (
    CameraSignals,
    Offset,
    find_offsets,
    read_signals,
)
from maskvolume.clips.recordings import open_clip
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.paths import focus_distance
from maskvolume.geometry.planes import disparity_planes
from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.options import option, parse_options, positional
from maskvolume.runtime.errors import InputError, run_program

REPORT_NAME, PICTURE_NAME = "inspect_rig.txt", "inspect_rig.png"
MAX_STEP = 1.5  # pixels between neighbouring planes
MAX_GAIN = 0.06  # relative deviation of brightness, and of colour from brightness
MIN_OVERLAP = 0.6
MAX_TURN = 60.0  # degrees between a camera's axis and the mean axis
FEW_FRAMES = 12  # too few for a median below this
MAX_COVERED, MAX_UNSURE = 0.4, 0.02  # share of a picture
COMPARED_PLANES = 16  # planes for comparing the pictures of two cameras
FAR_AWAY = 3.0  # multiple of the median distance between neighbours
UNEQUAL_FOCAL = 0.1
GOOD_COLOUR, BAD_COLOUR = "#1f3b57", "#b3202c"


@dataclass(frozen=True)
class InspectOptions:
    """Options of inspect_rig."""

    frames: str = positional("the clip, in any layout: with poses_bounds.npy, a COLMAP model or transforms.json")
    out_dir: str | None = option(None, f"folder for {PICTURE_NAME} and {REPORT_NAME}; none: FRAMES")
    num_planes: int = option(32, "planes of the multiplane image for judging the disparities")
    first: int | None = option(None, "number of the first frame to read; none: the clip's first")
    end: int | None = option(None, "number after the last frame's; none: the clip's end")
    count: int = option(300, "most frames to read, from the first on")


@dataclass(frozen=True, eq=False)
class Findings:
    """All measurements of a rig.

    Attributes:
        clip: the clip.
        num_frames: number of frames read.
        num_planes: number of planes for judging the disparities.
        pairs: each camera with its nearest neighbour; empty for a single camera.
        turns: ``[N]`` degrees between each camera's axis and the mean axis.
        signals: of the frames of each camera.
        offsets: time offset of each camera.
        gains: ``[N, 3]`` brightness of each camera relative to the rig.
    """

    clip: RigClip
    num_frames: int
    num_planes: int
    pairs: list[Pair]
    turns: np.ndarray
    signals: list[CameraSignals]
    offsets: list[Offset]
    gains: np.ndarray


def inspect(clip: RigClip, frames: Sequence[int], num_planes: int) -> Findings:
    """Measure a rig.

    Args:
        clip: the clip.
        frames: consecutive positions of the frames to read.
        num_planes: number of planes for judging the disparities.
    """
    cameras = clip.poses.cameras.scaled(clip.size)
    near, far = clip.near_far()
    axes = cameras.T_cam_world[:, 2, :3].numpy()
    mean = axes.mean(axis=0)
    cosines = axes @ mean / max(float(np.linalg.norm(mean)), 1e-9)
    signals = read_signals(clip.layout, frames)
    depths = disparity_planes(clip.bounds.min().item(), clip.bounds.max().item(), COMPARED_PLANES).tolist()
    medians = [camera.median for camera in signals]
    return Findings(
        clip,
        len(frames),
        num_planes,
        neighbour_pairs(cameras, near, far, num_planes) if len(cameras) > 1 else [],
        np.degrees(np.arccos(np.clip(cosines, -1, 1))),
        signals,
        find_offsets([camera.motion for camera in signals]),
        colour_gains(cameras, medians, depths) if len(cameras) > 1 else np.ones((1, 3)),
    )


def describe(findings: Findings) -> list[str]:
    """The measurements as lines of text."""
    clip, names = findings.clip, findings.clip.names
    (h, w), (near, far) = clip.size, clip.near_far()
    low, high = clip.bounds[:, 0].min().item(), clip.bounds[:, 1].max().item()
    lines = [
        f"{clip.root_dir}: {len(names)} cameras, {clip.num_frames} frames of {w} x {h} pixels ({clip.layout.kind}), "
        f"{findings.num_frames} of them read",
        f"bounds {low:.4g} to {high:.4g}, planes {near:.4g} to {far:.4g}",
    ]
    K = clip.poses.cameras.scaled(clip.size).K
    for pair in findings.pairs:
        lines.append(
            f"{names[pair.camera]}: focal length {K[pair.camera, 0, 0]:.1f} pixels, {pair.baseline:.4g} from "
            f"{names[pair.neighbour]}: disparity {pair.disparity:.1f} pixels over all planes, {pair.step:.2f} from "
            f"plane to plane with {findings.num_planes}, {100 * pair.overlap:.0f}% of the picture in common"
        )
    for name, gain in zip(names, findings.gains, strict=True):
        lines.append(f"{name}: {_describe_gain(gain)}")
    for name, offset in zip(names, findings.offsets, strict=True):
        lines.append(f"{name}: {_describe_offset(offset)}")
    for name, signal in zip(names, findings.signals, strict=True):
        lines.append(
            f"{name}: {100 * signal.covered:.1f}% of a picture differs from the median on average, in "
            f"{100 * signal.unsure:.1f}% the median is unsure"
        )
    return lines


def warnings(findings: Findings) -> list[str]:
    """Warnings of conditions that give poor results, with reasons."""
    return [*_warn_about_geometry(findings), *_warn_about_pictures(findings), *_warn_about_time(findings)]


def _warn_about_geometry(findings: Findings) -> list[str]:
    clip, names, lines = findings.clip, findings.clip.names, []
    if len(names) == 1:
        return ["only one camera: other viewpoints can't be rendered"]
    middle = float(np.median([pair.baseline for pair in findings.pairs]))
    worst = max(findings.pairs, key=lambda pair: pair.step)
    if worst.step > MAX_STEP:
        needed = int(np.ceil(worst.step / MAX_STEP * (findings.num_planes - 1))) + 1
        wide = sum(pair.step > MAX_STEP for pair in findings.pairs)
        lines.append(
            f"{names[worst.camera]}: planes are {worst.step:.1f} pixels apart for {names[worst.neighbour]}, and "
            f"those of {wide} of {len(names)} cameras more than {MAX_STEP:g}: edges double and details smear; take "
            f"{needed} planes, tighter bounds, smaller pictures or cameras closer together"
        )
    for pair in findings.pairs:
        name, other = names[pair.camera], names[pair.neighbour]
        if pair.overlap < MIN_OVERLAP:
            lines.append(
                f"{name}: shares {100 * pair.overlap:.0f}% of its picture with {other}, its nearest neighbour; views "
                f"between the two have empty borders"
            )
        if middle > 0 and pair.baseline > FAR_AWAY * middle:
            lines.append(f"{name}: {pair.baseline / middle:.1f} times as far from its neighbour as the others are")
        if pair.baseline <= 1e-6 * clip.bounds.max().item():
            lines.append(f"{name}: has the same position as {other}; two cameras at one position show no depth")
    for name, turn in zip(names, findings.turns, strict=True):
        if turn > MAX_TURN:
            lines.append(f"{name}: looks {turn:.0f} degrees away from the mean direction of the rig")
    focal = clip.poses.cameras.scaled(clip.size).K[:, 0, 0].numpy()
    for name, value in zip(names, focal, strict=True):
        if abs(value / np.median(focal) - 1) > UNEQUAL_FOCAL:
            lines.append(f"{name}: focal length {value:.1f}, the others have {np.median(focal):.1f} pixels; check it")
    near_far = clip.bounds.numpy()
    for name, (near, far) in zip(names, near_far, strict=True):
        if near > 2 * np.median(near_far[:, 0]) or far < 0.5 * np.median(near_far[:, 1]):
            lines.append(f"{name}: bounds {near:.3g} to {far:.3g} are unlike the others'; check them")
    return lines


def _warn_about_pictures(findings: Findings) -> list[str]:
    names, lines = findings.clip.names, []
    for name, gain in zip(names, findings.gains, strict=True):
        if np.isfinite(gain).all():
            light = float(np.exp(np.log(gain).mean()))
            tint = float(np.abs(gain / light - 1).max())
            if abs(light - 1) > MAX_GAIN or tint > MAX_GAIN:
                lines.append(f"{name}: {_describe_gain(gain)}; seams show where cameras meet: even out the exposures")
    if findings.num_frames < FEW_FRAMES:
        lines.append(
            f"{findings.num_frames} frames: too few for a median, slow movers stay in the backgrounds; record longer, "
            f"or take pictures of the empty scene"
        )
    for name, signal in zip(names, findings.signals, strict=True):
        if signal.covered > MAX_COVERED or signal.unsure > MAX_UNSURE:
            lines.append(
                f"{name}: {100 * signal.covered:.0f}% of a picture differs from the median on average, and in "
                f"{100 * signal.unsure:.0f}% of it few frames agree with the median: the background shows movers; "
                f"take pictures of the empty scene, and check that the camera does not move"
            )
    return lines


def _warn_about_time(findings: Findings) -> list[str]:
    names = findings.clip.names
    return [
        f"{name}: {_describe_offset(offset)}; moving objects tear: shift its frames, or leave it out"
        for name, offset in zip(names, findings.offsets, strict=True)
        if offset.is_off
    ]


def _describe_gain(gain: np.ndarray) -> str:
    if not np.isfinite(gain).all():
        return "its brightness can't be compared, it shares too little with its neighbours"
    light = float(np.exp(np.log(gain).mean()))
    red, green, blue = (100 * (gain - 1)).tolist()
    return (
        f"{100 * (light - 1):+.1f}% light relative to the rig (red {red:+.1f}%, green {green:+.1f}%, blue {blue:+.1f}%)"
    )


def _describe_offset(offset: Offset) -> str:
    if offset.frames is None:
        return "too little motion or too few frames to check whether it is in sync"
    certainty = f"correlation {offset.correlation:.2f}"
    if not offset.is_sure:
        return f"unclear whether it is in sync ({certainty} at {offset.frames:+.1f} frames)"
    if not offset.is_off:
        return f"in sync with the others ({offset.frames:+.2f} frames, {certainty})"
    word = "late" if offset.frames > 0 else "early"
    return f"{abs(offset.frames):.1f} frames {word} ({certainty})"


def draw(findings: Findings, png: Path) -> None:
    """Draw the rig, each camera's motion over time, and the brightness of the cameras into one picture."""
    from matplotlib.figure import Figure

    clip, names = findings.clip, findings.clip.names
    figure = Figure(figsize=(18, 11.5), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(7, 4))
    top_row = [figure.add_subplot(grid[0, column]) for column in range(3)]
    draw_rig(top_row, clip.poses, None, focus_distance(clip.bounds), names)
    motion, gains = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2])
    span = max((float(np.ptp(signal.motion)) for signal in findings.signals if len(signal.motion)), default=0) or 1.0
    for row, (signal, offset) in enumerate(zip(findings.signals, findings.offsets, strict=True)):
        colour = BAD_COLOUR if offset.is_off else GOOD_COLOUR
        heights = 0.9 * (signal.motion - signal.motion.min(initial=np.inf)) / span
        motion.plot(np.arange(1, len(signal.motion) + 1), heights - row, color=colour, lw=1)
    motion.set(title="motion from frame to frame; red: not in time", xlabel="frame", yticks=-np.arange(len(names)))
    motion.set_yticklabels(names)
    motion.locator_params(axis="x", integer=True)
    positions = np.arange(len(names))
    for channel, colour in enumerate(("#b3202c", "#3a8f5c", "#2f6db3")):
        gains.bar(positions + 0.25 * (channel - 1), 100 * (findings.gains[:, channel] - 1), 0.25, color=colour)
    for limit in (-100 * MAX_GAIN, 100 * MAX_GAIN):
        gains.axhline(limit, color="#7f8c8d", ls="--", lw=0.8)
    gains.set(title="brightness against the rig in %, by colour", xticks=positions)
    gains.set_xticklabels(names, rotation=60)
    figure.suptitle(f"{len(names)} cameras, {clip.num_frames} frames of {clip.size[1]} x {clip.size[0]}")
    save_figure(png, figure)


def _frames(clip: RigClip, options: InspectOptions) -> list[int]:
    if options.count < 1 or options.num_planes < 2:
        raise InputError("--count and --num_planes: at least 1 frame and 2 planes expected")
    return list(choose_frames(clip.layout, options.first, options.end).values())[: options.count]


def main(argv: Sequence[str] | None = None) -> None:
    """Inspect one rig."""
    options = parse_options(
        InspectOptions,
        argv,
        prog="inspect_rig.py",
        description="Draw and measure a rig, and warn of conditions that give poor results.",
    )
    clip = open_clip(options.frames)
    for note in clip.layout.notes:
        print(note)
    frames = _frames(clip, options)
    folder = require_writable_folder(options.out_dir or clip.root_dir)
    findings = inspect(clip, frames, options.num_planes)
    lines = describe(findings)
    warning_lines = warnings(findings)
    lines += [f"warning: {line}" for line in warning_lines] or ["no warnings"]
    draw(findings, folder / PICTURE_NAME)
    text = "\n".join(lines) + "\n"
    with atomic_path(folder / REPORT_NAME) as partial:
        partial.write_text(text, encoding="utf-8")
    print(text, end="")
    print(f"{folder / PICTURE_NAME}: the rig, motion and brightness; {folder / REPORT_NAME}: this text")


if __name__ == "__main__":
    run_program(main)
