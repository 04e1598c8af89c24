"""Detects views that contradict the depths given by a cost volume: the stereo left-right check for any number of views.

Each pixel of the reference claims the plane of its lowest cost. Rendering the same costs from another view gives the
plane that this view sees where the claimed point projects (as Hirschmueller 2008, section 2.3, derives the second
disparity image). If that plane is nearer, the point is occluded in the view, and the view's colours there say nothing
about the pixel. If all other views see past the point to a farther plane, the claim is wrong: the colours matched by
chance, which happens beside object edges, where only the reference sees the background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.homography import (
    OUTSIDE,
    homography_grid,
    render_homographies,
    sweep_homographies,
)
from maskvolume.ops import NO_DATA

TOLERANCE = 2  # planes; a plane within this distance of the claim is the same surface
NEARER_GAIN, FARTHER_GAIN = 0.05, 0.1  # how much lower than the claim's the view's cost must be
NOWHERE = 1e3  # above any cost of a plane


def contradicted(
    costs: Tensor,  # [B, D, h, w]
    sources: Camera,  # [B, V]
    mpi_camera: Camera,  # [B]
    depths: Tensor,  # [B, D]
) -> Tensor:
    """Find the pixels where views contradict the plane costs.

    Args:
        costs: ``[B, D, h, w]``, plane costs in the MPI's camera at half its resolution; they may extend beyond its
            picture at the bottom and on the right.
        sources: ``[B, V]``, the views, the reference first.
        mpi_camera: ``[B]``, the camera of the MPI at full resolution.
        depths: ``[B, D]``, plane depths in scene units, the farthest first.

    Returns:
        Bool ``[B, V, h, w]``: true where a view contradicts. Always false for the reference, and for all views where
        the claimed point lies outside the reference's picture.
    """
    h, w = costs.shape[-2:]
    half = mpi_camera.cropped(0, 0, (2 * h, 2 * w)).scaled((h, w))
    views = sources.batch_shape[-1]
    contradictions = torch.zeros(costs.shape[0], views, h, w, dtype=torch.bool, device=costs.device)
    for b, volume in enumerate(costs.float()):
        lowest, claimed = volume.min(dim=0)
        nearer, farther, seen = [], [], []
        for view in range(1, views):
            camera = sources[b, view]
            camera = camera.scaled((max(camera.size[0] // 2, 1), max(camera.size[1] // 2, 1)))
            cost, plane = _seen_from(volume, camera, half[b], depths[b])
            grid = _claimed_grid(sweep_homographies(camera, half[b], depths[b]).float(), claimed, camera.size)[None]
            view_result = torch.stack([plane.float(), cost])[None]
            view_plane, view_cost = F.grid_sample(
                view_result, grid, mode="nearest", padding_mode="border", align_corners=False
            )[0]
            inside = (grid[0].abs() <= 1).all(dim=-1)
            offset, gain = view_plane - claimed, lowest - view_cost
            nearer.append(inside & (offset > TOLERANCE) & (gain > NEARER_GAIN))
            farther.append(inside & (offset < -TOLERANCE) & (gain > FARTHER_GAIN))
            seen.append(inside)
        is_hidden, sees_past, inside = torch.stack(nearer), torch.stack(farther), torch.stack(seen)
        claim_is_wrong = (is_hidden | sees_past | ~inside).all(dim=0) & inside.any(dim=0)
        # Outside the reference's picture, excluding all other views would leave no data.
        H_reference_mpi = sweep_homographies(sources[b, 0], half[b], depths[b]).float()
        reference_grid = _claimed_grid(H_reference_mpi, claimed, sources.size)
        contradictions[b, 1:] = (is_hidden | claim_is_wrong) & (reference_grid.abs() <= 1).all(dim=-1)
    return contradictions


def leave_out(sweep: Tensor, views: Tensor) -> Tensor:
    """Mark a plane sweep volume as having no data where ``views`` is true. Modifies ``sweep`` in place.

    Args:
        sweep: ``[B, V, 3, D, H, W]``, with H <= 2 h and W <= 2 w.
        views: bool ``[B, V, h, w]`` at half the resolution.

    Returns:
        ``sweep``.
    """
    h, w = sweep.shape[-2:]
    upsampled = views.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[..., :h, :w]
    return sweep.masked_fill_(upsampled[:, :, None, None], NO_DATA)


def _claimed_grid(H: Tensor, claimed: Tensor, size: tuple[int, int]) -> Tensor:
    """``homography_grid`` with one plane per pixel: ``H [D, 3, 3]`` and plane numbers ``[h, w]`` to ``[h, w, 2]``."""
    y, x = (torch.arange(side, dtype=H.dtype, device=H.device) + 0.5 for side in claimed.shape)
    rows = H[claimed]  # [h, w, 3, 3]
    point = rows[..., 0] * x[None, :, None] + rows[..., 1] * y[:, None, None] + rows[..., 2]
    z = point[..., 2:]
    extent = torch.tensor([size[1], size[0]], dtype=H.dtype, device=H.device)
    return torch.where(z > 0, point[..., :2] / z * (2 / extent) - 1, OUTSIDE)


def _seen_from(volume: Tensor, camera: Camera, mpi_camera: Camera, depths: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest of the costs ``[D, h, w]`` along each ray of a camera, and its plane number: both ``[hs, ws]``."""
    H = render_homographies(mpi_camera, depths, camera).float()
    grid = homography_grid(H, camera.size, (volume.shape[-2], volume.shape[-1]))
    costs = F.grid_sample(volume[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    cost, plane = torch.where((grid.abs() <= 1).all(dim=-1), costs, NOWHERE).min(dim=0)
    return cost, plane
