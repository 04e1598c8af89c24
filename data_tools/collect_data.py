"""Collect frames of a frame folder or of videos into a clip for the renderer.

    python data_tools/collect_data.py FRAMES FIRST END NAME       e.g. frames 0 20 qual

writes frames FIRST to END-1 (END is excluded, so `0 20` selects twenty frames):

    FRAMES/NAME/00000/images/000.jpg ...    a folder per frame, a picture per camera
    FRAMES/NAME/00000/poses_bounds.npy
    FRAMES/background/cam00.png ...         the median over time of each camera
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from data_tools.clips.selection import choose_cameras, choose_frames
from data_tools.make_backgrounds import update_backgrounds
from maskvolume.clips.backgrounds import evenly_spaced
from maskvolume.clips.layouts import (
    BACKGROUND_NAME,
    COLLECTED_NAME,
    POSES_NAME,
)
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.files import (
    atomic_path,
    is_current,
    link_or_copy,
    require_writable_folder,
)
from maskvolume.io.images import write_image
from maskvolume.io.llff import write_poses_bounds
from maskvolume.options import Size, option, parse_options, positional
from maskvolume.runtime.errors import InputError, run_program

PARTIAL_NAME = ".partial"  # folder of incomplete frames
# --overwrite only removes a frame's folder if all its entries match this.
FRAME_CONTENTS = re.compile(r"images(_\d+x\d+)?|poses_bounds\.npy|\w*path\.(txt|npy)|\..*")
RESERVED_NAME = re.compile(r"\d+|\..*|background|cam(era)?[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class CollectOptions:
    """Options of collect_data."""

    frames: str = positional("folder with cam00/00000.jpg ... or cam00.mp4 ..., and poses_bounds.npy")
    first: int = positional("number of the first frame")
    end: int = positional("number after the last frame's")
    name: str = positional("name of the collected clip, a new folder in FRAMES")
    out_dir: str | None = option(None, "folder for NAME and the backgrounds; none: FRAMES")
    bg_dir: str | None = option(
        None, "folder for the backgrounds; none: background in the output folder, or in NAME with --exclude"
    )
    img_wh: Size | None = option(
        None, "width and height to resize the pictures to; none: files are linked, not encoded again", low=1
    )
    ext: Literal["jpg", "png"] | None = option(None, "picture format; none: that of the source, jpg for videos")
    exclude: tuple[str, ...] = option((), "cameras to leave out, by name")
    bg_frames: int = option(100, "frames, evenly spaced over the recording, for the backgrounds", low=1)
    overwrite: bool = option(False, "replace existing files")


@dataclass(frozen=True)
class Collection:
    """The source and the settings of a collected clip.

    Attributes:
        clip: the recording.
        cameras: positions of the cameras to collect.
        frames: positions in the recording by the number in the frame's name.
        size: ``(h, w)`` to resize the pictures to; None: unchanged.
        suffix: ``.jpg`` or ``.png`` to encode to; None: unchanged.
    """

    clip: RigClip
    cameras: tuple[int, ...]
    frames: Mapping[int, int]
    size: tuple[int, int] | None = None
    suffix: str | None = None

    def picture_name(self, position: int) -> str:
        """File name for the camera at a position among the collected ones."""
        return f"{position:03d}{self._suffix(self.cameras[position])}"

    def is_kept(self, camera: int) -> bool:
        """Whether the files of a camera are used unchanged."""
        clip = self.clip
        same_suffix = self._suffix(camera) == clip.file(camera, 0).suffix
        return clip.layout.kind != "videos" and self.size in (None, clip.size) and same_suffix

    def settings(self, folder: Path) -> dict[str, object]:
        """Everything that the pictures in ``folder`` depend on; stays valid if source and folder move together."""
        clip = self.clip
        return {
            "source": Path(os.path.relpath(clip.root_dir.resolve(), folder.resolve())).as_posix(),
            "cameras": [clip.names[camera] for camera in self.cameras],
            "pictures": [self.picture_name(position) for position in range(len(self.cameras))],
            "size": list(self.size or clip.size),
        }

    def _suffix(self, camera: int) -> str:
        if self.suffix is not None:
            return self.suffix
        return ".jpg" if self.clip.layout.kind == "videos" else self.clip.file(camera, 0).suffix


def collect_clip(collection: Collection, folder: Path, *, overwrite: bool = False) -> None:
    """Write a collected clip to ``folder``; pictures that are up to date are kept.

    A frame appears when all its pictures are written, so that an interruption leaves no incomplete frame.

    Raises:
        InputError: ``folder`` holds other frames or other pictures and ``overwrite`` is not set, or a
            picture cannot be read.
    """
    require_writable_folder(folder)
    _prepare_folder(collection, folder, overwrite)
    folders = {}
    for number in collection.frames:
        final = folder / f"{number:05d}"
        folders[number] = final if final.is_dir() else folder / PARTIAL_NAME / final.name
    total = len(collection.cameras) * len(folders)
    with tqdm(total=total, desc="frames", unit="picture", disable=None) as progress:
        for position, camera in enumerate(collection.cameras):
            for number, frame in collection.frames.items():
                picture = folders[number] / "images" / collection.picture_name(position)
                _write_picture(collection, camera, frame, picture)
                progress.update()
            collection.clip.layout.source.release(camera)
    for frame_folder in folders.values():
        _write_poses(collection, frame_folder / POSES_NAME)
        if frame_folder.parent.name == PARTIAL_NAME:
            frame_folder.rename(folder / frame_folder.name)
    shutil.rmtree(folder / PARTIAL_NAME, ignore_errors=True)


def _prepare_folder(collection: Collection, folder: Path, overwrite: bool) -> None:
    """Check that all frames in ``folder`` belong to this collection."""
    record = folder / COLLECTED_NAME
    settings = collection.settings(folder)
    existing = sorted(path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())
    outside = [path for path in existing if int(path.name) not in collection.frames]
    advice = "choose another NAME, or give --overwrite to replace it"
    is_same = _read_settings(record) == settings
    if not overwrite and existing and not is_same:
        raise InputError(f"{folder}: holds a clip of other cameras, pictures or sizes; {advice}")
    if not overwrite and outside:
        raise InputError(f"{folder}: holds frames outside the range, such as {outside[0].name}; {advice}")
    if overwrite or not is_same:
        for path in existing:
            if foreign := [p for p in path.iterdir() if not FRAME_CONTENTS.fullmatch(p.name)]:
                raise InputError(f"{foreign[0]}: is not part of a clip; move it away, or choose another NAME")
        record.unlink(missing_ok=True)
        for path in (*existing, folder / PARTIAL_NAME):
            shutil.rmtree(path, ignore_errors=path.name == PARTIAL_NAME)
        with atomic_path(record) as partial:
            partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _read_settings(record: Path) -> object:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write_picture(collection: Collection, camera: int, frame: int, picture: Path) -> None:
    source = collection.clip.file(camera, frame)
    is_kept = collection.is_kept(camera)
    if is_current(picture, source, linked=is_kept):
        return
    if is_kept:
        link_or_copy(source, picture)
    else:
        write_image(picture, collection.clip.read(camera, frame, collection.size))


def _write_poses(collection: Collection, path: Path) -> None:
    """Write the poses of the collected cameras; never a link, so that the clip keeps them if the recording's change."""
    clip, rows = collection.clip, list(collection.cameras)
    if len(rows) < len(clip.names):
        write_poses_bounds(path, RigPoses(clip.poses.cameras[rows], clip.poses.bounds[rows]))
        return
    with atomic_path(path) as partial:
        shutil.copyfile(clip.layout.poses_path, partial)


def _check_options(options: CollectOptions) -> None:
    if Path(options.name).name != options.name or RESERVED_NAME.fullmatch(options.name):
        raise InputError(
            f"NAME {options.name!r}: a plain folder name expected that is not a number, a camera or "
            f"background, such as qual; NAME is the fourth argument, after FRAMES FIRST END"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Collect the frames, then make the backgrounds."""
    options = parse_options(
        CollectOptions,
        argv,
        prog="collect_data.py",
        description="Collect frames of a frame folder or of videos into a clip for the renderer. "
        "Frames FIRST to END-1 are used: `frames 0 20 qual` writes frames/qual with twenty frames.",
    )
    _check_options(options)
    clip = RigClip.open(options.frames)
    if options.name in clip.names:
        raise InputError(f"NAME {options.name!r}: is a camera of {options.frames}; choose another name")
    collection = Collection(
        clip,
        choose_cameras(clip.layout, options.exclude),
        choose_frames(clip.layout, options.first, options.end),
        options.img_wh,
        f".{options.ext}" if options.ext else None,
    )
    out_dir = Path(options.out_dir or options.frames)
    folder = out_dir / options.name
    collect_clip(collection, folder, overwrite=options.overwrite)
    h, w = collection.size or clip.size
    print(f"{folder}: {len(collection.frames)} frames of {len(collection.cameras)} cameras, {w} x {h}")
    bg_dir = (folder if options.exclude else out_dir) / BACKGROUND_NAME
    bg_dir = Path(options.bg_dir) if options.bg_dir else bg_dir
    bg_frames = evenly_spaced(clip.num_frames, options.bg_frames)
    update_backgrounds(
        clip.layout, collection.cameras, bg_dir, bg_frames, folder_option="--bg_dir", overwrite=options.overwrite
    )


if __name__ == "__main__":
    run_program(main)
