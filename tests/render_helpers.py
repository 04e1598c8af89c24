"""What the tests of programs that render share."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """A rendering that several tests look at: they must not change it.

    Attributes:
        rig: a clip as ``tiny_rig``, with backgrounds.
        out: the output.
        options: of the program, beside these and the weights.
    """

    rig: Path
    out: Path
    options: tuple[object, ...]

    def copy(self, out: Path) -> Path:
        """A copy of the output, which a run with the same options continues."""
        return shutil.copytree(self.out, out)
