"""Writes the pictures of a clip's cameras to a new clip, either unchanged or resampled for another lens.

Files in the output folder that are up to date are kept, so that an interrupted program continues.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from maskvolume.clips.layouts import (
    COLLECTED_NAME,
    VIDEO_SUFFIXES,
    FrameSource,
)
from maskvolume.clips.straightening import read_of_lens
from maskvolume.geometry.lenses import Lens, RemapTables, undistort_maps
from maskvolume.io.files import (
    atomic_path,
    is_current,
    link_or_copy,
    require_writable_folder,
)
from maskvolume.io.images import write_image
from maskvolume.io.video import VideoWriter
from maskvolume.runtime.errors import InputError

RECORD_NAME = ".made_of.json"

Form = Literal["frames", "videos", "collected"]


@dataclass(frozen=True, eq=False)
class OutputCamera:
    """A camera whose pictures are written.

    Attributes:
        name: name in the output.
        number: number of the camera in the source.
        lens: lens of the source pictures.
        target: lens of the written pictures; if it is the same object as ``lens``, pictures are unchanged.
    """

    name: str
    number: int
    lens: Lens
    target: Lens

    @property
    def is_kept(self) -> bool:
        """Whether the pictures are unchanged."""
        return self.target is self.lens


@dataclass(frozen=True, eq=False)
class OutputClip:
    """A clip to write.

    Attributes:
        source: the frames.
        cameras: the cameras to write, in order.
        frames: numbers of the frames in the source by their names in the output, in order.
        folder: the parent folder of the cameras (of the frames, if collected).
        form: the layout.
        suffix: suffix of the pictures; None: as in the source, .jpg for frames of videos.
        fps: frames per second of videos.
        takes_all: whether ``frames`` are all frames of the source in its order, so that its videos can be linked.
    """

    source: FrameSource
    cameras: tuple[OutputCamera, ...]
    frames: Mapping[str, int]
    folder: Path
    form: Form
    suffix: str | None = None
    fps: float = 30.0
    takes_all: bool = True

    def picture(self, position: int, frame_name: str) -> Path:
        """The output file of a frame of the camera at a position in ``cameras``."""
        name = f"{frame_name}{self._picture_suffix(position)}"
        if self.form == "collected":
            return self.folder / frame_name / "images" / f"{position:03d}{self._picture_suffix(position)}"
        return self.folder / self.cameras[position].name / name

    def video(self, position: int) -> Path:
        """The output video of the camera at a position in ``cameras``."""
        suffix = self._source_suffix(position) if self.links_video(position) else ".mp4"
        return self.folder / f"{self.cameras[position].name}{suffix}"

    def entries(self) -> list[str]:
        """The names of the written files and folders in ``folder``."""
        if self.form == "videos":
            return [self.video(position).name for position in range(len(self.cameras))]
        if self.form == "collected":
            return [*self.frames, COLLECTED_NAME]
        return [camera.name for camera in self.cameras]

    def _source_suffix(self, position: int) -> str:
        return self.source.file(self.cameras[position].number, next(iter(self.frames.values()))).suffix

    def _picture_suffix(self, position: int) -> str:
        own = self._source_suffix(position)
        return self.suffix or (".jpg" if own.lower() in VIDEO_SUFFIXES else own)

    def links_video(self, position: int) -> bool:
        """Whether the video of a camera is unchanged, so that it is linked."""
        is_video = self._source_suffix(position).lower() in VIDEO_SUFFIXES
        return is_video and self.takes_all and self.cameras[position].is_kept

    def settings(self, base: Path) -> dict[str, object]:
        """Everything that determines the written files, except the contents of the source.

        Args:
            base: the folder of the whole output, to which the source's path is relative.

        Returns:
            JSON values by name.
        """
        first = self.source.file(self.cameras[0].number, next(iter(self.frames.values())))
        return {
            "source": Path(os.path.relpath(first.resolve(), base.resolve())).as_posix(),
            "form": self.form,
            "suffix": self.suffix,
            "fps": self.fps,
            "frames": dict(self.frames),
            "cameras": [
                {
                    "name": camera.name,
                    "number": camera.number,
                    "from": _values(camera.lens),
                    "to": _values(camera.target),
                }
                for camera in self.cameras
            ],
        }


def prepare_output(base: Path, settings: Mapping[str, object], entries: Sequence[str], *, overwrite: bool) -> None:
    """Prepare the folder ``base``, which must be new or from an earlier run with the same settings.

    Args:
        base: the output folder.
        settings: everything that determines the output.
        entries: names in ``base`` that will be written, recorded so that a later ``overwrite`` can remove them.
        overwrite: remove the output of an earlier run.

    Raises:
        InputError: the folder holds other files, or the output of a run with other settings.
    """
    require_writable_folder(base)
    record = base / RECORD_NAME
    settings = json.loads(json.dumps(settings))  # as read back from the record
    try:
        old = json.loads(record.read_text(encoding="utf-8"))
        old_settings, old_entries = old["settings"], [str(name) for name in old["entries"]]
    except FileNotFoundError:
        old_settings, old_entries = None, []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record}: damaged; choose another --out_dir") from error
    if old_settings == settings and not overwrite:
        return
    if old_settings is None:
        foreign = sorted(path.name for path in base.iterdir() if not path.name.startswith("."))
        if foreign:
            raise InputError(f"{base}: holds {foreign[0]}, which this program did not write; choose a new --out_dir")
    elif not overwrite:
        raise InputError(
            f"{base}: was made of other cameras, frames or settings; choose another --out_dir, or give --overwrite to "
            f"replace it"
        )
    for name in old_entries:
        path = base / Path(name).name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with atomic_path(record) as partial:
        text = json.dumps({"settings": settings, "entries": list(entries)}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")


def write_clip(clip: OutputClip) -> None:
    """Write all pictures or videos, holding one frame in memory at a time; up-to-date files are kept.

    Raises:
        InputError: a frame cannot be read, or its size differs from its camera's.
    """
    total = len(clip.cameras) * len(clip.frames)
    with tqdm(total=total, desc=clip.form, unit="picture", disable=None) as progress:
        for position, camera in enumerate(clip.cameras):
            if clip.form == "videos":
                _write_video(clip, position, progress)
            else:
                _write_pictures(clip, position, progress)
            clip.source.release(camera.number)
    if clip.form == "collected":
        with atomic_path(clip.folder / COLLECTED_NAME) as partial:
            names = {"cameras": [camera.name for camera in clip.cameras]}
            partial.write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")


def _write_pictures(clip: OutputClip, position: int, progress: tqdm) -> None:
    camera = clip.cameras[position]
    tables: RemapTables | None = None
    for frame_name, frame in clip.frames.items():
        picture, source = clip.picture(position, frame_name), clip.source.file(camera.number, frame)
        links = camera.is_kept and picture.suffix == source.suffix
        if not is_current(picture, source, linked=links):
            if links:
                link_or_copy(source, picture)
            else:
                tables = tables or _tables(camera)
                write_image(picture, _read(clip, camera, frame, tables))
        progress.update()


def _write_video(clip: OutputClip, position: int, progress: tqdm) -> None:
    camera, video = clip.cameras[position], clip.video(position)
    sources = {clip.source.file(camera.number, frame) for frame in clip.frames.values()}
    links = clip.links_video(position)
    if not all(is_current(video, source, linked=links) for source in sources):
        if links:
            link_or_copy(next(iter(sources)), video)
        else:
            tables = _tables(camera)
            with VideoWriter(video, camera.target.size, clip.fps) as writer:
                for frame in clip.frames.values():
                    writer.append(_read(clip, camera, frame, tables))
                    progress.update()
            return
    progress.update(len(clip.frames))


def _tables(camera: OutputCamera) -> RemapTables | None:
    return None if camera.is_kept else undistort_maps(camera.lens, camera.target.K, camera.target.size)


def _read(clip: OutputClip, camera: OutputCamera, frame: int, tables: RemapTables | None) -> np.ndarray:
    picture = read_of_lens(clip.source, camera.number, frame, camera.lens)
    return picture if tables is None else tables.apply(picture)


def _values(lens: Lens) -> dict[str, object]:
    return {
        "model": lens.model,
        "K": lens.K.tolist(),
        "distortion": lens.distortion.tolist(),
        "size": list(lens.size),
    }
