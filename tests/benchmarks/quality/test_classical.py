"""The classical plane sweep finds the right picture and depth of a world of two planes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks.quality.classical import COST_ONE_VIEW, plane_sweep_stereo
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.metrics import psnr

SIZE = (72, 96)
FOCAL = 80.0
NEAR, FAR = 2.0, 6.0
BASELINE = 0.2


def _camera(x: float) -> Camera:
    """A camera at (x, 0, 0) that looks along z."""
    T = torch.eye(4)
    T[0, 3] = -x
    K = torch.tensor([[FOCAL, 0, SIZE[1] / 2], [0, FOCAL, SIZE[0] / 2], [0, 0, 1]])
    return Camera(T, K, SIZE)


def _texture(x: torch.Tensor, y: torch.Tensor, depth: float, seed: int) -> torch.Tensor:
    """Random colours ``[3, h, w]`` of points of a plane, smooth at the scale of a pixel."""
    generator = torch.Generator().manual_seed(seed)
    waves = 12
    frequency = 0.3 * FOCAL / depth * torch.randn(2, waves, generator=generator)
    phase = 6 * torch.rand(waves, generator=generator)
    mix = torch.randn(3, waves, generator=generator)
    signal = torch.sin(x[..., None] * frequency[0] + y[..., None] * frequency[1] + phase)
    return torch.sigmoid(torch.einsum("cn,hwn->chw", mix, signal))


def _picture(x_camera: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a camera sees, and its depth: a square at ``NEAR`` before a wall at ``FAR``."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    ray_x, ray_y = (x - SIZE[1] / 2) / FOCAL, (y - SIZE[0] / 2) / FOCAL
    wall = _texture(x_camera + ray_x * FAR, ray_y * FAR, FAR, seed=1)
    square_x, square_y = x_camera + ray_x * NEAR, ray_y * NEAR
    square = _texture(square_x, square_y, NEAR, seed=2)
    inside = (square_x.abs() < 0.5) & (square_y.abs() < 0.45)
    return torch.where(inside, square, wall), torch.where(inside, NEAR, FAR)


def _stereo(x_left: float, x_right: float):
    sources = stack_cameras([_camera(x_left), _camera(x_right)])
    images = torch.stack([_picture(x_left)[0], _picture(x_right)[0]])
    return plane_sweep_stereo(images, sources, _camera(0.0), 1.5, 12.0)


def test_two_planes_are_found_between_two_cameras() -> None:
    view = _stereo(-BASELINE / 2, BASELINE / 2)
    truth, depth = _picture(0.0)
    close = (1 / view.depth - 1 / depth).abs() < 0.02
    assert close.float().mean() > 0.85
    assert psnr(view.color, truth) > 24
    square = (depth == NEAR).float()[None]
    near_edge = F.max_pool2d(square, 13, 1, 6) + F.max_pool2d(-square, 13, 1, 6)
    interior = near_edge == 0
    interior[..., :12] = interior[..., -12:] = False
    assert psnr(view.color, truth, interior) > 30


def test_it_beats_copying_the_nearest_camera() -> None:
    truth, _ = _picture(0.0)
    copied = _picture(-BASELINE / 2)[0]
    assert psnr(_stereo(-BASELINE / 2, BASELINE / 2).color, truth) > psnr(copied, truth) + 8


def test_what_one_camera_sees_keeps_its_colour() -> None:
    """Two cameras that look apart: each half of the target is seen by one of them alone."""
    sources = stack_cameras([_camera(0.0).cropped(0, 0, SIZE), _camera(0.0).cropped(0, SIZE[1], SIZE)])
    truth, _ = _picture(0.0)
    view = plane_sweep_stereo(torch.stack([truth, torch.zeros_like(truth)]), sources, _camera(0.0), 1.5, 12.0)
    assert torch.allclose(view.color, truth, atol=1e-4)
    assert torch.allclose(view.cost, torch.tensor(COST_ONE_VIEW))


def test_more_planes_than_two_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="images"):
        plane_sweep_stereo(torch.rand(3, 3, 8, 8), stack_cameras([_camera(0.0)] * 3), _camera(0.0), 1.0, 2.0)
