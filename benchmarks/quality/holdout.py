"""A clip's held-out cameras: true pictures and masks of moving objects, hidden from all methods.

Layout, in a folder beside the clip's cameras: ``target0/00000.jpg ...`` (frame names of the clip),
``masks/target0/00000.png`` (255 where something moves), ``poses_bounds.npy`` (a row per target, by name). For measuring
disocclusions: ``masks/cam00/00000.png`` (the same for the clip's cameras) and ``depth/target0.png`` (16 bits: 65535
times near divided by the depth of the static scene, with near from the target's row of the poses).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.images import read_image, resize_image
from maskvolume.io.llff import read_poses_bounds
from maskvolume.mpi.session import make_backgrounds
from maskvolume.runtime.errors import InputError

DYNAMIC_LEVEL = 128  # of 255: a pixel is dynamic from here on
NOT_TARGETS = ("masks", "depth")
FRAME_SUFFIXES = (".jpg", ".png")


@dataclass(frozen=True)
class Mattes:
    """Masks of moving objects in the pictures of cameras; for benchmarks only.

    Attributes:
        folder: contains a folder for each camera with mattes.
        size: ``(h, w)`` to read them at.
    """

    folder: Path
    size: tuple[int, int]

    def known(self, *names: str) -> bool:
        """Whether there are mattes of these cameras."""
        return all((self.folder / name).is_dir() for name in names)

    def read(self, name: str, frame_name: str) -> Tensor:
        """``[1, h, w]`` bool: where something moves in the picture of a camera.

        Raises:
            InputError: there is no matte of this frame.
        """
        mask = resize_image(read_image(find_picture(self.folder / name, frame_name))[..., 0], self.size)
        return torch.from_numpy(mask >= DYNAMIC_LEVEL)[None]


@dataclass(frozen=True)
class Targets:
    """The held-out cameras of a clip.

    Attributes:
        folder: with their pictures.
        names: of the cameras, sorted.
        poses: their cameras, in the order of the names.
        size: ``(h, w)`` to read pictures at.
    """

    folder: Path
    names: tuple[str, ...]
    poses: RigPoses
    size: tuple[int, int]

    @staticmethod
    def open(folder: Path, size: tuple[int, int]) -> Targets:
        """Find the held-out cameras in a folder.

        Raises:
            InputError: no targets, or their number differs from that of poses.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; a folder of held-out cameras is needed (--target_dir)")
        names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in NOT_TARGETS))
        if not names:
            raise InputError(f"{folder}: holds no folder of a held-out camera; check --target_dir")
        poses = read_poses_bounds(folder / "poses_bounds.npy")
        if len(poses) != len(names):
            raise InputError(
                f"{folder / 'poses_bounds.npy'}: {len(poses)} poses for {len(names)} held-out cameras "
                f"({', '.join(names)}); one row for each is needed"
            )
        return Targets(folder, names, poses, size)

    def camera(self, target: int) -> Camera:
        """A held-out camera, float32, at the size of the pictures."""
        return self.poses.cameras[target].scaled(self.size).to(torch.float32)

    def picture(self, target: int, frame_name: str) -> Tensor:
        """``[3, h, w]`` the true picture in 0..1."""
        return to_tensor(read_image(find_picture(self.folder / self.names[target], frame_name), self.size))

    @property
    def mattes(self) -> Mattes:
        """Mattes of the held-out cameras and of the clip's."""
        return Mattes(self.folder / "masks", self.size)

    @property
    def has_depth(self) -> bool:
        """Whether there is depth of the static scene."""
        return (self.folder / "depth").is_dir()

    def still_depth(self, target: int) -> Tensor:
        """``[1, h, w]`` depth of the static scene in the target."""
        path = self.folder / "depth" / f"{self.names[target]}.png"
        steps = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if steps is None or steps.dtype != np.uint16 or steps.ndim != 2:
            raise InputError(f"{path}: a 16-bit grey picture expected; make it again, or move the folder away")
        inverse = cv2.resize(steps, self.size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32) / 65535
        return float(self.poses.bounds[target, 0]) / torch.from_numpy(inverse).clamp_min(1e-6)[None]


def find_picture(folder: Path, frame_name: str) -> Path:
    """The picture of a frame, jpg or png.

    Raises:
        InputError: there is none.
    """
    stem = Path(frame_name).stem
    for suffix in FRAME_SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise InputError(f"{folder / stem}.jpg: missing, and so is .png; the clip has this frame")


def to_tensor(picture: np.ndarray) -> Tensor:
    """uint8 ``[H, W, 3]`` to ``[3, H, W]`` in 0..1."""
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


@contextmanager
def open_with_background(root_dir: Path, bg_dir: Path | None) -> Iterator[RigClip]:
    """Open a clip; if it has no background pictures, temporary ones are computed for the block."""
    clip = RigClip.open(root_dir, bg_dir)
    try:
        for camera in range(len(clip.names)):
            clip.read_background(camera)
    except InputError:
        if bg_dir is not None:
            raise
    else:
        yield clip
        return
    with tempfile.TemporaryDirectory(prefix="background_") as folder:
        make_backgrounds(clip, range(len(clip.names)), Path(folder), keep=False)
        yield RigClip.open(root_dir, Path(folder))
