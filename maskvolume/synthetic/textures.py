"""A bank of textures and of cut-out shapes, made once per process, and its sampling on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Array = NDArray[np.float32]
Maker = Callable[[np.random.Generator], Array]

TILE = 256  # texels of a texture's side; mirrored repeat makes it endless
LEVELS = 7  # mip levels, the smallest 4 x 4
CUT = 128  # cells of a cut-out's side
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
        atlas: ``[1, 3, N * TILE, 1.5 * TILE]`` colours in 0..1; a texture's mip levels lie beside it.
        cuts: ``[1, 1, M * CUT, CUT]`` shapes: inside where the value is above 0.5.
        dense_cuts: how many of the first cut-outs are solid shapes; the others are fences and branches.
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
        texture: Tensor,  # [n] or [1] float, which texture
        at: Tensor,  # [2, n] texels of the finest level, any range
        footprint: Tensor,  # [n] size of the sample in texels
    ) -> Tensor:
        """Colours ``[3, n]``: bilinear, mirrored repeat, of the mip level whose texels are the largest not
        above the footprint."""
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
        """Whether points ``u, v`` (``[n]``, -1..1 over the shape's square) lie in cut-outs ``cut``."""
        y = (0.5 * CUT) * (v + 1.0).clamp_(1.0 / CUT, 2.0 - 1.0 / CUT) + cut * CUT
        grid = torch.stack([u, y * (2.0 / self.cuts.shape[2]) - 1.0]).T[None, None]
        return F.grid_sample(self.cuts, grid, "bilinear", "border", align_corners=False)[0, 0, 0] > 0.5


@lru_cache(maxsize=4)
def texture_bank(seed: int, num_textures: int, num_cuts: int, device: torch.device) -> TextureBank:
    """The bank of a seed; kept, so that only the first call pays (a few seconds)."""
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
            tile = _TEXTURES[int(rng.integers(len(_TEXTURES)))](rng)
        _place_levels(atlas[i * TILE : (i + 1) * TILE], np.clip(tile, 0.0, 1.0).astype(np.float32))
    dense = num_cuts // 2
    makers = [_SOLID_CUTS[i % len(_SOLID_CUTS)] for i in range(dense)]
    makers += [_THIN_CUTS[i % len(_THIN_CUTS)] for i in range(num_cuts - dense)]
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
    """The pictures in scikit-image's own package folder; none of them is fetched."""
    folder = resources.files("skimage") / "data"
    photos = []
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


# Procedural textures: each returns [TILE, TILE, 3] around 0..1.


def _noise(rng: np.random.Generator, falloff: float, channels: int = 1, stretch: float = 1.0) -> Array:
    """``[TILE, TILE, channels]`` of zero mean and unit deviation, amplitude spectrum 1 / f^falloff."""
    fy, fx = np.fft.fftfreq(TILE)[:, None] * stretch, np.fft.rfftfreq(TILE)[None] / stretch
    amplitude = np.maximum(np.hypot(fy, fx), 1.0 / TILE) ** -falloff
    amplitude[0, 0] = 0
    shape = (channels, *amplitude.shape)
    spectrum = amplitude * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    field = np.fft.irfft2(spectrum, (TILE, TILE)).transpose(1, 2, 0)
    return (field / field.std((0, 1))).astype(np.float32)


def _palette(rng: np.random.Generator, count: int, contrast: float | None = None) -> Array:
    """``[count, 3]`` colours: a base, varied mostly in brightness, as in one material."""
    contrast = rng.uniform(0.08, 0.35) if contrast is None else contrast
    if rng.random() < 0.7:  # most materials lie between warm and cold greys
        tint = rng.normal(0.3, 0.8) * np.array([0.09, 0.01, -0.09]) + rng.normal(0, 0.02, 3)
    else:
        tint = rng.normal(0, 0.2, 3)
    base = rng.uniform(0.2, 0.85) + tint
    light = rng.normal(0, 1, (count, 1)) * contrast
    return np.clip(base + light + rng.normal(0, 0.35 * contrast, (count, 3)), 0.02, 0.98).astype(np.float32)


def _blend(weight: Array, a: Array, b: Array) -> Array:
    return a + weight[..., None] * (b - a)


def _coordinates(rng: np.random.Generator, warp: float = 0.0) -> tuple[Array, Array]:
    """Rotated texel coordinates, bent by smooth noise of ``warp`` texels."""
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)
    a = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    if warp > 0:
        bend = _noise(rng, 2.0, 2) * warp
        u, v = u + bend[..., 0], v + bend[..., 1]
    return u.astype(np.float32), v.astype(np.float32)


def _grain(rng: np.random.Generator, tile: Array, most: float = 0.06) -> Array:
    """Adds fine luminance structure and a slow stain: no real surface is flat."""
    grain = _noise(rng, rng.uniform(0.2, 1.0)) * rng.uniform(0.005, most)
    return tile * (1 + _noise(rng, 1.8) * rng.uniform(0.02, 0.15)) + grain


def _clouds(rng: np.random.Generator) -> Array:
    stretch = float(np.exp(rng.normal(0, 0.5)))
    falloff = rng.uniform(0.7, 1.9)
    if rng.random() < 0.4:
        mix = rng.normal(0, 0.5, (3, 3)) + rng.uniform(0.5, 1.5)
        return 0.5 + rng.uniform(0.04, 0.13) * _noise(rng, falloff, 3, stretch) @ mix.T.astype(np.float32)
    ramp = _palette(rng, int(rng.integers(2, 6)), 0.25)
    level = np.clip(_noise(rng, falloff, 1, stretch)[..., 0] * 0.25 + 0.5, 0, 1) * (len(ramp) - 1)
    low = np.minimum(level.astype(int), len(ramp) - 2)
    return ramp[low] + (level - low)[..., None] * (ramp[low + 1] - ramp[low])


def _plain(rng: np.random.Generator) -> Array:
    """Nearly textureless: paint, paper, sky."""
    tile = np.broadcast_to(_palette(rng, 1), (TILE, TILE, 3)).astype(np.float32)
    slope = _noise(rng, 2.5, 1) * rng.uniform(0.0, 0.05)
    return tile + slope + _noise(rng, 0.5) * rng.uniform(0.0, 0.012)


def _stripes(rng: np.random.Generator) -> Array:
    u, _ = _coordinates(rng, float(rng.choice([0, 0, 3, 10])))
    period = np.exp(rng.uniform(np.log(8), np.log(70)))
    duty, soft = rng.uniform(0.2, 0.8), rng.uniform(0.3, 3.0)
    phase = np.abs(np.mod(u, period) - period / 2)
    weight = np.clip((phase - duty * period / 2) / soft + 0.5, 0, 1)
    a, b = _palette(rng, 2)
    tile = _blend(weight, a, b)
    if rng.random() < 0.4:
        other = np.clip((np.abs(np.mod(_coordinates(rng)[1], 2 * period) - period) - period / 2) + 0.5, 0, 1)
        tile = tile + 0.3 * other[..., None] * (_palette(rng, 1)[0] - tile)
    return _grain(rng, tile)


def _checker(rng: np.random.Generator) -> Array:
    u, v = _coordinates(rng, float(rng.choice([0, 0, 2, 6])))
    period = np.exp(rng.uniform(np.log(10), np.log(60)))
    wave = np.sin(u * np.pi / period) * np.sin(v * np.pi / (period * rng.uniform(0.6, 1.6)))
    a, b = _palette(rng, 2)
    return _grain(rng, _blend(np.clip(wave * period * 0.6 + 0.5, 0, 1), a, b))


def _bricks(rng: np.random.Generator) -> Array:
    u, v = _coordinates(rng, float(rng.choice([0.0, 1.0, 2.0])))
    height = rng.uniform(12, 40)
    width, joint = height * rng.uniform(1, 3.5), rng.uniform(1, 3)
    row = np.floor(v / height)
    shifted = u + row * width * rng.choice([0.0, 0.5, 0.33])
    column = np.floor(shifted / width)
    edge = np.minimum(np.minimum(np.mod(v, height), np.mod(-v, height)),
                      np.minimum(np.mod(shifted, width), np.mod(-shifted, width)))  # fmt: skip
    palette = _palette(rng, 16, rng.uniform(0.03, 0.2))
    which = np.mod(row.astype(int) * 7 + column.astype(int) * 13 + (row * column).astype(int) * 5, 16)
    mortar = _palette(rng, 1)[0]
    return _grain(rng, _blend(np.clip(edge - joint + 0.5, 0, 1), mortar, palette[which]), 0.1)


def _points(rng: np.random.Generator, count: int) -> tuple[Array, NDArray[np.int64]]:
    """Distances ``[TILE, TILE, 2]`` to the nearest two of random points, and the nearest's number."""
    from scipy.spatial import cKDTree

    points = rng.uniform(0, TILE, (count, 2))
    y, x = np.mgrid[:TILE, :TILE] + 0.5
    distance, index = cKDTree(points).query(np.stack([y.ravel(), x.ravel()], 1), k=2)
    return distance.reshape(TILE, TILE, 2).astype(np.float32), index[:, 0].reshape(TILE, TILE)


def _cells(rng: np.random.Generator) -> Array:
    count = int(np.exp(rng.uniform(np.log(15), np.log(400))))
    distance, index = _points(rng, count)
    tile = _palette(rng, count)[index]
    if rng.random() < 0.6:
        edge = np.clip(distance[..., 1] - distance[..., 0] - rng.uniform(0.5, 3.0), 0, 1)
        tile = _blend(edge, _palette(rng, 1)[0], tile)
    if rng.random() < 0.4:
        tile = tile * (1 - 0.4 * distance[..., :1] / max(float(distance[..., 0].max()), 1.0))
    return _grain(rng, tile)


def _spots(rng: np.random.Generator) -> Array:
    count = int(np.exp(rng.uniform(np.log(20), np.log(500))))
    distance, index = _points(rng, count)
    radius = (rng.uniform(0.1, 0.5, count) * TILE / np.sqrt(count)).astype(np.float32)
    ground, inks = _palette(rng, 1)[0], _palette(rng, count, 0.25)
    return _grain(rng, _blend(np.clip(radius[index] - distance[..., 0] + 0.5, 0, 1), ground, inks[index]))


def _gradient(rng: np.random.Generator) -> Array:
    u, _ = _coordinates(rng, 20.0)
    a, b = _palette(rng, 2, 0.3)
    weight = (u - u.min()) / (u.max() - u.min())
    return _grain(rng, _blend(weight, a, b), 0.02)


def _wood(rng: np.random.Generator) -> Array:
    u, _ = _coordinates(rng, rng.uniform(4, 20))
    rings = u / rng.uniform(4, 16) + _noise(rng, 1.6, 1, rng.uniform(3, 6))[..., 0] * rng.uniform(0.5, 2)
    a, b = _palette(rng, 2, 0.12)
    tile = _blend(0.5 + 0.5 * np.sin(rings), a, b)
    return _grain(rng, tile * (1 + 0.08 * _noise(rng, 0.6, 1, rng.uniform(2, 6))))


def _weave(rng: np.random.Generator) -> Array:
    u, v = _coordinates(rng)
    period = rng.uniform(4, 14)
    a, b = np.sin(u * np.pi / period), np.sin(v * np.pi / period)
    over = (np.mod(np.floor(u / period) + np.floor(v / period), 2) > 0.5).astype(np.float32)
    relief = over * np.abs(a) + (1 - over) * np.abs(b)
    inks = _palette(rng, 2, 0.15)
    return _grain(rng, _blend(over, inks[0], inks[1]) * (0.6 + 0.4 * relief[..., None]))


def _letters(rng: np.random.Generator) -> Array:
    """Lines of random characters of several sizes, as on signs and pages."""
    tile = np.tile(np.uint8(255 * _palette(rng, 1)[0]), (TILE, TILE, 1))
    characters = list("ABCDEFGHKLMNOPRSTUVXYZabcdeghknopqrstuvxyz0123456789+=%?!/")
    y = 0
    while y < TILE + 20:
        size = float(np.exp(rng.uniform(np.log(0.35), np.log(2.0))))
        ink = (255 * _palette(rng, 1, 0.3)[0]).tolist()
        line = "".join(rng.choice(characters, 30)) if rng.random() < 0.5 else " ".join(
            "".join(rng.choice(characters, int(rng.integers(2, 9)))) for _ in range(8)
        )  # fmt: skip
        thickness = int(rng.integers(1, 2 + int(2 * size)))
        y += int(26 * size) + int(rng.integers(0, 8))
        place = (int(rng.integers(-20, 10)), y)
        cv2.putText(tile, line, place, int(rng.integers(0, 6)), size, ink, thickness, cv2.LINE_AA)
    return _grain(rng, np.rot90(tile.astype(np.float32) / 255, int(rng.choice([0, 0, 1, 3]))), 0.03)


def _scribble(rng: np.random.Generator) -> Array:
    """Overlapping strokes and patches: leaves, clutter, posters."""
    tile = _clouds(rng) if rng.random() < 0.5 else np.tile(_palette(rng, 1)[0], (TILE, TILE, 1))
    tile = np.ascontiguousarray(tile, np.float32)
    inks = _palette(rng, 12, 0.25)
    kind, most = int(rng.integers(3)), rng.uniform(6, 40)
    for _ in range(int(rng.integers(30, 220))):
        ink = inks[int(rng.integers(12))].tolist()
        x, y = (int(c) for c in rng.integers(0, TILE, 2))
        a, b = (int(c) for c in rng.uniform(2, most, 2))
        if kind == 0:
            cv2.ellipse(tile, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, ink, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = np.array([x, y]) + rng.uniform(-most, most, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(tile, [corners.astype(np.int32)], ink, cv2.LINE_AA)
        else:
            end = (x + int(rng.normal(0, most)), y + int(rng.normal(0, most)))
            cv2.line(tile, (x, y), end, ink, int(rng.integers(1, 5)), cv2.LINE_AA)
    return _grain(rng, tile)


_TEXTURES: tuple[Maker, ...] = (
    _clouds, _clouds, _clouds, _plain, _stripes, _checker, _bricks, _cells, _spots, _gradient, _wood,
    _weave, _letters, _scribble, _scribble,
)  # fmt: skip


# Cut-outs: each returns [CUT, CUT] of 0 and 1.


def _canvas() -> Array:
    return np.zeros((CUT, CUT), np.float32)


def _cut_blob(rng: np.random.Generator) -> Array:
    y, x = np.mgrid[-1 : 1 : CUT * 1j, -1 : 1 : CUT * 1j]
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    edge = 0.7 + sum(rng.normal(0, 0.16 / k) * np.cos(k * angle + rng.uniform(0, 7)) for k in range(2, 9))
    return (radius < np.minimum(edge, 0.97)).astype(np.float32)


def _cut_star(rng: np.random.Generator) -> Array:
    y, x = np.mgrid[-1 : 1 : CUT * 1j, -1 : 1 : CUT * 1j]
    points, deep = int(rng.integers(3, 9)), rng.uniform(0.1, 0.6)
    wave = np.abs(np.mod(np.arctan2(y, x) * points / (2 * np.pi), 1.0) - 0.5) * 2
    return (np.hypot(x, y) < 0.95 * (1 - deep * wave)).astype(np.float32)


def _cut_disc(rng: np.random.Generator) -> Array:
    y, x = np.mgrid[-1 : 1 : CUT * 1j, -1 : 1 : CUT * 1j]
    hole = rng.choice([0.0, 0.0, rng.uniform(0.3, 0.8)])
    radius = np.hypot(x, y)
    return ((radius < 0.97) & (radius >= hole)).astype(np.float32)


def _cut_letter(rng: np.random.Generator) -> Array:
    canvas = np.zeros((CUT, CUT), np.uint8)
    letter = str(rng.choice(list("ABCEFGHKMNPRSTXYZ23456789&@")))
    cv2.putText(canvas, letter, (18, 106), int(rng.choice([0, 2, 3, 4])), 4.2, [1], int(rng.integers(8, 22)))
    return canvas.astype(np.float32)


def _cut_holes(rng: np.random.Generator) -> Array:
    """A ragged sheet: noise above a level, inside a disc."""
    field = cv2.resize(_noise(rng, rng.uniform(1.4, 2.2))[..., 0], (CUT, CUT), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[-1 : 1 : CUT * 1j, -1 : 1 : CUT * 1j]
    return ((field > rng.uniform(-0.8, 0.1)) & (np.hypot(x, y) < 0.97)).astype(np.float32)


def _cut_fence(rng: np.random.Generator) -> Array:
    canvas = _canvas()
    step, width = int(rng.integers(10, 30)), int(rng.integers(1, 5))
    slant = int(rng.choice([0, 0, CUT]))
    for c in range(-CUT, 2 * CUT, step):
        cv2.line(canvas, (c, 0), (c + slant, CUT), [1.0], width)
        if slant or rng.random() < 0.6:
            cv2.line(canvas, (c + slant, 0), (c, CUT) if slant else (c, 0), [1.0], width)
    if not slant:
        for c in rng.choice(CUT, int(rng.integers(2, 9)), replace=False).tolist():
            cv2.line(canvas, (0, c), (CUT, c), [1.0], width)
    return canvas


def _cut_branches(rng: np.random.Generator) -> Array:
    canvas = _canvas()

    def grow(x: float, y: float, angle: float, length: float, width: float) -> None:
        if length < 5:
            if leaf > 0:
                cv2.circle(canvas, (int(x), int(y)), leaf, [1.0], -1)
            return
        end = x + length * np.cos(angle), y - length * np.sin(angle)
        cv2.line(canvas, (int(x), int(y)), (int(end[0]), int(end[1])), [1.0], max(1, round(width)))
        for _ in range(int(rng.integers(2, 4))):
            grow(*end, angle + rng.normal(0, 0.55), length * rng.uniform(0.55, 0.85), width * 0.65)

    leaf = int(rng.choice([0, 0, 2, 4]))
    grow(CUT / 2, CUT - 1, np.pi / 2, CUT * 0.3, rng.uniform(3, 8))
    return canvas


def _cut_grass(rng: np.random.Generator) -> Array:
    canvas = _canvas()
    for _ in range(int(rng.integers(8, 45))):
        x, lean, high = rng.uniform(0, CUT), rng.normal(0, 0.25), CUT * rng.uniform(0.4, 1.0)
        rise = np.linspace(0, 1, 12)
        blade = np.stack([x + lean * high * rise**2, CUT - high * rise], 1).astype(np.int32)
        cv2.polylines(canvas, [blade], False, [1.0], int(rng.integers(1, 4)))
    return canvas


_SOLID_CUTS: tuple[Maker, ...] = (_cut_blob, _cut_disc, _cut_star, _cut_letter, _cut_blob, _cut_holes)
_THIN_CUTS: tuple[Maker, ...] = (_cut_fence, _cut_branches, _cut_grass, _cut_holes)
