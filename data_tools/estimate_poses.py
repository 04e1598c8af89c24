"""Estimate the poses of a rig from its own pictures, by structure from motion.

    python data_tools/estimate_poses.py FRAMES
    python data_tools/estimate_poses.py FRAMES --focal 520 --baseline 0.1 --between cam00 cam01

writes ``FRAMES/poses_bounds.npy``. The cameras are static, so each is represented by one picture: its median over time,
without moving objects. If that has few features, those of single frames are added, except in moving areas.

The unit of length is the mean distance of a camera from its nearest neighbour, or a metre with --baseline, or that of
--prior. The first camera is at the origin and looks along z, unless --prior gives the positions of the cameras.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pycolmap
import torch

from data_tools.clips.selection import choose_cameras
from data_tools.poses import mapping as rig_mapping
from data_tools.poses.confidence import align, centres, verdict
from data_tools.poses.features import CameraFeatures, find_features
from data_tools.poses.mapping import Problem
from data_tools.poses.solving import Estimate, solve
from maskvolume.clips.backgrounds import evenly_spaced
from maskvolume.clips.layouts import POSES_NAME, Layout, open_layout
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import (
    Lens,
    fit_lens,
    llff_obstacles,
    pinhole,
)
from maskvolume.geometry.poses import PosedCamera, RigPoses
from maskvolume.io.calibrations import read_calibrations, write_calibration
from maskvolume.io.colmap import write_colmap
from maskvolume.io.files import require_writable_folder
from maskvolume.io.llff import read_poses_bounds, write_poses_bounds
from maskvolume.options import option, parse_options, positional
from maskvolume.runtime.errors import InputError, run_program

CALIBRATION_NAME = "calibration"
FEW_FEATURES = 600  # a median with fewer features is merged with the instants
_MODELS = {"none": "SIMPLE_PINHOLE", "radial": "RADIAL", "opencv": "OPENCV"}


@dataclass(frozen=True)
class PoseOptions:
    """Options of estimate_poses."""

    frames: str = positional("the clip, in any layout; needs no poses")
    out: str | None = option(None, "file to write; none: the clip's poses_bounds.npy")
    exclude: tuple[str, ...] = option((), "cameras to leave out, by name")
    focal: float | None = option(
        None, "known focal length of all cameras, in pixels of these pictures; not refined", above=0
    )
    calibration: str | None = option(
        None, "known calibration of all cameras, or a folder with cam00.json ... or all.json; not refined"
    )
    model: Literal["pinhole", "fisheye"] | None = option(
        None, "lens model for calibrations that do not name one; none: pinhole"
    )
    intrinsics: Literal["auto", "shared", "each"] = option(
        "auto", "one focal length and distortion for all, or for each; auto: for each if that fits clearly better"
    )
    distortion: Literal["none", "radial", "opencv"] = option(
        "none", "distortion to estimate: none; radial k1 k2; opencv k1 k2 p1 p2 and two focal lengths"
    )
    prior: str | None = option(
        None, "poses_bounds.npy to start from; it is refined, and keeps its position, direction and unit"
    )
    baseline: float | None = option(
        None, "distance in metres between two neighbours, or the cameras of --between", above=0
    )
    between: tuple[str, str] | None = option(None, "the two cameras whose distance --baseline gives")
    count: int = option(30, "frames, evenly spaced, for the medians", low=1)
    instants: int = option(4, "single frames among these, for features and for the depth of movers", low=0)
    merge: Literal["auto", "always", "never"] = option(
        "auto", "add the features of the instants to those of the medians; auto: if a median has few"
    )
    features: int = option(4096, "most features per picture", low=100)
    allow_missing: bool = option(False, "write the poses even if some cameras have none")
    seed: int = option(0, "seed of all random choices")
    overwrite: bool = option(False, "replace existing poses and calibrations")


def estimate_poses(options: PoseOptions) -> None:
    """Estimate the poses, print their confidence and write them."""
    layout = open_layout(options.frames)
    chosen = choose_cameras(layout, options.exclude)
    names = tuple(layout.names[camera] for camera in chosen)
    if len(names) < 2:
        raise InputError(f"{layout.root}: one camera; poses need 2 cameras or more that see the same things")
    prior = _read_prior(options, layout, chosen)
    known = _read_known(options, layout, names)
    outputs, calibration_dir = _outputs(options, layout)
    scale_pair = _scale_pair(options, layout, names)
    frames = evenly_spaced(len(layout.frame_names), options.count)
    with rig_mapping.quiet():
        features = find_features(layout, chosen, frames, _num_instants(options, layout), options.features)
    print(_describe_features(layout, names, features, len(frames)))
    merged = options.merge == "always" or (
        options.merge == "auto" and min(len(camera.background.points) for camera in features) < FEW_FEATURES
    )
    with tempfile.TemporaryDirectory(prefix="estimate_poses.") as folder, rig_mapping.quiet():
        sets = [(camera.background, *(camera.still if merged else ())) for camera in features]
        if merged and features[0].still:
            print(f"features of {len(features[0].still)} instants are merged with them, except in moving areas")
        matches = rig_mapping.match_rig(sets)
        is_known = known is not None
        shared = {"auto": (True, False), "shared": (True,), "each": (False,)}[options.intrinsics]
        problems = []
        for is_shared in (False,) if is_known else shared:
            cameras = _library_cameras(options, layout, names, known, prior, is_shared, Path(folder))
            focal_known = is_known or options.focal is not None
            problems.append(Problem(names, sets, matches, cameras, focal_known, is_known, options.seed))
        start = None if prior is None else prior.cameras.T_cam_world.numpy()
        moving = [camera.moving for camera in features]
        try:
            problem, estimate = solve(problems, moving, start, Path(folder), allow_missing=options.allow_missing)
        except InputError as error:
            raise InputError(f"{layout.root}: {error}") from error
    poses = _rig_poses(estimate, layout.size, prior, options, scale_pair)
    _print_report(estimate, poses, problem)
    _write(options, layout, estimate, poses, outputs, calibration_dir)


def _write(
    options: PoseOptions,
    layout: Layout,
    estimate: Estimate,
    poses: RigPoses,
    outputs: Sequence[Path],
    calibration_dir: Path,
) -> None:
    """Write calibrations and poses, and print the steps needed before they can be used."""
    obstacles = [llff_obstacles(image.lens) for image in estimate.images]
    if options.distortion != "none":
        for image in estimate.images:
            write_calibration(calibration_dir / f"{image.name}.json", image.lens)
        print(f"{calibration_dir}: calibrations of {len(estimate.images)} cameras")
    for path in outputs:
        write_poses_bounds(path, poses)
    print(f"{outputs[0]}: {len(poses)} poses" + (f", and in {len(outputs) - 1} more frames" if outputs[1:] else ""))
    if any(obstacles):
        words = next(words for words in obstacles if words)
        calibration = options.calibration or calibration_dir
        straight = layout.root.with_name(f"{layout.root.resolve().name}_straight")
        program = ["python", "data_tools/undistort.py"]
        command = [*program, layout.root, "--calibration", calibration, "--out_dir", straight]
        print(
            f"warning: LLFF poses cannot represent {words[0]}: these poses are only valid for the undistorted clip, "
            f"which this command writes: {shlex.join(map(str, command))}"
        )
    missing = [name for name in layout.names if name not in {image.name for image in estimate.images}]
    if missing:
        print(
            f"warning: no pose for {', '.join(missing)}: the file has no row for them, so move their pictures out of "
            f"{layout.root} before it is used"
        )


def _rig_poses(
    estimate: Estimate,
    size: tuple[int, int],
    prior: RigPoses | None,
    options: PoseOptions,
    scale_pair: tuple[str, str] | None,
) -> RigPoses:
    """The poses in the requested unit and frame, with their bounds."""
    T = np.stack([image.T_cam_world for image in estimate.images])
    if prior is not None:
        reference = prior.cameras.T_cam_world.numpy()[list(estimate.positions)]
        similarity = align(list(T), list(reference))
        scale, R, shift = similarity.scale, similarity.R, similarity.t
    else:
        R, scale = T[0, :3, :3], 1.0 / _mean_neighbour_distance(T)
        shift = scale * T[0, :3, 3]
    if options.baseline is not None:
        names = [image.name for image in estimate.images]
        length = _mean_neighbour_distance(T)
        if scale_pair is not None:
            if unposed := [name for name in scale_pair if name not in names]:
                raise InputError(f"--between: no pose found for {unposed[0]}; name another camera")
            a, b = (centres(T[[names.index(name)]])[0] for name in scale_pair)
            length = float(np.linalg.norm(a - b))
        shift = shift * (options.baseline / length / scale)
        scale = options.baseline / length
    new = np.tile(np.eye(4), (len(T), 1, 1))
    new[:, :3, :3] = T[:, :3, :3] @ R.T
    new[:, :3, 3] = scale * T[:, :3, 3] - np.einsum("nij,j->ni", new[:, :3, :3], shift)
    K = np.stack([_ideal(image.lens) for image in estimate.images])
    cameras = Camera(torch.from_numpy(new), torch.from_numpy(K), size)
    return RigPoses(cameras, torch.from_numpy(scale * _bounds(estimate)))


def _mean_neighbour_distance(T: np.ndarray) -> float:
    places = centres(T)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag(np.full(len(T), np.inf))
    return float(distances.min(axis=1).mean())


def _ideal(lens: Lens) -> np.ndarray:
    """K of the ideal camera that LLFF can represent; undistort.py gives each camera its own new focal length."""
    f, (h, w) = float(lens.K[0, 0] + lens.K[1, 1]) / 2, lens.size
    return np.array([[f, 0, w / 2], [0, f, h / 2], [0, 0, 1]])


def _bounds(estimate: Estimate) -> np.ndarray:
    """Near and far depth ``[N, 2]`` over static and moving content."""
    known = [image.bounds for image in estimate.images if image.bounds is not None]
    if not known:
        raise InputError("too few points for the depth bounds of the cameras; give --prior or --calibration")
    total = (min(near for near, _ in known), max(far for _, far in known))
    bounds = np.array([image.bounds or total for image in estimate.images])
    if estimate.moving is not None:
        moving = np.array(estimate.moving)
        is_before = moving[:, 0] > 0
        bounds[is_before, 0] = np.minimum(bounds[is_before, 0], moving[is_before, 0])
        bounds[:, 1] = np.maximum(bounds[:, 1], moving[:, 1])
    return bounds


def _library_cameras(
    options: PoseOptions,
    layout: Layout,
    names: Sequence[str],
    known: Sequence[Lens] | None,
    prior: RigPoses | None,
    is_shared: bool,
    folder: Path,
) -> tuple[pycolmap.Camera, ...]:
    """The cameras in pycolmap's form; all share one if their intrinsics are shared and unknown."""
    h, w = layout.size
    if known is not None:
        posed = [PosedCamera(name, lens, np.eye(4), (name,)) for name, lens in zip(names, known, strict=True)]
        write_colmap(folder / "known", posed)
        written = pycolmap.Reconstruction(str(folder / "known")).cameras
        cameras = [pycolmap.Camera(written[number].todict()) for number in range(1, len(names) + 1)]
        for camera in cameras:
            camera.has_prior_focal_length = True
        return tuple(cameras)
    focals = [options.focal or rig_mapping.FOCAL_GUESSES[0] * max(h, w)] * len(names)
    if prior is not None and options.focal is None:
        focals = prior.cameras.K[:, 0, 0].tolist()
    if is_shared:
        focals = [float(np.mean(focals))] * len(names)
    cameras_by_id: dict[int, pycolmap.Camera] = {}
    for position, focal in enumerate(focals):
        number = 1 if is_shared else position + 1
        if number not in cameras_by_id:
            model = _MODELS[options.distortion]
            cameras_by_id[number] = pycolmap.Camera.create_from_model_name(number, model, focal, w, h)
            cameras_by_id[number].has_prior_focal_length = bool(options.focal or prior)
    return tuple(cameras_by_id[1 if is_shared else position + 1] for position in range(len(names)))


def _describe_features(
    layout: Layout, names: Sequence[str], features: Sequence[CameraFeatures], num_frames: int
) -> str:
    counts = [len(camera.background.points) for camera in features]
    least, (h, w) = int(np.argmin(counts)), layout.size
    return (
        f"{layout.root}: {len(names)} cameras, {w} x {h}, medians of {num_frames} frames; features of a camera "
        f"{min(counts)} ({names[least]}) to {max(counts)}"
    )


def _print_report(estimate: Estimate, poses: RigPoses, problem: Problem) -> None:
    confidence = estimate.confidence
    for row, image in enumerate(estimate.images):
        near, far = poses.bounds[row].tolist()
        fx, fy = image.lens.K[0, 0], image.lens.K[1, 1]
        focal = f"{fx:.1f}" if fx == fy else f"{fx:.1f}, {fy:.1f}"
        x, y, z = (poses.cameras.center[row].round(decimals=4) + 0.0).tolist()
        print(
            f"{image.name}: at {x:.4g} {y:.4g} {z:.4g}, focal length {focal} pixels, near {near:.3g}, far {far:.3g}, "
            f"{confidence.points[estimate.positions[row]]} points"
        )
    low, middle, high = confidence.angles
    print(f"points: {confidence.num_points}, each seen by {confidence.track_length:.1f} cameras on average")
    print(f"triangulation angle: {middle:.2f} degrees; 10th to 90th percentile {low:.2f} to {high:.2f}")
    print(f"reprojection error: {confidence.error:.3f} pixels")
    focal = "as given" if problem.fixed_focal else f"{confidence.focal:.2f}%"
    print(
        f"standard errors, from halves of the points: rotations {confidence.rotation:.4f} degrees, positions "
        f"{confidence.place:.3f}% of the rig's width, focal length {focal}"
    )
    if estimate.moving is None:
        print("near and far are those of the static scene; no moving points could be measured")
    grade, why = verdict(confidence, problem)
    print(f"verdict: {grade}" + (f"; {'; '.join(why)}" if why else ", all figures are within the limits of a good rig"))


def _read_prior(options: PoseOptions, layout: Layout, chosen: Sequence[int]) -> RigPoses | None:
    if options.prior is None:
        return None
    poses = read_poses_bounds(options.prior)
    if len(poses) != len(layout.names):
        raise InputError(
            f"{options.prior}: {len(poses)} poses for {len(layout.names)} cameras ({', '.join(layout.names)}); one "
            f"row for each camera is needed, in the order of their names"
        )
    rows = list(chosen)
    return RigPoses(poses.cameras[rows].scaled(layout.size), poses.bounds[rows])


def _read_known(options: PoseOptions, layout: Layout, names: Sequence[str]) -> list[Lens] | None:
    if options.calibration is not None:
        calibrations = read_calibrations(options.calibration, names, options.model)
        return [fit_lens(lens, layout.size, path) for path, lens in calibrations.values()]
    if options.focal is not None and options.distortion == "none":
        h, w = layout.size
        K = np.array([[options.focal, 0, w / 2], [0, options.focal, h / 2], [0, 0, 1]])
        return [pinhole(K, layout.size)] * len(names)
    return None


def _outputs(options: PoseOptions, layout: Layout) -> tuple[list[Path], Path]:
    """The pose files to write, and the folder for calibrations."""
    if options.out is not None:
        if Path(options.out).suffix != ".npy":
            raise InputError(f"--out {options.out}: the name of a .npy file expected, such as {POSES_NAME}")
        outputs, root = [Path(options.out)], Path(options.out).parent
    elif layout.kind == "collected":
        outputs, root = [layout.root / name / POSES_NAME for name in layout.frame_names], layout.root
    else:
        outputs, root = [layout.poses_path], layout.root
    calibration_dir = root / CALIBRATION_NAME
    targets = [*outputs, *([calibration_dir] if options.distortion != "none" else [])]
    if (existing := next((path for path in targets if path.exists()), None)) and not options.overwrite:
        raise InputError(f"{existing}: exists already; give --overwrite to replace it, or another path with --out")
    require_writable_folder(outputs[0].parent)
    return outputs, calibration_dir


def _scale_pair(options: PoseOptions, layout: Layout, names: Sequence[str]) -> tuple[str, str] | None:
    if options.between is None:
        return None
    a, b = (layout.names[layout.index(name)] for name in options.between)
    if a == b or a not in names or b not in names:
        raise InputError(f"--between {a} {b}: two cameras that are not excluded expected")
    return a, b


def _num_instants(options: PoseOptions, layout: Layout) -> int:
    """The number of instants; 0 for a median over one or two frames, which does not show what moves."""
    return options.instants if min(len(layout.frame_names), options.count) > 2 else 0


def _check_options(options: PoseOptions) -> None:
    if options.calibration is not None and (options.focal is not None or options.distortion != "none"):
        raise InputError("--calibration: includes focal length and distortion; leave --focal and --distortion out")
    if options.between is not None and options.baseline is None:
        raise InputError("--between: give the distance of the two cameras with --baseline")


def main(argv: Sequence[str] | None = None) -> None:
    """Estimate the poses of one clip."""
    options = parse_options(
        PoseOptions,
        argv,
        prog="estimate_poses.py",
        description="Estimate the poses of a rig from its own pictures and write them as poses_bounds.npy.",
    )
    _check_options(options)
    estimate_poses(options)


if __name__ == "__main__":
    run_program(main)
