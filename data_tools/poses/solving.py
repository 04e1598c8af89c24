"""From matches to poses: finds models, chooses one, and estimates its confidence and the depths of movers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap

from data_tools.poses import mapping as rig_mapping
from data_tools.poses.confidence import Confidence, assess
from data_tools.poses.mapping import FeatureSets, Problem, poses_of
from maskvolume.geometry.poses import PosedImage
from maskvolume.io.colmap import read_colmap
from maskvolume.runtime.errors import InputError

CLEARLY_BETTER = 0.93  # ratio of reprojection errors below which a model is clearly better
MIN_MOVING_POINTS = 10
MOVING_PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True, eq=False)
class Estimate:
    """The estimated poses.

    Attributes:
        images: the cameras with a pose, by name, in the library's unit.
        positions: their positions among the cameras of the problem.
        confidence: of the poses.
        moving: depth range of moving objects in each of these cameras; None if unknown.
    """

    images: tuple[PosedImage, ...]
    positions: tuple[int, ...]
    confidence: Confidence
    moving: tuple[tuple[float, float], ...] | None


@dataclass(frozen=True, eq=False)
class _Model:
    reconstruction: pycolmap.Reconstruction
    matches: dict[tuple[int, int], int]

    def matches_of(self, position: int) -> int:
        return max(count for pair, count in self.matches.items() if position in pair)


def solve(
    problems: Sequence[Problem],
    moving: FeatureSets,
    prior: np.ndarray | None,
    folder: Path,
    *,
    allow_missing: bool,
) -> tuple[Problem, Estimate]:
    """Find the models, choose one and assess it.

    Args:
        problems: for the same cameras; one, or two: with one lens for all and with one for each.
        moving: features of moving objects for each camera, one set per instant.
        prior: initial ``T_cam_world [N, 4, 4]``; None: no initial poses.
        folder: for the library's files.
        allow_missing: accept cameras without a pose.

    Returns:
        The chosen problem, and its estimate.

    Raises:
        InputError: no model, or cameras without a pose.
    """
    models = []
    for number, problem in enumerate(problems):
        (folder / f"{number}").mkdir()
        models.append(_find_model(problem, prior, folder / f"{number}"))
    problem, model = _choose_model(problems, models)
    missing = [i for i in range(len(problem.names)) if i not in poses_of(model.reconstruction)]
    if missing:
        words = [f"{problem.names[i]} ({model.matches_of(i)} matches with its best neighbour)" for i in missing]
        line = f"no pose found for {', '.join(words)}"
        if not allow_missing:
            raise InputError(
                f"{line}; check these cameras, leave them out with --exclude, give --allow_missing to write the "
                f"others, or --prior to start from poses"
            )
        print(f"warning: {line}")
    reconstruction = model.reconstruction
    confidence = assess(reconstruction, problem)
    (folder / "model").mkdir()
    reconstruction.write_binary(str(folder / "model"))
    images = {image.name: image for image in read_colmap(folder / "model").images}
    positions = tuple(poses_of(reconstruction))
    chosen = tuple(images[problem.names[i]] for i in positions)
    return problem, Estimate(chosen, positions, confidence, _moving_depths(problem, reconstruction, moving, folder))


def _choose_model(problems: Sequence[Problem], models: Sequence[_Model]) -> tuple[Problem, _Model]:
    """Choose the first model, or the one with a lens for each camera if it fits clearly better.

    One lens for cameras that differ by one per cent can bias the focal length by a third; a lens for each of many equal
    cameras has unnecessary degrees of freedom.
    """
    best = 0
    errors = [model.reconstruction.compute_mean_reprojection_error() for model in models]
    counts = [len(poses_of(model.reconstruction)) for model in models]
    if len(models) > 1:
        if counts[1] > counts[0] or (counts[1] == counts[0] and errors[1] < CLEARLY_BETTER * errors[0]):
            best = 1
        words = "each camera has its own lens" if best else "all cameras share one lens"
        print(f"{words}: reprojection error {errors[0]:.3f} pixels with one lens, {errors[1]:.3f} with one for each")
    return problems[best], models[best]


def _find_model(problem: Problem, prior: np.ndarray | None, folder: Path) -> _Model:
    database = folder / "database.db"
    matches = rig_mapping.write_database(database, problem)
    if prior is not None:
        poses = dict(enumerate(prior))
        for attempt in range(2):
            reconstruction = rig_mapping.triangulate(database, problem, folder / f"prior{attempt}", poses)
            rig_mapping.refine(reconstruction, problem)
            problem = replace(problem, cameras=_refined_cameras(problem, reconstruction))
            poses = poses_of(reconstruction)
        return _Model(reconstruction, matches)
    best: pycolmap.Reconstruction | None = None
    for guess in rig_mapping.FOCAL_GUESSES[: 1 if problem.fixed_focal else None]:
        if not problem.fixed_focal:
            rig_mapping.set_focal(database, problem, guess * max(problem.cameras[0].width, problem.cameras[0].height))
        candidate = rig_mapping.map_incrementally(database, problem, folder)
        if candidate and (best is None or candidate.num_reg_images() > best.num_reg_images()):
            best = candidate
        if best is not None and best.num_reg_images() == len(problem.names):
            break
    if best is None:
        raise InputError(
            f"no two cameras have enough in common to start from (at most {max(matches.values())} matches, "
            f"{rig_mapping.INITIAL_MATCHES} are needed, from positions far enough apart); check that the cameras see "
            f"the same things at the same time and do not move, or give --prior or --calibration"
        )
    rig_mapping.refine(best, problem)
    return _Model(best, matches)


def _refined_cameras(problem: Problem, model: pycolmap.Reconstruction) -> tuple[pycolmap.Camera, ...]:
    return tuple(model.cameras[camera.camera_id] for camera in problem.cameras)


def _moving_depths(
    problem: Problem, model: pycolmap.Reconstruction, moving: FeatureSets, folder: Path
) -> tuple[tuple[float, float], ...] | None:
    """The depth range of moving objects in each camera, from points of single instants."""
    poses = poses_of(model)
    if not all(moving):
        return None
    movers = replace(
        problem,
        features=moving,
        matches=rig_mapping.match_rig(moving),
        cameras=_refined_cameras(problem, model),
        fixed_focal=True,
        fixed_distortion=True,
    )
    rig_mapping.write_database(folder / "movers.db", movers)
    model_of_movers = rig_mapping.triangulate(folder / "movers.db", movers, folder / "movers", poses)
    needed = min(3, len(poses))
    points3D = model_of_movers.points3D.values()
    points = np.array([point.xyz for point in points3D if len(point.track.elements) >= needed])
    if len(points) < MIN_MOVING_POINTS:
        return None
    depths = [points @ T[2, :3] + T[2, 3] for T in poses.values()]
    low, high = np.percentile(depths, MOVING_PERCENTILES, axis=1)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))
