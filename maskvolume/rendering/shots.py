"""Which camera looks at which moment: paths, fixed views, the order of time."""

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
    """What to render: picture i is the view of ``targets[i]`` at ``times[i]`` of the clip.

    Attributes:
        targets: cameras ``[N]`` of the size of the pictures.
        times: N times in frames of the clip; 2.5 lies midway between frames 2 and 3.
    """

    targets: Camera
    times: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.times)

    def by_time(self, numbers: Iterable[int]) -> list[tuple[float, list[int]]]:
        """The shots of each time, in the order of the times."""
        groups: dict[float, list[int]] = {}
        for number in numbers:
            groups.setdefault(self.times[number], []).append(number)
        return sorted(groups.items())


def path_shots(path: Camera, time_mode: str, clip_frames: int, count: int | None = None) -> Shots:
    """Walk along a path while time goes by.

    Args:
        path: poses ``[N]``.
        time_mode: ``loop`` (pose i shows frame i modulo the clip), ``pingpong`` (forth and back) or
            ``fix:T``.
        clip_frames: frames of the clip.
        count: at most so many poses.
    """
    number = len(path) if count is None else min(count, len(path))
    return Shots(path[:number], _cycle(time_order(time_mode, clip_frames), number))


def fixed_shots(target: Camera, time_mode: str, clip_frames: int, count: int | None = None) -> Shots:
    """Stand still at ``target []`` while time goes by: ``count`` pictures, or one pass through time."""
    order = time_order(time_mode, clip_frames)
    number = len(order) if count is None else count
    poses = Camera(target.T_cam_world.expand(number, 4, 4), target.K.expand(number, 3, 3), target.size)
    return Shots(poses, _cycle(order, number))


def _cycle(order: tuple[float, ...], number: int) -> tuple[float, ...]:
    return tuple(order[i % len(order)] for i in range(number))


def time_order(time_mode: str, clip_frames: int) -> tuple[float, ...]:
    """One period of the times that follow each other, in frames: see ``path_shots``.

    Raises:
        InputError: neither of the modes, or a T that lies outside of the clip.
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
    """The camera of ``fix:CAMERA`` (a name or a number), None for ``path``."""
    if view == "path":
        return None
    head, _, camera = view.partition(":")
    if head != "fix" or not camera:
        raise InputError(f"view: path or fix:CAMERA expected, as in fix:{clip.names[0]}, got {view!r}")
    return clip.index(camera)
