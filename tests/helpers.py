"""Shared helpers: cameras in general position, projection, a textured plane."""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera


def rotation(axis_angle: Tensor) -> Tensor:
    """Return the rotation matrix of an axis-angle vector ``[3]`` in radians."""
    x, y, z = axis_angle.tolist()
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))


def make_camera(seed: int = 0, size: tuple[int, int] = (36, 64), shift: float = 0.2, turn: float = 0.05) -> Camera:
    """Return a float64 camera near the origin that looks roughly along +z."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(6, generator=generator, dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = rotation(noise[:3] * turn)
    T[:3, 3] = noise[3:] * shift
    h, w = size
    K = torch.tensor([[0.9 * w, 0, 0.48 * w], [0, 0.95 * w, 0.53 * h], [0, 0, 1]], dtype=torch.float64)
    return Camera(T, K, size)


def project(camera: Camera, point: Tensor) -> Tensor:
    """Return the pixel (x, y) of a world point ``[3]``."""
    local = camera.T_cam_world[:3, :3] @ point + camera.T_cam_world[:3, 3]
    pixel = camera.K @ local
    return pixel[:2] / pixel[2]


def smooth_texture(xy: Tensor) -> Tensor:
    """Return colours ``[3, ...]`` in 0..1 of points ``[..., 2]``; they are smooth, to keep sampling errors small."""
    x, y = xy[..., 0], xy[..., 1]
    return 0.5 + 0.3 * torch.stack([torch.sin(2 * x + y), torch.cos(1.5 * y - x), torch.sin(x) * torch.cos(y)])


def look_at_plane(camera: Camera, plane_camera: Camera, depth: float) -> Tensor:
    """Return the picture ``[3, h, w]`` that a camera sees of a textured plane at z = depth of another camera."""
    h, w = camera.size
    y, x = torch.meshgrid(
        torch.arange(h, dtype=torch.float64) + 0.5, torch.arange(w, dtype=torch.float64) + 0.5, indexing="ij"
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    rays = pixels @ torch.linalg.inv(camera.K).T  # camera frame
    T = plane_camera.T_cam_world @ torch.linalg.inv(camera.T_cam_world)
    rays, origin = rays @ T[:3, :3].T, T[:3, 3]
    scale = (depth - origin[2]) / rays[..., 2]
    return smooth_texture((origin + scale[..., None] * rays)[..., :2])
