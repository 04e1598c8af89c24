"""Atomic output files, links, freshness checks and natural sorting."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maskvolume.runtime.errors import InputError, describe_os_error

# Errors that a write raises without the file's name.
_NAMELESS_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_DIGITS = re.compile(r"(\d+)")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it is renamed to ``path`` when the block succeeds.

    The temporary name starts with a dot and keeps the suffix of ``path``. A missing folder is created.
    If anything ends the block early, an interruption included, the temporary file is removed and an
    existing ``path`` stays unchanged.

    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``, never the temporary name.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        nameless = error.filename is None and error.errno in _NAMELESS_ERRORS
        if nameless or str(error.filename) == str(temporary):
            error.filename = str(path)
            error.filename2 = None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def link_or_copy(src: str | Path, dst: str | Path) -> None:
    """Make ``dst`` a hard link to ``src``, or a copy of it where links are impossible.

    An existing ``dst`` is replaced atomically. Symbolic links are followed.

    Raises:
        InputError: ``src`` is not a file.
        OSError: ``dst`` cannot be written.
    """
    source, dst = Path(src), Path(dst)
    if not source.is_file():
        raise InputError(f"{src}: no such file; check the path")
    source = source.resolve()
    if dst.exists() and dst.samefile(source):
        return
    with atomic_path(dst) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)


def is_current(output: Path, source: Path, *, linked: bool = False) -> bool:
    """Whether a file exists and its source has not changed since it was written.

    Args:
        output: the file.
        source: the file that it was made from.
        linked: whether ``link_or_copy`` made it.
    """
    try:
        new, origin = output.stat(), source.stat()
    except FileNotFoundError:
        return False
    if linked and new.st_ino == origin.st_ino and new.st_dev == origin.st_dev:
        return True
    return new.st_mtime_ns >= origin.st_mtime_ns and (not linked or new.st_size == origin.st_size)


def require_writable_folder(path: str | Path) -> Path:
    """Create the folder ``path`` if it is missing and check that files can be written there.

    Raises:
        InputError: it cannot be created or written.
    """
    folder = Path(path)
    probe = folder / f".write-test.{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
    except OSError as error:
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise InputError(f"{path}: a part of this path is a file; choose another folder") from error
        error.filename = str(path)
        line = describe_os_error(error)
        raise InputError(line or f"{path}: cannot be written ({error}); choose another folder") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return folder


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key that puts cam2 before cam10."""
    parts = (part for part in _DIGITS.split(name) if part)
    key = [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]
    return key, name
