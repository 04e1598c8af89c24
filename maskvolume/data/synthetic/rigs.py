"""Random rigs: a reference camera, other sources about one baseline away, and a target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from maskvolume.data.synthetic.options import WorldOptions
from maskvolume.geometry.cameras import Camera

Array = NDArray[np.float64]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number between ``low`` and ``high`` whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def rotation_about(pitch: float, yaw: float, roll: float) -> Array:
    """Return the ``[3, 3]`` rotation about z (roll), then x (pitch), then y (yaw); angles in degrees."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in np.radians([pitch, yaw, roll]))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return y @ x @ z


@dataclass(frozen=True)
class Rig:
    """One rig in the frame of its reference camera: V sources, then the target.

    Attributes:
        centers: ``[V + 1, 3]`` camera centres in scene units.
        rotations: ``[V + 1, 3, 3]`` from the reference frame to the camera frame.
        K: ``[V + 1, 3, 3]`` intrinsics in pixels of the source pictures, also for the target.
        near, far: the range of depths of the world, in scene units.
        focal: focal length in pixels.
        width: picture width in pixels.
        tangents: half the picture width and height at depth 1.
    """

    centers: Array
    rotations: Array
    K: Array
    near: float
    far: float
    focal: float
    width: int
    tangents: tuple[float, float]


def draw_rig(rng: np.random.Generator, options: WorldOptions) -> Rig:
    """Draw a random rig."""
    h, w = options.size
    near = log_uniform(rng, *options.near)
    far = near * log_uniform(rng, *options.far_ratio)
    focal = w * log_uniform(rng, *options.focal)
    baseline = log_uniform(rng, *options.disparity) * w * near / focal
    sources = _source_centers(rng, options.num_sources) * baseline
    target = _target_center(rng, sources, baseline, options)
    centers = np.concatenate([sources, target[None]])
    V = options.num_sources
    angles = rng.uniform(-options.rotation, options.rotation, (V + 1, 3))
    angles[0] = 0
    rotations = np.stack([rotation_about(*a) for a in angles])
    K = np.zeros((V + 1, 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = focal * rng.normal(1, 0.004, V + 1)
    K[:, 0, 2] = w * (0.5 + rng.normal(0, 0.006, V + 1))
    K[:, 1, 2] = h * (0.5 + rng.normal(0, 0.006, V + 1))
    K[:, 2, 2] = 1
    return Rig(centers, rotations, K, near, far, focal, w, (0.5 * w / focal, 0.5 * h / focal))


def _source_centers(rng: np.random.Generator, count: int) -> Array:
    """Draw centres ``[V, 3]`` in baselines: the reference at 0, the others in a row or on a small lattice."""
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)], p=[0.6, 0.12, 0.28])
    along = np.array([np.cos(angle), np.sin(angle), 0.0]) * rng.choice([-1.0, 1.0])
    across = np.array([-along[1], along[0], 0.0])
    places = [np.zeros(3)]
    lattice = [along, across, -along, along + across, -across, along - across, 2 * along, -2 * along]
    for i in range(count - 1):
        step = lattice[i % 8] * (1 + i // 8)
        if i > 0:
            step = lattice[int(rng.integers(8))] * (1 + i // 8) * rng.uniform(0.6, 1.2)
        places.append(step)
    return np.stack(places) + rng.normal(0, 0.02, (count, 3)) * (np.arange(count) > 0)[:, None]


def _target_center(rng: np.random.Generator, sources: Array, baseline: float, options: WorldOptions) -> Array:
    V = len(sources)
    other = sources[int(rng.integers(1, V))] if V > 1 else baseline * np.array([1.0, 0.0, 0.0])
    jitter = rng.normal(0, 0.06, 3) * baseline
    if rng.random() < options.between_share:
        return other * rng.uniform(0, 1) + jitter
    if rng.random() < 0.6:
        return other * rng.choice([rng.uniform(-1, 0), rng.uniform(1, 2)]) + jitter
    free = rng.normal(0, 1, 3)
    free *= rng.uniform(0, 1) * baseline / np.linalg.norm(free)
    return other * rng.uniform(0, 1) + free


def rig_cameras(rigs: list[Rig], options: WorldOptions) -> tuple[Camera, Camera]:
    """Return source cameras ``[B, V]`` and target cameras ``[B]`` in the frames of the reference cameras."""
    T = np.tile(np.eye(4), (len(rigs), options.num_sources + 1, 1, 1))
    for b, rig in enumerate(rigs):
        T[b, :, :3, :3] = rig.rotations
        T[b, :, :3, 3] = -(rig.rotations @ rig.centers[..., None])[..., 0]
    poses = torch.from_numpy(T).float()
    K = torch.from_numpy(np.stack([rig.K for rig in rigs])).float()
    sources = Camera(poses[:, :-1], K[:, :-1], options.size)
    target = Camera(poses[:, -1], K[:, -1], options.size)
    return sources, target if options.target_size is None else target.scaled(options.target_size)
