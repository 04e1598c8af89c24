"""Groups posed pictures into the cameras of a rig.

A COLMAP model and a nerfstudio file list pictures, each with a pose. A clip has static cameras that take
pictures at the same times. Names and poses determine which pictures belong to one camera:

    cam00/00000.jpg, cam00/00001.jpg     one folder a camera, one picture a frame
    00000/cam00.jpg, 00001/cam00.jpg     one folder a frame, one picture a camera
    cam00.jpg, cam01.jpg                 one frame

Convention: OpenCV axes, ``T_cam_world`` maps world to camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from maskvolume.geometry.lenses import Lens
from maskvolume.geometry.poses import PosedCamera, PosedImage
from maskvolume.io.files import natural_key
from maskvolume.runtime.errors import InputError

_SAME_POSE = 1e-6
_SAME_TIME = 1e-6


def remaining_names(names: Sequence[str], exclude: Sequence[str], path: str | Path) -> list[str]:
    """The names of the cameras that are not excluded.

    Raises:
        InputError: ``exclude`` names no camera, or excludes all.
    """
    for name in exclude:
        if name not in names:
            raise InputError(f"{path}: no camera {name}; --exclude takes some of {', '.join(names)}")
    remaining = [name for name in names if name not in exclude]
    if not remaining:
        raise InputError(f"{path}: every camera is excluded; keep at least one")
    return remaining


def group_cameras(
    images: Sequence[PosedImage], path: str | Path, exclude: Sequence[str] = ()
) -> tuple[tuple[PosedCamera, ...], tuple[str, ...]]:
    """The cameras that took the pictures, sorted by name, and the names of the frames.

    Args:
        images: with different names.
        path: the source of the pictures, for messages.
        exclude: names of cameras to leave out.

    Raises:
        InputError: a camera moves, the cameras took their pictures at different times, or ``exclude`` names
            no camera.
    """
    if not images:
        raise InputError(f"{path}: holds no picture with a pose; estimate the poses again")
    for camera_of, frame_of in ((_folder, _stem), (_stem, _folder)):
        groups: dict[str, dict[str, PosedImage]] = {}
        for image in images:
            frames = groups.setdefault(camera_of(image), {})
            if frame_of(image) in frames:
                other = frames[frame_of(image)].name
                raise InputError(f"{path}: {image.name} and {other} are of the same frame; keep one of the two")
            frames[frame_of(image)] = image
        labels = _labels(sorted(groups, key=natural_key), "cam00")
        are_static = [_is_static(list(groups[key].values())) for key in labels if labels[key] not in exclude]
        if all(are_static) and (are_static or len(labels) > 1 or camera_of is _stem):
            names = remaining_names(list(labels.values()), exclude, path)
            chosen = {labels[key]: groups[key] for key in labels if labels[key] in names}
            return _cameras(chosen, path, "00000" if camera_of is _stem else None)
    raise InputError(
        f"{path}: the cameras move from picture to picture; a clip needs static cameras, with one folder "
        f"for each camera or for each frame"
    )


def _folder(image: PosedImage) -> str:
    return str(PurePosixPath(image.name).parent)


def _stem(image: PosedImage) -> str:
    return PurePosixPath(image.name).stem


def _is_static(images: Sequence[PosedImage]) -> bool:
    first = images[0]
    scale = 1 + np.abs(first.T_cam_world).max()
    return all(
        np.abs(image.T_cam_world - first.T_cam_world).max() <= _SAME_POSE * scale
        and (image.lens is first.lens or _same_lens(image.lens, first.lens))
        for image in images
    )


def _same_lens(a: Lens, b: Lens) -> bool:
    return (
        (a.model, a.size) == (b.model, b.size)
        and np.array_equal(a.K, b.K)
        and np.array_equal(a.distortion, b.distortion)
    )


def _cameras(
    groups: Mapping[str, Mapping[str, PosedImage]], path: str | Path, only_frame: str | None
) -> tuple[tuple[PosedCamera, ...], tuple[str, ...]]:
    """The cameras of groups by name; ``only_frame`` is the name for a single frame, None: its key."""
    first = next(iter(groups))
    frame_keys = sorted(groups[first], key=natural_key)
    for camera, images in groups.items():
        if set(images) != set(frame_keys):
            odd = sorted(set(images) ^ set(frame_keys), key=natural_key)[0]
            raise InputError(
                f"{path}: of cameras {first} and {camera} only one has frame {odd}; give the same frames for all "
                f"cameras, or leave a camera out with --exclude"
            )
    names = _labels(frame_keys, "00000")
    if only_frame is not None and len(frame_keys) == 1:
        names = {frame_keys[0]: only_frame}
    order, in_order = _time_order({c: [images[key].time for key in frame_keys] for c, images in groups.items()}, path)
    frame_names = tuple(names[frame_keys[i]] if in_order else f"{n:05d}" for n, i in enumerate(order))
    cameras = []
    for camera in sorted(groups, key=natural_key):
        row = [groups[camera][frame_keys[i]] for i in order]
        known = [image.bounds for image in row if image.bounds is not None]
        bounds = (min(near for near, _ in known), max(far for _, far in known)) if known else None
        files = tuple(image.name for image in row)
        cameras.append(PosedCamera(camera, row[0].lens, row[0].T_cam_world, files, bounds))
    return tuple(cameras), frame_names


def _time_order(times: Mapping[str, Sequence[float | None]], path: str | Path) -> tuple[list[int], bool]:
    """The order of the frames by time, and whether it matches that of their names."""
    first = next(iter(times))
    reference = [time for time in times[first] if time is not None]
    count = len(times[first])
    for camera, camera_times in times.items():
        known = [time for time in camera_times if time is not None]
        if len(known) not in (0, count) or len(known) != len(reference):
            raise InputError(f"{path}: some pictures have a time, others none; give all of them a time")
        if any(abs(a - b) > _SAME_TIME for a, b in zip(known, reference, strict=True)):
            raise InputError(
                f"{path}: cameras {first} and {camera} took pictures of one name at different "
                f"times; a clip needs cameras that record together"
            )
    if not reference:
        return list(range(count)), True
    order = sorted(range(count), key=lambda i: reference[i])
    return order, order == list(range(count))


def _labels(keys: Sequence[str], default: str) -> dict[str, str]:
    """Short names for keys that are paths: the parts that differ between them."""
    parts = [PurePosixPath(key).parts for key in keys]
    if len({len(row) for row in parts}) > 1:
        return {key: "_".join(row) or default for key, row in zip(keys, parts, strict=True)}
    columns = [i for i in range(len(parts[0])) if len({row[i] for row in parts}) > 1]
    if not columns:
        # There is one key; its last part is its name.
        columns = [len(parts[0]) - 1] if parts[0] else []
    return {key: "_".join(row[i] for i in columns) or default for key, row in zip(keys, parts, strict=True)}
