"""A synthetic scene for tests of mattes: a disc that crosses a textured wall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from data_tools.mattes.difference import BackgroundModel
from maskvolume.clips.backgrounds import temporal_median

SIZE = (180, 320)


FRAMES = 9


@dataclass(frozen=True)
class Scene:
    """Frames uint8 ``[h, w, 3]`` of a disc that crosses a wall, and bool masks ``[h, w]`` of disc and shadow."""

    frames: list[np.ndarray]
    discs: list[np.ndarray]
    shadows: list[np.ndarray]

    def model(self) -> BackgroundModel:
        background = temporal_median(self.frames.__getitem__, FRAMES)
        return BackgroundModel(background, self.frames.__getitem__, FRAMES)


def make_scene(
    noise: float = 0, flicker: float = 0, quality: int = 0, paint: Callable[[np.ndarray], np.ndarray] | None = None
) -> Scene:
    rng = np.random.default_rng(1)
    h, w = SIZE
    wall = cv2.resize(rng.integers(60, 200, (18, 32, 3), np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
    thing = cv2.resize(rng.integers(0, 256, (18, 32, 3), np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:h, :w]
    scene = Scene([], [], [])
    for frame in range(FRAMES):
        middle = 30 + 32 * frame
        disc = (x - middle) ** 2 + (y - 70) ** 2 < 27**2
        shadow = ((x - middle) / 30) ** 2 + ((y - 130) / 16) ** 2 < 1
        light = 1 - 0.4 * cv2.GaussianBlur(shadow.astype(np.float32), (0, 0), 2)[..., None]
        picture = np.where(disc[..., None], thing if paint is None else paint(wall), wall * light)
        picture = picture * (1 + rng.uniform(-flicker, flicker)) + rng.normal(0, noise, (h, w, 3))
        picture = picture.clip(0, 255).round().astype(np.uint8)
        if quality:
            encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        scene.frames.append(picture)
        scene.discs.append(disc)
        scene.shadows.append(shadow & ~disc)
    return scene
