"""Procedural scenes for tests of the HDF5 files of rigs, with functions that write and check them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from helpers import make_camera

from maskvolume.geometry.cameras import stack_cameras
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.rig_h5 import RigScene
from maskvolume.io.rig_h5_writer import SceneForm, write_rig_scene

SIZE = (24, 40)


FORMS = {"original": SceneForm(), "compact": SceneForm(compact=True, quality=100)}


def make_poses(count: int, size: tuple[int, int] = SIZE) -> RigPoses:
    """Return cameras that the LLFF format can represent."""
    cameras = stack_cameras([make_camera(seed, size) for seed in range(count)])
    K = torch.tensor([[50.0, 0, size[1] / 2], [0, 50.0, size[0] / 2], [0, 0, 1]], dtype=torch.float64)
    bounds = torch.tensor([[1.5, 8.0]] * count, dtype=torch.float64)
    return RigPoses(type(cameras)(cameras.T_cam_world, K.expand(count, 3, 3), size), bounds)


@dataclass
class Source:
    """Procedural pictures."""

    num_cameras: int = 3
    num_frames: int = 4
    size: tuple[int, int] = SIZE
    jpegs: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def picture(self, camera: int, frame: int) -> np.ndarray:
        return smooth(self.size, 10 * camera + frame)

    def jpeg(self, camera: int, frame: int) -> bytes | None:
        return self.jpegs.get((camera, frame))

    def matte(self, camera: int, frame: int) -> np.ndarray:
        return smooth(self.size, 100 + 10 * camera + frame)[..., 0]

    def background(self, camera: int) -> np.ndarray:
        return smooth(self.size, 200 + camera)


def smooth(size: tuple[int, int], seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(small, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def write(path: Path, form: SceneForm | None = None, source: Source | None = None) -> Path:
    source = source or Source()
    write_rig_scene(path, source, make_poses(source.num_cameras, source.size), form or SceneForm(), attributes={})
    return path


def check(scene: RigScene, source: Source | None = None, tolerance: float = 4) -> None:
    """Assert that a scene equals its source; JPEG may change colours by ``tolerance`` on average."""
    source = source or Source()
    assert (scene.num_cameras, scene.num_frames, scene.size) == (source.num_cameras, source.num_frames, source.size)
    for camera in range(source.num_cameras):
        np.testing.assert_array_equal(scene.background(camera), source.background(camera))
        for frame in range(source.num_frames):
            picture = scene.picture(camera, frame)
            assert picture.dtype == np.uint8
            difference = np.abs(picture.astype(int) - source.picture(camera, frame))
            assert difference.mean() <= (tolerance if scene.is_compact else 0)
            matte = scene.matte(camera, frame)
            assert matte.flags.c_contiguous
            np.testing.assert_array_equal(matte, source.matte(camera, frame))
