"""Freed memory goes back to the system: glibc keeps much of it, in heaps that fragment. Elsewhere nothing is done."""

from __future__ import annotations

import ctypes
import sys

MAP_FROM = 16 << 20  # bytes of a block that is given back as soon as it is freed
_MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD


def give_back_large_blocks() -> None:
    """From now on have freed blocks of ``MAP_FROM`` bytes or more returned to the system at once.

    glibc does so from 128 kB on, but raises the limit up to 32 MB with each such block that is freed. Blocks of a few
    planes then lie in heaps that fragment: a third of a GB for a frame of 640 x 360. Returned ones cost time when they
    are taken again, so the limit is fixed rather high.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, MAP_FROM)


def give_back_freed() -> None:
    """Return what is free in the heaps now: where blocks of other sizes come next, it is in the way."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
