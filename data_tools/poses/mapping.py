"""Structure from motion for rigs of static cameras, often close together, with COLMAP's library.

COLMAP's defaults suit a camera that moves around objects: they require 16 degrees between the first two views and drop
points below 1.5 degrees. A rig 40 cm wide sees a point 5 m away at less than 5 degrees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from data_tools.poses.features import Features, match_features
from maskvolume.runtime.errors import InputError

INITIAL_ANGLE = 1.0  # smallest angle between the first two views, in degrees
MIN_ANGLE = 0.3  # smallest triangulation angle of a point, in degrees
INITIAL_MATCHES = 30
MAX_ERROR = 2.0  # largest error while cameras are added, in pixels of a picture at most 1000 wide
FINAL_ERROR = 1.5  # largest error in the final model, in the same unit
LOSS_SCALE = 0.5  # scale of the Cauchy loss, in the same unit
ADJUST_ITERATIONS = 40
FOCAL_GUESSES = (1.2, 0.7, 2.2)  # relative to the longer side of the picture; the first is COLMAP's
LOCALIZED = 0.5  # share of the trials that is enough

# For each camera a list of feature sets, one per instant; sets of the same index are matched with each other.
FeatureSets = Sequence[Sequence[Features]]


@dataclass(frozen=True, eq=False)
class Problem:
    """A structure-from-motion problem.

    Attributes:
        names: of the cameras.
        features: of each camera.
        matches: pairs of features ``[M, 2]`` by the positions of two cameras, numbered across all sets of a camera.
        cameras: pycolmap's cameras; cameras that share their intrinsics have the same one.
        fixed_focal: whether focal lengths are known.
        fixed_distortion: whether the distortion is known.
        seed: of all random choices.
    """

    names: tuple[str, ...]
    features: FeatureSets
    matches: Mapping[tuple[int, int], np.ndarray]
    cameras: tuple[pycolmap.Camera, ...]
    fixed_focal: bool
    fixed_distortion: bool
    seed: int

    @property
    def pixel(self) -> float:
        """The unit of pixel thresholds, in pixels: larger for large pictures, which are not sharp to the pixel."""
        return max(1.0, max(self.cameras[0].width, self.cameras[0].height) / 1000)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library from printing."""
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, 3
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def write_database(path: Path, problem: Problem) -> dict[tuple[int, int], int]:
    """Write cameras, pictures, features and matches; returns the number of verified matches by pair of positions."""
    database = pycolmap.Database.open(str(path))
    rigs: dict[int, int] = {}
    for number, (name, camera) in enumerate(zip(problem.names, problem.cameras, strict=True), start=1):
        sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera.camera_id)
        if camera.camera_id not in rigs:
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig()
            rig.add_ref_sensor(sensor)
            rigs[camera.camera_id] = database.write_rig(rig)
        image = pycolmap.Image(name=name, camera_id=camera.camera_id, image_id=number)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame()
        frame.rig_id = rigs[camera.camera_id]
        frame.add_data_id(pycolmap.data_t(sensor, number))
        database.write_frame(frame)
        points = [features.points for features in problem.features[number - 1]]
        database.write_keypoints(number, np.concatenate(points))
    for (a, b), matches in problem.matches.items():
        database.write_matches(a + 1, b + 1, matches)
    database.close()
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = problem.seed
    options.ransac.max_error = MAX_ERROR * problem.pixel
    verifier = pycolmap.GeometricVerifierOptions()
    verifier.num_threads = 1
    pycolmap.geometric_verification(str(path), verifier, pycolmap.ExistingMatchedPairingOptions(), options)
    database = pycolmap.Database.open(str(path))
    counts = {(a, b): len(database.read_two_view_geometry(a + 1, b + 1).inlier_matches) for a, b in problem.matches}
    database.close()
    return counts


def match_rig(features: FeatureSets) -> dict[tuple[int, int], np.ndarray]:
    """Matches of all pairs of cameras, by their positions."""
    pairs = list(itertools.combinations(range(len(features)), 2))
    progress = tqdm(pairs, desc="matches", unit="pair", disable=None)
    return {(a, b): _match_sets(features[a], features[b]) for a, b in progress}


def _match_sets(a: Sequence[Features], b: Sequence[Features]) -> np.ndarray:
    """Matches between the features of two cameras, instant by instant, numbered across all instants."""
    starts = np.zeros(2, np.uint32)
    matches = []
    for one, other in zip(a, b, strict=True):
        matches.append(match_features(one, other) + starts)
        starts = starts + np.array([len(one.points), len(other.points)], np.uint32)
    return np.concatenate(matches)


def map_incrementally(database: Path, problem: Problem, folder: Path) -> pycolmap.Reconstruction | None:
    """The largest model that the library finds without initial poses; None if it finds none."""
    models = pycolmap.incremental_mapping(str(database), str(folder), str(folder), _pipeline_options(problem))
    return max(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()), default=None)


def triangulate(
    database: Path, problem: Problem, folder: Path, poses: Mapping[int, np.ndarray]
) -> pycolmap.Reconstruction:
    """Triangulate a model from given poses.

    Args:
        database: of the problem.
        problem: the problem.
        folder: for the library's files.
        poses: ``T_cam_world [4, 4]`` by position of the camera.
    """
    model = pycolmap.Reconstruction()
    for camera in {camera.camera_id: camera for camera in problem.cameras}.values():
        model.add_camera_with_trivial_rig(camera)
    for position, T in poses.items():
        camera_id = problem.cameras[position].camera_id
        image = pycolmap.Image(name=problem.names[position], camera_id=camera_id, image_id=position + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T[:3]))
    folder.mkdir(parents=True, exist_ok=True)
    options = _pipeline_options(problem)
    return pycolmap.triangulate_points(model, str(database), str(folder), str(folder), options=options)


def _pipeline_options(problem: Problem) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = problem.seed
    options.num_threads = options.mapper.num_threads = 1  # for reproducible sums
    options.extract_colors = False
    options.min_model_size = 2
    options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = not problem.fixed_focal
    options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = not problem.fixed_distortion
    mapper, triangulation = options.mapper, options.triangulation
    mapper.init_min_tri_angle = INITIAL_ANGLE
    mapper.init_min_num_inliers = INITIAL_MATCHES
    mapper.abs_pose_min_num_inliers = min(mapper.abs_pose_min_num_inliers, INITIAL_MATCHES)
    mapper.filter_min_tri_angle = triangulation.min_angle = MIN_ANGLE
    mapper.ba_local_min_tri_angle = INITIAL_ANGLE
    error = MAX_ERROR * problem.pixel
    mapper.filter_max_reproj_error = error
    triangulation.merge_max_reproj_error = triangulation.complete_max_reproj_error = error
    triangulation.ignore_two_view_tracks = len(problem.names) > 3
    return options


def refine(model: pycolmap.Reconstruction, problem: Problem, rounds: int = 2) -> None:
    """Bundle-adjust the whole model in place with a robust loss, and drop outliers."""
    for _ in range(rounds):
        _adjust(model, problem)
        pycolmap.ObservationManager(model).filter_all_points3D(FINAL_ERROR * problem.pixel, MIN_ANGLE)
    _adjust(model, problem)
    model.update_point_3d_errors()


def _adjust(model: pycolmap.Reconstruction, problem: Problem, iterations: int = ADJUST_ITERATIONS) -> None:
    if model.num_points3D() == 0:
        raise InputError(
            "no point is seen by two cameras at different positions; check that the cameras see the same things"
        )
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = not problem.fixed_focal
    options.refine_extra_params = not problem.fixed_distortion
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = LOSS_SCALE * problem.pixel
    options.ceres.solver_options.max_num_iterations = iterations
    options.ceres.solver_options.function_tolerance = 1e-7
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for number in poses_of(model):
        config.add_image(number + 1)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # The library's function for a whole model prints regardless of its options.
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


def poses_of(model: pycolmap.Reconstruction) -> dict[int, np.ndarray]:
    """``T_cam_world [4, 4]`` by position of the camera, for cameras with a pose."""
    poses = {}
    for number in sorted(model.images):
        image = model.images[number]
        if image.has_pose:
            poses[number - 1] = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
    return poses


def adjusted_without(
    model: pycolmap.Reconstruction, problem: Problem, points: Sequence[int]
) -> pycolmap.Reconstruction:
    """A copy of the model, adjusted without some of its points."""
    other = pycolmap.Reconstruction(model)
    for number in points:
        other.delete_point3D(number)
    _adjust(other, problem)
    return other


def set_focal(path: Path, problem: Problem, focal: float) -> None:
    """Set the initial focal length, in pixels, of all cameras in the database and the problem."""
    database = pycolmap.Database.open(str(path))
    for camera in {camera.camera_id: camera for camera in problem.cameras}.values():
        for index in camera.focal_length_idxs():
            camera.params[index] = focal
        database.update_camera(camera)
    database.close()
