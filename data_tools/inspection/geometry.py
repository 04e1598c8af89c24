"""Measures how well the cameras of a rig fit together: distances, disparities, common view, brightness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from maskvolume.geometry.cameras import Camera, relative_pose
from maskvolume.geometry.planes import disparity_planes

GRID = 9  # points along each side of a picture that are projected into another camera
USABLE_LEVELS = (15.0, 240.0)  # grey levels that are neither black nor clipped
SMOOTHING = 1.0  # pixels of the small pictures
WINDOW = 9  # side in pixels of the window for comparing small pictures
MIN_LIKENESS = 0.8  # lowest correlation in a window at which two cameras see the same thing
MIN_VARIANCE = 4.0  # squared grey levels, added to suppress smooth areas, whose depth is ambiguous
MIN_COMMON = 200  # fewest common pixels of small pictures for comparing the brightness of two cameras


@dataclass(frozen=True)
class Pair:
    """A camera and its nearest neighbour.

    Attributes:
        camera, neighbour: their positions.
        baseline: distance between them in scene units.
        disparity: shift in pixels of the nearest plane against the farthest one.
        step: largest shift in pixels between neighbouring planes.
        overlap: share of the camera's picture that the neighbour sees, at the middle of the planes in disparity.
    """

    camera: int
    neighbour: int
    baseline: float
    disparity: float
    step: float
    overlap: float


def neighbour_pairs(cameras: Camera, near: float, far: float, num_planes: int) -> list[Pair]:
    """Pair each camera of a rig ``[N]``, N >= 2, with its nearest neighbour.

    Args:
        cameras: float64, K at the size of the pictures.
        near: depth of the nearest plane.
        far: depth of the farthest plane.
        num_planes: number of planes, uniform in disparity.
    """
    positions = cameras.center.numpy()
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    depths = disparity_planes(near, far, max(num_planes, 2), dtype=torch.float64)
    pairs = []
    for camera, neighbour in enumerate(distances.argmin(axis=1).tolist()):
        pixels, _ = seen_at(cameras[camera], cameras[neighbour], depths)
        shifts = (pixels[1:] - pixels[:-1]).norm(dim=-1).median(dim=-1).values
        total = (pixels[-1] - pixels[0]).norm(dim=-1).median()
        pairs.append(
            Pair(
                camera,
                neighbour,
                float(distances[camera, neighbour]),
                float(total),
                float(shifts.max()),
                common_view(cameras[camera], cameras[neighbour], middle_depth(near, far)),
            )
        )
    return pairs


def middle_depth(near: float, far: float) -> float:
    """The depth at the middle of a range, in disparity."""
    return 2 / (1 / near + 1 / far)


def common_view(camera: Camera, other: Camera, depth: float) -> float:
    """The share of a camera's picture, at a depth, that another camera sees."""
    pixels, in_front = seen_at(camera, other, torch.tensor([depth], dtype=torch.float64))
    h, w = other.size
    inside = ((pixels >= 0) & (pixels <= torch.tensor([w, h]))).all(dim=-1) & in_front
    return float(inside.double().mean())


def seen_at(
    camera: Camera,
    other: Camera,
    depths: torch.Tensor,  # [D]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Project the points of a grid on a camera's picture, at given depths, into another camera.

    Returns:
        pixels ``[D, GRID * GRID, 2]``, and whether the points are in front of the other camera ``[D, GRID * GRID]``.
    """
    h, w = camera.size
    x, y = torch.meshgrid(
        (torch.arange(GRID, dtype=torch.float64) + 0.5) * w / GRID,
        (torch.arange(GRID, dtype=torch.float64) + 0.5) * h / GRID,
        indexing="xy",
    )
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3) @ torch.linalg.inv(camera.K).mT
    T = relative_pose(other, camera)
    points = (depths[:, None, None] * rays) @ T[:3, :3].mT + T[:3, 3]
    projected = points @ other.K.mT
    return projected[..., :2] / projected[..., 2:].clamp_min(1e-9), points[..., 2] > 0


def colour_gains(
    cameras: Camera,  # [N]
    pictures: Sequence[np.ndarray],  # N of [h, w, 3] float32
    depths: Sequence[float],
    num_neighbours: int = 4,
) -> np.ndarray:
    """Brightness of each camera relative to the rig, ``[N, 3]`` for red, green and blue; NaN without a common view.

    Pictures of neighbours are warped into each other over several planes. Each pixel uses the plane on which its
    surroundings match best, up to brightness; the median ratio over these pixels is the pair's. The ratios of all pairs
    then determine that of each camera, relative to the median camera.

    Args:
        cameras: float64, at any size.
        pictures: of the empty scene, in grey levels.
        depths: of the planes.
        num_neighbours: number of neighbours to compare each camera with.
    """
    h, w = pictures[0].shape[:2]
    scaled = cameras.scaled((h, w))
    positions = scaled.center.numpy()
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(distances, -1)  # so that each camera comes first in its own row
    rows, ratios = [], []
    for a in range(len(pictures)):
        for b in np.argsort(distances[a], kind="stable")[1 : num_neighbours + 1].tolist():
            ratio = _ratio(scaled[a], scaled[b], pictures[a], pictures[b], depths)
            if ratio is not None:
                row = np.zeros(len(pictures))
                row[a], row[b] = 1.0, -1.0
                rows.append(row)
                ratios.append(np.log(ratio))
    gains = np.full((len(pictures), 3), np.nan)
    if rows:
        seen = np.abs(np.stack(rows)).sum(axis=0) > 0
        equations = np.stack([*rows, np.ones(len(pictures))])[:, seen]
        logs = np.linalg.lstsq(equations, np.stack([*ratios, np.zeros(3)]), rcond=None)[0]
        gains[seen] = np.exp(logs - np.median(logs, axis=0))
    return gains


def _ratio(
    a: Camera, b: Camera, picture_a: np.ndarray, picture_b: np.ndarray, depths: Sequence[float]
) -> np.ndarray | None:
    """The brightness of ``a`` relative to ``b`` where both see the same, ``[3]``; None if they share too little."""
    one, other = (cv2.GaussianBlur(picture, (0, 0), SMOOTHING) for picture in (picture_a, picture_b))
    best = np.full(one.shape[:2], MIN_LIKENESS, np.float32)
    ratios = np.full(one.shape, np.nan, np.float32)
    low, high = USABLE_LEVELS
    for depth in depths:
        warped = _through_plane(a, b, other, depth)
        usable = ((one > low) & (one < high) & (warped > low) & (warped < high)).all(axis=-1)
        likeness = _likeness(one.mean(axis=2), warped.mean(axis=2))
        better = usable & (likeness > best)
        best[better], ratios[better] = likeness[better], one[better] / warped[better]
    known = np.isfinite(ratios[..., 0])
    return None if known.sum() < MIN_COMMON else np.median(ratios[known], axis=0)


def _through_plane(a: Camera, b: Camera, picture_b: np.ndarray, depth: float) -> np.ndarray:
    """Warp the picture of ``b`` to ``a`` through a plane; -1 outside the view of ``b``."""
    T = relative_pose(b, a)
    normal = torch.tensor([[0.0, 0.0, 1.0]], dtype=T.dtype)
    H = (b.K @ (T[:3, :3] + T[:3, 3:] @ normal / depth) @ torch.linalg.inv(a.K)).numpy()
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV counts pixel centres from 0
    size, flags = (a.size[1], a.size[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    H_cv = np.linalg.inv(half) @ H @ half
    warped = cv2.warpPerspective(
        picture_b, H_cv, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(-1.0,) * 3
    )
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    # A homography also maps points behind the camera.
    warped[H[2, 0] * columns + H[2, 1] * rows + H[2, 2] <= 0] = -1
    return warped


def _likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Normalized correlation ``[h, w]`` of the windows around each pixel of two grey pictures."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (WINDOW, WINDOW))

    covariance = mean(one * other) - mean(one) * mean(other)
    variances = [np.maximum(mean(picture * picture) - mean(picture) ** 2, 0) for picture in (one, other)]
    return covariance / (np.sqrt(variances[0] * variances[1]) + MIN_VARIANCE)
