"""Freed memory goes back to the system."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from maskvolume.runtime import allocator


class Library:
    """glibc, which notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, ...]] = []

    def mallopt(self, option: int, value: int) -> int:
        self.told.append((option, value))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.told.append((pad,))
        return 1


def test_blocks_of_some_planes_are_given_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    allocator.give_back_large_blocks()
    allocator.give_back_freed()
    assert library.told == [(-3, 16 << 20), (0,)]  # M_MMAP_THRESHOLD of malloc.h


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert allocator._glibc() is None
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: SimpleNamespace())  # another library of C
    assert allocator._glibc() is None
    allocator.give_back_large_blocks()
    allocator.give_back_freed()
