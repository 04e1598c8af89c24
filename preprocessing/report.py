"""A report in JSON lines with the outcome of each item, which a later run resumes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

Entry = dict[str, Any]


class Report:
    """The entries of a report, indexed by the value of one key; of several lines of an item the last one counts.

    Within :meth:`open_for_writing` each entry is written at once, so that an interruption loses none. At the end of
    the block the file is rewritten, sorted, with one line per item.

    Args:
        path: the file; it need not exist.
        key: the key of an entry that names its item.

    Raises:
        InputError: the file is damaged, except for a last line that an interruption cut short.
    """

    def __init__(self, path: str | Path, key: str) -> None:
        self.path, self.key = Path(path), key
        self._file: TextIO | None = None
        self.entries: dict[str, Entry] = {}
        if self.path.exists():
            self.entries = dict(self._read())

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add an entry, replacing an earlier one of the same item."""
        if self._file is None:
            raise ValueError("add: the report is not open for writing")
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()
        self.entries[entry[self.key]] = dict(entry)

    @contextmanager
    def open_for_writing(self) -> Iterator[Report]:
        """Allow :meth:`add` within the block."""
        self._rewrite()
        try:
            with open(self.path, "a", encoding="utf-8") as self._file:
                yield self
        finally:
            self._file = None
        self._rewrite()

    def _read(self) -> Iterator[tuple[str, Entry]]:
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            raise InputError(f"{self.path}: not a text file; move it away and run again") from None
        # The text after the last newline is empty or an unfinished line.
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = json.loads(line)
                yield str(entry[self.key]), entry
            except (ValueError, TypeError, KeyError):
                raise InputError(
                    f"{self.path}, line {number}: not an entry of this report; remove the line and run again"
                ) from None

    def _rewrite(self) -> None:
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for _, entry in sorted(self.entries.items())]
        with atomic_path(self.path) as partial:
            partial.write_text("".join(lines), encoding="utf-8")
