"""COLMAP's sparse models, binary or text, read and written with pycolmap.

Convention: COLMAP has OpenCV axes, world to camera, and pixel centres at +0.5, as everywhere here.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskvolume.geometry.lenses import Lens, is_distorted, project
from maskvolume.geometry.poses import PosedCamera, PosedImage
from maskvolume.runtime.errors import InputError

if TYPE_CHECKING:
    import pycolmap

MODEL_FOLDER = "sparse/0"
IMAGES_FOLDER = "images"

# Parameter names, in COLMAP's order, of the models that OpenCV's formulas cover.
_PINHOLE_MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
}
_FISHEYE_MODELS = {
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
}
# LLFF drops one point in a thousand at each end; more points than that are wrong.
_BOUNDS_PERCENTILES = (1.0, 99.0)
_MIN_POINTS = 10
_READ_ERRORS = (ValueError, IndexError, KeyError, RuntimeError, MemoryError, OSError, OverflowError)


@dataclass(frozen=True)
class ColmapModel:
    """The contents of a sparse model.

    Attributes:
        path: folder of the model.
        images: those with a pose; their bounds are percentiles of the depths of their visible points.
        without_pose: names of the other images.
    """

    path: Path
    images: tuple[PosedImage, ...]
    without_pose: tuple[str, ...]


def find_model(folder: str | Path) -> Path | None:
    """The sparse model in ``folder``, ``folder/sparse/0`` or ``folder/sparse``; None if there is none."""
    for place in (Path(folder), Path(folder) / MODEL_FOLDER, Path(folder) / "sparse"):
        if any((place / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
            return place
    return None


def read_colmap(path: str | Path) -> ColmapModel:
    """Read a sparse model.

    Raises:
        InputError: a missing or damaged file, a camera model that OpenCV's formulas do not cover, or pycolmap is
            not installed.
    """
    path = Path(path)
    model = _load(path)
    lenses = {number: _lens(camera, path) for number, camera in model.cameras.items()}
    points = np.array([point.xyz for point in model.points3D.values()]).reshape(-1, 3)
    rows = {number: row for row, number in enumerate(model.points3D)}
    images, without_pose = [], []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        if not image.has_pose:
            without_pose.append(image.name)
            continue
        T = np.eye(4)
        T[:3] = image.cam_from_world().matrix()
        if not np.isfinite(T).all() or abs(np.linalg.det(T[:3, :3]) - 1) > 1e-6:
            raise InputError(f"{path}: {image.name}: its pose is not a rigid transform; estimate it again")
        posed = PosedImage(image.name, lenses[image.camera_id], T)
        seen = [rows[p.point3D_id] for p in image.get_observation_points2D() if p.point3D_id in rows]
        images.append(replace(posed, bounds=_bounds(posed, points, seen)))
    return ColmapModel(path, tuple(images), tuple(without_pose))


def write_colmap(folder: str | Path, cameras: Sequence[PosedCamera]) -> None:
    """Write a binary sparse model without points; each picture of each camera becomes an image.

    Args:
        folder: of the model, such as ``OUT/sparse/0``; its files are replaced.
        cameras: their lenses must have no :func:`colmap_obstacle`.

    Raises:
        InputError: pycolmap is not installed.
        OSError: the files cannot be written.
    """
    library, folder = _pycolmap(), Path(folder)
    model = library.Reconstruction()
    number = 0
    for camera_id, camera in enumerate(cameras, start=1):
        name, values = _parameters(camera.lens)
        h, w = camera.lens.size
        model.add_camera_with_trivial_rig(
            library.Camera(model=name, width=w, height=h, params=values, camera_id=camera_id)
        )
        pose = library.Rigid3d(camera.T_cam_world[:3])
        for file in camera.files:
            number += 1
            model.add_image_with_trivial_frame(library.Image(name=file, camera_id=camera_id, image_id=number), pose)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}")
    try:
        temporary.mkdir()
        model.write_binary(str(temporary))
        if not _is_whole(model, temporary):  # the library does not report a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        folder.mkdir(exist_ok=True)
        for path in sorted(temporary.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def colmap_obstacle(lens: Lens) -> str | None:
    """The property of a lens that no COLMAP camera model can represent; None if one can."""
    extra = lens.distortion[8:]
    return "thin prism or tilt distortion" if np.any(extra != 0) else None


def _parameters(lens: Lens) -> tuple[str, list[float]]:
    """COLMAP's name for the camera model, and its parameters."""
    pinhole = [lens.K[0, 0], lens.K[1, 1], lens.K[0, 2], lens.K[1, 2]]
    if lens.model == "fisheye":
        return "OPENCV_FISHEYE", [*pinhole, *lens.distortion]
    if not is_distorted(lens):
        return "PINHOLE", pinhole
    coefficients = np.pad(lens.distortion, (0, 4))[:8]
    if not np.any(coefficients[4:]):
        return "OPENCV", [*pinhole, *coefficients[:4]]
    return "FULL_OPENCV", [*pinhole, *coefficients]


def _lens(camera: pycolmap.Camera, path: Path) -> Lens:
    name = camera.model_name
    names = {**_PINHOLE_MODELS, **_FISHEYE_MODELS}.get(name)
    if names is None:
        known = ", ".join([*_PINHOLE_MODELS, *_FISHEYE_MODELS])
        raise InputError(
            f"{path}: camera {camera.camera_id}: model {name} is not one of {known}; undistort the pictures with "
            f"COLMAP's image_undistorter and use the model that it writes"
        )
    values = dict(zip(names.split(), map(float, camera.params), strict=True))
    fx, fy = (values.get(key, values.get("f", 0.0)) for key in ("fx", "fy"))
    finite = np.isfinite(list(values.values())).all()
    if not finite or min(fx, fy) <= 0 or min(camera.width, camera.height) < 1:
        raise InputError(f"{path}: camera {camera.camera_id} has no usable intrinsics; run the reconstruction again")
    K = np.array([[fx, 0, values["cx"]], [0, fy, values["cy"]], [0, 0, 1]])
    is_fisheye = name in _FISHEYE_MODELS
    order = ("k1", "k2", "k3", "k4") if is_fisheye else ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    count = 8 if "k5" in values else 4
    distortion = np.array([values.get(key, 0.0) for key in order[:count]])
    return Lens(K, distortion, "fisheye" if is_fisheye else "pinhole", (camera.height, camera.width))


def _bounds(image: PosedImage, points: np.ndarray, seen: Sequence[int]) -> tuple[float, float] | None:
    """Nearest and farthest depth of the points observed in an image, or, if too few, of those that project into it."""
    rotation, shift = image.T_cam_world[:3, :3], image.T_cam_world[:3, 3]
    local = (points if len(seen) < _MIN_POINTS else points[list(seen)]) @ rotation.T + shift
    local = local[local[:, 2] > 0]
    if len(seen) < _MIN_POINTS <= len(local):
        pixels, (h, w) = project(image.lens, local[:, :2] / local[:, 2:]), image.lens.size
        local = local[((pixels >= 0) & (pixels <= [w, h])).all(axis=1)]
    depths = local[:, 2]
    if len(depths) < _MIN_POINTS:
        return None
    near, far = np.percentile(depths, _BOUNDS_PERCENTILES).tolist()
    return (near, far) if near < far else None


def _load(path: Path) -> pycolmap.Reconstruction:
    library = _pycolmap()
    names = ("cameras", "images", "points3D")
    suffix = ".bin" if (path / "cameras.bin").is_file() else ".txt"
    for name in names:
        if not (path / f"{name}{suffix}").is_file():
            raise InputError(f"{path / name}{suffix}: no such file; a model has cameras, images and points3D")
    advice = "copy the model or run the reconstruction again"
    level, library.logging.minloglevel = library.logging.minloglevel, 3  # our one error line replaces the library's
    try:
        model = library.Reconstruction()
        if suffix == ".bin":
            model.read_binary(str(path))
        else:
            model.read_text(str(path))
        if suffix == ".bin" and not _is_whole(model, path):
            raise InputError(f"{path}: a file of the model is cut short; {advice}")
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged, or not a COLMAP model ({reason}); {advice}") from error
    finally:
        library.logging.minloglevel = level
    if not model.images:
        raise InputError(f"{path}: the model holds no image; run the reconstruction again")
    return model


def _is_whole(model: pycolmap.Reconstruction, path: Path) -> bool:
    """Whether the binary files are as long as their contents require; the library fills missing bytes with garbage."""
    sizes = {
        "cameras": sum(24 + 8 * len(camera.params) for camera in model.cameras.values()),
        "images": sum(73 + len(i.name.encode()) + 24 * len(i.points2D) for i in model.images.values()),
        "points3D": sum(51 + 8 * len(point.track.elements) for point in model.points3D.values()),
    }
    return all((path / f"{name}.bin").stat().st_size == 8 + size for name, size in sizes.items())


def _pycolmap() -> Any:
    previous = signal.getsignal(signal.SIGTERM)
    try:
        import pycolmap
    except ImportError as error:
        raise InputError(f"COLMAP models need pycolmap, which can't be imported ({error}); install pycolmap") from error
    # The import installs its own handler, which ends the program with a stack trace.
    if threading.current_thread() is threading.main_thread() and previous is not None:
        signal.signal(signal.SIGTERM, previous)
    return pycolmap
