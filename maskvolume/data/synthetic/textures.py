"""A bank of textures and cut-out shapes, built once per process, and its sampling on any device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from maskvolume.data.synthetic.patterns import (
    CUT,
    SOLID_CUTS,
    TEXTURES,
    THIN_CUTS,
    TILE,
    Array,
)

LEVELS = 7  # mip levels, the smallest 4 x 4
PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "page.png", "retina.jpg", "rocket.jpg",
    "text.png",
)  # fmt: skip
PHOTO_SHARE = 0.35


@dataclass(frozen=True)
class TextureBank:
    """Textures and cut-outs as two tall pictures.

    Attributes:
        atlas: ``[1, 3, N * TILE, 1.5 * TILE]`` colours in 0..1; the mip levels of a texture are beside it.
        cuts: ``[1, 1, M * CUT, CUT]`` shapes; values above 0.5 are inside.
        dense_cuts: number of solid shapes, which come first; the others are fences and branches.
    """

    atlas: Tensor
    cuts: Tensor
    dense_cuts: int

    @property
    def num_textures(self) -> int:
        return self.atlas.shape[2] // TILE

    @property
    def num_cuts(self) -> int:
        return self.cuts.shape[2] // CUT

    def sample(
        self,
        texture: Tensor,  # [n] or [1] float, index of the texture
        at: Tensor,  # [2, n] texels of the finest level, any range
        footprint: Tensor,  # [n] size of the sample in texels
    ) -> Tensor:
        """Return colours ``[3, n]`` by bilinear sampling of one mip level, with mirrored repeat.

        The level is the coarsest one whose texels are no larger than the footprint.
        """
        # The exponent of a float is the floor of its logarithm.
        level = (footprint.view(torch.int32) >> 23).clamp_(127, 126 + LEVELS)
        scale = ((254 - level) << 23).view(torch.float32)
        turn = at * (0.5 / TILE)
        mirrored = turn.sub_(turn.floor()).mul_(2.0 * TILE).sub_(TILE).abs_().neg_().add_(TILE)
        place = torch.minimum(mirrored.mul_(scale).clamp_(min=0.5), TILE * scale - 0.5)
        place[0] += TILE * (level - 127).clamp_(max=1)
        place[1] += (-2.0 * TILE * scale).add_(TILE).clamp_(min=0.0).add_(TILE * texture)
        place[0] *= 2.0 / self.atlas.shape[3]
        place[1] *= 2.0 / self.atlas.shape[2]
        grid = place.sub_(1.0).T[None, None]
        return F.grid_sample(self.atlas, grid, "bilinear", "border", align_corners=False)[0, :, 0]

    def inside_cut(self, cut: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return bool ``[n]``: whether points ``u, v`` (``[n]``, -1..1 over the square) are inside cut-outs ``cut``."""
        y = (0.5 * CUT) * (v + 1.0).clamp_(1.0 / CUT, 2.0 - 1.0 / CUT) + cut * CUT
        grid = torch.stack([u, y * (2.0 / self.cuts.shape[2]) - 1.0]).T[None, None]
        return F.grid_sample(self.cuts, grid, "bilinear", "border", align_corners=False)[0, 0, 0] > 0.5


@lru_cache(maxsize=4)
def texture_bank(seed: int, num_textures: int, num_cuts: int, device: torch.device) -> TextureBank:
    """Return the bank of a seed on a device; it is cached, since the first call takes a few seconds."""
    if device.type != "cpu":
        bank = texture_bank(seed, num_textures, num_cuts, torch.device("cpu"))
        return TextureBank(bank.atlas.to(device), bank.cuts.to(device), bank.dense_cuts)
    rng = np.random.default_rng(seed)
    photos = _load_photos()
    atlas = np.zeros((num_textures * TILE, TILE * 3 // 2, 3), np.float32)
    for i in range(num_textures):
        if rng.random() < PHOTO_SHARE and photos:
            tile = _photo_crop(rng, photos[int(rng.integers(len(photos)))])
        else:
            tile = TEXTURES[int(rng.integers(len(TEXTURES)))](rng)
        _place_levels(atlas[i * TILE : (i + 1) * TILE], np.clip(tile, 0.0, 1.0).astype(np.float32))
    dense = num_cuts // 2
    makers = [SOLID_CUTS[i % len(SOLID_CUTS)] for i in range(dense)]
    makers += [THIN_CUTS[i % len(THIN_CUTS)] for i in range(num_cuts - dense)]
    cuts = np.concatenate([cv2.GaussianBlur(make(rng), (3, 3), 0.6) for make in makers])
    return TextureBank(
        torch.from_numpy(atlas.transpose(2, 0, 1).copy())[None], torch.from_numpy(cuts)[None, None], dense
    )


def _place_levels(place: Array, tile: Array) -> None:
    place[:, :TILE] = tile
    y = 0
    for _ in range(LEVELS - 1):
        size = tile.shape[0] // 2
        tile = tile.reshape(size, 2, size, 2, 3).mean((1, 3))
        place[y : y + size, TILE : TILE + size] = tile
        y += size


def _load_photos() -> list[Array]:
    """Load the pictures that the scikit-image package contains; nothing is downloaded."""
    folder = resources.files("skimage") / "data"
    photos: list[Array] = []
    for name in PHOTOS:
        file = folder / name
        if not file.is_file():
            continue
        with file.open("rb") as stream, Image.open(stream) as image:
            photos.append(np.asarray(image.convert("RGB"), np.float32) / 255)
    return photos


def _photo_crop(rng: np.random.Generator, photo: Array) -> Array:
    side = min(photo.shape[:2])
    crop = int(np.clip(TILE * np.exp(rng.uniform(np.log(0.6), np.log(2.5))), 64, side))
    y, x = (int(rng.integers(n - crop + 1)) for n in photo.shape[:2])
    tile = photo[y : y + crop, x : x + crop]
    interpolation = cv2.INTER_AREA if crop > TILE else cv2.INTER_CUBIC
    tile = np.asarray(cv2.resize(tile, (TILE, TILE), interpolation=interpolation), np.float32)
    return np.rot90(tile, int(rng.integers(4)))
