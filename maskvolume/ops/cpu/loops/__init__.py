"""What loops that Numba compiles are made of: vectors of numbers, compilers, threads that share the work.

Importing this raises ImportError where there is no Numba, and ``compiled`` raises RuntimeError where there is no place
to keep what was compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any

from numba import njit

from maskvolume.ops.cpu.loops.sharing import share
from maskvolume.ops.cpu.loops.vectors import HALVES

__all__ = ["HALVES", "compiled", "inlined", "share"]

# Everything but "there are no infinities and no NaNs".
_FAST = {"contract", "reassoc", "arcp", "nsz", "afn"}
_LOCK = Lock()  # threads that share a loop come to it at once

inlined: Any = njit(nogil=True, fastmath=_FAST, error_model="numpy", forceinline=True)
"""A part of a loop: it becomes part of each loop that calls it."""


def compiled(signature: str) -> Any:
    """A loop that holds no lock; compiled at its first use, or taken from what an earlier process compiled.

    One signature a loop: processes that compile different ones at the same time would overwrite each other's files in
    Numba's cache.
    """

    def decorate(function: Callable[..., None]) -> Any:
        loop = njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")(function)

        @wraps(function)
        def run(*args: Any) -> Any:
            if not loop.signatures:
                with _LOCK:
                    loop.compile(signature)
            return loop(*args)

        return run

    return decorate
