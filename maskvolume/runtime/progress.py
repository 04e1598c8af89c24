"""Progress bars."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress(total: int, what: str, left: int | None = None, *, quiet: bool = False) -> tqdm:
    """A bar with frames a second and the time left; a line now and then where there is no terminal."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    initial = 0 if left is None else total - left
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=" frames",
        mininterval=interval,
        dynamic_ncols=True,
        disable=quiet,
    )
