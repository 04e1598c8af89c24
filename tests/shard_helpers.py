"""Small training data whose colours encode pixel and frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskvolume.io.realestate10k import SceneCameras
from maskvolume.io.shards import ShardWriter

SIZE = (72, 128)
INTRINSICS = (0.6, 1.1, 0.48, 0.53)
FINEST = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def position_picture(blue: int) -> np.ndarray:
    """Return a picture uint8 ``[h, w, 3]``: red grows to the right, green grows downwards, blue is constant."""
    x, y = np.meshgrid((np.arange(SIZE[1]) + 0.5) / SIZE[1], (np.arange(SIZE[0]) + 0.5) / SIZE[0])
    return np.round(np.stack([255 * x, 255 * y, np.full_like(x, blue)], axis=-1)).astype(np.uint8)


def write_shards(
    folder: Path, counts: dict[str, int], bounds: dict[str, tuple[float, float]] | None = None, *, alike: bool = False
) -> Path:
    with ShardWriter(folder, SIZE) as writer:
        for name, count in counts.items():
            T = np.tile(np.eye(3, 4), (count, 1, 1))
            T[:, 0, 3] = -0.1 * np.arange(count)
            stamps = 1000 * np.arange(count, dtype=np.int64)
            cameras = SceneCameras(name, "http://127.0.0.1/x", stamps, np.tile(INTRINSICS, (count, 1)), T)
            jpegs = [
                cv2.imencode(".jpg", position_picture(80 if alike else 4 * frame)[..., ::-1], FINEST)[1].tobytes()
                for frame in range(count)
            ]
            writer.add_scene(cameras, jpegs, (bounds or {}).get(name))
    return folder
