"""Which camera looks at which moment: paths, fixed views, the order of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.runtime.errors import InputError


@dataclass(frozen=True)
class Shots:
    """What to render: picture i is the view of ``targets[i]`` at frame ``frames[i]`` of the clip.

    Attributes:
        targets: cameras ``[N]`` of the size of the pictures.
        frames: N numbers of frames.
    """

    targets: Camera
    frames: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def by_frame(self, poses: Iterable[int]) -> list[tuple[int, list[int]]]:
        """The poses that look at each frame, in the order of the frames."""
        groups: dict[int, list[int]] = {}
        for pose in poses:
            groups.setdefault(self.frames[pose], []).append(pose)
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


def _cycle(order: tuple[int, ...], number: int) -> tuple[int, ...]:
    return tuple(order[i % len(order)] for i in range(number))


def time_order(time_mode: str, clip_frames: int) -> tuple[int, ...]:
    """One period of the frames that follow each other: see ``path_shots``."""
    if time_mode == "loop":
        return tuple(range(clip_frames))
    if time_mode == "pingpong":
        return (*range(clip_frames), *range(clip_frames - 2, 0, -1))
    head, _, number = time_mode.partition(":")
    if head != "fix" or not number.isdecimal():
        raise InputError(f"time: loop, pingpong or fix:T expected, as in fix:0, got {time_mode!r}")
    if int(number) >= clip_frames:
        raise InputError(f"time: {time_mode}: the clip has frames 0 to {clip_frames - 1}; choose one of them")
    return (int(number),)


def fixed_camera(view: str, clip: RigClip) -> int | None:
    """The camera of ``fix:CAMERA`` (a name or a number), None for ``path``."""
    if view == "path":
        return None
    head, _, camera = view.partition(":")
    if head != "fix" or not camera:
        raise InputError(f"view: path or fix:CAMERA expected, as in fix:{clip.names[0]}, got {view!r}")
    return clip.index(camera)
