"""The folder that a rendering lies in: names, what is complete already, and whether continuing is sound.

Layout, with pictures numbered as the poses:

    frames/00000.png ...      or .jpg
    disparity/00000.png ...   16 bits, only if asked for; disparity/scale.json says what a step is worth
    mask/00000.png ...        8 bits, only if asked for: how much of a pixel comes from what moves
    video.mp4, disparity.mp4  made of the pictures when all are there
    background/cam00.png ...  only if the clip has none: the median over time of the cameras that are used
    options.json              the options, and what decides the pixels of the pictures
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.io.images import read_image
from maskvolume.options import save_options
from maskvolume.rendering.pictures import DISPARITY_STEPS
from maskvolume.runtime.errors import InputError

FRAMES, DISPARITY, MASK, BACKGROUND = "frames", "disparity", "mask", "background"
VIDEO_NAME, DISPARITY_VIDEO_NAME, OPTIONS_NAME, SCALE_NAME = (
    "video.mp4",
    "disparity.mp4",
    "options.json",
    "scale.json",
)

_PICTURE = re.compile(r"\d{5,}\.(png|jpg)")
# What a killed run leaves: the temporary files of ``maskvolume.io.files.atomic_path``.
_LEFTOVER = re.compile(r"\.\w[\w.-]*\.[0-9a-f]{12}(\.\w+)?")


@dataclass(frozen=True)
class _Record:
    """What options.json holds."""

    options: Any
    made_of: Mapping[str, object]


@dataclass(frozen=True)
class RenderFolder:
    """An output folder; made ready by :meth:`prepare`.

    Attributes:
        root: the folder.
        frame_format: ``png`` or ``jpg``.
        with_disparity: whether disparity pictures belong to a finished pose.
        with_mask: whether mask pictures do.
    """

    root: Path
    frame_format: str = "png"
    with_disparity: bool = False
    with_mask: bool = False

    def frame(self, pose: int) -> Path:
        """The picture of a pose."""
        return self.root / FRAMES / f"{pose:05d}.{self.frame_format}"

    def disparity(self, pose: int) -> Path:
        """The disparity picture of a pose."""
        return self.root / DISPARITY / f"{pose:05d}.png"

    def mask(self, pose: int) -> Path:
        """The mask picture of a pose."""
        return self.root / MASK / f"{pose:05d}.png"

    @property
    def video(self) -> Path:
        """The video of all poses."""
        return self.root / VIDEO_NAME

    @property
    def disparity_video(self) -> Path:
        """The colour-mapped disparity of all poses."""
        return self.root / DISPARITY_VIDEO_NAME

    @property
    def scale(self) -> Path:
        """What a step of the disparity pictures is worth."""
        return self.root / DISPARITY / SCALE_NAME

    @property
    def background(self) -> Path:
        """Where backgrounds are made when the clip has none."""
        return self.root / BACKGROUND

    def files_of(self, pose: int) -> list[Path]:
        """The files of a finished pose."""
        files = [self.frame(pose)]
        files += [self.disparity(pose)] if self.with_disparity else []
        files += [self.mask(pose)] if self.with_mask else []
        return files

    def is_done(self, pose: int, size: tuple[int, int]) -> bool:
        """Whether all files of a pose are there, whole and of this size (h, w)."""
        for path in self.files_of(pose):
            try:
                if not path.is_file() or read_image(path).shape[:2] != size:
                    return False
            except InputError:
                return False
        return True

    def prepare(self, made_of: Mapping[str, object], options: Any, *, overwrite: bool = False) -> bool:
        """Make the folder ready to render into: check that continuing is sound, or clear what is there.

        Args:
            made_of: what decides the pixels of the pictures, by name; two runs that agree in all of it make
                the same files.
            options: of the program, a dataclass; kept in options.json for the reader.
            overwrite: remove the pictures and videos of an earlier rendering.

        Returns:
            Whether this continues an earlier rendering.

        Raises:
            InputError: pictures of another rendering, or of unknown origin, are there; or the folder
                can't be written.
        """
        made_of = json.loads(json.dumps(made_of))
        earlier = self._read_record()
        pictures = list(self._pictures())
        if earlier is None and (pictures or self.video.exists()):
            raise InputError(
                f"{self.root}: there are pictures or videos, but no {OPTIONS_NAME} that says how they were "
                "made; choose another --out_dir"
            )
        differing = [key for key, value in made_of.items() if earlier is None or earlier.get(key) != value]
        if pictures and differing and not overwrite:
            raise InputError(
                f"{self.root / OPTIONS_NAME}: the pictures here were made with other options "
                f"({', '.join(differing)}); give --overwrite to make them again, or another --out_dir"
            )
        for folder in (self.root, *(path.parent for path in self.files_of(0))):
            require_writable_folder(folder)
        if overwrite:
            for path in [*pictures, self.video, self.disparity_video]:
                path.unlink(missing_ok=True)
        self._remove_leftovers()
        save_options(_Record(options, made_of), self.root / OPTIONS_NAME)
        return not differing and not overwrite

    def write_scale(self, nearest: float, farthest: float) -> None:
        """Write what the disparity pictures mean, for planes between these depths."""
        content = {
            "disparity_per_step": 1 / nearest / DISPARITY_STEPS,
            "meaning": "pixel * disparity_per_step = 1 / depth; depth in scene units, along the axis of the "
            "reference camera, of several of them along the mean of theirs",
            "nearest_plane": nearest,
            "farthest_plane": farthest,
        }
        with atomic_path(self.scale) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _pictures(self) -> Iterable[Path]:
        for name in (FRAMES, DISPARITY, MASK):
            folder = self.root / name
            if folder.is_dir():
                yield from (path for path in sorted(folder.iterdir()) if _PICTURE.fullmatch(path.name))

    def _read_record(self) -> dict[str, Any] | None:
        path = self.root / OPTIONS_NAME
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["made_of"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: damaged, or not written by this program; choose another --out_dir") from None

    def _remove_leftovers(self) -> None:
        for folder in (self.root, *(self.root / name for name in (FRAMES, DISPARITY, MASK, BACKGROUND))):
            for path in folder.iterdir() if folder.is_dir() else ():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink(missing_ok=True)


def digest(*content: bytes | Tensor | Path) -> str:
    """A short fingerprint of bytes, tensors or the contents of files."""
    total = hashlib.sha256()
    for item in content:
        if isinstance(item, Path):
            item = item.read_bytes()
        elif isinstance(item, Tensor):
            item = item.detach().cpu().double().numpy().tobytes()
        total.update(item)
    return total.hexdigest()[:16]
