"""Lenses for tests: the distortion formulas of the OpenCV manual, their inverse, and pictures through such lenses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from maskvolume.geometry.lenses import Lens

SIZE = (96, 128)


def make_lens(kind: str, size: tuple[int, int] = SIZE) -> Lens:
    """Return one of the ``LENSES`` for pictures of ``size`` (h, w)."""
    h, w = size
    model, distortion, (fx, fy, cx, cy) = LENSES[kind]
    K = np.array([[fx * w, 0, (0.5 + cx) * w], [0, fy * w, (0.5 + cy) * h], [0, 0, 1]])
    return Lens(K, np.array(distortion, float), model, size)


# Model, coefficients, (fx, fy in widths, offset of the principal point from the centre in widths and heights).
LENSES = {
    "barrel": ("pinhole", (-0.25, 0.06, 0.001, -0.002), (0.7, 0.72, 0.02, -0.03)),
    "pincushion": ("pinhole", (0.15, -0.02, -0.001, 0.001, 0.005), (0.8, 0.8, -0.01, 0.02)),
    "rational": ("pinhole", (0.3, 0.05, 0.0, 0.0, 0.01, 0.6, 0.1, 0.02), (0.6, 0.6, 0.0, 0.0)),
    "fisheye": ("fisheye", (-0.03, 0.01, -0.004, 0.0005), (0.55, 0.56, 0.01, 0.02)),
}


def distort(lens: Lens, rays: np.ndarray) -> np.ndarray:
    """Return pixels ``[..., 2]``, centres at +0.5, of points (x, y, 1), by the formulas of the OpenCV manual."""
    x, y = rays[..., 0], rays[..., 1]
    r = np.hypot(x, y)
    if lens.model == "fisheye":
        k1, k2, k3, k4 = lens.distortion
        theta = np.arctan(r)
        theta_d = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
        scale = np.where(r > 1e-12, theta_d / np.maximum(r, 1e-12), 1.0)
        x, y = x * scale, y * scale
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(lens.distortion, (0, 8))[:8]
        radial = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
            y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
        )
    return np.stack([lens.K[0, 0] * x + lens.K[0, 2], lens.K[1, 1] * y + lens.K[1, 2]], axis=-1)


def undistort(lens: Lens, pixels: np.ndarray) -> np.ndarray:
    """Return the points (x, y, 1), as ``[..., 2]``, of pixels: the inverse of ``distort`` by Newton's method."""
    focal = np.array([lens.K[0, 0], lens.K[1, 1]])
    rays = np.zeros_like(pixels, dtype=float)
    step = 1e-6
    step_x, step_y = np.array([step, 0]), np.array([0, step])
    for _ in range(12):
        here = distort(lens, rays)
        if np.abs((here - pixels) / focal).max() < 1e-12:
            break
        dx = (distort(lens, rays + step_x) - here) / step
        dy = (distort(lens, rays + step_y) - here) / step
        ex, ey = np.moveaxis(pixels - here, -1, 0)
        det = dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]
        move = (
            np.stack([ex * dy[..., 1] - ey * dy[..., 0], dx[..., 0] * ey - dx[..., 1] * ex], axis=-1) / det[..., None]
        )
        rays = rays + np.clip(move, -0.3, 0.3)
    assert np.abs((distort(lens, rays) - pixels) / focal).max() < 1e-9
    return rays


def pixel_centres(size: tuple[int, int]) -> np.ndarray:
    """Return the pixel centres (x, y) as ``[h, w, 2]``."""
    return np.stack(np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5), axis=-1)


def picture_rays(lens: Lens) -> np.ndarray:
    """Return the viewing directions (x, y, 1) of the pixels of a lens as ``[h, w, 3]``."""
    return np.concatenate([undistort(lens, pixel_centres(lens.size)), np.ones((*lens.size, 1))], axis=-1)


def take_picture(
    lens: Lens,
    T_cam_world: np.ndarray,
    colour: Callable[[np.ndarray], np.ndarray],
    depth: float = 3.0,
    rays: np.ndarray | None = None,
) -> np.ndarray:
    """Return the picture uint8 ``[h, w, 3]`` of the world plane z = depth, where ``colour`` maps (x, y) to 0..1."""
    rays = (picture_rays(lens) if rays is None else rays) @ T_cam_world[:3, :3]
    origin = -T_cam_world[:3, :3].T @ T_cam_world[:3, 3]
    points = origin + rays * ((depth - origin[2]) / rays[..., 2])[..., None]
    return np.round(255 * colour(points[..., :2]).clip(0, 1)).astype(np.uint8)


def waves(points: np.ndarray) -> np.ndarray:
    """Return smooth colours ``[..., 3]`` in 0..1 of points ``[..., 2]``."""
    x, y = points[..., 0], points[..., 1]
    return 0.5 + 0.4 * np.stack([np.sin(3 * x + y), np.cos(2.5 * y - x), np.sin(2 * x) * np.cos(3 * y)], axis=-1)
