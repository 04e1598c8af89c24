"""Frames are read ahead, a thread a camera, and no more of them than are wanted soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from maskvolume.runtime.errors import InputError
from maskvolume.runtime.prefetch import AHEAD, WAITING, Writers, read_ahead, read_frames

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


def submit_until_it_raises(writers: Writers, function: Callable[[], None]) -> None:
    for _ in range(1000):
        writers.submit(function)
        time.sleep(0.001)


def test_writers_raise_the_error_of_a_thread() -> None:
    def fail() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), Writers() as writers:
        writers.submit(fail)
    with Writers() as writers:
        with pytest.raises(OSError, match="no room"):
            submit_until_it_raises(writers, fail)
        writers.submit(int)


def test_writers_are_joined_and_bounded() -> None:
    release, finished = threading.Event(), []

    def work(number: int) -> None:
        release.wait(10)
        finished.append(number)

    with Writers() as writers:
        for number in range(WAITING):
            writers.submit(work, number)
        blocked = threading.Thread(target=writers.submit, args=(work, WAITING))
        blocked.start()
        blocked.join(0.1)
        assert blocked.is_alive(), "more calls wait than are allowed"
        release.set()
        blocked.join(10)
    assert sorted(finished) == list(range(WAITING + 1))


def test_an_interruption_drops_what_waits_but_joins_what_runs() -> None:
    finished = []

    def work(number: int) -> None:
        time.sleep(0.05)
        finished.append(number)

    def submit_and_interrupt() -> None:
        with Writers() as writers:
            for number in range(WAITING):
                writers.submit(work, number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit_and_interrupt()
    left = len(finished)
    assert left < WAITING
    time.sleep(0.1)
    assert len(finished) == left


def test_each_group_has_pictures_of_its_own() -> None:
    read: list[tuple[int, int]] = []

    def keep(source: tuple[int, int]) -> np.ndarray:
        read.append(source)
        return picture(*source)

    wanted = [[(4, 0)], [(4, 0), (1, 1)], [], [(7, 2), (7, 3)]]
    with closing(read_ahead(keep, wanted)) as reader:
        groups = list(reader)
    assert [list(group) for group in groups] == wanted
    assert all(tuple(value) == source for group in groups for source, value in group.items())
    assert sorted(read) == sorted(source for group in wanted for source in group)
