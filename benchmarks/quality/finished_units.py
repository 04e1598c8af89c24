"""Stores finished units of a run beside its result until that is written, so that an interrupted run can resume."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_result
from maskvolume.io.images import read_image, write_image
from maskvolume.runtime.errors import InputError

UnitResult = tuple[dict[str, Any], np.ndarray | None]  # figures, and an optional picture uint8 [h, w, 3]


class FinishedUnits:
    """Finished units of a run, in ``OUT.partial.json`` and, for those with a picture, ``OUT.partial.NAME.png``.

    Args:
        out: the result file of the run.
        key: everything the figures depend on; units of a run with another key are ignored.
        resume: whether to use existing units.

    Raises:
        InputError: the file can't be read.
    """

    def __init__(self, out: Path, key: str, *, resume: bool) -> None:
        self.path = out.with_name(f"{out.stem}.partial.json")
        self.key = key
        self._units: dict[str, dict[str, Any]] = {}
        if resume and self.path.is_file():
            self._read()

    def __contains__(self, name: str) -> bool:
        return name in self._units

    def take(self, name: str, compute: Callable[[], UnitResult]) -> UnitResult:
        """A unit's result, from an earlier run if it is stored, else computed and stored."""
        if name in self._units:
            unit, path = self._units[name], self._picture_path(name)
            if not unit["pictured"]:
                return unit["figures"], None
            if path.is_file():
                return unit["figures"], read_image(path)
        figures, picture = compute()
        if picture is not None:
            write_image(self._picture_path(name), picture)
        self._units[name] = {"figures": figures, "pictured": picture is not None}
        write_result(self.path, {"key": self.key, "units": self._units})
        return figures, picture

    def remove(self) -> None:
        """Remove the stored units once the result is written."""
        for name in self._units:
            self._picture_path(name).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            key, units = content["key"], dict(content["units"])
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{self.path}: not the file of an interrupted run; remove it, or give --no-resume"
            ) from None
        if key == self.key:
            self._units = units
            print(f"{self.path}: reusing {len(units)} finished parts of an earlier run", file=sys.stderr)
        else:
            print(f"{self.path}: from other checkpoints, options or code; starting over", file=sys.stderr)

    def _picture_path(self, name: str) -> Path:
        return self.path.with_suffix(f".{re.sub(r'[^a-zA-Z0-9]+', '_', name)}.png")
