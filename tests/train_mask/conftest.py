"""Rigs that both the drawing of views and the program are tested on."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig_scene_helpers import write_scene


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes: the original's form one folder down, the compact one two folders down."""
    folder = tmp_path_factory.mktemp("rigs")
    write_scene(folder / "a/scene000.h5", 6, 5)
    write_scene(folder / "b/c/scene001.h5", 4, 3, compact=True)
    return folder
