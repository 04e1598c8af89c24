"""Draws a rig and a path of novel views from above and from the front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.paths import average_pose, focus_distance
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIG_COLOUR, PATH_COLOUR, FOCUS_COLOUR, BOUNDS_COLOUR = "#1f3b57", "#d9822b", "#b3202c", "#7f8c8d"
DRAWN_VIEWS = 9  # frustums of the path that are drawn
JUMP = 4.0  # a step longer than this many median steps separates two segments
X, Y, Z = 0, 1, 2


def plot_rig(png: Path, poses: RigPoses, path: Camera, focus: float | None = None) -> None:
    """Draw the cameras, their bounds and a path, in the frame of the rig's average pose.

    Args:
        png: the file to write.
        poses: the rig, cameras ``[N]``.
        path: cameras ``[P]``.
        focus: distance of the focus point; by default ``focus_distance`` of the rig.
    """
    from matplotlib.figure import Figure

    distance = focus_distance(poses.bounds) if focus is None else focus
    figure = Figure(figsize=(18, 7), layout="constrained")
    draw_rig(figure.subplots(1, 3), poses, path, distance)
    near, far = poses.bounds.min().item(), poses.bounds.max().item()
    depths = f"near {near:.3g}, focus {distance:.3g}, far {far:.3g}"
    figure.suptitle(f"cameras {len(poses.cameras)}, views {len(path)};  {depths}")
    save_figure(png, figure)


def draw_rig(
    axes: Sequence[Axes],
    poses: RigPoses,
    path: Camera | None,
    focus: float,
    names: Sequence[str] | None = None,
) -> None:
    """Draw the scene from above, the cameras from above and the cameras from behind into three axes.

    Args:
        axes: the three axes.
        poses: the rig, cameras ``[N]``; the drawing is in the frame of its average pose.
        path: cameras ``[P]``, or None.
        focus: distance of the focus point.
        names: of the cameras; None: their numbers.
    """
    scene, top, front = axes
    T_avg_world = invert_rigid(_frame_of(poses))
    rig_poses = T_avg_world @ invert_rigid(poses.cameras.T_cam_world)
    path_poses = None if path is None else T_avg_world @ invert_rigid(path.T_cam_world)
    _draw_scene(scene, poses, rig_poses, path_poses, focus)
    size = 0.12 * _spread(rig_poses if path_poses is None else torch.cat([rig_poses, path_poses]))
    labels = names or [str(i) for i in range(len(rig_poses))]
    for view, vertical, title in ((top, Z, "the cameras from above"), (front, Y, "the cameras from behind")):
        if path is not None and path_poses is not None:
            _draw_path(view, path, path_poses, vertical, size)
        _draw_cameras(view, poses.cameras, rig_poses, vertical, size, labels)
        view.set_xlabel("x, to the right")
        view.set_ylabel("z, forward" if vertical == Z else "y, down")
        view.set_title(title)
        view.set_aspect("equal", adjustable="datalim")
    front.invert_yaxis()


def save_figure(png: Path, figure: Figure) -> None:
    """Write a figure atomically."""
    require_writable_folder(png.parent)
    with atomic_path(png) as partial:
        figure.savefig(partial, dpi=90)


def _frame_of(poses: RigPoses) -> Tensor:
    """``T_world_avg``, or the first camera's pose if the rig has no average."""
    try:
        return average_pose(poses.cameras)
    except InputError:
        return invert_rigid(poses.cameras.T_cam_world[0])


def _spread(T: Tensor) -> float:
    """The largest extent of the positions of poses ``[P, 4, 4]``, never 0."""
    positions = T[:, :3, 3]
    return float((positions.amax(0) - positions.amin(0)).max()) or 1.0


def _draw_scene(axes: Axes, poses: RigPoses, rig_poses: Tensor, path_poses: Tensor | None, distance: float) -> None:
    """Draw each camera's view from above, with its near and far depth."""
    for T, K, (near, far) in zip(rig_poses, poses.cameras.K, poses.bounds.tolist(), strict=True):
        for depth, style in ((near, "-"), (far, "--")):
            left, right = _corners(T, K, poses.cameras.size, depth, rows=(0.5,))
            axes.plot(*zip(left[[X, Z]], right[[X, Z]], strict=True), style, color=BOUNDS_COLOUR, lw=0.8)
        for corner in _corners(T, K, poses.cameras.size, far, rows=(0.5,)):
            axes.plot(*zip(T[[X, Z], 3].tolist(), corner[[X, Z]], strict=True), color=RIG_COLOUR, lw=0.3)
    if path_poses is not None:
        axes.plot(*_with_gaps(path_poses)[:, [X, Z]].T, color=PATH_COLOUR, lw=1.2, label="path")
    axes.plot(*rig_poses[:, [X, Z], 3].T.numpy(), "o", ms=3, color=RIG_COLOUR, label="cameras")
    axes.plot(0, distance, "+", ms=12, mew=2, color=FOCUS_COLOUR, label="focus point")
    axes.plot([], [], "-", color=BOUNDS_COLOUR, label="near")
    axes.plot([], [], "--", color=BOUNDS_COLOUR, label="far")
    axes.legend(loc="lower right")
    axes.set(title="the scene from above", xlabel="x, to the right", ylabel="z, forward")
    axes.set_aspect("equal", adjustable="datalim")


def _draw_path(axes: Axes, path: Camera, path_poses: Tensor, vertical: int, size: float) -> None:
    start = (path_poses[0, X, 3].item(), path_poses[0, vertical, 3].item())
    axes.plot(*_with_gaps(path_poses)[:, [X, vertical]].T, ".-", color=PATH_COLOUR, lw=0.7, ms=3, alpha=0.8)
    for i in np.linspace(0, len(path) - 1, min(DRAWN_VIEWS, len(path))).astype(int):
        _draw_frustum(axes, path[int(i)], path_poses[i], vertical, 0.6 * size, PATH_COLOUR)
    axes.annotate("start", start, color=PATH_COLOUR, xytext=(4, 4), textcoords="offset points")


def _with_gaps(T: Tensor) -> NDArray[np.float64]:
    """Positions ``[P + gaps, 3]`` of poses, with NaN between separate segments."""
    positions = T[:, :3, 3].numpy()
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if len(steps) == 0:
        return positions
    return np.insert(positions, np.flatnonzero(steps > JUMP * np.median(steps)) + 1, np.nan, axis=0)


def _draw_cameras(
    axes: Axes, cameras: Camera, rig_poses: Tensor, vertical: int, size: float, labels: Sequence[str]
) -> None:
    for i, T in enumerate(rig_poses):
        _draw_frustum(axes, cameras[i], T, vertical, size, RIG_COLOUR)
        position = (T[X, 3].item(), T[vertical, 3].item())
        axes.annotate(labels[i], position, color=RIG_COLOUR, weight="bold", xytext=(4, -10), textcoords="offset points")


def _draw_frustum(axes: Axes, camera: Camera, T: Tensor, vertical: int, depth: float, colour: str) -> None:
    axis = [X, vertical]
    apex = T[axis, 3].numpy()
    corners = _corners(T, camera.K, camera.size, depth)[:, axis]
    ring = corners[[0, 1, 3, 2, 0]]
    axes.plot(*ring.T, color=colour, lw=0.9)
    for corner in corners:
        axes.plot(*np.stack([apex, corner]).T, color=colour, lw=0.6)
    axes.plot(*apex, "o", ms=3, color=colour)


def _corners(
    T: Tensor, K: Tensor, size: tuple[int, int], depth: float, rows: tuple[float, ...] = (0.0, 1.0)
) -> NDArray[np.float64]:
    """Points ``[2 * len(rows), 3]`` at the picture's left and right ends at a depth, row by row."""
    h, w = size
    pixels = torch.tensor([[x, row * h, 1.0] for row in rows for x in (0.0, w)], dtype=T.dtype)
    points = depth * pixels @ torch.linalg.inv(K).mT
    return (points @ T[:3, :3].mT + T[:3, 3]).numpy()
