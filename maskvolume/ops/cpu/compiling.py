"""How loops are compiled by Numba and kept on disk.

Importing this raises ImportError where there is no Numba, and ``compiled`` raises RuntimeError where there is no place
to keep what was compiled.
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

# Everything but "there are no infinities and no NaNs".
_FAST = {"contract", "reassoc", "arcp", "nsz", "afn"}
_LOCK = Lock()  # threads that share a loop come to it at once


@cache
def sources_digest() -> str:
    """A digest of the sources of all modules beside this one."""
    digest = hashlib.sha256()
    for name in sorted(module.name for module in pkgutil.iter_modules(import_module(_PACKAGE).__path__)):
        digest.update(source_of(f"{_PACKAGE}.{name}").encode())
    return digest.hexdigest()


def source_of(module: str) -> str:
    """The text of a module, which need not be imported."""
    loader: Any = getattr(find_spec(module), "loader", None)
    return loader.get_source(module) or ""


class _Cache(FunctionCache):
    """Numba's files of a compiled loop, stale when any source of this package changes.

    By itself Numba looks at the file of the loop alone, and not at those that are inlined into it.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, sources_digest())


inlined: Any = njit(nogil=True, fastmath=_FAST, error_model="numpy", forceinline=True)
"""A part of a loop: it becomes part of each loop that calls it."""


def compiled(signature: str) -> Any:
    """A loop that holds no lock; compiled at its first use, or taken from what an earlier process compiled.

    One signature a loop: processes that compile different ones at the same time would overwrite each other's files in
    Numba's cache.
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
