"""Procedural textures and cut-out shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Array = NDArray[np.floating[Any]]
Maker = Callable[[np.random.Generator], Array]

TILE = 256  # side of a texture in texels; mirrored repeat makes it endless
CUT = 128  # side of a cut-out in cells

# Procedural textures: each returns [TILE, TILE, 3] around 0..1.


def _noise(rng: np.random.Generator, falloff: float, channels: int = 1, stretch: float = 1.0) -> Array:
    """Draw noise ``[TILE, TILE, channels]`` of zero mean and unit deviation with amplitude spectrum 1 / f^falloff."""
    fy, fx = np.fft.fftfreq(TILE)[:, None] * stretch, np.fft.rfftfreq(TILE)[None] / stretch
    amplitude = np.maximum(np.hypot(fy, fx), 1.0 / TILE) ** -falloff
    amplitude[0, 0] = 0
    shape = (channels, *amplitude.shape)
    spectrum = amplitude * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    field = np.fft.irfft2(spectrum, (TILE, TILE)).transpose(1, 2, 0)
    return (field / field.std((0, 1))).astype(np.float32)


def _palette(rng: np.random.Generator, count: int, contrast: float | None = None) -> Array:
    """Draw colours ``[count, 3]``: a base colour varied mostly in brightness, as in one material."""
    contrast = rng.uniform(0.08, 0.35) if contrast is None else contrast
    if rng.random() < 0.7:  # most materials are between warm and cold greys
        tint = rng.normal(0.3, 0.8) * np.array([0.09, 0.01, -0.09]) + rng.normal(0, 0.02, 3)
    else:
        tint = rng.normal(0, 0.2, 3)
    base = rng.uniform(0.2, 0.85) + tint
    light = rng.normal(0, 1, (count, 1)) * contrast
    return np.clip(base + light + rng.normal(0, 0.35 * contrast, (count, 3)), 0.02, 0.98).astype(np.float32)


def _blend(weight: Array, a: Array, b: Array) -> Array:
    return a + weight[..., None] * (b - a)


def _coordinates(rng: np.random.Generator, warp: float = 0.0) -> tuple[Array, Array]:
    """Draw rotated texel coordinates u and v ``[TILE, TILE]``, bent by smooth noise of ``warp`` texels."""
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)
    a = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    if warp > 0:
        bend = _noise(rng, 2.0, 2) * warp
        u, v = u + bend[..., 0], v + bend[..., 1]
    return u.astype(np.float32), v.astype(np.float32)


def _grain(rng: np.random.Generator, tile: Array, strength: float = 0.06) -> Array:
    """Add fine luminance structure and slow variation: no real surface is uniform."""
    grain = _noise(rng, rng.uniform(0.2, 1.0)) * rng.uniform(0.005, strength)
    return tile * (1 + _noise(rng, 1.8) * rng.uniform(0.02, 0.15)) + grain


def _clouds(rng: np.random.Generator) -> Array:
    stretch = float(np.exp(rng.normal(0, 0.5)))
    falloff = rng.uniform(0.7, 1.9)
    if rng.random() < 0.4:
        mix = rng.normal(0, 0.5, (3, 3)) + rng.uniform(0.5, 1.5)
        return 0.5 + rng.uniform(0.04, 0.13) * _noise(rng, falloff, 3, stretch) @ mix.T.astype(np.float32)
    ramp = _palette(rng, int(rng.integers(2, 6)), 0.25)
    level = np.clip(_noise(rng, falloff, 1, stretch)[..., 0] * 0.25 + 0.5, 0, 1) * (len(ramp) - 1)
    low = np.asarray(np.minimum(level.astype(int), len(ramp) - 2))
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
    number = np.mod(row.astype(int) * 7 + column.astype(int) * 13 + (row * column).astype(int) * 5, 16)
    mortar = _palette(rng, 1)[0]
    return _grain(rng, _blend(np.clip(edge - joint + 0.5, 0, 1), mortar, palette[number]), 0.1)


def _points(rng: np.random.Generator, count: int) -> tuple[Array, NDArray[np.int64]]:
    """Return distances ``[TILE, TILE, 2]`` to the two nearest of random points, and the index of the nearest."""
    points = rng.uniform(0, TILE, (count, 2))
    y, x = np.mgrid[:TILE, :TILE] + 0.5
    distance, index = KDTree(points).query(np.stack([y.ravel(), x.ravel()], 1), k=2)
    return np.asarray(distance, np.float32).reshape(TILE, TILE, 2), np.asarray(index)[:, 0].reshape(TILE, TILE)


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
    """Lines of random characters in several sizes, as on signs and pages."""
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
    """Overlapping strokes and patches, as of leaves, clutter or posters."""
    tile = _clouds(rng) if rng.random() < 0.5 else np.tile(_palette(rng, 1)[0], (TILE, TILE, 1))
    tile = np.ascontiguousarray(tile, np.float32)
    inks = _palette(rng, 12, 0.25)
    kind, reach = int(rng.integers(3)), rng.uniform(6, 40)
    for _ in range(int(rng.integers(30, 220))):
        ink = inks[int(rng.integers(12))].tolist()
        x, y = (int(c) for c in rng.integers(0, TILE, 2))
        a, b = (int(c) for c in rng.uniform(2, reach, 2))
        if kind == 0:
            cv2.ellipse(tile, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, ink, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = np.array([x, y]) + rng.uniform(-reach, reach, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(tile, [corners.astype(np.int32)], ink, cv2.LINE_AA)
        else:
            end = (x + int(rng.normal(0, reach)), y + int(rng.normal(0, reach)))
            cv2.line(tile, (x, y), end, ink, int(rng.integers(1, 5)), cv2.LINE_AA)
    return _grain(rng, tile)


TEXTURES: tuple[Maker, ...] = (
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
    points, depth = int(rng.integers(3, 9)), rng.uniform(0.1, 0.6)
    wave = np.abs(np.mod(np.arctan2(y, x) * points / (2 * np.pi), 1.0) - 0.5) * 2
    return (np.hypot(x, y) < 0.95 * (1 - depth * wave)).astype(np.float32)


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
        x, lean, height = rng.uniform(0, CUT), rng.normal(0, 0.25), CUT * rng.uniform(0.4, 1.0)
        rise = np.linspace(0, 1, 12)
        blade = np.stack([x + lean * height * rise**2, CUT - height * rise], 1).astype(np.int32)
        cv2.polylines(canvas, [blade], False, [1.0], int(rng.integers(1, 4)))
    return canvas


SOLID_CUTS: tuple[Maker, ...] = (_cut_blob, _cut_disc, _cut_star, _cut_letter, _cut_blob, _cut_holes)
THIN_CUTS: tuple[Maker, ...] = (_cut_fence, _cut_branches, _cut_grass, _cut_holes)
