"""Frames are read ahead, a thread a camera, and no more of them than are wanted soon."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from maskvolume.runtime.errors import InputError
from maskvolume.runtime.prefetch import AHEAD, read_frames

CAMERAS = (4, 1, 7)


def picture(camera: int, frame: int) -> np.ndarray:
    return np.array([camera, frame])


def test_frames_come_in_order_with_their_cameras_in_order() -> None:
    def read(camera: int, frame: int) -> np.ndarray:
        time.sleep(0.001 * ((camera + frame) % 3))
        return picture(camera, frame)

    frames = [3, 5, 0, 5, 9, 1]
    with closing(read_frames(read, CAMERAS, frames)) as reader:
        got = [[tuple(each) for each in pictures] for pictures in reader]
    assert got == [[(camera, frame) for camera in CAMERAS] for frame in frames]


def test_the_cameras_of_a_frame_are_read_at_once_and_each_by_one_thread() -> None:
    together = threading.Barrier(len(CAMERAS), timeout=10)
    threads: dict[int, set[int]] = {camera: set() for camera in CAMERAS}

    def read(camera: int, frame: int) -> np.ndarray:
        together.wait()  # breaks where they are read one after the other
        threads[camera].add(threading.get_ident())
        return picture(camera, frame)

    with closing(read_frames(read, CAMERAS, range(5))) as reader:
        assert len(list(reader)) == 5
    assert all(len(used) == 1 for used in threads.values())
    assert len(set.union(*threads.values())) == len(CAMERAS)


def test_no_more_frames_are_read_than_a_few_ahead() -> None:
    started: list[int] = []

    def read(camera: int, frame: int) -> np.ndarray:
        started.append(frame)
        return picture(camera, frame)

    with closing(read_frames(read, (0,), range(100))) as reader:
        for frame in range(10):
            next(reader)
            assert max(started) <= frame + AHEAD
    assert len(started) < 20


def test_an_error_comes_with_its_frame_and_ends_the_threads() -> None:
    before = threading.active_count()

    def read(camera: int, frame: int) -> np.ndarray:
        if (camera, frame) == (1, 2):
            raise InputError("cam01/00002.png: the picture is cut short")
        return picture(camera, frame)

    with closing(read_frames(read, CAMERAS, range(100))) as reader:
        assert [next(reader)[0][1] for _ in range(2)] == [0, 1]
        with pytest.raises(InputError, match="cam01/00002"):
            next(reader)
    assert threading.active_count() == before
