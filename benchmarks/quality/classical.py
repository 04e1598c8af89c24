"""The classical plane sweep in the target camera: stereo without training, the baseline for the networks.

For each plane, uniform in inverse depth, both sources are warped to the target. The cost of a pixel is the
sum over colours of the absolute difference, clamped at 0.6, averaged in a 9 x 9 box; a pixel takes the mean
of the two warped colours at its cheapest plane. A pixel of a plane that only one source sees costs 0.48 and
shows that source's colour; one that neither sees costs the clamp, 0.6, and shows the nearest border colours.

Convention: inverse warp, target pixel to source pixel by one homography a plane, pixel centres at +0.5,
bilinear, ``align_corners=False``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.homography import homography_grid, sweep_homographies
from maskvolume.geometry.planes import disparity_planes

NUM_PLANES = 96
COST_CLAMP = 0.6
COST_ONE_VIEW = 0.48
COST_BOX = 9


@dataclass(frozen=True)
class StereoView:
    """A view rendered by stereo.

    Attributes:
        color: ``[3, h, w]`` in 0..1.
        depth: ``[h, w]`` depth in the target, scene units.
        cost: ``[h, w]`` of the chosen plane.
    """

    color: Tensor
    depth: Tensor
    cost: Tensor


@torch.no_grad()
def plane_sweep_stereo(
    images: Tensor,  # [2, 3, Hs, Ws]
    sources: Camera,  # [2]
    target: Camera,  # []
    near: float,
    far: float,
    num_planes: int = NUM_PLANES,
) -> StereoView:
    """Stereo of two pictures in the target camera; memory doesn't grow with the number of planes.

    Args:
        images: colours in 0..1.
        sources: their cameras.
        target: the camera to look from, of any size.
        near: depth of the nearest plane in the target, scene units.
        far: depth of the farthest.
        num_planes: number of planes, uniform in inverse depth.
    """
    if images.ndim != 4 or images.shape[0] != 2:
        raise ValueError(f"images: [2, 3, H, W] expected, got {list(images.shape)}")
    depths = disparity_planes(near, far, num_planes, device=images.device, dtype=torch.float32)
    color = torch.zeros(images.shape[1], *target.size, device=images.device)
    depth = torch.zeros(target.size, device=images.device)
    cheapest = torch.full(target.size, torch.inf, device=images.device)
    for plane in depths:
        plane_color, plane_cost = _plane(images, sources, target, plane)
        better = plane_cost < cheapest
        color = torch.where(better, plane_color, color)
        depth = torch.where(better, plane, depth)
        cheapest = torch.where(better, plane_cost, cheapest)
    return StereoView(color, depth, cheapest)


def _plane(images: Tensor, sources: Camera, target: Camera, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Colour ``[3, h, w]`` and cost ``[h, w]`` of one plane."""
    colors, seen = [], []
    for index in range(2):
        H_src_tgt = sweep_homographies(sources[index], target, depth[None]).float()
        grid = homography_grid(H_src_tgt, target.size, sources.size)
        warped = F.grid_sample(
            images[index : index + 1], grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        colors.append(warped[0])
        seen.append((grid[0].abs() <= 1).all(dim=-1))
    cost = (colors[0] - colors[1]).abs().sum(dim=0).clamp(max=COST_CLAMP)
    cost = torch.where(seen[0] & seen[1], cost, torch.where(seen[0] | seen[1], COST_ONE_VIEW, COST_CLAMP))
    cost = F.avg_pool2d(cost[None], COST_BOX, stride=1, padding=COST_BOX // 2, count_include_pad=False)[0]
    color = (colors[0] + colors[1]) / 2
    color = torch.where(seen[0] & ~seen[1], colors[0], color)
    color = torch.where(seen[1] & ~seen[0], colors[1], color)
    return color, cost
