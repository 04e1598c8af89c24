"""Plane-induced homographies and their sampling grids.

Convention: ``H_dst_src`` maps homogeneous pixels of ``src`` to those of ``dst``; pixel centres are at
(i + 0.5, j + 0.5). Planes are fronto-parallel in one camera: ``z = depth`` in its frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera, relative_pose

OUTSIDE = 4.0  # a normalised coordinate outside every picture (pictures span -1..1)


def sweep_homographies(
    source: Camera,  # [...]
    reference: Camera,  # [...]
    depths: Tensor,  # [..., D]
) -> Tensor:
    """``H_src_ref [..., D, 3, 3]``: reference pixel to source pixel over planes of the reference.

    ``K_s (R + t n^T / d) K_r^-1`` with n = (0, 0, 1) (Hartley and Zisserman, eq. 13.2). The third homogeneous
    coordinate of a mapped pixel ``(x, y, 1)`` is its depth in the source divided by ``d``: it is positive in
    front of the source.
    """
    T = relative_pose(source, reference)[..., None, :3, :]
    M = T[..., :3].expand(*depths.shape, 3, 3).clone()
    M[..., 2] += T[..., 3] / depths[..., None]
    return source.K[..., None, :, :] @ M @ invert_intrinsics(reference.K)[..., None, :, :]


def render_homographies(
    camera: Camera,  # [...]
    depths: Tensor,  # [..., D]
    target: Camera,  # [...]
) -> Tensor:
    """``H_mpi_tgt [..., D, 3, 3]``: target pixel to pixel of a plane of the camera of an MPI.

    The inverse of ``R + t n^T / d`` (Sherman and Morrison), scaled so that the third homogeneous coordinate of a
    mapped pixel is positive exactly where the plane is in front of the target. A plane that passes through the
    target's centre maps every pixel to the third coordinate 0, so it is invisible.
    """
    T = relative_pose(camera, target)  # T_mpi_tgt
    R, c = T[..., :3, :3], T[..., :3, 3]
    # A ray x of the target meets z = d where lambda = (d - c_z) / (R x)_z; the point is c + lambda R x.
    distance = depths - c[..., 2:]  # [..., D], signed, from the target's centre to the plane
    R_z = R[..., 2, :]
    M = distance[..., None, None] * R[..., None, :, :]
    M = M + (c[..., :, None] * R_z[..., None, :])[..., None, :, :]
    # (c R_z + distance R) x = (R x)_z * point; its third coordinate (R x)_z * d must be positive where
    # lambda > 0, that is, where (R x)_z and the distance have the same sign.
    M = M * torch.sign(distance)[..., None, None]
    return camera.K[..., None, :, :] @ M @ invert_intrinsics(target.K)[..., None, :, :]


def invert_intrinsics(K: Tensor) -> Tensor:
    """Inverse of upper triangular intrinsics ``[..., 3, 3]``, in closed form (exact for diagonal K)."""
    fx, skew, cx = K[..., 0, 0], K[..., 0, 1], K[..., 0, 2]
    fy, cy = K[..., 1, 1], K[..., 1, 2]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = (
        torch.stack([1 / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy)], dim=-1),
        torch.stack([zero, 1 / fy, -cy / fy], dim=-1),
        torch.stack([zero, zero, one], dim=-1),
    )
    return torch.stack(rows, dim=-2)


def homography_grid(
    H: Tensor,  # [N, 3, 3]
    dst_size: tuple[int, int],
    src_size: tuple[int, int],
) -> Tensor:
    """Sampling grid ``[N, h, w, 2]``, (x, y) with -1..1 over the source picture's full extent.

    Args:
        H: maps pixels of the output picture (``dst_size``) to the sampled one (``src_size``), one 3x3 matrix
            per plane. A pixel costs three additions, one division and two products.
        dst_size: (h, w) of the output picture.
        src_size: (h, w) of the sampled picture.

    Convention: u / W * 2 - 1, which is ``align_corners=False`` in ``grid_sample``. Pixels whose third coordinate
    is not positive get the coordinate ``OUTSIDE``.
    """
    (h, w), (src_h, src_w) = dst_size, src_size
    scale = torch.tensor([[2 / src_w, 0, -1], [0, 2 / src_h, -1], [0, 0, 1]], dtype=H.dtype, device=H.device)
    G = scale @ H
    x = torch.arange(w, dtype=H.dtype, device=H.device) + 0.5
    y = torch.arange(h, dtype=H.dtype, device=H.device) + 0.5
    columns = G[:, :, 0, None] * x  # [N, 3, w]
    rows = G[:, :, 1, None] * y + G[:, :, 2, None]  # [N, 3, h]
    z = rows[:, 2, :, None] + columns[:, 2, None, :]
    grid = torch.empty(H.shape[0], h, w, 2, dtype=H.dtype, device=H.device)
    front = z > 0
    all_front = not front.is_cuda and bool(front.all())  # on a GPU this test would synchronize
    inverse = 1 / (z if all_front else torch.where(front, z, torch.ones_like(z)))
    for axis in range(2):
        value = (rows[:, axis, :, None] + columns[:, axis, None, :]) * inverse
        grid[..., axis] = value if all_front else torch.where(front, value, OUTSIDE)
    return grid
