"""Errors that a user caused and can mend, and how a program ends on them."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


class InputError(Exception):
    """Bad input: one line that names the file, what is wrong and what to do about it."""


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run_program(main: Callable[[], None]) -> NoReturn:
    """Run ``main`` and exit: 0, or 2 with one line for bad input, or 130 when interrupted.

    Every command line program of the project is started through this function, so that none of
    them shows a traceback for something that its user can mend.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs leave it to the system while they import
    prog = os.path.basename(sys.argv[0])
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        _say(f"{prog}: error: {' '.join(str(error).split())}")
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt as interruption:
        advice = str(interruption) or "run the same command again to go on"
        _say(f"\n{prog}: interrupted; {advice}")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        _say(f"{prog}: error: not enough memory; take smaller pictures or fewer planes")
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:
        line = describe_os_error(error)
        if line is None:
            raise
        _say(f"{prog}: error: {line}")
        sys.exit(EXIT_BAD_INPUT)
    sys.exit(0)


def _say(line: str) -> None:
    """Write a line to standard error at once: ``print`` writes its end apart, and another process may come between."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def describe_os_error(error: OSError) -> str | None:
    """One line for an operating system error that its user can mend; None for any other."""
    place = error.filename or "the output folder"
    advice = {
        errno.ENOSPC: f"{place}: the disk is full; free some space and run the same command again",
        errno.EFBIG: f"{place}: larger than files may be here (ulimit -f); raise the limit and run again",
        errno.EIO: f"{place}: the disk can't be read or written; check it, and run again",
        errno.EDQUOT: f"{place}: the disk quota is used up; free some space and run again",
        errno.EACCES: f"{place}: permission denied; choose a place that you may read and write",
        errno.EPERM: f"{place}: not permitted; choose a place that you may read and write",
        errno.EROFS: f"{place}: the file system is read-only; choose another output folder",
        errno.ENOENT: f"{place}: no such file or folder; check the path",
        errno.ENOTDIR: f"{place}: a part of this path is a file, not a folder; check the path",
        errno.EISDIR: f"{place}: is a folder where a file is expected; check the path",
        errno.EEXIST: f"{place}: already exists; choose another place",
    }
    return advice.get(error.errno or 0)
