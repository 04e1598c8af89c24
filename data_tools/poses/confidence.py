"""The confidence of estimated poses: statistics of the points, and the change of the estimate with half of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from tqdm import tqdm

from data_tools.poses.mapping import Problem, adjusted_without, poses_of

NUM_SPLITS = 3  # each yields two halves
CELLS = 16  # along the longer side of the picture; points of one cell stay together, as their errors correlate
FEW_POINTS, MANY_POINTS = 50, 150  # per camera
# Limits of the error in pixels, rotations in degrees, positions and focal lengths in per cent.
GOOD, USABLE = (0.7, 0.05, 1.0, 3.0), (1.5, 0.2, 4.0, 8.0)
MAX_ASPECT = 3.0  # per cent
_WORDS = (
    "points are off by {:.2f} pixels on average",
    "rotations are only accurate to {:.3f} degrees",
    "positions are only accurate to {:.1f}% of the rig's width",
    "focal lengths are only accurate to {:.1f}%: give them with --focal or --calibration, or move the cameras apart",
)


@dataclass(frozen=True)
class Similarity:
    """The transform ``reference = scale * R @ estimated + t`` of world points."""

    scale: float
    R: np.ndarray  # [3, 3]
    t: np.ndarray  # [3]


@dataclass(frozen=True, eq=False)
class Confidence:
    """The confidence of an estimate.

    Attributes:
        num_points: of the model.
        track_length: cameras that see a point, on average.
        angles: 10th, 50th and 90th percentile of the points' triangulation angles, in degrees.
        error: mean reprojection error in pixels.
        points: number of points of each camera, by position.
        rotation: standard error of relative rotations in degrees.
        place: standard error of positions, in per cent of the rig's width.
        focal: standard error of focal lengths, in per cent; 0 if they are given.
        aspect: largest difference between the two focal lengths of a camera, in per cent; 0 if they are given.
    """

    num_points: int
    track_length: float
    angles: tuple[float, float, float]
    error: float
    points: Mapping[int, int]
    rotation: float
    place: float
    focal: float
    aspect: float


def align(estimated: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Similarity:
    """The similarity between two estimates of the same cameras, each ``T_cam_world [4, 4]``; 2 or more cameras.

    The cameras' orientations determine the rotation, so that it is unique even for cameras in a row.
    """
    T, T_reference = np.stack(estimated), np.stack(reference)
    u, _, vh = np.linalg.svd((T_reference[:, :3, :3].transpose(0, 2, 1) @ T[:, :3, :3]).sum(axis=0))
    R = u @ np.diag([1, 1, np.linalg.det(u @ vh)]) @ vh
    points, targets = centres(T) @ R.T, centres(T_reference)
    middle, target = points.mean(axis=0), targets.mean(axis=0)
    scale = float(np.sum((points - middle) * (targets - target)) / np.sum((points - middle) ** 2))
    return Similarity(scale, R, target - scale * middle)


def centres(T: np.ndarray) -> np.ndarray:
    """Positions ``[N, 3]`` of cameras ``T_cam_world [N, 4, 4]``."""
    return -np.einsum("nji,nj->ni", T[:, :3, :3], T[:, :3, 3])


def rig_width(T: np.ndarray) -> float:
    """The largest distance between two of the cameras ``T_cam_world [N, 4, 4]``."""
    positions = centres(T)
    return float(np.linalg.norm(positions[:, None] - positions[None], axis=-1).max())


def differences(estimated: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The differences between two estimates of the same cameras, after alignment.

    Returns:
        rotation of each camera in degrees ``[N]``, distance of each camera relative to the rig's width ``[N]``.
    """
    similarity = align(estimated, reference)
    T, T_reference = np.stack(estimated), np.stack(reference)
    turn = T[:, :3, :3] @ similarity.R.T @ T_reference[:, :3, :3].transpose(0, 2, 1)
    # The cosine is inaccurate for small angles.
    sine = np.linalg.norm(turn - turn.transpose(0, 2, 1), axis=(1, 2)) / np.sqrt(8)
    cosine = (np.trace(turn, axis1=1, axis2=2) - 1) / 2
    aligned = similarity.scale * centres(T) @ similarity.R.T + similarity.t
    distance = np.linalg.norm(aligned - centres(T_reference), axis=1) / rig_width(T_reference)
    return np.degrees(np.arctan2(sine, cosine)), distance


def assess(model: pycolmap.Reconstruction, problem: Problem) -> Confidence:
    """Measure the confidence of a refined model, by several bundle adjustments with half of the points each.

    The standard error of the model is the difference between it and the halves, since half of the points doubles the
    variance.
    """
    poses = poses_of(model)
    squares = []
    for half in tqdm(_halves(model, problem), desc="confidence", unit="half", disable=None):
        other = adjusted_without(model, problem, half)
        rotation, place = differences(list(poses_of(other).values()), list(poses.values()))
        focal = [other.cameras[i].mean_focal_length() / c.mean_focal_length() - 1 for i, c in model.cameras.items()]
        squares.append([np.mean(np.square(values)) for values in (rotation, place, focal)])
    rotation, place, focal = np.sqrt(np.mean(squares, axis=0)).tolist()
    tracks = [[element.image_id for element in point.track.elements] for point in model.points3D.values()]
    counts = np.bincount(np.concatenate(tracks), minlength=len(problem.names) + 1)
    return Confidence(
        model.num_points3D(),
        float(model.compute_mean_track_length()),
        _angles(model, tracks),
        float(model.compute_mean_reprojection_error()),
        {position: int(counts[position + 1]) for position in poses},
        rotation,
        100 * place,
        100 * focal,
        0.0 if problem.fixed_focal else 100 * max(_aspect(camera) for camera in model.cameras.values()),
    )


def verdict(confidence: Confidence, problem: Problem) -> tuple[str, list[str]]:
    """Grade an estimate ``good``, ``usable`` or ``poor``; returns the grade and the reasons for not being better."""
    values = (confidence.error / problem.pixel, confidence.rotation, confidence.place, confidence.focal)
    grade, why = 0, []
    for value, good, usable, words in zip(values, GOOD, USABLE, _WORDS, strict=True):
        if value > good:
            grade = max(grade, 1 if value <= usable else 2)
            why.append(words.format(value))
    if confidence.aspect > MAX_ASPECT:
        grade = 2
        why.append(
            f"the two focal lengths of a camera differ by {confidence.aspect:.0f}%, though pixels are square: its "
            f"pictures do not determine them; give --distortion radial, or --calibration"
        )
    for position, count in confidence.points.items():
        if count < MANY_POINTS:
            grade = max(grade, 1 if count >= FEW_POINTS else 2)
            why.append(f"{problem.names[position]} shares only {count} points with the others")
    return ("good", "usable", "poor")[grade], why


def _aspect(camera: pycolmap.Camera) -> float:
    focals = [camera.params[index] for index in camera.focal_length_idxs()]
    return max(focals) / min(focals) - 1


def _halves(model: pycolmap.Reconstruction, problem: Problem) -> list[list[int]]:
    """The points to leave out in each adjustment."""
    numbers = sorted(model.points3D)
    points = np.array([model.points3D[number].xyz for number in numbers])
    first = model.images[min(poses_of(model)) + 1].cam_from_world().matrix()
    local = points @ first[:, :3].T + first[:, 3]
    camera = problem.cameras[0]
    cell = max(camera.width, camera.height) / camera.mean_focal_length() / CELLS
    cells = np.floor(local[:, :2] / np.maximum(local[:, 2:], 1e-6) / cell).astype(np.int64)
    _, cell_of = np.unique(cells, axis=0, return_inverse=True)
    rng = np.random.default_rng(problem.seed)
    halves = []
    for _ in range(NUM_SPLITS):
        is_first = rng.permutation(cell_of.max() + 1)[cell_of.reshape(-1)] % 2 == 0
        for is_in_half in (is_first, ~is_first):
            halves.append([number for number, is_in in zip(numbers, is_in_half, strict=True) if is_in])
    return [half for half in halves if len(half) < len(numbers)]


def _angles(model: pycolmap.Reconstruction, tracks: Sequence[Sequence[int]]) -> tuple[float, float, float]:
    """10th, 50th and 90th percentile of the largest angle, in degrees, at which two cameras see a point."""
    positions = {number: image.projection_center() for number, image in model.images.items() if image.has_pose}
    angles = []
    for point, track in zip(model.points3D.values(), tracks, strict=True):
        rays = np.array([positions[number] for number in track]) - point.xyz
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        smallest = min((float(a @ b) for a, b in itertools.combinations(rays, 2)), default=1.0)
        angles.append(np.degrees(np.arccos(np.clip(smallest, -1, 1))))
    low, middle, high = np.percentile(angles, [10, 50, 90]).tolist()
    return low, middle, high
