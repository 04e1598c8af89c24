"""Returns freed memory to the system. glibc keeps much of it in heaps that fragment; other platforms need nothing."""

from __future__ import annotations

import ctypes
import sys

MAP_FROM = 16 << 20  # bytes; a block of this size or more is returned as soon as it is freed
_MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD


def give_back_large_blocks() -> None:
    """Make the allocator return freed blocks of ``MAP_FROM`` bytes or more to the system at once.

    glibc starts at 128 kB, but raises this limit, up to 32 MB, with each large block that is freed. Blocks of a few
    planes then end up in heaps that fragment, which wastes a third of a GB for a frame of 640 x 360. Allocating a
    returned block again costs time, so the limit is fixed rather high.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, MAP_FROM)


def give_back_freed() -> None:
    """Return the free memory in the heaps now, before a stage that allocates blocks of other sizes."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
