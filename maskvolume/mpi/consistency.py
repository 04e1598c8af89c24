"""Which views contradict the depths that costs of planes tell: the left-right check of stereo, for any number of views.

Each pixel of the reference claims a plane, that of its lowest cost. The same costs, seen from another view, tell which
plane that view sees where the claimed point would appear (Hirschmueller 2008, section 2.3, finds the second disparity
image in this way too). If it is nearer, something hides the point from the view, whose colours there tell nothing of
the pixel. If all other views look through the point to what is farther, the claim is wrong: it was made of colours that
are alike by chance, as beside the edges of things, whose background the reference alone sees.
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

TOLERANCE = 2  # planes: what is no farther from the claim is the same surface
NEARER_GAIN, FARTHER_GAIN = 0.05, 0.1  # how much lower the view's cost has to be than that of the claim
NOWHERE = 1e3  # a cost that no plane has


def contradicted(
    costs: Tensor,  # [B, D, h, w]
    sources: Camera,  # [B, V]
    mpi_camera: Camera,  # [B]
    depths: Tensor,  # [B, D]
) -> Tensor:
    """Where views contradict the costs of planes: bool ``[B, V, h, w]``.

    The first view, the reference, never does, and no view does where the reference sees nothing.

    Args:
        costs: of the planes in the MPI's camera, half as large as its picture, which they may go beyond at the bottom
            and at the right.
        sources: the views.
        mpi_camera: the camera of the MPI, in full size.
        depths: of the planes, the farthest first.
    """
    h, w = costs.shape[-2:]
    half = mpi_camera.cropped(0, 0, (2 * h, 2 * w)).scaled((h, w))
    views = sources.batch_shape[-1]
    found = torch.zeros(costs.shape[0], views, h, w, dtype=torch.bool, device=costs.device)
    for b, volume in enumerate(costs.float()):
        lowest, claimed = volume.min(dim=0)
        nearer, farther, seen = [], [], []
        for view in range(1, views):
            camera = sources[b, view]
            camera = camera.scaled((max(camera.size[0] // 2, 1), max(camera.size[1] // 2, 1)))
            cost, plane = _seen_from(volume, camera, half[b], depths[b])
            grid = _claimed_grid(sweep_homographies(camera, half[b], depths[b]).float(), claimed, camera.size)[None]
            there = torch.stack([plane.float(), cost])[None]
            plane_there, cost_there = F.grid_sample(
                there, grid, mode="nearest", padding_mode="border", align_corners=False
            )[0]
            inside = (grid[0].abs() <= 1).all(dim=-1)
            ahead, gain = plane_there - claimed, lowest - cost_there
            nearer.append(inside & (ahead > TOLERANCE) & (gain > NEARER_GAIN))
            farther.append(inside & (ahead < -TOLERANCE) & (gain > FARTHER_GAIN))
            seen.append(inside)
        hidden, through, inside = torch.stack(nearer), torch.stack(farther), torch.stack(seen)
        wrong = (hidden | through | ~inside).all(dim=0) & inside.any(dim=0)
        # Beyond the reference's picture nothing would be left where all others are left out.
        own = _claimed_grid(sweep_homographies(sources[b, 0], half[b], depths[b]).float(), claimed, sources.size)
        found[b, 1:] = (hidden | wrong) & (own.abs() <= 1).all(dim=-1)
    return found


def leave_out(sweep: Tensor, views: Tensor) -> Tensor:
    """A plane sweep volume ``[B, V, 3, D, H, W]``, in place, without data where ``views [B, V, h, w]`` is true.

    Args:
        sweep: of H x W pixels, or fewer than twice as many as ``views`` has.
        views: half as large.
    """
    h, w = sweep.shape[-2:]
    wide = views.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[..., :h, :w]
    return sweep.masked_fill_(wide[:, :, None, None], NO_DATA)


def _claimed_grid(H: Tensor, claimed: Tensor, size: tuple[int, int]) -> Tensor:
    """``homography_grid`` of one plane a pixel: ``H [D, 3, 3]``, planes ``[h, w]`` to ``[h, w, 2]``."""
    y, x = (torch.arange(side, dtype=H.dtype, device=H.device) + 0.5 for side in claimed.shape)
    rows = H[claimed]  # [h, w, 3, 3]
    point = rows[..., 0] * x[None, :, None] + rows[..., 1] * y[:, None, None] + rows[..., 2]
    z = point[..., 2:]
    extent = torch.tensor([size[1], size[0]], dtype=H.dtype, device=H.device)
    return torch.where(z > 0, point[..., :2] / z * (2 / extent) - 1, OUTSIDE)


def _seen_from(volume: Tensor, camera: Camera, mpi_camera: Camera, depths: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest of the costs ``[D, h, w]`` along each ray of a camera, and its plane: ``[hs, ws]`` both."""
    H = render_homographies(mpi_camera, depths, camera).float()
    grid = homography_grid(H, camera.size, (volume.shape[-2], volume.shape[-1]))
    costs = F.grid_sample(volume[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    cost, plane = torch.where((grid.abs() <= 1).all(dim=-1), costs, NOWHERE).min(dim=0)
    return cost, plane
