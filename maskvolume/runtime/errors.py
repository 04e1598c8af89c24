"""Errors that the user can fix, and how a program reports them and exits."""

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
    """Run ``main`` and exit with 0, with 2 and one line for bad input, or with 130 when interrupted.

    Every command line program of the project starts through this function, so none of them shows a
    traceback for an error that the user can fix.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs use the system's handler while they import
    prog = os.path.basename(sys.argv[0])
    try:
        _run(main)
        sys.stdout.flush()
    except InputError as error:
        _print_error(f"{prog}: error: {' '.join(str(error).split())}")
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt as interruption:
        advice = str(interruption) or "run the same command again to continue"
        _print_error(f"\n{prog}: interrupted; {advice}")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        _print_error(f"{prog}: error: not enough memory; take smaller pictures or fewer planes")
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:
        line = describe_os_error(error)
        if line is None:
            raise
        _print_error(f"{prog}: error: {line}")
        sys.exit(EXIT_BAD_INPUT)
    sys.exit(0)


def _run(main: Callable[[], None]) -> None:
    """Run ``main``; an interruption that a library's clean-up replaced by an error of its own is raised again."""
    try:
        main()
    except InputError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from None


def _print_error(line: str) -> None:
    """Write a line to standard error in one call, so that lines of several processes don't interleave."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def describe_os_error(error: OSError) -> str | None:
    """One line for an operating system error that the user can fix; None for any other."""
    place = error.filename or "the output folder"
    advice = {
        errno.ENOSPC: f"{place}: the disk is full; free some space and run the same command again",
        errno.EFBIG: f"{place}: exceeds the limit on file sizes (ulimit -f); raise the limit and run again",
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
