"""Building blocks of the living room, in addition to the courtyard's: printed materials, cushions, fronds, cloth.

Convention: as in ``scenes.courtyard.parts``; materials use pictures of ``scenes.livingroom.prints``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import bpy
import numpy as np

from scenes.courtyard import parts as p


def printed(
    name: str,
    picture: np.ndarray,  # [H, W, 3]
    width: float,
    *,
    at: p.Vec = (0, 0),
    tints: Sequence[str] = (),
    roughness: float = 0.6,
    wrap: Literal["FLAT", "SPHERE", "TUBE"] = "FLAT",
) -> Any:
    """A material with a picture, repeated beyond its border.

    Args:
        name: of the material.
        picture: uint8, row 0 at the top.
        width: of the picture in metres, along each face.
        at: position of its centre on a face, in metres from the object's origin.
        tints: colours to multiply it by, one for each connected piece of the mesh.
        roughness: of the surface.
        wrap: FLAT along each face; SPHERE or TUBE once around the object.
    """
    s = p.Shader(name, roughness)
    h, w = picture.shape[:2]
    image = bpy.data.images.new(name, w, h)
    pixels = np.concatenate([picture[::-1], np.full((h, w, 1), 255, np.uint8)], axis=-1)
    image.pixels.foreach_set((pixels.astype(np.float32) / 255).ravel())
    image.pack()
    if wrap == "FLAT":
        height = width * h / w
        place = s.node(
            "Mapping",
            Vector=s.node("TexCoord", "UV"),
            Scale=(1 / width, 1 / height, 1.0),
            Location=(0.5 - at[0] / width, 0.5 - at[1] / height, 0.0),
        )
    else:
        place = s.node("TexCoord", "Generated")
    color = s.node("TexImage", 0, {"image": image, "projection": wrap}, Vector=place)
    if tints:
        color = s.mix(1.0, s.ramp(s.island(), tints, steps=True), color, "MULTIPLY")
    return s.done(color)


def rounded(thing: Any, width: float) -> Any:
    """Round the edges of an object's boxes."""
    bevel = thing.modifiers.new("rounded", "BEVEL")
    bevel.width, bevel.segments = width, 3
    thing.data.polygons.foreach_set("use_smooth", [True] * len(thing.data.polygons))
    return thing


def cushion(size: p.Vec, at: p.Vec = (0, 0, 0), turn: p.Vec = (0, 0, 0), cells: int = 14) -> p.Shape:
    """A stuffed cushion, lying flat: thick in the middle, pointed at the corners."""
    steps = np.linspace(-1, 1, cells + 1)
    points: list[p.Vec] = []
    for side in (1, -1):
        for v in steps:
            for u in steps:
                bulge = ((1 - u**4) * (1 - v**4)) ** 0.6
                pinch = 1 - 0.09 * (1 - u**2) * v**2 - 0.09 * (1 - v**2) * u**2
                points.append((size[0] / 2 * u * pinch, size[1] / 2 * v * pinch, side * size[2] / 2 * bulge))
    faces: list[tuple[int, ...]] = []
    row = cells + 1
    for j in range(cells):
        for i in range(cells):
            a = j * row + i
            faces.append((a, a + 1, a + 1 + row, a + row))
            faces.append(tuple(row * row + k for k in (a + row, a + 1 + row, a + 1, a)))
    return p.moved((points, faces), at, turn)


def frond(start: p.Vec, heading: float, length: float, width: float, rise: float, droop: float) -> p.Shape:
    """A long leaf with a fold along its middle that rises and then hangs over.

    Args:
        start: where it grows.
        heading: direction in degrees about z.
        length: in metres.
        width: in metres, at its widest.
        rise: angle above the ground at the start, in degrees.
        droop: decrease of that angle towards the tip, in degrees.
    """
    count = 8
    a = math.radians(heading)
    ahead, aside = np.array([math.cos(a), math.sin(a), 0.0]), np.array([-math.sin(a), math.cos(a), 0.0])
    place = np.asarray(start, float)
    points: list[p.Vec] = []
    for k in range(count + 1):
        t = k / count
        half = 0.5 * width * math.sin(math.pi * min(0.04 + 0.96 * t**0.8, 1.0)) + 1e-4
        lift = np.array([0, 0, 0.35 * half])
        points += [tuple(place - half * aside + lift), tuple(place), tuple(place + half * aside + lift)]
        slope = math.radians(rise - droop * t)
        place = place + length / count * (math.cos(slope) * ahead + np.array([0, 0, math.sin(slope)]))
    faces = []
    for k in range(count):
        b = 3 * k
        faces += [(b, b + 1, b + 4, b + 3), (b + 1, b + 2, b + 5, b + 4)]
    return points, faces


def drapery(start: p.Vec, end: p.Vec, height: float, folds: int, depth: float) -> p.Shape:
    """A curtain in folds between two points on the floor."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    across = np.cross((b - a) / np.linalg.norm(b - a), [0, 0, 1])
    columns, rows = 14 * folds, 8
    points: list[p.Vec] = []
    for j in range(rows + 1):
        for i in range(columns + 1):
            t = i / columns
            phase = 2 * math.pi * folds * t + 0.5 * math.sin(5 * t + 0.4 * j)
            wave = depth * (0.55 + 0.45 * (1 - j / rows)) * math.sin(phase)
            points.append(tuple(a + (b - a) * t + across * wave + np.array([0, 0, height * j / rows])))
    width = columns + 1
    faces = [
        (j * width + i, j * width + i + 1, (j + 1) * width + i + 1, (j + 1) * width + i)
        for j in range(rows)
        for i in range(columns)
    ]
    return points, faces


def gable(size: p.Vec, at: p.Vec = (0, 0, 0), turn: p.Vec = (0, 0, 0)) -> p.Shape:
    """A roof: a prism of ``size`` above ``at`` whose ridge runs along x."""
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    points = [(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0), (-x, 0, z), (x, 0, z)]
    return p.moved((points, [(0, 1, 5, 4), (2, 3, 4, 5), (0, 4, 3), (1, 2, 5), (0, 3, 2, 1)]), at, turn)
