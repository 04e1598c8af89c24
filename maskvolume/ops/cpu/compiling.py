"""Compilation of loops by Numba, with a cache on disk.

Importing this module raises ImportError without Numba; ``compiled`` raises RuntimeError without a writable cache.
"""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

_PACKAGE = "maskvolume.ops.cpu"

# All fast-math flags except those that assume finite numbers.
_FAST = {"contract", "reassoc", "arcp", "nsz", "afn"}
_LOCK = Lock()  # threads that share a loop compile it only once


@cache
def sources_digest() -> str:
    """Return a digest of the sources of all modules in this folder."""
    digest = hashlib.sha256()
    for name in sorted(module.name for module in pkgutil.iter_modules(import_module(_PACKAGE).__path__)):
        digest.update(source_of(f"{_PACKAGE}.{name}").encode())
    return digest.hexdigest()


def source_of(module: str) -> str:
    """Return the source text of a module without importing it."""
    loader: Any = getattr(find_spec(module), "loader", None)
    return loader.get_source(module) or ""


class _Cache(FunctionCache):
    """Numba cache of a compiled loop, stale when any source in this package changes.

    By default Numba checks only the file of the loop, not the files of functions inlined into it.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, sources_digest())


inlined: Any = njit(nogil=True, fastmath=_FAST, error_model="numpy", forceinline=True)
"""Decorator for helper functions: Numba inlines them into the loops that call them."""


def compiled(signature: str) -> Any:
    """Decorate a loop that releases the GIL; it is compiled on first use or loaded from the cache on disk.

    Each loop has one signature: processes that compile different signatures at the same time would overwrite each
    other's cache files.
    """

    def decorate(function: Callable[..., None]) -> Any:
        loop: Any = njit(nogil=True, fastmath=_FAST, error_model="numpy")(function)
        loop._cache = _Cache(function)

        @wraps(function)
        def run(*args: Any) -> Any:
            if not loop.signatures:
                with _LOCK:
                    loop.compile(signature)
            return loop(*args)

        return run

    return decorate
