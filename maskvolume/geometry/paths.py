"""Paths of novel views around a camera rig.

All segments are defined in the frame of the rig's average pose and look at one focus point: the point
straight ahead of the average pose at the focus distance. Distances are in the unit of the poses.

Convention: OpenCV axes (x right, y down, z forward), so "x" moves to the right, "y"
moves down and "z" moves from in front of the rig to behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.runtime.errors import InputError

if TYPE_CHECKING:
    from maskvolume.geometry.poses import RigPoses

PathKind = Literal["x", "y", "z", "circle", "spiral", "all", "inputs", "extrapolate"]
PATH_KINDS: tuple[str, ...] = get_args(PathKind)
PARTS_OF_ALL: tuple[PathKind, ...] = ("x", "y", "z", "circle", "spiral")

# The numbers of LLFF's render paths.
CLOSE_SCALE, FAR_SCALE = 0.9, 5.0  # of the nearest and of the farthest bound
FAR_WEIGHT = 0.75  # share of the far depth in the focus, in inverse depth
AXIS_SHRINK = 0.8  # the straight segments stay inside the rig
Z_REACH = 0.2  # of the close depth
RADIUS_QUANTILE = 0.9
SPIRAL_TURNS, SPIRAL_Z_RATE = 2, 0.5
EXTRAPOLATED_BASELINES = 10

# A rig whose cameras share one position has no radius of its own; at 0.05 of the close depth the nearest
# objects move by about 3 degrees, which shows depth and stays close to the recorded views.
LONE_RADIUS = 0.05
ZERO_SPREAD = 1e-6  # of the close depth


def render_path(
    poses: RigPoses,
    kind: PathKind = "all",
    num: int = 30,
    *,
    focus: float | None = None,
    scale: float = 1.0,
) -> Camera:
    """The cameras of a path around a rig of any number (>= 1) of cameras.

    ========== ========= ============================================================================
    kind       poses     positions, with r the 90th percentile of the cameras' offsets per axis
    ========== ========= ============================================================================
    x, y       num       a line, -0.8 r to +0.8 r (the last pose is one step short of the end)
    z          num       a line, from 0.16 of the close depth ahead to as far behind
    circle     2 num     once around, radii r_x and r_y
    spiral     4 num     twice around, and once ahead and back by 0.2 of the close depth
    all        9 num     x, y, z, circle, spiral, one after the other
    inputs     N         the rig's own cameras, unchanged
    extrapolate 2 num    from the average position to 10 baselines on its left; a baseline is the median
                         distance of a camera to its nearest neighbour
    ========== ========= ============================================================================

    The close depth is 0.9 of the nearest bound. If the cameras have no spread in x and y (a single
    camera, for example), both radii and the baseline are 0.05 of the close depth.

    Args:
        poses: the rig; cameras ``[N]`` and bounds ``[N, 2]``.
        num: poses in the shortest segment, >= 1.
        focus: distance of the focus point in the unit of the poses; by default ``focus_distance(poses.bounds)``.
        scale: factor on all offsets; 1 gives the table's.

    Returns:
        Cameras ``[P]`` of the rig's dtype, with the intrinsics and picture size of its first camera
        (of each one for "inputs").

    Raises:
        InputError: unknown kind, a number out of range, or cameras without an average direction.
    """
    if kind not in PATH_KINDS:
        raise InputError(f"path kind {kind!r}: there is no such path; choose from {', '.join(PATH_KINDS)}")
    if num < 1:
        raise InputError(f"number of poses {num}: at least 1 is needed")
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"path scale {scale}: a number above 0 is needed")
    if kind == "inputs":
        return poses.cameras
    distance = focus_distance(poses.bounds) if focus is None else focus
    if not (math.isfinite(distance) and distance > 0):
        raise InputError(f"focus distance {distance}: a number above 0 is needed")
    T_world_avg = average_pose(poses.cameras)
    parts = PARTS_OF_ALL if kind == "all" else (kind,)
    offsets = torch.cat([_offsets(part, poses, T_world_avg, num) for part in parts]) * scale
    ahead = float(offsets[:, 2].max())
    if ahead > 0.9 * distance:
        raise InputError(
            f"focus distance {distance:g}: the path goes {ahead:g} ahead, to the focus point or past it; "
            "choose a larger focus distance or a smaller scale"
        )
    down = invert_rigid(poses.cameras.T_cam_world)[:, :3, 1].mean(0) @ T_world_avg[:3, :3]
    T_world_cam = T_world_avg @ look_at(offsets, distance, down)
    K = poses.cameras.K[:1].expand(len(offsets), 3, 3).clone()
    return Camera(invert_rigid(T_world_cam), K, poses.cameras.size)


def join_paths(paths: Sequence[Camera]) -> Camera:
    """Concatenate paths ``[P_i]`` of one picture size to ``[sum P_i]``."""
    return Camera(
        torch.cat([path.T_cam_world for path in paths]),
        torch.cat([path.K for path in paths]),
        paths[0].size,
    )


def close_depth(bounds: Tensor) -> float:
    """0.9 of the nearest of the ``[N, 2]`` bounds: the depth at which the scene is assumed to begin."""
    return CLOSE_SCALE * float(bounds[:, 0].min())


def focus_distance(bounds: Tensor) -> float:
    """Distance of the point that a path looks at: between the close and the far depth, in inverse depth."""
    far = FAR_SCALE * float(bounds[:, 1].max())
    return 1.0 / ((1.0 - FAR_WEIGHT) / close_depth(bounds) + FAR_WEIGHT / far)


def average_pose(cameras: Camera) -> Tensor:
    """``T_world_avg [4, 4]``: mean centre, mean viewing direction, mean up direction.

    Raises:
        InputError: the cameras look in opposite directions, so that there is no average.
    """
    T_world_cam = invert_rigid(cameras.T_cam_world)
    down, forward = T_world_cam[:, :3, 1].mean(0), T_world_cam[:, :3, 2].mean(0)
    right = torch.linalg.cross(down, forward)
    if min(float(forward.norm()), float(right.norm())) < 1e-3:
        raise InputError(
            "the rig's poses: the cameras look in opposite directions, so there is no path around their average; "
            "use the path of the inputs"
        )
    T_world_avg = torch.eye(4, dtype=forward.dtype, device=forward.device)
    T_world_avg[:3, :3] = _upright(forward, down)
    T_world_avg[:3, 3] = T_world_cam[:, :3, 3].mean(0)
    return T_world_avg


def path_radii(poses: RigPoses, T_world_avg: Tensor) -> tuple[float, float]:
    """Horizontal and vertical radius of a path, ``(r_x, r_y)``, in the average pose's frame."""
    centers = _centers(poses.cameras, T_world_avg).abs()
    r_x, r_y, _ = torch.quantile(centers, RADIUS_QUANTILE, dim=0).tolist()
    close = close_depth(poses.bounds)
    if max(r_x, r_y) < ZERO_SPREAD * close:
        return LONE_RADIUS * close, LONE_RADIUS * close
    return r_x, r_y


def rig_baseline(poses: RigPoses) -> float:
    """Median distance of a camera to its nearest neighbour."""
    centers = poses.cameras.center
    close = close_depth(poses.bounds)
    if len(centers) > 1:
        distances = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
        distances.fill_diagonal_(torch.inf)
        baseline = float(distances.amin(dim=1).median())
        if baseline > ZERO_SPREAD * close:
            return baseline
    return LONE_RADIUS * close


def _offsets(kind: str, poses: RigPoses, T_world_avg: Tensor, num: int) -> Tensor:
    """Positions ``[P, 3]`` of a segment in the average pose's frame (x right, y down, z forward)."""
    r_x, r_y = path_radii(poses, T_world_avg)
    z_reach = Z_REACH * close_depth(poses.bounds)

    def steps(begin: float, end: float, count: int) -> Tensor:  # [count, 1]; excludes the end
        return begin + (end - begin) * torch.arange(count).to(T_world_avg)[:, None] / count

    if kind in ("x", "y", "z"):
        reach = {"x": [r_x, 0.0, 0.0], "y": [0.0, r_y, 0.0], "z": [0.0, 0.0, -z_reach]}[kind]
        return steps(-AXIS_SHRINK, AXIS_SHRINK, num) * T_world_avg.new_tensor(reach)
    if kind == "extrapolate":
        reach = [-EXTRAPOLATED_BASELINES * rig_baseline(poses), 0.0, 0.0]
        fractions = steps(0.0, 1.0, 2 * num - 1)
        return torch.cat([fractions, torch.ones_like(fractions[:1])]) * T_world_avg.new_tensor(reach)
    turns, z_rate, count = {"circle": (1, 0.0, 2 * num), "spiral": (SPIRAL_TURNS, SPIRAL_Z_RATE, 4 * num)}[kind]
    angle = steps(0.0, 2 * math.pi * turns, count)
    return torch.cat([r_x * angle.cos(), -r_y * angle.sin(), z_reach * (z_rate * angle).sin()], dim=-1)


def look_at(offsets: Tensor, distance: float, down: Tensor) -> Tensor:
    """Poses ``T_avg_cam [P, 4, 4]`` at ``offsets [P, 3]`` that look at ``(0, 0, distance)``."""
    forward = offsets.new_tensor([0.0, 0.0, distance]) - offsets
    T = torch.eye(4, dtype=offsets.dtype, device=offsets.device).repeat(len(offsets), 1, 1)
    T[:, :3, :3] = _upright(forward, down.expand_as(offsets))
    T[:, :3, 3] = offsets
    return T


def _upright(forward: Tensor, down: Tensor) -> Tensor:
    """Rotations ``[..., 3, 3]`` with columns right, down, forward, as close to ``down`` as possible."""
    z = forward / forward.norm(dim=-1, keepdim=True)
    x = torch.linalg.cross(down, z)
    x = x / x.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def _centers(cameras: Camera, T_world_avg: Tensor) -> Tensor:
    """Camera centres ``[N, 3]`` in the average pose's frame."""
    return (cameras.center - T_world_avg[:3, 3]) @ T_world_avg[:3, :3]
