"""Selects cameras and frames of a clip; the clip needs no poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskvolume.clips.backgrounds import evenly_spaced
from maskvolume.clips.layouts import Layout
from maskvolume.runtime.errors import InputError

DEFAULT_COUNT = 100


def choose_cameras(layout: Layout, exclude: Sequence[str] = ()) -> tuple[int, ...]:
    """The positions of a clip's cameras, except those excluded by name.

    Raises:
        InputError: an excluded camera does not exist, or none is left.
    """
    excluded = {layout.index(name) for name in exclude}
    cameras = tuple(camera for camera in range(len(layout.names)) if camera not in excluded)
    if not cameras:
        raise InputError(f"{layout.root}: every camera is excluded; leave at least one")
    return cameras


def choose_frames(layout: Layout, first: int | None = None, end: int | None = None) -> dict[int, int]:
    """The frames numbered ``first`` to ``end - 1``.

    The number of a frame is its name if all names are numbers, otherwise its position.

    Args:
        layout: the clip.
        first: number of the first frame; None: the clip's first.
        end: number after the last frame; None: after the clip's last.

    Returns:
        Positions in the clip by frame number.

    Raises:
        InputError: the range is empty or reaches outside the clip.
    """
    numbers = frame_numbers(layout)
    first = numbers[0] if first is None else first
    end = numbers[-1] + 1 if end is None else end
    has = f"the clip has frames {numbers[0]} to {numbers[-1]}"
    if end <= first:
        raise InputError(f"{layout.root}: frames {first} to {end}: END must be above FIRST; {has}")
    if first < numbers[0] or end - 1 > numbers[-1]:
        raise InputError(
            f"{layout.root}: frames {first} to {end}: {has}; choose FIRST >= {numbers[0]} and END <= {numbers[-1] + 1}"
        )
    frames = {number: i for i, number in enumerate(numbers) if first <= number < end}
    if not frames:
        raise InputError(f"{layout.root}: frames {first} to {end}: none has a number in between; {has}")
    return frames


def frame_numbers(layout: Layout) -> list[int]:
    """The numbers of a clip's frames: their names if all of them are numbers, otherwise their positions."""
    names = layout.frame_names
    return [int(name) for name in names] if all(map(str.isdecimal, names)) else list(range(len(names)))


@dataclass(frozen=True)
class FrameChoice:
    """A selection of frames.

    Attributes:
        first: number of the first frame; None: the clip's first.
        end: number after the last frame; None: after the clip's last.
        every: step between frames; None: 1.
        listed: numbers of the frames to use instead; empty: all in the range.
        count: maximum number of frames, evenly spaced among these; None: 100, or all if ``every`` or ``listed`` is
            given.
    """

    first: int | None = None
    end: int | None = None
    every: int | None = None
    listed: tuple[int, ...] = ()
    count: int | None = None

    def positions(self, layout: Layout) -> list[int]:
        """Positions of the selected frames in the clip, ascending.

        Raises:
            InputError: the clip does not have a selected frame, the options conflict, or no frame is left.
        """
        for option, value in (("--every", self.every), ("--count", self.count)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: a number above 0 expected")
        if self.listed and (self.first, self.end, self.every) != (None, None, None):
            raise InputError("--frame_list: takes the place of --first, --end and --every; give one or the other")
        frames = choose_frames(layout, self.first, self.end)
        if missing := [number for number in self.listed if number not in frames]:
            numbers = list(frames)
            raise InputError(
                f"{layout.root}: --frame_list: no frame {missing[0]}; the clip has frames {numbers[0]} to {numbers[-1]}"
            )
        chosen = sorted({frames[number] for number in self.listed} or frames.values())[:: self.every or 1]
        count = self.count or (len(chosen) if self.every or self.listed else DEFAULT_COUNT)
        return [chosen[i] for i in evenly_spaced(len(chosen), count)]
