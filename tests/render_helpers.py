"""Shared data of the tests of rendering programs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """A rendering that several tests share and must not change.

    Attributes:
        rig: a clip like ``tiny_rig``, with backgrounds.
        out: the output folder.
        options: the other options of the program, except the weights.
    """

    rig: Path
    out: Path
    options: tuple[object, ...]

    def copy(self, out: Path) -> Path:
        """Copy the output; a run with the same options continues the copy."""
        return shutil.copytree(self.out, out)
