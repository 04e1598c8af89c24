"""A clip of a camera rig: its cameras, and frames by (camera, frame), read on demand."""

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

# Planes start slightly in front of the nearest object and end well behind the farthest.


@dataclass(frozen=True)
class RigClip:
    """A clip of any layout in ``maskvolume.clips.layouts``; create it with :meth:`open`.

    Reading is thread-safe, and memory does not grow with the length of the clip.

    Attributes:
        layout: the contents of the folder.
        poses: the rig, with K at the picture size given by ``poses_bounds.npy``.
        background_dir: folder of the background pictures ``camNN.png``, which may not exist yet.
    """

    layout: Layout
    poses: RigPoses
    background_dir: Path

    @classmethod
    def open(cls, root_dir: str | Path, bg_dir: str | Path | None = None) -> RigClip:
        """Open the clip in ``root_dir``: a collected clip, a frame folder or videos.

        Reads only names and headers. By default, backgrounds are in ``root_dir/background``; those of a collected
        clip may also be in the folder beside it.

        Raises:
            InputError: the folder is missing or empty, cameras differ in frames or size, poses are missing or
                invalid, or the numbers of poses and cameras differ.
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
        """Names of the cameras, sorted; poses and bounds follow this order."""
        return self.layout.names

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Names of the frames, in order."""
        return self.layout.frame_names

    @property
    def num_frames(self) -> int:
        """Number of frames per camera."""
        return len(self.layout.frame_names)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the stored pictures in pixels."""
        return self.layout.size

    @property
    def bounds(self) -> Tensor:
        """``[N, 2]`` float64, nearest and farthest depth that each camera sees, in scene units."""
        return self.poses.bounds

    def near_far(self) -> tuple[float, float]:
        """Depths of the nearest and the farthest plane for this rig, in scene units."""
        return RIG_NEAR_FACTOR * float(self.bounds.min()), RIG_FAR_FACTOR * float(self.bounds.max())

    def first_frames(self, count: int) -> RigClip:
        """The clip cut to its first ``count`` frames."""
        return replace(self, layout=replace(self.layout, frame_names=self.frame_names[:count]))

    def cameras(self, size: tuple[int, int] | None = None, time: float = 0.0) -> Camera:
        """The cameras ``[N]``, float32, with K scaled per axis to ``size`` (h, w), by default the clip's.

        The cameras are fixed, so ``time`` has no effect.
        """
        return self.poses.cameras.scaled(size or self.size).to(torch.float32)

    def index(self, camera: str | int) -> int:
        """The position of a camera given by its name or its position.

        Raises:
            InputError: there is no such camera.
        """
        return self.layout.index(camera)

    def file(self, camera: int, frame: int) -> Path:
        """The file that holds a frame: a picture, or the video that contains it."""
        self._require(camera, frame)
        return self.layout.source.file(camera, frame)

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Read a frame as uint8 ``[H, W, 3]`` RGB, resized to ``size`` (h, w) if given.

        Raises:
            InputError: there is no such camera or frame, or the file cannot be decoded.
        """
        self._require(camera, frame)
        picture = self.layout.source.read(camera, frame)
        return picture if size is None else resize_image(picture, size)

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Read a camera's background picture, uint8 ``[H, W, 3]`` RGB at ``size`` (h, w), by default the clip's.

        Raises:
            InputError: there is no picture for this camera; the message says how to create it.
        """
        self._require(camera, 0)
        path = find_background(self.layout, camera, self.background_dir, "data_tools/collect_data.py")
        return read_image(path, size or self.size)

    def has_background(self, camera: int) -> bool:
        """Whether a camera has a picture of the empty scene."""
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
