"""The output folder of a rendering: file names, which poses are finished, and whether a run may continue.

Layout, with pictures numbered by pose:

    frames/00000.png ...      or .jpg
    disparity/00000.png ...   16 bits, only on request; disparity/scale.json holds the value of a step
    mask/00000.png ...        8 bits, only on request: the share of each pixel that comes from moving things
    video.mp4, disparity.mp4  encoded from the pictures when all are rendered
    background/cam00.png ...  only if the clip has none: the median over time of each camera in use
    options.json              the options, and everything that determines the pixels of the pictures
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
# Temporary files of ``maskvolume.io.files.atomic_path``, left by a killed run.
_LEFTOVER = re.compile(r"\.\w[\w.-]*\.[0-9a-f]{12}(\.\w+)?")


@dataclass(frozen=True)
class _Record:
    """The content of options.json."""

    options: Any
    made_of: Mapping[str, object]


@dataclass(frozen=True)
class RenderFolder:
    """An output folder; call :meth:`prepare` before rendering into it.

    Attributes:
        root: the folder.
        frame_format: ``png`` or ``jpg``.
        with_disparity: whether a finished pose has a disparity picture.
        with_mask: whether a finished pose has a mask picture.
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
        """The file with the value of a step of the disparity pictures."""
        return self.root / DISPARITY / SCALE_NAME

    @property
    def background(self) -> Path:
        """The folder of computed backgrounds, for a clip that has none."""
        return self.root / BACKGROUND

    def files_of(self, pose: int) -> list[Path]:
        """The files of a finished pose, the picture first."""
        files = [self.frame(pose)]
        files += [self.disparity(pose)] if self.with_disparity else []
        files += [self.mask(pose)] if self.with_mask else []
        return files

    def is_done(self, pose: int, size: tuple[int, int]) -> bool:
        """Whether all files of a pose exist, are readable and have this size (h, w)."""
        for path in self.files_of(pose):
            try:
                if not path.is_file() or read_image(path).shape[:2] != size:
                    return False
            except InputError:
                return False
        return True

    def prepare(self, made_of: Mapping[str, object], options: Any, *, overwrite: bool = False) -> bool:
        """Prepare the folder for rendering: check that an earlier rendering may continue, or remove it.

        Args:
            made_of: everything that determines the pixels of the pictures, by name; runs with equal values
                produce the same files.
            options: the options of the program, a dataclass; stored in options.json for the user.
            overwrite: remove the pictures and videos of an earlier rendering.

        Returns:
            Whether this run continues an earlier rendering.

        Raises:
            InputError: the folder holds pictures of another rendering or of unknown origin, or can't be written.
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
        """Write the scale of the disparity pictures, for planes between these depths in scene units."""
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
    """A short hash of bytes, tensors or file contents: 16 hex digits."""
    total = hashlib.sha256()
    for item in content:
        if isinstance(item, Path):
            item = item.read_bytes()
        elif isinstance(item, Tensor):
            item = item.detach().cpu().double().numpy().tobytes()
        total.update(item)
    return total.hexdigest()[:16]
