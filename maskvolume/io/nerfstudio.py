"""nerfstudio's ``transforms.json``: posed pictures, with shared or individual intrinsics.

Convention: the file holds camera-to-world poses with OpenGL axes (x right, y up, z back) and pixel centres at +0.5;
readers convert them to OpenCV cameras, world to camera.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskvolume.geometry.lenses import Lens
from maskvolume.geometry.poses import PosedCamera, PosedImage
from maskvolume.io.files import atomic_path
from maskvolume.io.images import PICTURE_SUFFIXES, read_image_size
from maskvolume.runtime.errors import InputError

TRANSFORMS_NAME = "transforms.json"

_OPENGL = np.diag([1.0, -1, -1, 1])  # its axes in OpenCV's, and back
_ORTHONORMAL_TOLERANCE = 1e-2
_PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL")
_FISHEYE_MODELS = ("OPENCV_FISHEYE", "FISHEYE")
_DISTORTION_KEYS = ("k1", "k2", "p1", "p2", "k3")
_FISHEYE_KEYS = ("k1", "k2", "k3", "k4")


def read_nerfstudio(path: str | Path) -> tuple[PosedImage, ...]:
    """Read ``transforms.json``; names are relative to its folder.

    Missing ``w`` and ``h`` come from the picture, ``cx`` and ``cy`` from its middle, ``fl_y`` from ``fl_x``, and
    ``fl_x`` from ``camera_angle_x``. ``near`` and ``far`` of a frame are its bounds. A frame's own intrinsics override
    the shared ones. ``applied_transform`` and ``applied_scale`` are ignored, since the poses already include them.

    Raises:
        InputError: a missing or damaged file, or a frame without a usable pose, intrinsics or picture.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: damaged or no JSON; make it again") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f'{path}: a list "frames" of pictures with poses expected; make the file again')
    images = [_read_frame({**content, **frame}, f"{path}: frame {i}", path) for i, frame in enumerate(frames)]
    if len({image.name for image in images}) < len(images):
        raise InputError(f"{path}: a picture is listed twice; make the file again")
    return tuple(images)


def write_nerfstudio(path: str | Path, cameras: Sequence[PosedCamera]) -> None:
    """Write ``transforms.json`` with a frame for every picture of every camera.

    Intrinsics are at the top level if all cameras share them. If there are several frames, each has its ``time``, 0
    to 1. Bounds are written as ``near`` and ``far``, which other readers ignore.

    Args:
        path: the file, in the folder that the cameras' files are relative to.
        cameras: their lenses must have no :func:`nerfstudio_obstacle` and be of one model.

    Raises:
        OSError: the file cannot be written.
    """
    models = {camera.lens.model for camera in cameras}
    if len(models) != 1:
        raise ValueError("cameras: lenses of one model expected")
    content: dict[str, Any] = {"camera_model": "OPENCV" if models == {"pinhole"} else "OPENCV_FISHEYE"}
    intrinsics = [_intrinsics(camera.lens) for camera in cameras]
    shared = intrinsics[0] if all(values == intrinsics[0] for values in intrinsics) else {}
    frames = []
    for camera, camera_intrinsics in zip(cameras, intrinsics, strict=True):
        T_world_cam = np.eye(4)
        T_world_cam[:3, :3] = camera.T_cam_world[:3, :3].T
        T_world_cam[:3, 3] = -camera.T_cam_world[:3, :3].T @ camera.T_cam_world[:3, 3]
        matrix = (T_world_cam @ _OPENGL).tolist()
        for i, file in enumerate(camera.files):
            frame: dict[str, Any] = {"file_path": file, "transform_matrix": matrix}
            if len(camera.files) > 1:
                frame["time"] = i / (len(camera.files) - 1)
            if camera.bounds is not None:
                frame["near"], frame["far"] = camera.bounds
            frames.append(frame if shared else {**frame, **camera_intrinsics})
    with atomic_path(Path(path)) as temporary:
        text = json.dumps({**content, **shared, "frames": frames}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def nerfstudio_obstacle(lens: Lens) -> str | None:
    """The property of a lens that the file cannot represent; None if it can represent all."""
    extra = lens.distortion[5:]
    return "rational, thin prism or tilt distortion" if np.any(extra != 0) else None


def _intrinsics(lens: Lens) -> dict[str, float]:
    keys = _FISHEYE_KEYS if lens.model == "fisheye" else _DISTORTION_KEYS
    coefficients = {"k1": 0.0, "k2": 0.0, "k3": 0.0, "k4": 0.0, "p1": 0.0, "p2": 0.0}
    coefficients.update(zip(keys, lens.distortion.tolist(), strict=False))
    h, w = lens.size
    fx, fy, cx, cy = (float(lens.K[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": w, "h": h, **coefficients}


def _read_frame(frame: Mapping[str, Any], place: str, path: Path) -> PosedImage:
    name = frame.get("file_path")
    if not isinstance(name, str) or not name:
        raise InputError(f"{place}: file_path is missing; make the file again")
    file = _find_picture(path.parent / name, place)
    name = name.removeprefix("./") if Path(name).suffix else f"{name.removeprefix('./')}{file.suffix}"
    bounds = None
    if "near" in frame and "far" in frame:
        near, far = _number(frame, "near", place), _number(frame, "far", place)
        if not 0 < near < far:
            raise InputError(f"{place}: near {near:g} and far {far:g}; 0 < near < far expected")
        bounds = (near, far)
    time = _number(frame, "time", place) if frame.get("time") is not None else None
    return PosedImage(name, _read_lens(frame, place, file), _read_pose(frame, place), time, bounds)


def _find_picture(file: Path, place: str) -> Path:
    if file.is_file():
        return file
    for suffix in PICTURE_SUFFIXES if not file.suffix else ():
        if file.with_name(file.name + suffix).is_file():
            return file.with_name(file.name + suffix)
    raise InputError(f"{place}: {file}: no such picture; put the pictures beside the file")


def _read_pose(frame: Mapping[str, Any], place: str) -> np.ndarray:
    try:
        matrix = np.array(frame["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place}: transform_matrix: 4 x 4 numbers expected; make the file again") from error
    if matrix.shape not in ((4, 4), (3, 4)) or not np.isfinite(matrix).all():
        raise InputError(f"{place}: transform_matrix: 4 x 4 finite numbers expected; make the file again")
    rotation, position = matrix[:3, :3] @ _OPENGL[:3, :3], matrix[:3, 3]
    is_rotation = np.abs(rotation.T @ rotation - np.eye(3)).max() <= _ORTHONORMAL_TOLERANCE
    if not is_rotation or np.linalg.det(rotation) < 0:
        raise InputError(f"{place}: transform_matrix: not a rotation: scaled, mirrored or singular; make it again")
    u, _, vh = np.linalg.svd(rotation)
    T = np.eye(4)
    T[:3, :3] = (u @ vh).T
    T[:3, 3] = -T[:3, :3] @ position
    return T


def _read_lens(frame: Mapping[str, Any], place: str, file: Path) -> Lens:
    model = str(frame.get("camera_model", "OPENCV")).upper()
    if model not in _PINHOLE_MODELS + _FISHEYE_MODELS:
        raise InputError(f"{place}: camera_model {model} is not supported; OPENCV or OPENCV_FISHEYE expected")
    if frame.get("w") is None or frame.get("h") is None:
        h, w = map(float, read_image_size(file))
    else:
        h, w = _number(frame, "h", place), _number(frame, "w", place)
    if frame.get("fl_x") is None and frame.get("camera_angle_x") is not None:
        fx = w / 2 / math.tan(_number(frame, "camera_angle_x", place) / 2)
    else:
        fx = _number(frame, "fl_x", place)
    fy, cx, cy = (_number(frame, key, place, value) for key, value in (("fl_y", fx), ("cx", w / 2), ("cy", h / 2)))
    if min(fx, fy) <= 0 or min(h, w) < 1 or (h, w) != (round(h), round(w)):
        raise InputError(f"{place}: {w:g} x {h:g} pixels and focal lengths {fx:g} and {fy:g}; correct the intrinsics")
    is_fisheye = model in _FISHEYE_MODELS
    keys = _FISHEYE_KEYS if is_fisheye else _DISTORTION_KEYS
    distortion = np.array([_number(frame, key, place, 0.0) for key in keys])
    if not is_fisheye and _number(frame, "k4", place, 0.0) != 0:
        raise InputError(f"{place}: k4 is only known for OPENCV_FISHEYE; calibrate without it")
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return Lens(K, distortion, "fisheye" if is_fisheye else "pinhole", (round(h), round(w)))


def _number(frame: Mapping[str, Any], key: str, place: str, default: float | None = None) -> float:
    value = frame.get(key, default)
    if value is None:
        raise InputError(f"{place}: {key} is missing; add it, in pixels of the pictures")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{place}: {key}: a finite number expected, got {value!r}")
    return float(value)
