"""A report in JSON lines: what became of each item, which a later run goes by."""

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
    """The entries of a report by the value of one key; the last line of an item counts.

    Within :meth:`open_for_writing` each entry is a line at once, so that an interruption loses none. At its end
    the file is written anew, one line an item, sorted.

    Args:
        path: the file; it need not exist.
        key: names the item of an entry.

    Raises:
        InputError: the file is damaged, but for a last line that an interruption cut short.
    """

    def __init__(self, path: str | Path, key: str) -> None:
        self.path, self.key = Path(path), key
        self._file: TextIO | None = None
        self.entries: dict[str, Entry] = {}
        if self.path.exists():
            self.entries = dict(self._read())

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take an entry in, in the place of an earlier one of the same item."""
        if self._file is None:
            raise ValueError("add: the report is not open for writing")
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()
        self.entries[entry[self.key]] = dict(entry)

    @contextmanager
    def open_for_writing(self) -> Iterator[Report]:
        """Let entries be added within the block."""
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
        # What follows the last line end is empty, or a line that was not finished.
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
