"""Disparity warping: both sources are matched and warped to the target, and holes are filled from the background.

The two pictures are rectified by rotating both cameras, matched in both directions with OpenCV's StereoSGBM, and every
pixel of both is splatted to the target by its depth; nearer pixels win. Holes are filled from the background pictures,
warped in the same way, and remaining ones from their surroundings.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.semi_global import fill_holes, semi_global_matching
from maskvolume.geometry.cameras import Camera
from maskvolume.ops import Rendering, fill_unseen

NEARER_WINS = 80.0  # exponent of the weights over inverse depth, relative to the nearest
COVERED = 0.3  # a pixel with less coverage is a hole


@dataclass(frozen=True)
class Rectified:
    """Two cameras rotated so that epipolar lines are rows.

    Attributes:
        order: positions of the left and the right source.
        R: ``[3, 3]`` world to the common orientation.
        centers: ``[2, 3]`` of the left and the right camera, in the world.
        K: ``[3, 3]`` of both, pixel centres at +0.5.
        size: ``(h, w)`` of both.
        homographies: ``[2, 3, 3]`` picture to rectified picture.
        baseline: distance of the centres.
    """

    order: tuple[int, int]
    R: np.ndarray
    centers: np.ndarray
    K: np.ndarray
    size: tuple[int, int]
    homographies: np.ndarray
    baseline: float


def rectify(sources: Camera) -> Rectified:
    """Rectify two cameras ``[2]`` of one size; rows of the result are parallel to the baseline."""
    T = sources.T_cam_world.double().cpu().numpy()
    K_sources = sources.K.double().cpu().numpy()
    R = T[:, :3, :3]
    centers = -np.einsum("vji,vj->vi", R, T[:, :3, 3])
    across = centers[1] - centers[0]
    # The order follows the pictures' rows or columns, whichever the baseline is closer to.
    sideways, down = R[0, 0] @ across, R[0, 1] @ across
    order = (0, 1) if (sideways if abs(sideways) >= abs(down) else down) > 0 else (1, 0)
    R, K_sources, centers = R[list(order)], K_sources[list(order)], centers[list(order)]
    x = centers[1] - centers[0]
    baseline = float(np.linalg.norm(x))
    x = x / baseline
    z = R[0, 2] + R[1, 2]
    z = z - (z @ x) * x
    z /= np.linalg.norm(z)
    R_common = np.stack([x, np.cross(z, x), z])
    f = float(K_sources[:, [0, 1], [0, 1]].mean())
    h, w = sources.size
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], np.float64).T
    rays = R_common @ R.transpose(0, 2, 1) @ np.linalg.inv(K_sources)
    seen = rays @ corners
    projected = f * seen[:, :2] / seen[:, 2:]
    low, high = np.floor(projected.min((0, 2))), np.ceil(projected.max((0, 2)))
    K = np.array([[f, 0, -low[0]], [0, f, -low[1]], [0, 0, 1]])
    size = (int(high[1] - low[1]), int(high[0] - low[0]))
    return Rectified(order, R_common, centers, K, size, K @ rays, baseline)


class DisparityWarp:
    """Warps pictures of two cameras to a target.

    Args:
        sources: cameras ``[2]``.
        target: the camera to look from.
        near, far: depth range of the scene.
        backgrounds: ``[2, 3, H, W]`` the cameras' views without moving objects.
    """

    def __init__(self, sources: Camera, target: Camera, near: float, far: float, backgrounds: Tensor) -> None:
        self.rectified, self.target, self.near, self.far = rectify(sources), target, near, far
        self.background = self._warp(backgrounds)

    def view(self, images: Tensor) -> Tensor:
        """Render pictures ``[2, 3, H, W]`` in 0..1 from the target: ``[3, h, w]``."""
        color, coverage = self._warp(images)
        background, background_coverage = self.background
        reached = (coverage >= COVERED).float()
        known = (background_coverage >= COVERED).float()
        color = color * reached + background * known * (1 - reached)
        opacity = torch.maximum(reached, known)
        return fill_unseen(Rendering(color, opacity, torch.zeros_like(opacity))).color

    def _warp(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Colour ``[3, h, w]``, zero where no pixel is splatted, and coverage ``[1, h, w]``."""
        pictures, seen = self._rectify(images)
        disparities = self._match(pictures)
        h, w = self.target.size
        sums = torch.zeros(5, h * w, dtype=torch.float64)
        for side in range(2):
            self._splat(sums, side, pictures[side], disparities[side], seen[side])
        weight = sums[3]
        color = sums[:3] / weight.clamp_min(1e-300)
        color[:, weight == 0] = 0
        return color.float().view(3, h, w), sums[4].float().view(1, h, w)

    def _rectify(self, images: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The rectified left and right picture, uint8 ``[H, W, 3]``, and their valid pixels, bool."""
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        h, w = self.rectified.size
        pictures, seen = [], []
        for side, source in enumerate(self.rectified.order):
            picture = (images[source].permute(1, 2, 0).cpu() * 255).round().byte().numpy()
            H = np.linalg.inv(shift) @ self.rectified.homographies[side] @ shift
            pictures.append(cv2.warpPerspective(picture, H, (w, h), borderMode=cv2.BORDER_REPLICATE))
            ones = np.ones(picture.shape[:2], np.float32)
            seen.append(cv2.warpPerspective(ones, H, (w, h)) > 0.99)
        return pictures, seen

    def _match(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """Disparities of left and right, clamped to the depth range."""
        left, right = pictures
        scale = self.rectified.K[0, 0] * self.rectified.baseline
        least, most = scale / self.far, scale / self.near
        forward = fill_holes(semi_global_matching(left, right, most))
        mirrored, other = (np.ascontiguousarray(picture[:, ::-1]) for picture in (right, left))
        backward = fill_holes(semi_global_matching(mirrored, other, most))[:, ::-1]
        return [np.clip(disparity, least, most) for disparity in (forward, backward)]

    def _splat(self, sums: Tensor, side: int, picture: np.ndarray, disparity: np.ndarray, seen: np.ndarray) -> None:
        """Add weighted colours, weights and coverage of the pixels of one side at their four target pixels."""
        r = self.rectified
        y, x = np.nonzero(seen)
        z = r.K[0, 0] * r.baseline / disparity[y, x].astype(np.float64)
        rays = np.stack([(x + 0.5 - r.K[0, 2]) / r.K[0, 0], (y + 0.5 - r.K[1, 2]) / r.K[1, 1], np.ones(len(x))])
        world = r.R.T @ (rays * z) + r.centers[side][:, None]
        T, K = self.target.T_cam_world.double().cpu().numpy(), self.target.K.double().cpu().numpy()
        points = K @ (T[:3, :3] @ world + T[:3, 3:])
        depth = points[2]
        in_front = depth > 1e-9
        u, v = points[:2, in_front] / depth[in_front] - 0.5
        weight = np.exp(NEARER_WINS * (np.minimum(self.near / depth[in_front], 1.0) - 1.0))
        # The nearer camera has more weight.
        distance = np.linalg.norm(self.target.center.double().cpu().numpy() - r.centers[side])
        weight = torch.from_numpy(weight / (distance + 0.1 * r.baseline))
        color = torch.from_numpy(picture[y[in_front], x[in_front]].T.astype(np.float64) / 255)
        h, w = self.target.size
        for dv in (0, 1):
            for du in (0, 1):
                column, row = np.floor(u) + du, np.floor(v) + dv
                share = (1 - np.abs(u - column)) * (1 - np.abs(v - row))
                inside = (column >= 0) & (column < w) & (row >= 0) & (row < h) & (share > 1e-6)
                index = torch.from_numpy((row[inside] * w + column[inside]).astype(np.int64))
                part = torch.from_numpy(share[inside])
                weighted = weight[inside] * part
                values = torch.cat([color[:, inside] * weighted, weighted[None], part[None]])
                sums.index_add_(1, index, values)
