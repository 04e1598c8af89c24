"""Features of 3D points in cameras with known poses: input for pose estimation, without pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pycolmap

from data_tools.poses.features import Features
from data_tools.poses.mapping import Problem, match_rig

SIZE = (240, 320)
FOCAL = 280.0
PLACES = ((0.0, 0.0), (0.1, 0.01), (0.2, 0.0), (0.05, 0.1))


def true_poses() -> np.ndarray:
    """Return ``T_cam_world [4, 4, 4]`` of neighbouring cameras, rotated by at most a degree about each axis."""
    rng = np.random.default_rng(3)
    T = np.tile(np.eye(4), (len(PLACES), 1, 1))
    for pose, place in zip(T, PLACES, strict=True):
        pose[:3, :3] = cv2.Rodrigues(np.radians(rng.uniform(-1, 1, 3)))[0]
        pose[:3, 3] = -pose[:3, :3] @ [place[0] - 0.1, place[1] - 0.05, 0.0]
    return T


def draw_points(count: int = 300) -> np.ndarray:
    """Return points ``[count, 3]`` that all cameras see, 1 to 4 units away."""
    rng = np.random.default_rng(0)
    z = rng.uniform(1, 4, count)
    return np.stack([rng.uniform(-0.35, 0.35, count) * z, rng.uniform(-0.25, 0.25, count) * z, z], axis=1)


def features_of(points: np.ndarray, poses: np.ndarray) -> list[list[Features]]:
    """Return one set of features per camera: the projected points in random order, with distinct descriptors.

    Args:
        points: ``[N, 3]`` in the world.
        poses: ``T_cam_world [V, 4, 4]``.
    """
    rng = np.random.default_rng(1)
    descriptors = rng.normal(size=(len(points), 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    sets = []
    for T in poses:
        local = points @ T[:3, :3].T + T[:3, 3]
        pixels = FOCAL * local[:, :2] / local[:, 2:] + np.array(SIZE[::-1]) / 2
        order = rng.permutation(len(points))
        sets.append([Features(pixels[order].astype(np.float32), descriptors[order])])
    return sets


def make_problem(sets: list[list[Features]]) -> Problem:
    """Return the problem for cameras that share one known lens."""
    camera = pycolmap.Camera(
        model="SIMPLE_PINHOLE", width=SIZE[1], height=SIZE[0], params=[FOCAL, SIZE[1] / 2, SIZE[0] / 2], camera_id=1
    )
    names = tuple(f"cam{number:02d}" for number in range(len(sets)))
    return Problem(names, sets, match_rig(sets), (camera,) * len(sets), True, True, seed=0)
