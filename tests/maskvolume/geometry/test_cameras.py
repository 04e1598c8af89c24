"""Laws of cameras: scaling, cropping and padding keep the ray of a point."""

import pytest
import torch
from helpers import make_camera, project

from maskvolume.geometry.cameras import (
    Camera,
    invert_rigid,
    nearest_cameras,
    relative_pose,
    stack_cameras,
)


def test_inverse_and_composition() -> None:
    a, b, c = (make_camera(seed=i) for i in range(3))
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(invert_rigid(a.T_cam_world) @ a.T_cam_world, identity)
    torch.testing.assert_close(relative_pose(a, b) @ relative_pose(b, c), relative_pose(a, c))


def test_center_maps_to_origin() -> None:
    camera = make_camera(seed=4)
    center = torch.cat([camera.center, torch.ones(1, dtype=torch.float64)])
    torch.testing.assert_close(camera.T_cam_world @ center, torch.tensor([0, 0, 0, 1.0]).double())


def test_scaling_is_per_axis() -> None:
    camera = make_camera(seed=1, size=(360, 640))
    point = torch.tensor([0.2, -0.1, 3.0], dtype=torch.float64)
    x, y = project(camera, point)
    x2, y2 = project(camera.scaled((72, 320)), point)
    torch.testing.assert_close(torch.stack([x2, y2]), torch.stack([x / 2, y / 5]))


def test_padding_and_cropping_shift_pixels() -> None:
    camera = make_camera(seed=2)
    point = torch.tensor([0.1, 0.3, 2.0], dtype=torch.float64)
    moved = project(camera.padded((3, 5)), point) - project(camera, point)
    torch.testing.assert_close(moved, torch.tensor([5.0, 3.0]).double())
    assert camera.padded((3, 5)).size == (camera.size[0] + 6, camera.size[1] + 10)
    torch.testing.assert_close(camera.padded((3, 5)).cropped(3, 5, camera.size).K, camera.K)


def test_stack_refuses_different_sizes() -> None:
    with pytest.raises(ValueError, match="size"):
        stack_cameras([make_camera(size=(4, 5)), make_camera(size=(5, 4))])


@pytest.mark.parametrize("name", ["T_cam_world", "K"])
def test_wrong_shapes_are_named(name: str) -> None:
    good = {"T_cam_world": torch.eye(4), "K": torch.eye(3)}
    with pytest.raises(ValueError, match=name):
        Camera(**{**good, name: torch.eye(2)}, size=(4, 4))


def test_nearest_cameras_start_with_the_nearest_and_ties_go_to_the_first() -> None:
    base = make_camera(0, shift=0, turn=0)
    cameras = []
    for x in (0.0, 1.0, 2.0, 3.0):
        T = base.T_cam_world.clone()
        T[0, 3] = -x
        cameras.append(Camera(T, base.K, base.size))
    row = stack_cameras(cameras)
    assert nearest_cameras(row, row[2], 3) == (2, 1, 3)
    assert nearest_cameras(row, row, 2) == (1, 2)
    assert nearest_cameras(row[:2], row, 4) == (1, 0)
