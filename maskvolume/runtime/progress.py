"""Progress bars."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress(total: int, what: str, remaining: int | None = None, *, quiet: bool = False) -> tqdm:
    """A bar with frames per second and the time left; without a terminal, a line every 30 seconds."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    initial = 0 if remaining is None else total - remaining
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=" frames",
        mininterval=interval,
        dynamic_ncols=True,
        disable=quiet,
    )
