"""Shapes that don't fit are refused by the name of the argument."""

import pytest
import torch
from helpers import make_camera

from maskvolume import ops
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes

SETTINGS = ops.CostSettings(cap=0.6, unsure=0.35, window=9, window_fine=3)


def to_float(camera: Camera) -> Camera:
    return camera.to(torch.float32)


def test_shapes_are_checked_by_name() -> None:
    camera = to_float(make_camera(0))
    depths = torch.tensor([2.0, 1.0])
    with pytest.raises(ValueError, match="rgba"):
        ops.render_mpi(torch.rand(2, 3, 36, 64), camera, depths, camera)
    with pytest.raises(ValueError, match="depths"):
        ops.render_mpi(torch.rand(3, 4, 36, 64), camera, depths, camera)
    with pytest.raises(ValueError, match="images"):
        ops.sweep_planes(torch.rand(1, 3, 30, 64), stack_cameras([camera]), camera, depths)
    with pytest.raises(ValueError, match="sources"):
        ops.sweep_planes(torch.rand(2, 3, 36, 64), stack_cameras([camera]), camera, depths)


def test_blended_inputs_must_fit_each_other() -> None:
    camera, depths = make_camera(0).to(torch.float32), disparity_planes(1.0, 9.0, 2)
    rgba, mask = torch.rand(2, 4, 36, 64), torch.rand(1, 2, 36, 64)
    with pytest.raises(ValueError, match="background"):
        ops.render_blended(mask, rgba, rgba[:1], camera, depths, camera)
    with pytest.raises(ValueError, match="mask"):
        ops.render_blended(mask[0], rgba, rgba, camera, depths, camera)


def test_inputs_of_the_matching_operations_are_checked_by_name() -> None:
    sweep, opacities = torch.rand(1, 2, 3, 4, 8, 8), torch.rand(1, 2, 4, 8, 8)
    with pytest.raises(ValueError, match="sweep"):
        ops.matching_evidence(sweep[..., :7], SETTINGS)
    with pytest.raises(ValueError, match="background"):
        ops.mask_evidence(sweep, sweep[:, :1], opacities, SETTINGS)
    with pytest.raises(ValueError, match="guide"):
        ops.aggregate(torch.rand(1, 4, 8, 8), torch.rand(1, 8, 7), ops.PathPrices(0.1, 0.5, 20.0, 0.2))
