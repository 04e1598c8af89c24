"""Poses of rigs and of pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import make_camera
from lens_helpers import make_lens

from maskvolume.geometry.cameras import stack_cameras
from maskvolume.geometry.poses import PosedCamera, PosedImage, RigPoses


def test_a_rig_has_as_many_cameras_as_bounds() -> None:
    cameras = stack_cameras([make_camera(seed) for seed in range(3)])
    assert len(RigPoses(cameras, torch.ones(3, 2))) == 3
    for bounds in (torch.ones(2, 2), torch.ones(3, 3), torch.ones(3), torch.ones(1, 3, 2)):
        with pytest.raises(ValueError, match=r"bounds: \[N, 2\] for cameras \[N\] expected, got"):
            RigPoses(cameras, bounds)
    with pytest.raises(ValueError, match="bounds"):
        RigPoses(make_camera(), torch.ones(1, 2))  # one camera, no batch of them


@pytest.mark.parametrize("posed", [PosedImage("a/0.png", make_lens("barrel"), np.eye(4)),
                                   PosedCamera("a", make_lens("barrel"), np.eye(4), ("a/0.png",))])  # fmt: skip
def test_poses_are_frozen_and_know_no_more_than_they_are_told(posed: PosedImage | PosedCamera) -> None:
    assert posed.bounds is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        posed.name = "other"  # type: ignore[misc]
    assert posed != dataclasses.replace(posed)  # arrays have no one truth value: two are the same only as objects
