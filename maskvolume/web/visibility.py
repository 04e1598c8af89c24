"""Visibility of the texels of a multiplane image's layers: texels that no viewpoint sees are not exported."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from maskvolume.geometry.cameras import Camera, relative_pose

COARSER = 2  # visibility is computed at this fraction of the layers' resolution
DILATION = 3  # coarse texels by which visible areas grow, for viewpoints between the sampled ones


class Visibility:
    """Computes how visible each texel is from the viewpoint that sees it best.

    Args:
        camera: of the layers.
        depths: of the layers, the farthest first.
        views: ``[N]`` sampled viewpoints.
    """

    def __init__(self, camera: Camera, depths: tuple[float, ...], views: Camera) -> None:
        h, w = camera.size
        self._size = h // COARSER, w // COARSER
        self._view_size = views.size[0] // COARSER, views.size[1] // COARSER
        camera = camera.to("cpu", torch.float64).scaled(self._size)
        views = views.to("cpu", torch.float64).scaled(self._view_size)
        K = camera.K.numpy()
        normal = np.array([0.0, 0.0, 1.0])
        self._warps = []  # by view and layer: 3x3, texel to pixel
        for view in views:
            T = relative_pose(view, camera).numpy()
            steps = [T[:3, :3] + np.outer(T[:3, 3], normal) / depth for depth in depths]
            self._warps.append([_pixel_indices(view.K.numpy() @ step @ np.linalg.inv(K)) for step in steps])

    def of(self, layers: np.ndarray) -> np.ndarray:
        """Visibility, float32 ``[L, H, W]`` in 0..1, of the texels of layers uint8 ``[L, H, W, 4]``."""
        h, w = self._size
        alphas = [cv2.resize(layer[..., 3], (w, h), interpolation=cv2.INTER_AREA) for layer in layers]
        alphas = [alpha.astype(np.float32) / 255 for alpha in alphas]
        seen = [np.zeros((h, w), dtype=np.float32) for _ in alphas]
        view_h, view_w = self._view_size
        for warps in self._warps:
            transmittance = np.ones((view_h, view_w), dtype=np.float32)
            for layer in range(len(alphas) - 1, -1, -1):
                visible = cv2.warpPerspective(
                    transmittance, warps[layer], (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                )
                np.maximum(seen[layer], visible, out=seen[layer])
                if layer:
                    transmittance *= 1 - cv2.warpPerspective(alphas[layer], warps[layer], (view_w, view_h))
        kernel = np.ones((2 * DILATION + 1,) * 2, dtype=np.uint8)
        full = (layers.shape[2], layers.shape[1])
        return np.stack([cv2.resize(cv2.dilate(x, kernel), full, interpolation=cv2.INTER_LINEAR) for x in seen])


def _pixel_indices(warp: np.ndarray) -> np.ndarray:
    """Convert a homography from pixel centres at +0.5 to OpenCV's, which are at 0."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.linalg.inv(half) @ warp @ half
