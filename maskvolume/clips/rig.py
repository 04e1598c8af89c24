"""A clip of a camera rig: cameras, and frames by (camera, time), read when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskvolume.clips.layouts import (
    Layout,
    background_folder,
    find_background,
    open_layout,
)
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.planes import RIG_FAR_FACTOR, RIG_NEAR_FACTOR
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.images import read_image, resize_image
from maskvolume.io.llff import read_poses_bounds
from maskvolume.runtime.errors import InputError

# The planes begin a little before the nearest thing and end well behind the farthest.


@dataclass(frozen=True)
class RigClip:
    """A clip of any layout that ``maskvolume.clips.layouts`` knows; made by :meth:`open`.

    Reading is safe from several threads at once, and memory does not grow with the clip.

    Attributes:
        layout: what the folder holds.
        poses: the rig, K at the picture size that ``poses_bounds.npy`` names.
        background_dir: where the pictures of the empty scene are or belong, ``camNN.png``.
    """

    layout: Layout
    poses: RigPoses
    background_dir: Path

    @classmethod
    def open(cls, root_dir: str | Path, bg_dir: str | Path | None = None) -> RigClip:
        """Open the clip in ``root_dir``: a collected clip, a frame folder or videos.

        Only names and headers are read. Without ``bg_dir`` the backgrounds belong in
        ``root_dir/background``, those of a collected clip also in the folder beside it.

        Raises:
            InputError: a missing or empty folder, cameras that differ in frames or size, missing or
                bad poses, or another number of poses than of cameras.
        """
        layout = open_layout(root_dir)
        path = layout.poses_path
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; make it with data_tools/estimate_poses.py, or put the LLFF poses of the "
                f"{len(layout.names)} cameras there, one row for each in the order of their names"
            )
        poses = read_poses_bounds(path)
        if len(poses) != len(layout.names):
            raise InputError(
                f"{path}: {len(poses)} poses for {len(layout.names)} cameras ({', '.join(layout.names)}); "
                f"one row for each camera is needed, in the order of their names"
            )
        return cls(layout, poses, Path(bg_dir) if bg_dir is not None else background_folder(layout))

    @property
    def root_dir(self) -> Path:
        """The folder of the clip."""
        return self.layout.root

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras, sorted; poses and bounds follow them."""
        return self.layout.names

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The frames, in order."""
        return self.layout.frame_names

    @property
    def num_frames(self) -> int:
        """Frames per camera."""
        return len(self.layout.frame_names)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the stored pictures in pixels."""
        return self.layout.size

    @property
    def bounds(self) -> Tensor:
        """``[N, 2]`` float64, nearest and farthest depth that each camera sees."""
        return self.poses.bounds

    def near_far(self) -> tuple[float, float]:
        """Depths of the nearest and the farthest plane for this rig."""
        return RIG_NEAR_FACTOR * float(self.bounds.min()), RIG_FAR_FACTOR * float(self.bounds.max())

    def first_frames(self, count: int) -> RigClip:
        """The clip's first frames, at most so many."""
        return replace(self, layout=replace(self.layout, frame_names=self.frame_names[:count]))

    def cameras(self, size: tuple[int, int] | None = None, time: float = 0.0) -> Camera:
        """The cameras ``[N]``, float32, K scaled per axis to ``size`` (h, w), by default the clip's; at all times."""
        return self.poses.cameras.scaled(size or self.size).to(torch.float32)

    def index(self, camera: str | int) -> int:
        """See ``Layout.index``."""
        return self.layout.index(camera)

    def file(self, camera: int, frame: int) -> Path:
        """The file that holds a frame: its picture, or the video it is part of."""
        self._require(camera, frame)
        return self.layout.source.file(camera, frame)

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """A frame as uint8 ``[H, W, 3]`` RGB, resized to ``size`` (h, w) if given.

        Raises:
            InputError: no such camera or frame, or a file that cannot be decoded.
        """
        self._require(camera, frame)
        picture = self.layout.source.read(camera, frame)
        return picture if size is None else resize_image(picture, size)

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """The empty scene as a camera sees it, uint8 ``[H, W, 3]`` RGB at ``size``, by default the clip's.

        Raises:
            InputError: there is no picture for this camera; the message says how to make it.
        """
        self._require(camera, 0)
        path = find_background(self.layout, camera, self.background_dir, "data_tools/collect_data.py")
        return read_image(path, size or self.size)

    def has_background(self, camera: int) -> bool:
        """Whether there is a picture of the empty scene as a camera sees it."""
        try:
            find_background(self.layout, camera, self.background_dir, "")
        except InputError:
            return False
        return True

    def _require(self, camera: int, frame: int) -> None:
        if not 0 <= camera < len(self.names):
            self.index(camera)
        if not 0 <= frame < self.num_frames:
            raise InputError(
                f"{self.root_dir}: no frame {frame}; the clip has {self.num_frames}, choose one of 0 to "
                f"{self.num_frames - 1}"
            )
