"""Shots, which pair a camera with a time: along paths, from fixed views, in several orders of time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.runtime.errors import InputError

_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Shots:
    """The pictures to render: picture i is the view of ``targets[i]`` at ``times[i]`` of the clip.

    Attributes:
        targets: cameras ``[N]``, with the size of the pictures.
        times: N times in frames of the clip; 2.5 lies midway between frames 2 and 3.
    """

    targets: Camera
    times: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.times)

    def by_time(self, numbers: Iterable[int]) -> list[tuple[float, list[int]]]:
        """Group shots by time: pairs of a time and the numbers of its shots, ascending by time."""
        groups: dict[float, list[int]] = {}
        for number in numbers:
            groups.setdefault(self.times[number], []).append(number)
        return sorted(groups.items())


def path_shots(path: Camera, time_mode: str, clip_frames: int, count: int | None = None) -> Shots:
    """Shots that move along a path while time advances.

    Args:
        path: poses ``[N]``.
        time_mode: ``loop`` (pose i shows frame i modulo the clip's length), ``pingpong`` (back and forth) or
            ``fix:T``.
        clip_frames: number of frames of the clip.
        count: maximum number of poses; None: all.

    Returns:
        The shots, one per pose.

    Raises:
        InputError: the time mode is invalid, or T lies outside the clip.
    """
    number = len(path) if count is None else min(count, len(path))
    return Shots(path[:number], _cycle(time_order(time_mode, clip_frames), number))


def fixed_shots(target: Camera, time_mode: str, clip_frames: int, count: int | None = None) -> Shots:
    """Shots from a fixed camera while time advances.

    Args:
        target: ``[]``, the camera.
        time_mode: see ``path_shots``.
        clip_frames: number of frames of the clip.
        count: number of shots; None: one pass through time.

    Returns:
        The shots.

    Raises:
        InputError: the time mode is invalid, or T lies outside the clip.
    """
    order = time_order(time_mode, clip_frames)
    number = len(order) if count is None else count
    poses = Camera(target.T_cam_world.expand(number, 4, 4), target.K.expand(number, 3, 3), target.size)
    return Shots(poses, _cycle(order, number))


def _cycle(order: tuple[float, ...], number: int) -> tuple[float, ...]:
    return tuple(order[i % len(order)] for i in range(number))


def time_order(time_mode: str, clip_frames: int) -> tuple[float, ...]:
    """One period of the times of a time mode, in frames; see ``path_shots``.

    Raises:
        InputError: the time mode is invalid, or T lies outside the clip.
    """
    if time_mode == "loop":
        return tuple(map(float, range(clip_frames)))
    if time_mode == "pingpong":
        return tuple(map(float, (*range(clip_frames), *range(clip_frames - 2, 0, -1))))
    head, _, number = time_mode.partition(":")
    if head != "fix" or not _NUMBER.fullmatch(number):
        raise InputError(f"time: loop, pingpong or fix:T expected, as in fix:0, got {time_mode!r}")
    if float(number) > clip_frames - 1:
        raise InputError(f"time: {time_mode}: the clip has frames 0 to {clip_frames - 1}; choose one of them")
    return (float(number),)


def fixed_camera(view: str, clip: RigClip) -> int | None:
    """The number of the camera in ``fix:CAMERA`` (a name or a number); None for ``path``.

    Raises:
        InputError: the view is invalid, or the clip has no such camera.
    """
    if view == "path":
        return None
    head, _, camera = view.partition(":")
    if head != "fix" or not camera:
        raise InputError(f"view: path or fix:CAMERA expected, as in fix:{clip.names[0]}, got {view!r}")
    return clip.index(camera)
