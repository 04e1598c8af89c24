"""Opens recordings of fixed cameras in any supported form.

A form is either a clip with LLFF poses, in any layout of ``maskvolume.clips.layouts``, or one of ``_POSED_FORMS``:
files that list pictures with poses. To add such a form, write its reader and add an entry there; the programs that
convert and render clips then accept it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from maskvolume.clips.layouts import POSES_NAME, FrameSource, Layout, Videos, background_folder, open_layout
from maskvolume.clips.rig import RigClip
from maskvolume.clips.straightening import StraightPictures
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import Lens, fit_lens, is_distorted, pinhole, straight
from maskvolume.geometry.poses import PosedCamera, RigPoses
from maskvolume.io.colmap import IMAGES_FOLDER, find_model, read_colmap
from maskvolume.io.images import read_image, read_image_size
from maskvolume.io.nerfstudio import TRANSFORMS_NAME, read_nerfstudio
from maskvolume.io.posed import group_cameras, remaining_names
from maskvolume.io.realestate10k import read_bounds
from maskvolume.runtime.errors import InputError

BOUNDS_NAME = "bounds.txt"  # beside a COLMAP model, which lacks the depth bounds of LLFF poses

_LAYOUTS = {"frames": "a frame folder", "videos": "a folder of videos", "collected": "a collected clip"}


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

    def release(self, camera: int) -> None:
        pass


@dataclass(frozen=True)
class Recording:
    """An input of any form.

    Attributes:
        kind: the layout of a clip with LLFF poses, or a form of posed pictures.
        cameras: the cameras in order, with lenses at the size of the pictures.
        frame_names: names of the frames, in order.
        source: the frames.
        numbers: number of each camera in ``source``.
        fps: frames per second; None if unknown.
        left_out: pictures of a model that have no pose.
    """

    kind: str
    cameras: tuple[PosedCamera, ...]
    frame_names: tuple[str, ...]
    source: FrameSource
    numbers: tuple[int, ...]
    fps: float | None = None
    left_out: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Lines that describe its form, its cameras and frames, and the pictures without a pose."""
        form = _POSED_FORMS[self.kind].words if self.kind in _POSED_FORMS else _LAYOUTS.get(self.kind, self.kind)
        lines = [f"{form}, {len(self.cameras)} cameras, {len(self.frame_names)} frames"]
        if self.left_out:
            lines.append(f"{len(self.left_out)} pictures have no pose and are left out, such as {self.left_out[0]}")
        return lines


@dataclass(frozen=True)
class _PosedForm:
    """A form that lists posed pictures.

    Attributes:
        words: name of the form in messages.
        bounds_place: how the user can specify near and far, for messages.
        find: returns the file or folder in an input that holds the list; None if there is none.
        open: opens a recording from the result of ``find``, the input, the folder of the pictures (or None), and the
            cameras to exclude.
    """

    words: str
    bounds_place: str
    find: Callable[[Path], Path | None]
    open: Callable[[Path, Path, Path | None, Sequence[str]], Recording]


def open_clip(path: str | Path, bg_dir: str | Path | None = None, images: str | Path | None = None) -> RigClip:
    """Open a recording of any form as a clip with ideal cameras of one size.

    Pictures with lens distortion, or of another size than the first camera's, are resampled when they are read;
    ``layout.notes`` lists them.

    Args:
        path: as in :func:`open_recording`.
        bg_dir: folder of the backgrounds ``camNN.png``; None: see ``RigClip.open``.
        images: as in :func:`open_recording`.

    Returns:
        The clip.

    Raises:
        InputError: as in :func:`open_recording`, or the depth bounds are unknown.
    """
    path = Path(path)
    if images is None and (_find_form(path) is None or _is_clip(path)):
        return RigClip.open(path, bg_dir)
    recording = open_recording(path, images)
    root = path if path.is_dir() else path.parent
    size = recording.cameras[0].lens.size
    lenses = tuple(camera.lens for camera in recording.cameras)
    targets, notes = [], [f"{path}: {line}" for line in recording.describe()]
    for camera in recording.cameras:
        obstacles = _obstacles(camera.lens, size)
        try:
            targets.append(pinhole(straight(camera.lens, size), size) if obstacles else camera.lens)
        except InputError as error:
            raise InputError(f"{path}: {camera.name}: {error}") from error
    straightened = [
        camera.name for camera, target in zip(recording.cameras, targets, strict=True) if target is not camera.lens
    ]
    if straightened:
        reasons = dict.fromkeys(reason for lens in lenses for reason in _obstacles(lens, size))
        notes.append(f"pictures of {', '.join(straightened)} are straightened when they are read: {', '.join(reasons)}")
    names = tuple(camera.name for camera in recording.cameras)
    source = StraightPictures(recording.source, recording.numbers, lenses, tuple(targets))
    layout = Layout(
        recording.kind, root, names, recording.frame_names, size, root / POSES_NAME, source, notes=tuple(notes)
    )
    K, T = (
        torch.from_numpy(np.stack(matrices))
        for matrices in ([target.K for target in targets], [camera.T_cam_world for camera in recording.cameras])
    )
    poses = RigPoses(Camera(T, K, size), _known_bounds(recording, path))
    return RigClip(layout, poses, Path(bg_dir) if bg_dir is not None else background_folder(layout))


def open_recording(path: str | Path, images: str | Path | None = None, exclude: Sequence[str] = ()) -> Recording:
    """Detect the form of an input and open it.

    Args:
        path: a clip with LLFF poses, a COLMAP model or transforms.json, or the folder of one of these.
        images: folder of the pictures of a COLMAP model, or a clip whose cameras are named like its images.
        exclude: names of cameras to ignore.

    Returns:
        The recording.

    Raises:
        InputError: the input has none of these forms, or is damaged.
    """
    path = Path(path)
    is_clip = _is_clip(path)
    if images is not None and (is_clip or find_model(path) is None):
        raise InputError(f"--images {images}: {path} names its pictures itself; leave --images out")
    form = None if is_clip else _find_form(path)
    if form is not None:
        found = form.find(path)
        assert found is not None
        return form.open(found, path, Path(images) if images is not None else None, exclude)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give that of a clip, of a COLMAP model or of a {TRANSFORMS_NAME}")
    return _open_llff(path, exclude)


def _is_clip(path: Path) -> bool:
    """Whether a folder is a clip with LLFF poses; it may hold other files too."""
    try:
        return bool(path.is_dir() and RigClip.open(path).names)
    except InputError:
        return False


def _find_form(path: Path) -> _PosedForm | None:
    return next((form for form in _POSED_FORMS.values() if form.find(path) is not None), None)


def _open_llff(path: Path, exclude: Sequence[str]) -> Recording:
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
    return Recording(clip.layout.kind, cameras, clip.frame_names, source, numbers, fps)


def _find_nerfstudio(path: Path) -> Path | None:
    transforms = path / TRANSFORMS_NAME if path.is_dir() else path
    return transforms if transforms.suffix == ".json" and transforms.is_file() else None


def _open_nerfstudio(found: Path, path: Path, images: Path | None, exclude: Sequence[str]) -> Recording:
    cameras, frame_names = group_cameras(read_nerfstudio(found), found, exclude)
    files = tuple(tuple(found.parent / name for name in camera.files) for camera in cameras)
    return _with_files("nerfstudio", cameras, frame_names, files, found)


def _open_colmap(found: Path, path: Path, images: Path | None, exclude: Sequence[str]) -> Recording:
    model = read_colmap(found)
    cameras, frame_names = group_cameras(model.images, found, exclude)
    for place in (path, *(parent for parent in found.parents[:2] if parent.is_relative_to(path))):
        if (place / BOUNDS_NAME).is_file():
            known = read_bounds(place / BOUNDS_NAME)
            cameras = tuple(replace(camera, bounds=known.get(camera.name, camera.bounds)) for camera in cameras)
            break
    folder = images or _images_folder(found, path)
    files = tuple(tuple(folder / name for name in camera.files) for camera in cameras)
    if images is not None and not files[0][0].is_file():
        recording = _with_clip(cameras, images, found)
    else:
        recording = _with_files("colmap", cameras, frame_names, files, found)
    return replace(recording, left_out=model.without_pose)


# By the kind of the recording; tried in this order.
_POSED_FORMS = {
    "nerfstudio": _PosedForm("a nerfstudio file", "add near and far to the file", _find_nerfstudio, _open_nerfstudio),
    "colmap": _PosedForm(
        "a COLMAP model", f"write lines `CAMERA NEAR FAR` to {BOUNDS_NAME} in this folder", find_model, _open_colmap
    ),
}


def _images_folder(model_path: Path, path: Path) -> Path:
    """The customary folder of a model's pictures: ``images`` beside ``sparse/0``, ``sparse`` or the model's files."""
    for place in (path, model_path, *model_path.resolve().parents[:2]):
        if (place / IMAGES_FOLDER).is_dir():
            return place / IMAGES_FOLDER
    return path


def _with_files(
    kind: str,
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
    return Recording(kind, fitted, frame_names, PictureFiles(files), tuple(range(len(files))))


def _with_clip(cameras: Sequence[PosedCamera], folder: Path, path: Path) -> Recording:
    """Combine the cameras of a model of a single instant with all frames of a clip."""
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
    return Recording("colmap", fitted, layout.frame_names, layout.source, numbers, fps)


def _obstacles(lens: Lens, size: tuple[int, int]) -> list[str]:
    """The reasons, in words, why the pictures of a lens can't be used as stored; empty if they can."""
    words = ["distortion"] if is_distorted(lens) else []
    return words if lens.size == size else [*words, f"pictures of {lens.size[1]} x {lens.size[0]} pixels"]


def _known_bounds(recording: Recording, path: Path) -> torch.Tensor:
    """``[N, 2]`` nearest and farthest depth per camera; a camera without bounds gets the extremes of the others."""
    known = [camera.bounds for camera in recording.cameras if camera.bounds is not None]
    if not known:
        raise InputError(
            f"{path}: nothing says how near and far the things are that its cameras see; "
            f"{_POSED_FORMS[recording.kind].bounds_place}, depths in the unit of the poses"
        )
    extremes = min(near for near, _ in known), max(far for _, far in known)
    return torch.tensor([camera.bounds or extremes for camera in recording.cameras], dtype=torch.float64)
