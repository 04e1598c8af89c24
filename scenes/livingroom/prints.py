"""Procedural pictures for the surfaces of the living room: wallpaper, boards, carpets, paintings.

Convention: uint8 ``[H, W, 3]`` RGB, row 0 at the top. No pattern repeats exactly, so that every spot is unique.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

Size = tuple[int, int]  # (h, w) in pixels


def rgb(color: str) -> np.ndarray:
    """``[3]`` float of a colour written ``rrggbb``."""
    return np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)], np.float32)


def noise(rng: np.random.Generator, size: Size, cell: float | tuple[float, float], octaves: int = 4) -> np.ndarray:
    """``[h, w]`` float32 smooth noise of mean 0 and deviation 1; ``cell`` is its coarsest grain (y, x) in pixels."""
    cell_y, cell_x = (cell, cell) if isinstance(cell, (int, float)) else cell
    total = np.zeros(size, np.float32)
    for k in range(octaves):
        h, w = (max(2, math.ceil(n * 2**k / c) + 1) for n, c in zip(size, (cell_y, cell_x), strict=True))
        if h > size[0] and w > size[1]:
            break
        grid = rng.normal(size=(min(h, size[0]), min(w, size[1]))).astype(np.float32)
        total += 0.6**k * cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def finish(canvas: np.ndarray, rng: np.random.Generator, grain: float = 6.0, stain: float = 6.0) -> np.ndarray:
    """Convert to 8 bits, with fine grain and broad stains, so that every surface has texture."""
    size = (canvas.shape[0], canvas.shape[1])
    shade = grain * noise(rng, size, 5, 2) + stain * noise(rng, size, max(size) / 6, 3)
    return (canvas + shade[..., None]).clip(0, 255).astype(np.uint8)


def blend(colors: Sequence[str], factor: np.ndarray) -> np.ndarray:
    """``[h, w, 3]`` float: a gradient of evenly spaced colours, evaluated at a factor in 0..1."""
    table = np.stack([rgb(color) for color in colors])
    place = factor.clip(0, 1) * (len(colors) - 1)
    low = np.minimum(place.astype(int), len(colors) - 2)
    share = (place - low)[..., None]
    return (table[low] * (1 - share) + table[low + 1] * share).astype(np.float32)


def wallpaper(size: Size, seed: int, ground: str, inks: Sequence[str], step: int = 62) -> np.ndarray:
    """Varying flowers with leaves on a pale striped ground."""
    rng = np.random.default_rng(seed)
    h, w = size
    canvas = np.tile(rgb(ground), (h, w, 1))
    canvas *= (1 + 0.05 * np.sign(np.sin(np.arange(w) * 2 * math.pi / step)))[None, :, None]
    for row, y in enumerate(range(0, h + step, step)):
        for x in range((row % 2) * step // 2, w + step, step):
            _flower(canvas, rng, x + rng.normal(0, 4), y + rng.normal(0, 4), step * rng.uniform(0.16, 0.26), inks)
    return finish(canvas, rng, 5.0, 7.0)


def _flower(
    canvas: np.ndarray, rng: np.random.Generator, x: float, y: float, radius: float, inks: Sequence[str]
) -> None:
    turn = rng.uniform(0, 360)
    stem, petal, heart = inks[0], inks[1 + int(rng.integers(len(inks) - 2))], inks[-1]
    for side in (-1, 1):
        angle = 90 + side * rng.uniform(25, 70)
        a = math.radians(angle)
        end = (x + 2.3 * radius * math.cos(a), y + 2.3 * radius * math.sin(a))
        _line(canvas, (x, y), end, stem, 1.6)
        _ellipse(canvas, end, (radius * 0.75, radius * 0.28), angle + side * 30, stem)
    petals = int(rng.integers(5, 8))
    for k in range(petals):
        a = math.radians(turn + 360 * k / petals)
        centre = (x + 0.62 * radius * math.cos(a), y + 0.62 * radius * math.sin(a))
        _ellipse(canvas, centre, (radius * 0.52, radius * 0.3), math.degrees(a), petal)
    _ellipse(canvas, (x, y), (radius * 0.27, radius * 0.27), 0, heart)


def _ellipse(canvas: np.ndarray, centre: Sequence[float], axes: Sequence[float], angle: float, color: str) -> None:
    """Draw a filled ellipse with smooth edges; positions are in pixels."""
    at, half = (tuple(round(16 * v) for v in pair) for pair in (centre, axes))
    points = cv2.ellipse2Poly((0, 0), (1000, round(1000 * half[1] / max(half[0], 1))), round(angle), 0, 360, 12)
    outline = (np.asarray(points) * (half[0] / 1000) + np.array(at)).round().astype(np.int32)
    cv2.fillPoly(canvas, [outline], rgb(color).tolist(), cv2.LINE_AA, shift=4)


def _line(canvas: np.ndarray, a: Sequence[float], b: Sequence[float], color: str, width: float) -> None:
    first, second = (tuple(round(16 * v) for v in pair) for pair in (a, b))
    cv2.line(canvas, first, second, rgb(color).tolist(), max(1, round(width)), cv2.LINE_AA, shift=4)


def boards(size: Size, seed: int, colors: Sequence[str], width: int = 40, length: int = 420) -> np.ndarray:
    """Floor boards along x, each with its own tone, grain and knots."""
    rng = np.random.default_rng(seed)
    h, w = size
    fibre = noise(rng, size, (9, 260), 4) + 0.5 * noise(rng, size, (3, 60), 2)
    canvas = blend(colors, 0.5 + 0.22 * fibre)
    for y in range(0, h, width):
        x = -int(rng.integers(length))
        while x < w:
            end = x + int(length * rng.uniform(0.6, 1.3))
            part = canvas[y : y + width, max(x, 0) : max(end, 0)]
            part *= rng.uniform(0.72, 1.12) * (1 + rng.normal(0, 0.03, 3).astype(np.float32))
            part[:, :2] *= 0.45
            if rng.uniform() < 0.5 and end - x > 60:
                knot = (rng.uniform(x + 20, end - 20), y + rng.uniform(8, width - 8))
                _ellipse(canvas, knot, (rng.uniform(6, 11), rng.uniform(2, 5)), rng.uniform(-12, 12), "3a2413")
            x = end
        canvas[y : y + 2] *= 0.45
    return finish(canvas, rng, 5.0, 4.0)


def carpet(size: Size, seed: int, colors: Sequence[str]) -> np.ndarray:
    """An oriental carpet: borders, a medallion, and a field of flowers."""
    rng = np.random.default_rng(seed)
    h, w = size
    canvas = np.tile(rgb(colors[0]), (h, w, 1))
    for k in range(5):
        inset = round(min(size) * (0.02, 0.045, 0.06, 0.15, 0.165)[k])
        corner = (w - 1 - inset, h - 1 - inset)
        cv2.rectangle(canvas, (inset, inset), corner, rgb(colors[(1, 2, 3, 1, 0)[k]]).tolist(), -1)
    step = round(min(size) * 0.09)
    band = round(min(size) * 0.105)
    for x in range(band, w - band + 1, step):
        for y in range(band, h - band + 1, step):
            on_border = min(x, y, w - x, h - y) < band + step // 2
            inks = [colors[1], colors[0], colors[4], colors[2]] if on_border else [colors[4], *colors[1:4], colors[2]]
            place = (x + rng.normal(0, step / 14), y + rng.normal(0, step / 14))
            _flower(canvas, rng, *place, step * rng.uniform(0.2, 0.3), inks)
    for k, share in enumerate((0.34, 0.3, 0.22, 0.14)):
        points = [
            (
                w / 2 + share * w * 0.8 * math.cos(a) * (1 + 0.16 * math.cos(8 * a)),
                h / 2 + share * h * 0.95 * math.sin(a) * (1 + 0.16 * math.cos(8 * a)),
            )
            for a in np.linspace(0, 2 * math.pi, 120)
        ]
        cv2.fillPoly(canvas, [np.array(points, np.int32)], rgb(colors[(2, 1, 3, 4)[k]]).tolist(), cv2.LINE_AA)
    for _ in range(90):
        a, r = rng.uniform(0, 2 * math.pi), 0.28 * math.sqrt(rng.uniform())
        place = (w / 2 + r * w * 0.8 * math.cos(a), h / 2 + r * h * math.sin(a))
        _flower(canvas, rng, *place, step * rng.uniform(0.12, 0.2), [colors[4], colors[2], colors[0], colors[3]])
    canvas *= (1 + 0.08 * np.sin(np.arange(h) * 2.1))[:, None, None]
    return finish(canvas, rng, 10.0, 8.0)


def landscape(size: Size, seed: int, sky: Sequence[str], land: Sequence[str]) -> np.ndarray:
    """A painting of hills under clouds, with trees or houses in front."""
    rng = np.random.default_rng(seed)
    h, w = size
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None]
    canvas = blend(sky, y * 1.6 + 0.22 * noise(rng, size, (h / 5, w / 2.5), 5))
    base = np.arange(h)[:, None]
    for k, color in enumerate(land):
        line = h * (0.42 + 0.15 * k) + 0.07 * h * noise(rng, (1, w), w / (2 + k), 5)[0]
        below = base > line[None]
        canvas[below] = (rgb(color) * (1 + 0.16 * noise(rng, size, (h / 30, w / 12), 3)[..., None]))[below]
        for _ in range(5 + 3 * k):
            x = int(rng.integers(w))
            tall = h * rng.uniform(0.04, 0.09) * (1 + k)
            foot = float(line[x])
            _line(canvas, (x, foot), (x, foot - tall), "2a1c12", h / 120 * (1 + k / 2))
            dark = (rgb(color) * rng.uniform(0.35, 0.8)).astype(np.uint8).tobytes().hex()
            for _ in range(9):
                place = (x + rng.normal(0, tall / 5), foot - tall + rng.normal(0, tall / 4))
                _ellipse(canvas, place, (tall / 6, tall / 8), rng.uniform(0, 180), dark)
    return finish(canvas, rng, 12.0, 4.0)


def abstract(size: Size, seed: int, colors: Sequence[str], count: int = 60) -> np.ndarray:
    """A painting of circles, bars and triangles."""
    rng = np.random.default_rng(seed)
    h, w = size
    canvas = blend(colors[:3], 0.5 + 0.3 * noise(rng, size, max(size) / 2, 3))
    for _ in range(count):
        color = colors[int(rng.integers(len(colors)))]
        x, y, r = rng.uniform(0, w), rng.uniform(0, h), min(size) * 0.16 * rng.beta(1.2, 3)
        kind = rng.uniform()
        if kind < 0.4:
            _ellipse(canvas, (x, y), (r, r), 0, color)
            _ellipse(canvas, (x, y), (r * 0.6, r * 0.6), 0, colors[int(rng.integers(len(colors)))])
        elif kind < 0.7:
            a = rng.uniform(0, math.pi)
            _line(canvas, (x, y), (x + 4 * r * math.cos(a), y + 4 * r * math.sin(a)), color, r / 6)
        else:
            corners = np.array([x, y]) + rng.normal(0, 1.2 * r, (3, 2))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], rgb(color).tolist(), cv2.LINE_AA)
    return finish(canvas, rng, 7.0, 4.0)


def poster(size: Size, seed: int, lines: Sequence[str], colors: Sequence[str]) -> np.ndarray:
    """A poster: an abstract picture above some lines of print."""
    rng = np.random.default_rng(seed)
    h, w = size
    canvas = np.tile(rgb(colors[0]), (h, w, 1))
    top = round(h * 0.62)
    margin = round(w * 0.07)
    canvas[margin:top, margin : w - margin] = abstract((top - margin, w - 2 * margin), seed + 1, colors[1:], 35)
    canvas = canvas.clip(0, 255).astype(np.uint8)  # letters are drawn in 8 bits only
    for k, line in enumerate(lines):
        scale = (w - 2 * margin) / cv2.getTextSize(line, cv2.FONT_HERSHEY_TRIPLEX, 1.0, 2)[0][0]
        scale = min(scale, h / 160)
        foot = round(top + (h - top) * (k + 0.8) / (len(lines) + 0.25))
        cv2.putText(
            canvas, line, (margin, foot), cv2.FONT_HERSHEY_TRIPLEX, scale, rgb(colors[1]).tolist(), 2, cv2.LINE_AA
        )
    return finish(canvas, rng, 4.0, 4.0)


def stripes(size: Size, seed: int, colors: Sequence[str], width: float = 18.0, across: bool = False) -> np.ndarray:
    """Woven cloth with stripes of varying width along y, or along x with ``across``."""
    rng = np.random.default_rng(seed)
    length = size[0] if across else size[1]
    rows: list[np.ndarray] = []
    while sum(len(row) for row in rows) < length:
        color = rgb(colors[int(rng.integers(len(colors)))])
        rows.append(np.tile(color, (max(2, round(width * rng.uniform(0.3, 1.6))), 1)))
    line = np.concatenate(rows)[:length]
    canvas = np.broadcast_to(line[:, None] if across else line[None], (*size, 3)).astype(np.float32).copy()
    weave = np.sin(np.arange(size[0]) * 1.9)[:, None] * np.sin(np.arange(size[1]) * 1.9)[None]
    return finish(canvas * (1 + 0.1 * weave[..., None]), rng, 8.0, 9.0)


def blotches(size: Size, seed: int, colors: Sequence[str], cell: float = 24.0) -> np.ndarray:
    """Plaster, pottery, bark, cloth: soft blotches of several colours."""
    rng = np.random.default_rng(seed)
    return finish(blend(colors, 0.5 + 0.25 * noise(rng, size, cell, 4)), rng, 7.0, 3.0)


def spines(size: Size, seed: int) -> np.ndarray:
    """Backs of books, to be tinted: pale cloth with bands and rows of small print."""
    rng = np.random.default_rng(seed)
    h, w = size
    canvas = np.full((h, w, 3), 205.0, np.float32)
    for _ in range(round(h * w / 2500)):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        long, color = rng.uniform(5, 26), ("fff3c4", "ffffff", "4a3a2a", "e0c060")[int(rng.integers(4))]
        _line(canvas, (x, y), (x + long, y), color, rng.uniform(1, 4))
        if rng.uniform() < 0.4:
            _line(canvas, (x, y + 6), (x + long * rng.uniform(0.4, 1), y + 6), color, 1)
        if rng.uniform() < 0.2:
            _ellipse(canvas, (x, y - 10), (5, 5), 0, color)
    return finish(canvas, rng, 7.0, 10.0)


def meadow(size: Size, seed: int) -> np.ndarray:
    """The ground of a model railway: grass, fields, a road and a pond."""
    rng = np.random.default_rng(seed)
    h, w = size
    canvas = blend(["4d6b2a", "7d9a3f", "a9b45a", "5f7f35"], 0.5 + 0.3 * noise(rng, size, 60, 5))
    for color in ("c9a94f", "9a7b45", "b7c26a"):
        centre = np.array([rng.uniform(0.2, 0.8) * w, rng.uniform(0.25, 0.75) * h])
        corners = centre + np.array([(-70, -45), (75, -35), (60, 50), (-60, 40)]) * rng.uniform(0.7, 1.3, (4, 1))
        cv2.fillPoly(canvas, [corners.astype(np.int32)], rgb(color).tolist(), cv2.LINE_AA)
        for k in range(9):
            a, b = corners[0] + (corners[1] - corners[0]) * k / 8, corners[3] + (corners[2] - corners[3]) * k / 8
            _line(canvas, a, b, "6a5a30", 1)
    _ellipse(canvas, (0.3 * w, 0.62 * h), (75, 38), 10, "3f6f8a")
    _ellipse(canvas, (0.3 * w, 0.62 * h), (60, 28), 10, "6fa3b5")
    road = np.stack([np.linspace(0, w, 60), h * (0.5 + 0.13 * np.sin(np.linspace(0, 7, 60)))], 1).astype(np.int32)
    cv2.polylines(canvas, [road], False, rgb("b5a58c").tolist(), 20, cv2.LINE_AA)
    cv2.polylines(canvas, [road], False, rgb("efe6d0").tolist(), 2, cv2.LINE_AA)
    for _ in range(700):
        color = ("e8d24a", "d65a4a", "f2f0e0", "35511f")[int(rng.integers(4))]
        _ellipse(canvas, (rng.uniform(0, w), rng.uniform(0, h)), (2.2, 2.2), 0, color)
    return finish(canvas, rng, 14.0, 6.0)


def dots(size: Size, seed: int, ground: str, colors: Sequence[str], step: int = 40) -> np.ndarray:
    """Cloth or rubber with dots, rings and stars of several sizes."""
    rng = np.random.default_rng(seed)
    h, w = size
    canvas = np.tile(rgb(ground), (h, w, 1))
    for row, y in enumerate(range(0, h + step, step)):
        for x in range((row % 2) * step // 2, w + step, step):
            color, r = colors[int(rng.integers(len(colors)))], step * rng.uniform(0.16, 0.36)
            place = (x + rng.normal(0, step / 10), y + rng.normal(0, step / 10))
            _ellipse(canvas, place, (r, r), 0, color)
            if rng.uniform() < 0.5:
                _ellipse(canvas, place, (r * 0.55, r * 0.55), 0, ground)
    return finish(canvas, rng, 6.0, 6.0)


def facade(seed: int, wall: str) -> np.ndarray:
    """The front of a small house: windows in rows, beams and stains; ``[220, 200, 3]``."""
    rng = np.random.default_rng(seed)
    h, w = 220, 200
    canvas = np.tile(rgb(wall), (h, w, 1))
    for y in range(14, h - 40, 68):
        for x in range(14, w - 30, 62):
            corner = (x + int(rng.integers(-3, 4)), y + int(rng.integers(-3, 4)))
            far = (corner[0] + 30, corner[1] + 40)
            cv2.rectangle(canvas, corner, far, rgb("f4efe1").tolist(), -1)
            cv2.rectangle(canvas, (corner[0] + 4, corner[1] + 4), (far[0] - 4, far[1] - 4), rgb("2f4456").tolist(), -1)
            _line(canvas, (corner[0] + 15, corner[1]), (corner[0] + 15, far[1]), "f4efe1", 3)
    for _ in range(4):
        top = rng.uniform(0, w)
        _line(canvas, (top, 0), (top + rng.normal(0, 30), h), "5a3a24", 4)
    for y in (2, 70, 138, 206):
        _line(canvas, (0, y), (w, y), "5a3a24", 4)
    return finish(canvas, rng, 7.0, 9.0)
