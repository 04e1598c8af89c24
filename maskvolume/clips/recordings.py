"""Recordings of any form that is known: cameras that stand still, and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskvolume.clips.layouts import FrameSource, Videos, open_layout
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.lenses import fit_lens, pinhole
from maskvolume.geometry.poses import PosedCamera
from maskvolume.io.colmap import IMAGES_FOLDER, find_model, read_colmap
from maskvolume.io.images import read_image, read_image_size
from maskvolume.io.nerfstudio import TRANSFORMS_NAME, read_nerfstudio
from maskvolume.io.posed import group_cameras, remaining_names
from maskvolume.io.realestate10k import read_bounds
from maskvolume.runtime.errors import InputError

BOUNDS_NAME = "bounds.txt"  # beside a COLMAP model: the depths that LLFF poses hold and the model does not


@dataclass(frozen=True)
class PictureFiles:
    """Frames stored as one picture each; cameras may differ in size.

    Attributes:
        files: the pictures of each camera, in order.
    """

    files: tuple[tuple[Path, ...], ...]

    def file(self, camera: int, frame: int) -> Path:
        return self.files[camera][frame]

    def read(self, camera: int, frame: int) -> np.ndarray:
        return read_image(self.files[camera][frame])


@dataclass(frozen=True)
class Recording:
    """What an input turned out to be.

    Attributes:
        form: in words.
        cameras: in order, lenses at the size of the pictures.
        frame_names: the frames, in order.
        source: the frames.
        numbers: those of the cameras in ``source``.
        fps: frames a second, where that is known.
        left_out: pictures of a model that have no pose.
    """

    form: str
    cameras: tuple[PosedCamera, ...]
    frame_names: tuple[str, ...]
    source: FrameSource
    numbers: tuple[int, ...]
    fps: float | None = None
    left_out: tuple[str, ...] = ()


def open_recording(path: str | Path, images: str | Path | None = None, exclude: Sequence[str] = ()) -> Recording:
    """Tell the form of an input and open it.

    Args:
        path: a clip with LLFF poses, a COLMAP model or transforms.json, or the folder of one of these.
        images: where the pictures of a COLMAP model are; or a clip whose cameras are called like its images.
        exclude: cameras to leave out, by name, as if they were not there.

    Raises:
        InputError: none of these, or one that is damaged.
    """
    path = Path(path)
    transforms = path / TRANSFORMS_NAME if path.is_dir() else path
    model = find_model(path)
    if images is not None and (model is None or _is_clip(path)):
        raise InputError(f"--images {images}: {path} names its pictures itself; leave --images out")
    if _is_clip(path):
        return _open_clip(path, exclude)
    if transforms.suffix == ".json" and transforms.is_file():
        return _open_nerfstudio(transforms, exclude)
    if model is not None:
        return _open_colmap(model, path, Path(images) if images is not None else None, exclude)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give that of a clip, of a COLMAP model or of a {TRANSFORMS_NAME}")
    return _open_clip(path, exclude)


def _is_clip(path: Path) -> bool:
    """Whether a folder is a clip with LLFF poses; such a clip may have other files beside it."""
    try:
        return bool(path.is_dir() and RigClip.open(path).names)
    except InputError:
        return False


def _open_clip(path: Path, exclude: Sequence[str]) -> Recording:
    clip = RigClip.open(path)
    kept = remaining_names(clip.names, exclude, path)
    scaled = clip.poses.cameras.scaled(clip.size)
    cameras = tuple(
        PosedCamera(
            name,
            pinhole(scaled.K[i].numpy(), clip.size),
            scaled.T_cam_world[i].numpy(),
            (),
            (float(clip.bounds[i, 0]), float(clip.bounds[i, 1])),
        )
        for i, name in enumerate(clip.names)
        if name in kept
    )
    numbers = tuple(clip.names.index(name) for name in kept)
    source = clip.layout.source
    fps = source.videos[0].fps if isinstance(source, Videos) else None
    form = {"frames": "a frame folder", "videos": "a folder of videos", "collected": "a collected clip"}
    return Recording(form[clip.layout.kind], cameras, clip.frame_names, source, numbers, fps)


def _open_nerfstudio(path: Path, exclude: Sequence[str]) -> Recording:
    posed = read_nerfstudio(path)
    cameras, frame_names = group_cameras(posed, path, exclude)
    files = tuple(tuple(path.parent / name for name in camera.files) for camera in cameras)
    return _with_files("a nerfstudio file", cameras, frame_names, files, path)


def _open_colmap(model_path: Path, path: Path, images: Path | None, exclude: Sequence[str]) -> Recording:
    model = read_colmap(model_path)
    cameras, frame_names = group_cameras(model.images, model_path, exclude)
    for place in (path, *(parent for parent in model_path.parents[:2] if parent.is_relative_to(path))):
        if (place / BOUNDS_NAME).is_file():
            known = read_bounds(place / BOUNDS_NAME)
            cameras = tuple(replace(camera, bounds=known.get(camera.name, camera.bounds)) for camera in cameras)
            break
    folder = images or _images_folder(model_path, path)
    files = tuple(tuple(folder / name for name in camera.files) for camera in cameras)
    if images is not None and not files[0][0].is_file():
        recording = _with_clip(cameras, images, model_path)
    else:
        recording = _with_files("a COLMAP model", cameras, frame_names, files, model_path)
    return replace(recording, left_out=model.without_pose)


def _images_folder(model_path: Path, path: Path) -> Path:
    """Where the pictures of a model lie by custom: ``images`` beside ``sparse/0``, ``sparse`` or the model's files."""
    for place in (path, model_path, *model_path.resolve().parents[:2]):
        if (place / IMAGES_FOLDER).is_dir():
            return place / IMAGES_FOLDER
    return path


def _with_files(
    form: str,
    cameras: Sequence[PosedCamera],
    frame_names: tuple[str, ...],
    files: tuple[tuple[Path, ...], ...],
    path: Path,
) -> Recording:
    for row in files:
        for file in row:
            if not file.is_file():
                raise InputError(f"{file}: no such picture, but {path} names it; give their folder with --images")
    fitted = tuple(
        replace(camera, lens=fit_lens(camera.lens, read_image_size(row[0]), path))
        for camera, row in zip(cameras, files, strict=True)
    )
    return Recording(form, fitted, frame_names, PictureFiles(files), tuple(range(len(files))))


def _with_clip(cameras: Sequence[PosedCamera], folder: Path, path: Path) -> Recording:
    """The cameras of a model of one instant with all frames of a clip."""
    layout = open_layout(folder)
    for camera in cameras:
        if camera.name not in layout.names:
            raise InputError(
                f"{folder}: neither the pictures of {path} nor a clip with a camera {camera.name}; give the folder "
                f"that the names in the model are relative to"
            )
    fitted = tuple(replace(camera, lens=fit_lens(camera.lens, layout.size, path)) for camera in cameras)
    numbers = tuple(layout.names.index(camera.name) for camera in cameras)
    fps = layout.source.videos[0].fps if isinstance(layout.source, Videos) else None
    return Recording("a COLMAP model", fitted, layout.frame_names, layout.source, numbers, fps)
