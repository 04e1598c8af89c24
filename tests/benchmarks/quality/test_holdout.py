"""Pictures of cameras that are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quality.holdout import Targets
from maskvolume.geometry.cameras import nearest_cameras, stack_cameras
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)


def test_missing_targets_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--target_dir"):
        Targets.open(tmp_path / "no", SIZE)
    with pytest.raises(InputError, match="holds no folder of a held-out camera"):
        Targets.open(tmp_path, SIZE)


def test_targets_are_found_by_frame_name(rig: Path) -> None:
    targets = Targets.open(rig / "targets", SIZE)
    assert targets.names == ("target0",)
    assert targets.mattes.read("target0", "00001.jpg").sum() == 16 * 16
    assert targets.mattes.known("target0")
    assert not targets.mattes.known("target0", "cam00")
    with pytest.raises(InputError, match="00007"):
        targets.picture(0, "00007.jpg")
    with pytest.raises(InputError, match="00007"):
        targets.mattes.read("target0", "00007.jpg")


def test_nearest_cameras_are_sorted_by_distance(rig: Path) -> None:
    camera = Targets.open(rig / "targets", SIZE).camera(0)
    shifted = []
    for x in (0.3, -0.1, 0.2):
        T = camera.T_cam_world.clone()
        T[0, 3] += x
        shifted.append(type(camera)(T, camera.K, camera.size))
    assert nearest_cameras(stack_cameras(shifted), camera, 3) == (1, 2, 0)
