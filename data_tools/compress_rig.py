"""Pack a clip with its backgrounds and mattes into training data.

    python data_tools/compress_rig.py FRAMES --out_dir DATA                 the original's format, which is large
    python data_tools/compress_rig.py FRAMES --out_dir DATA --compact       JPEG and PNG inside, at most a tenth

writes ``DATA/scene000.h5`` and ``DATA/scene000_pb.npy``; see docs/formats.md. Run make_backgrounds.py and
make_mattes.py first. An interrupted scene is written again from the start.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from data_tools.clips.selection import choose_cameras, choose_frames
from maskvolume.clips.layouts import list_pictures
from maskvolume.clips.mattes import MATTES_NAME, matte_file, read_matte
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.files import require_writable_folder
from maskvolume.io.images import resize_image
from maskvolume.io.rig_h5 import CAMERAS_ATTRIBUTE, RigScene, poses_file
from maskvolume.io.rig_h5_writer import SceneForm, write_rig_scene
from maskvolume.options import Size, option, parse_options, positional, required
from maskvolume.runtime.errors import InputError, run_program

SETTINGS_ATTRIBUTE = "made_of"
JPEG_START = b"\xff\xd8"
_SCENE_NAME = re.compile(r"[^\s./\\][^\s/\\]*")


@dataclass(frozen=True)
class CompressRigOptions:
    """Options of compress_rig."""

    frames: str = positional("folder of the clip, with poses_bounds.npy")
    out_dir: str = required("folder for the scene, the --root_dir of training")
    name: str = option("scene000", "name of the scene; a folder can hold several scenes")
    bg_dir: str | None = option(None, "folder of the backgrounds; none: that of the clip, FRAMES/background")
    matte_dir: str | None = option(None, "folder of the mattes; none: FRAMES/mattes")
    exclude: tuple[str, ...] = option((), "cameras to leave out, by name")
    first: int | None = option(None, "number of the first frame; none: the clip's first")
    end: int | None = option(None, "number after the last frame's; none: the clip's end")
    img_wh: Size | None = option(None, "width and height to resize the pictures to; none: unchanged", low=1)
    compact: bool = option(False, "store pictures as JPEG, mattes and backgrounds as PNG")
    quality: int = option(
        92, "JPEG quality, 1 to 100, of pictures that --compact encodes; existing JPEGs are copied", low=1, high=100
    )
    overwrite: bool = option(False, "replace an existing scene")


@dataclass(frozen=True)
class ClipScene:
    """A selection of a clip's cameras and frames, as the source of a scene.

    Attributes:
        clip: the recording, with its backgrounds.
        matte_dir: its mattes.
        cameras: positions of the selected cameras.
        frames: positions of the selected frames.
        size: (h, w) to resize all pictures to.
    """

    clip: RigClip
    matte_dir: Path
    cameras: tuple[int, ...]
    frames: tuple[int, ...]
    size: tuple[int, int]

    @property
    def num_cameras(self) -> int:
        return len(self.cameras)

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def camera_names(self) -> list[str]:
        return [self.clip.names[camera] for camera in self.cameras]

    def picture(self, camera: int, frame: int) -> np.ndarray:
        return self.clip.read(self.cameras[camera], self.frames[frame], self.size)

    def jpeg(self, camera: int, frame: int) -> bytes | None:
        clip = self.clip
        if clip.layout.kind == "videos" or self.size != clip.size:
            return None
        data = clip.file(self.cameras[camera], self.frames[frame]).read_bytes()
        if not data.startswith(JPEG_START):
            return None
        self.picture(camera, frame)  # raises if it can't be decoded
        return data

    def matte(self, camera: int, frame: int) -> np.ndarray:
        return resize_image(read_matte(self.matte_file(camera, frame), self.clip.size), self.size)

    def background(self, camera: int) -> np.ndarray:
        return self.clip.read_background(self.cameras[camera], self.size)

    def matte_file(self, camera: int, frame: int) -> Path:
        clip = self.clip
        return matte_file(self.matte_dir, clip.names[self.cameras[camera]], clip.frame_names[self.frames[frame]])

    def files(self) -> Iterator[Path]:
        """All source files of the scene."""
        yield self.clip.layout.poses_path
        yield from list_pictures(self.clip.background_dir).values()
        for camera in range(self.num_cameras):
            for frame in range(self.num_frames):
                yield self.clip.file(self.cameras[camera], self.frames[frame])
                yield self.matte_file(camera, frame)

    def settings(self, form: SceneForm, folder: Path) -> str:
        """Everything that the scene in ``folder`` depends on, except the files' contents."""
        clip = self.clip
        return json.dumps(
            {
                "source": Path(os.path.relpath(clip.root_dir.resolve(), folder.resolve())).as_posix(),
                "cameras": self.camera_names,
                "frames": [clip.frame_names[frame] for frame in self.frames],
                "size": list(self.size),
                "compact": form.compact,
                "quality": form.quality if form.compact else None,
            }
        )


def compress_scene(scene: ClipScene, path: Path, form: SceneForm, *, overwrite: bool = False) -> bool:
    """Write a scene to ``path`` with its poses beside it, unless it exists.

    Returns:
        Whether it was written.

    Raises:
        InputError: ``path`` holds another scene, or a picture, matte or background is missing or can't be read.
    """
    settings = scene.settings(form, path.parent)
    if path.exists() and not overwrite:
        if RigScene(path).attribute(SETTINGS_ATTRIBUTE) != settings:
            raise InputError(
                f"{path}: holds another clip, or other cameras, frames or sizes; choose another --name, or give "
                f"--overwrite to replace it"
            )
        written_at = path.stat().st_mtime
        if newer := next((file for file in scene.files() if file.stat().st_mtime > written_at), None):
            print(f"{path}: kept, though {newer} is newer; --overwrite replaces it")
        return False
    for camera in range(scene.num_cameras):
        scene.background(camera)
        for frame in range(scene.num_frames):
            if not (matte := scene.matte_file(camera, frame)).is_file():
                read_matte(matte, scene.size)  # raises with advice
    rows = list(scene.cameras)
    poses = RigPoses(scene.clip.poses.cameras[rows], scene.clip.poses.bounds[rows])
    attributes = {CAMERAS_ATTRIBUTE: scene.camera_names, SETTINGS_ATTRIBUTE: settings}
    total = scene.num_cameras * scene.num_frames
    with tqdm(total=total, desc=path.stem, unit="picture", disable=None) as progress:
        write_rig_scene(path, scene, poses, form, attributes=attributes, on_picture=progress.update)
    return True


def _check_options(options: CompressRigOptions) -> None:
    if not _SCENE_NAME.fullmatch(options.name) or options.name.endswith(".h5"):
        raise InputError(f"--name {options.name!r}: a plain name without suffix expected, such as scene000")


def main(argv: Sequence[str] | None = None) -> None:
    """Write one scene."""
    options = parse_options(
        CompressRigOptions,
        argv,
        prog="compress_rig.py",
        description="Pack a clip with backgrounds and mattes into training data, NAME.h5 and NAME_pb.npy.",
    )
    _check_options(options)
    clip = RigClip.open(options.frames, options.bg_dir)
    scene = ClipScene(
        clip,
        Path(options.matte_dir) if options.matte_dir else clip.root_dir / MATTES_NAME,
        choose_cameras(clip.layout, options.exclude),
        tuple(choose_frames(clip.layout, options.first, options.end).values()),
        options.img_wh or clip.size,
    )
    path = require_writable_folder(options.out_dir) / f"{options.name}.h5"
    form = SceneForm(options.compact, options.quality)
    is_new = compress_scene(scene, path, form, overwrite=options.overwrite)
    h, w = scene.size
    megabytes = (path.stat().st_size + poses_file(path).stat().st_size) / 1e6
    print(
        f"{path}: {scene.num_frames} frames of {scene.num_cameras} cameras, {w} x {h}, {megabytes:.1f} MB"
        f"{'' if is_new else ', kept'}"
    )


if __name__ == "__main__":
    run_program(main)
