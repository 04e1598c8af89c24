"""Options of a short run of the family in ``training_helpers``."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_helpers import PictureOptions


@pytest.fixture
def options(tmp_path: Path) -> PictureOptions:
    return PictureOptions(
        log_dir=str(tmp_path / "logs"), ckpt_dir=str(tmp_path / "ckpt"), num_steps=30, save_every=10, val_every=15,
        warmup_steps=3, lr=0.03,
    )  # fmt: skip
