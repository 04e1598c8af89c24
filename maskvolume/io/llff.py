"""LLFF poses: ``poses_bounds.npy`` of a rig, and render paths as ``.txt`` or ``.npy``.

Convention: rotation columns are [down, right, back] in ``.npy`` files and [right, up, back] in path
``.txt`` files, camera to world; here they become OpenCV cameras (x right, y down, z forward). One
focal length for both axes and the principal point in the middle of the picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

PATH_SUFFIXES = (".txt", ".npy")

# Files of float32 or rounded text deviate slightly; a larger deviation means another layout.
_ORTHONORMAL_TOLERANCE = 1e-2
_INTRINSICS_TOLERANCE = 1e-6
_PICKLE_START = b"\x80"


def read_poses_bounds(path: str | Path) -> RigPoses:
    """Read ``poses_bounds.npy``: N x 17, in each row a 3 x 5 pose, near and far.

    Raises:
        InputError: a missing or damaged file, another shape, or a row that is not a camera.
    """
    path = Path(path)
    rows = _load_array(path)
    if rows.ndim != 2 or rows.shape[1] != 17 or rows.shape[0] < 1:
        raise InputError(
            f"{path}: shape {_shape(rows)}, N x 17 expected; write one row of 15 pose numbers, near and "
            f"far for each camera"
        )
    _require_finite(rows, path, "row")
    cameras = _to_cameras(rows[:, :15].reshape(-1, 3, 5), ("down", "right", "back"), path, "row")
    for i, (near, far) in enumerate(rows[:, 15:].tolist()):
        if not 0 < near < far:
            raise InputError(
                f"{path}: row {i}: near {near:g} and far {far:g}, 0 < near < far expected; give the "
                f"depths of the nearest and the farthest thing that this camera sees"
            )
    return RigPoses(cameras, torch.from_numpy(rows[:, 15:].copy()))


def write_poses_bounds(path: str | Path, poses: RigPoses) -> None:
    """Write ``poses_bounds.npy``; the inverse of :func:`read_poses_bounds`.

    Raises:
        InputError: a camera that LLFF cannot represent (two focal lengths or an off-centre axis).
        OSError: the file cannot be written.
    """
    path = Path(path)
    matrices = _from_cameras(poses.cameras, ("down", "right", "back"), path)
    bounds = poses.bounds.detach().to("cpu", torch.float64).numpy()
    _save_array(path, np.concatenate([matrices.reshape(-1, 15), bounds], axis=1))


def read_path(path: str | Path, size: tuple[int, int] | None = None) -> Camera:
    """Read a render path as cameras ``[N]`` float64, K scaled per axis to ``size`` (h, w) if given.

    ``.npy``: N x 3 x 5, columns [down, right, back, t, hwf]. Any other name is read as text: N in the
    first line, then 15 numbers a line, column by column, [right, up, back, t, hwf].

    Raises:
        InputError: a missing or damaged file, a wrong count or shape, a pose that is not a camera.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        matrices, columns, what = _load_array(path), ("down", "right", "back"), "pose"
        if matrices.ndim != 3 or matrices.shape[1:] != (3, 5) or matrices.shape[0] < 1:
            raise InputError(
                f"{path}: shape {_shape(matrices)}, N x 3 x 5 expected; make the path again with "
                f"data_tools/imgs2renderpath.py"
            )
    else:
        matrices, columns, what = _read_path_text(path), ("right", "up", "back"), "pose"
    _require_finite(matrices, path, what)
    cameras = _to_cameras(matrices, columns, path, what)
    return cameras if size is None else cameras.scaled(size)


def write_path(path: str | Path, cameras: Camera) -> None:
    """Write cameras ``[N]`` as a render path, ``.txt`` or ``.npy`` by the suffix of ``path``.

    Raises:
        InputError: another suffix, or a camera that LLFF cannot represent.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PATH_SUFFIXES:
        raise InputError(f"{path}: a render path is a .txt or a .npy file; choose one of the two")
    if suffix == ".npy":
        _save_array(path, _from_cameras(cameras, ("down", "right", "back"), path))
        return
    matrices = _from_cameras(cameras, ("right", "up", "back"), path)
    rows = matrices.transpose(0, 2, 1).reshape(-1, 15).tolist()
    lines = [str(len(rows))] + [" ".join(repr(value) for value in row) for row in rows]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


# OpenCV's camera axes and their opposites; the columns of a file are named by either.
_OPENCV_AXES = (("right", "left"), ("down", "up"), ("forward", "back"))


def _to_cameras(
    matrices: np.ndarray,  # [N, 3, 5]
    columns: tuple[str, ...],
    path: Path,
    what: str,
) -> Camera:
    axes = []
    for name, opposite in _OPENCV_AXES:
        sign = 1.0 if name in columns else -1.0
        axes.append(sign * matrices[:, :, columns.index(name if sign > 0 else opposite)])
    rotation = np.stack(axes, axis=2)
    for i in range(len(matrices)):
        _require_rotation(rotation[i], columns, path, f"{what} {i}")
        _require_intrinsics(matrices[i, :, 4], matrices[0, :, 4], path, f"{what} {i}")
    u, _, vh = np.linalg.svd(rotation)
    T_world_cam = np.tile(np.eye(4), (len(matrices), 1, 1))
    T_world_cam[:, :3, :3] = u @ vh
    T_world_cam[:, :3, 3] = matrices[:, :, 3]
    h, w, f = (torch.from_numpy(matrices[:, i, 4].copy()) for i in range(3))
    size = max(1, round(float(h[0]))), max(1, round(float(w[0])))
    K = torch.zeros(len(matrices), 3, 3, dtype=torch.float64)
    K[:, 0, 0], K[:, 1, 1] = f * (size[1] / w), f * (size[0] / h)
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = size[1] / 2, size[0] / 2, 1.0
    return Camera(invert_rigid(torch.from_numpy(T_world_cam)), K, size)


def _from_cameras(cameras: Camera, columns: tuple[str, ...], path: Path) -> np.ndarray:
    """``[N, 3, 5]`` float64 LLFF matrices with these rotation columns."""
    if len(cameras.batch_shape) != 1:
        raise ValueError(f"cameras: [N] expected, got {list(cameras.batch_shape)}")
    cameras = cameras.to("cpu", torch.float64)
    T_world_cam = invert_rigid(cameras.T_cam_world.detach()).numpy()
    K, (h, w) = cameras.K.detach().numpy(), cameras.size
    f = K[:, 0, 0]
    ideal = np.zeros_like(K)
    ideal[:, 0, 0] = ideal[:, 1, 1] = f
    ideal[:, 0, 2], ideal[:, 1, 2], ideal[:, 2, 2] = w / 2, h / 2, 1.0
    if np.abs(K - ideal).max(initial=0.0) > _INTRINSICS_TOLERANCE * max(h, w):
        raise InputError(
            f"{path}: LLFF supports one focal length and a centred principal point, these cameras have "
            f"others; give cameras at the size that they were calibrated for"
        )
    matrices = np.empty((len(K), 3, 5))
    for axis, (name, opposite) in enumerate(_OPENCV_AXES):
        sign = 1.0 if name in columns else -1.0
        matrices[:, :, columns.index(name if sign > 0 else opposite)] = sign * T_world_cam[:, :3, axis]
    matrices[:, :, 3] = T_world_cam[:, :3, 3]
    matrices[:, 0, 4], matrices[:, 1, 4], matrices[:, 2, 4] = h, w, f
    return matrices


def _require_rotation(rotation: np.ndarray, columns: tuple[str, ...], path: Path, what: str) -> None:
    expected = f"three unit columns at right angles, [{', '.join(columns)}], expected"
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _ORTHONORMAL_TOLERANCE:
        raise InputError(
            f"{path}: {what}: the rotation is singular or not orthonormal, {expected}; estimate this pose again"
        )
    if np.linalg.det(rotation) < 0:
        raise InputError(f"{path}: {what}: the rotation is mirrored, {expected}; check the order and signs of the axes")


def _require_intrinsics(hwf: np.ndarray, first: np.ndarray, path: Path, what: str) -> None:
    h, w, f = hwf.tolist()
    if min(h, w) <= 0 or f <= 0:
        raise InputError(
            f"{path}: {what}: height {h:g}, width {w:g} and focal length {f:g}, numbers above 0 expected; "
            f"correct the last column of the pose"
        )
    if (h, w) != tuple(first[:2].tolist()):
        raise InputError(
            f"{path}: {what}: picture size {w:g} x {h:g}, but {first[1]:g} x {first[0]:g} in the first; "
            f"scale all cameras to one size"
        )


def _require_finite(values: np.ndarray, path: Path, what: str) -> None:
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise InputError(f"{path}: {what} {int(bad.argmax())} holds NaN or infinity; estimate this pose again")


def _read_path_text(path: Path) -> np.ndarray:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make a path with data_tools/imgs2renderpath.py") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; give a render path in .txt or .npy form") from error
    numbered = [(i, line.split()) for i, line in enumerate(lines, start=1) if line.strip()]
    again = "make the path again with data_tools/imgs2renderpath.py"
    if not numbered or len(numbered[0][1]) != 1 or not numbered[0][1][0].isascii():
        raise InputError(f"{path}: line 1: the number of poses expected; {again}")
    try:
        count = int(numbered[0][1][0])
    except ValueError as error:
        raise InputError(f"{path}: line 1: the number of poses expected; {again}") from error
    rows = []
    for number, words in numbered[1:]:
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise InputError(f"{path}: line {number}: {error}; {again}") from error
        if len(row) != 15:
            raise InputError(f"{path}: line {number}: {len(row)} numbers, 15 expected; {again}")
        rows.append(row)
    if count != len(rows) or count < 1:
        raise InputError(f"{path}: line 1 says {count} poses, but {len(rows)} follow; correct the number or {again}")
    return np.array(rows).reshape(-1, 5, 3).transpose(0, 2, 1)


def _load_array(path: Path) -> np.ndarray:
    """Load a plain array of real numbers as float64; pickles are refused, since they can run code."""
    try:
        with open(path, "rb") as file:
            if file.read(1) == _PICKLE_START:
                raise _pickle_error(path)
            file.seek(0)
            array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (ValueError, EOFError, SyntaxError, TypeError, KeyError, MemoryError, OverflowError) as error:
        if "object arrays" in str(error).lower():
            raise _pickle_error(path) from error
        raise InputError(f"{path}: damaged or not a .npy file; make or download it again") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: not an array of real numbers; save it again as a float64 .npy")
    return array.astype(np.float64)


def _pickle_error(path: Path) -> InputError:
    return InputError(
        f"{path}: holds pickled objects, which can run code and are not loaded; save it again as a plain float64 array"
    )


def _save_array(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def _shape(array: np.ndarray) -> str:
    return " x ".join(str(n) for n in array.shape) or "()"
