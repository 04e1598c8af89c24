"""Small recorded rigs whose colours encode camera and frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from helpers import make_camera

from maskvolume.geometry.cameras import stack_cameras
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.rig_h5_writer import SceneForm, write_rig_scene

SIZE = (48, 80)


class Source:
    """Pictures whose red encodes the camera and blue the frame; green grows to the right."""

    def __init__(self, cameras: int, frames: int) -> None:
        self.num_cameras, self.num_frames, self.size = cameras, frames, SIZE

    def picture(self, camera: int, frame: int) -> np.ndarray:
        picture = np.empty((*SIZE, 3), np.uint8)
        picture[..., 0], picture[..., 2] = 20 * camera, 10 * frame + 5
        picture[..., 1] = np.arange(SIZE[1]) * 3
        return picture

    def jpeg(self, camera: int, frame: int) -> bytes | None:
        return None

    def background(self, camera: int) -> np.ndarray:
        return self.picture(camera, 24)

    def matte(self, camera: int, frame: int) -> np.ndarray:
        return np.full(SIZE, 10 * camera + frame, np.uint8)


def write_scene(path: Path, cameras: int, frames: int, *, compact: bool = False) -> None:
    rig = stack_cameras([make_camera(seed, SIZE) for seed in range(cameras)])
    K = torch.tensor([[60.0, 0, 40], [0, 60, 24], [0, 0, 1]], dtype=torch.float64)
    bounds = torch.tensor([[2.0 + c, 9.0] for c in range(cameras)], dtype=torch.float64)
    poses = RigPoses(type(rig)(rig.T_cam_world, K.expand(cameras, 3, 3), SIZE), bounds)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rig_scene(path, Source(cameras, frames), poses, SceneForm(compact=compact, quality=100), attributes={})
