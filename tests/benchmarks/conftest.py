"""What the tests of benchmarks share: a small clip with a held-out camera, and an untrained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.cost.sides import Setting
from benchmarks.quality.holdout import Targets, open_with_background
from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel

SIZE = (48, 64)
NUM_PLANES = 8


@pytest.fixture(scope="session")
def rig(make_rig: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 4 cameras and 3 frames with one held-out camera in their middle; not to be changed."""
    cameras = ("cam00", "cam01", "cam02", "cam03")
    root = make_rig(tmp_path_factory.mktemp("clip") / "rig", cameras=cameras, size=SIZE)
    make_rig(root / "targets", cameras=("target0",), size=SIZE)
    masks = root / "targets" / "masks" / "target0"
    masks.mkdir(parents=True)
    for frame in range(3):
        mask = np.zeros(SIZE, np.uint8)
        mask[16:32, 16:32] = 255
        cv2.imwrite(str(masks / f"{frame:05d}.png"), mask)
    return root


@pytest.fixture(scope="session")
def model() -> MaskVolumeModel:
    """Untrained, of few planes and both stages."""
    torch.manual_seed(0)
    return MaskVolumeModel(CheckpointMeta("mask", "matching", num_planes=NUM_PLANES)).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def checkpoint(model: MaskVolumeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of ``model``."""
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    save_checkpoint(path, model)
    return path


@pytest.fixture(scope="session")
def setting(rig: Path) -> Iterator[Setting]:
    """What both sides of a benchmark work on, on the processor."""
    with open_with_background(rig, None) as clip:
        target = Targets.open(rig / "targets", SIZE).camera(0)
        yield Setting(clip, SIZE, NUM_PLANES, (1, 2), target, torch.device("cpu"))
