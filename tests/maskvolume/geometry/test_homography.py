"""Homographies of planes: identity, inverse, composition, and grids whose pixel centres are at the half."""

from __future__ import annotations

import pytest
import torch
from helpers import make_camera, project
from torch import Tensor

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.homography import (
    OUTSIDE,
    homography_grid,
    invert_intrinsics,
    render_homographies,
    sweep_homographies,
)

DEPTHS = torch.tensor([8.0, 3.0, 1.5], dtype=torch.float64)
EYE = torch.eye(3, dtype=torch.float64)


def normalized(H: Tensor) -> Tensor:
    return H / H[..., 2:, 2:]


def test_intrinsics_and_their_inverse_are_the_identity() -> None:
    K = torch.tensor([[50.0, 3.0, 20], [0, 60, 15], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(K @ invert_intrinsics(K), EYE)
    batch = torch.stack([K, 2 * K - EYE])
    torch.testing.assert_close(invert_intrinsics(batch), torch.linalg.inv(batch))


def test_a_camera_sees_its_own_planes_as_they_are() -> None:
    camera = make_camera(0)
    for homographies in (sweep_homographies(camera, camera, DEPTHS), render_homographies(camera, DEPTHS, camera)):
        torch.testing.assert_close(normalized(homographies), EYE.expand(3, 3, 3), atol=1e-9, rtol=0)


def test_homographies_compose_over_a_plane_that_both_ways_share() -> None:
    """From a second camera's frame a plane of the first is not parallel, but the way there and back is the identity."""
    camera, other = make_camera(1), make_camera(2, size=(20, 33))
    there, back = sweep_homographies(other, camera, DEPTHS), render_homographies(camera, DEPTHS, other)
    torch.testing.assert_close(normalized(back @ there), EYE.expand(3, 3, 3), atol=1e-9, rtol=0)


def test_the_third_coordinate_is_positive_in_front_of_a_camera_alone() -> None:
    camera = make_camera(0, shift=0, turn=0)
    T = camera.T_cam_world.clone()
    T[2, 3] = -2.0  # two units ahead: between the planes
    ahead = Camera(T, camera.K, camera.size)
    pixel = torch.tensor([32.0, 18.0, 1.0], dtype=torch.float64)
    assert ((sweep_homographies(ahead, camera, DEPTHS) @ pixel)[:, 2] > 0).tolist() == [True, True, False]
    assert ((render_homographies(camera, DEPTHS, ahead) @ pixel)[:, 2] > 0).tolist() == [True, True, False]


def test_batches_are_what_their_elements_are() -> None:
    cameras, reference = [make_camera(1), make_camera(2)], make_camera(3)
    batch = sweep_homographies(stack_cameras(cameras), reference, DEPTHS.expand(2, 3))
    for one, camera in zip(batch, cameras, strict=True):
        torch.testing.assert_close(one, sweep_homographies(camera, reference, DEPTHS))


def test_the_identity_samples_pixel_centres() -> None:
    grid = homography_grid(EYE[None], (3, 4), (3, 4))[0]
    torch.testing.assert_close(grid[0, :, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64))
    torch.testing.assert_close(grid[:, 0, 1], torch.tensor([-2 / 3, 0, 2 / 3], dtype=torch.float64))
    picture = torch.rand(1, 2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(torch.nn.functional.grid_sample(picture, grid[None], align_corners=False), picture)


def test_a_shift_by_whole_pixels_reads_the_neighbours() -> None:
    H = EYE.clone()
    H[0, 2] = 1.0
    picture = torch.rand(1, 1, 4, 6, dtype=torch.float64)
    sampled = torch.nn.functional.grid_sample(picture, homography_grid(H[None], (4, 5), (4, 6)), align_corners=False)
    torch.testing.assert_close(sampled, picture[..., 1:])


def test_a_grid_is_the_homography_of_each_pixel() -> None:
    camera, other = make_camera(4), make_camera(5, size=(20, 33))
    H = sweep_homographies(other, camera, DEPTHS)
    grid = homography_grid(H, camera.size, other.size)
    for row, column in ((0, 0), (7, 31), (35, 63)):
        mapped = H @ torch.tensor([column + 0.5, row + 0.5, 1], dtype=torch.float64)
        expected = mapped[:, :2] / mapped[:, 2:] / torch.tensor([33.0, 20.0]) * 2 - 1
        torch.testing.assert_close(grid[:, row, column], expected)
    point = torch.linalg.inv(camera.T_cam_world)[:3] @ torch.tensor([0.1, -0.1, 3.0, 1]).double()
    pixel = project(camera, point)
    mapped = H[1] @ torch.cat([pixel, torch.ones(1).double()])
    torch.testing.assert_close(mapped[:2] / mapped[2], project(other, point))


@pytest.mark.parametrize("sign", [0.0, -1.0])
def test_what_is_not_in_front_lies_outside_of_every_picture(sign: float) -> None:
    H = EYE.clone()
    H[2] *= sign
    assert (homography_grid(H[None], (2, 3), (2, 3)) == OUTSIDE).all()
