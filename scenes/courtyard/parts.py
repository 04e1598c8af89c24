"""Building blocks of the example scene: procedural materials and meshes for Blender.

Convention: metres, z up. Every mesh carries UVs in metres, projected along the dominant axis of each face, so
that flat textures (bricks, planks, checks) cover all sides of a box without stretching.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import bpy
import numpy as np
from mathutils import Euler, Vector

Vec = Sequence[float]
Shape = tuple[Sequence[Vec], Sequence[tuple[int, ...]]]  # vertices, faces


def linear(color: str) -> tuple[float, float, float, float]:
    """Linear RGBA of an sRGB colour written ``rrggbb``."""
    values = [int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return (r, g, b, 1.0)


class Shader:
    """A material's node tree, written as nested calls; each call returns an output socket."""

    def __init__(self, name: str, roughness: float = 0.7) -> None:
        self.material = bpy.data.materials.new(name)
        self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.bsdf = next(n for n in self.tree.nodes if n.type == "BSDF_PRINCIPLED")
        self.bsdf.inputs["Roughness"].default_value = roughness
        self.bsdf.inputs["Specular IOR Level"].default_value = 0.25

    def node(self, kind: str, output: str | int = 0, props: dict[str, Any] | None = None, **inputs: Any) -> Any:
        """Add a node. Keywords are input names, ``_`` for a space; sockets are linked, values set."""
        node = self.tree.nodes.new("ShaderNode" + kind)
        for key, value in (props or {}).items():
            setattr(node, key, value)
        for key, value in inputs.items():
            socket = node.inputs[int(key[1:]) if key[0] == "i" and key[1:].isdigit() else key.replace("_", " ")]
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, socket)
            else:
                socket.default_value = value
        return node.outputs[output]

    def coords(self, kind: str = "Object", scale: Vec = (1, 1, 1), turn: float = 0.0) -> Any:
        """Texture coordinates in metres (``Object``: the object's own space; ``UV``: along each face)."""
        source = self.node("TexCoord", kind)
        return self.node("Mapping", Vector=source, Scale=tuple(scale), Rotation=(0.0, 0.0, turn))

    def noise(self, vector: Any, scale: float, detail: float = 4.0, distortion: float = 0.0) -> Any:
        return self.node("TexNoise", Vector=vector, Scale=scale, Detail=detail, Distortion=distortion)

    def ramp(
        self, factor: Any, colors: Sequence[str], *, steps: bool = False, low: float = 0.0, high: float = 1.0
    ) -> Any:
        """A gradient of evenly spaced colours over ``low..high`` of a factor; ``steps`` gives flat bands."""
        out = self.node("ValToRGB", Fac=factor)
        ramp = out.node.color_ramp
        ramp.interpolation = "CONSTANT" if steps else "LINEAR"
        last = max(1, len(colors) - (0 if steps else 1))
        while len(ramp.elements) < len(colors):
            ramp.elements.new(0.5)
        for i, color in enumerate(colors):
            ramp.elements[i].position = low + (high - low) * i / last
            ramp.elements[i].color = linear(color)
        return out

    def mix(self, factor: Any, a: Any, b: Any, blend: str = "MIX") -> Any:
        """Colour mix; ``a`` and ``b`` are sockets or ``rrggbb``."""
        a, b = (linear(c) if isinstance(c, str) else c for c in (a, b))
        return self.node("Mix", 2, {"data_type": "RGBA", "blend_type": blend}, i0=factor, i6=a, i7=b)

    def dirt(self, color: Any, scale: float = 9.0, amount: float = 0.35) -> Any:
        """Darken by fine noise, so that every surface has texture."""
        grain = self.ramp(self.noise(self.coords(), scale, 3.0), ["303030", "ffffff"], low=0.36, high=0.58)
        return self.mix(amount, color, grain, "MULTIPLY")

    def island(self) -> Any:
        """A random number per connected piece of the mesh."""
        return self.node("NewGeometry", "Random Per Island")

    def done(self, color: Any) -> Any:
        self.tree.links.new(color, self.bsdf.inputs["Base Color"])
        return self.material


def bricks(name: str, a: str, b: str, mortar: str, scale: float = 1.0, turn: float = 0.0, dirt: float = 0.4) -> Any:
    """Bricks of about 25 x 8 cm at scale 1, with stains at two scales."""
    s = Shader(name, 0.85)
    uv = s.coords("UV", turn=turn)
    color = s.node(
        "TexBrick",
        Vector=uv,
        Color1=linear(a),
        Color2=linear(b),
        Mortar=linear(mortar),
        Scale=scale,
        Mortar_Size=0.012,
        Brick_Width=0.28,
        Row_Height=0.095,
        Bias=-0.1,
    )
    stain = s.ramp(s.noise(s.coords(), 1.3, 2.0), ["8a7a70", "ffffff", "c8b49a"], low=0.3, high=0.7)
    return s.done(s.dirt(s.mix(0.7, color, stain, "MULTIPLY"), 14.0, dirt))


def cobbles(name: str, colors: Sequence[str], gap: str, scale: float, roughness: float = 0.8, flat: bool = True) -> Any:
    """Voronoi stones of several colours with dark gaps."""
    s = Shader(name, roughness)
    at = s.coords("UV" if flat else "Object")
    at = s.mix(0.04, at, s.node("TexNoise", 1, Vector=at, Scale=5.0, Detail=0.0), "ADD")
    cell = s.node("TexVoronoi", "Color", Vector=at, Scale=scale)
    edge = s.node("TexVoronoi", 0, {"feature": "DISTANCE_TO_EDGE"}, Vector=at, Scale=scale)
    stone = s.ramp(s.node("SeparateColor", 0, Color=cell), colors, steps=True)
    return s.done(s.mix(s.ramp(edge, ["000000", "ffffff"], low=0.015, high=0.09), gap, s.dirt(stone, 7.0, 0.45)))


def wood(name: str, colors: Sequence[str], grain: float = 3.0, plank: float = 0.14, upright: bool = True) -> Any:
    """Planks with grain along them; each plank and each piece of the mesh has its own tone."""
    s = Shader(name, 0.6)
    uv = s.coords("UV", turn=0.0 if upright else math.pi / 2)
    fibre = s.noise(s.node("Mapping", Vector=uv, Scale=(22.0, 1.6, 1.0)), grain, 3.0, 1.2)
    color = s.ramp(fibre, colors, low=0.3, high=0.72)
    tone = s.node(
        "TexBrick",
        0,
        Vector=s.node("Mapping", Vector=uv, Rotation=(0, 0, math.pi / 2)),
        Color1=linear("ffffff"),
        Color2=linear("a0a0a0"),
        Mortar=linear("3c2c20"),
        Scale=1.0,
        Mortar_Size=0.006,
        Brick_Width=1.7,
        Row_Height=plank,
    )
    piece = s.ramp(s.island(), ["9a9a9a", "ffffff"])
    return s.done(s.dirt(s.mix(0.6, s.mix(0.9, color, tone, "MULTIPLY"), piece, "MULTIPLY"), 12.0, 0.25))


def pieces(name: str, colors: Sequence[str], scale: float = 25.0, roughness: float = 0.55) -> Any:
    """One of several colours for each connected piece, with banded and spotted print."""
    s = Shader(name, roughness)
    color = s.ramp(s.island(), colors, steps=True)
    bands = s.node(
        "TexWave", 0, {"bands_direction": "Z"}, Vector=s.coords(), Scale=scale / 6, Distortion=2.0, Detail=3.0
    )
    print_ = s.ramp(bands, ["6c6258", "ffffff", "fff2d0"], low=0.1, high=0.8)
    return s.done(s.dirt(s.mix(0.55, color, print_, "MULTIPLY"), scale / 2, 0.3))


def painting(name: str, colors: Sequence[str], scale: float, seed: float, style: str = "noise") -> Any:
    """An abstract picture: distorted noise, cells or rings in bands of colour."""
    s = Shader(name, 0.45)
    at = s.node("Mapping", Vector=s.coords("UV"), Location=(seed, seed * 1.7, seed))
    if style == "cells":
        cell = s.node("TexVoronoi", "Color", Vector=at, Scale=scale * 1.6)
        factor = s.node("SeparateColor", 0, Color=cell)
    elif style == "rings":
        factor = s.node("TexWave", 0, {"wave_type": "RINGS"}, Vector=at, Scale=scale * 0.6, Distortion=6.0, Detail=2.0)
    else:
        factor = s.noise(at, scale, 2.0, 2.5)
    low, high = (0.0, 1.0) if style != "noise" else (0.28, 0.72)
    return s.done(s.dirt(s.ramp(factor, colors, steps=True, low=low, high=high), 12.0, 0.25))


def checks(name: str, a: str, b: str, scale: float, roughness: float = 0.5, flat: bool = True) -> Any:
    """A chequered cloth or tile."""
    s = Shader(name, roughness)
    at = s.coords("UV" if flat else "Object", turn=0.3 if not flat else 0.0)
    shifted = s.node("Mapping", Vector=at, Location=(0.003, 0.007, 0.011))
    color = s.node("TexChecker", Vector=shifted, Color1=linear(a), Color2=linear(b), Scale=scale)
    return s.done(s.dirt(color, 11.0, 0.3))


def mottled(name: str, colors: Sequence[str], scale: float = 8.0, roughness: float = 0.6) -> Any:
    """Blotches of several colours: pottery, bark, plaster, painted metal."""
    s = Shader(name, roughness)
    spots = s.noise(s.coords(), scale, 2.0, 0.8)
    return s.done(s.dirt(s.ramp(spots, colors, low=0.32, high=0.68), scale * 2, 0.3))


def leaf(name: str, colors: Sequence[str]) -> Any:
    """Leaves, each with its own tone."""
    s = Shader(name, 0.6)
    return s.done(s.dirt(s.ramp(s.island(), colors), 16.0, 0.35))


def mesh_object(
    name: str,
    shapes: Sequence[Shape],
    material: Any,
    *,
    at: Vec = (0, 0, 0),
    turn: Vec = (0, 0, 0),
    smooth: bool = False,
) -> Any:
    """An object from several pieces; ``turn`` is an XYZ Euler rotation in degrees."""
    vertices: list[Vec] = []
    faces: list[tuple[int, ...]] = []
    for points, polygons in shapes:
        faces += [tuple(i + len(vertices) for i in polygon) for polygon in polygons]
        vertices += points
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([tuple(v) for v in vertices], [], faces)
    mesh.update()
    uv = mesh.uv_layers.new(name="metres").data
    for polygon in mesh.polygons:
        axis = int(np.argmax(np.abs(polygon.normal)))
        u, v = ((1, 2), (0, 2), (0, 1))[axis]
        for loop in polygon.loop_indices:
            point = vertices[mesh.loops[loop].vertex_index]
            uv[loop].uv = (point[u], point[v])
    if smooth:
        mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    mesh.materials.append(material)
    thing = bpy.data.objects.new(name, mesh)
    thing.location = tuple(at)
    thing.rotation_euler = tuple(math.radians(a) for a in turn)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def moved(shape: Shape, at: Vec = (0, 0, 0), turn: Vec = (0, 0, 0)) -> Shape:
    """The shape rotated (XYZ Euler, degrees) and then translated."""
    rotation = Euler([math.radians(a) for a in turn]).to_matrix()
    return [tuple(rotation @ Vector(p) + Vector(at)) for p in shape[0]], shape[1]


def box(size: Vec, at: Vec = (0, 0, 0), turn: Vec = (0, 0, 0)) -> Shape:
    """A box of ``size`` about its centre."""
    x, y, z = (s / 2 for s in size)
    points = [(i * x, j * y, k * z) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return moved((points, faces), at, turn)


def lathe(profile: Sequence[tuple[float, float]], at: Vec = (0, 0, 0), turn: Vec = (0, 0, 0), sides: int = 24) -> Shape:
    """A solid of revolution about z from (radius, height) pairs."""
    angles = [2 * math.pi * k / sides for k in range(sides)]
    points: list[Vec] = [(r * math.cos(a), r * math.sin(a), z) for r, z in profile for a in angles]
    faces: list[tuple[int, ...]] = []
    for row in range(len(profile) - 1):
        for k in range(sides):
            n = (k + 1) % sides
            faces.append((row * sides + k, row * sides + n, (row + 1) * sides + n, (row + 1) * sides + k))
    last = (len(profile) - 1) * sides
    faces += [tuple(range(sides))[::-1], tuple(range(last, last + sides))]
    return moved((points, faces), at, turn)


def ball(radius: float, at: Vec = (0, 0, 0), rows: int = 16) -> Shape:
    """A sphere."""
    steps = [math.pi * (i / rows - 0.5) for i in range(rows + 1)]
    return lathe([(max(radius * math.cos(a), 1e-4), radius * math.sin(a)) for a in steps], at, sides=2 * rows)


def rod(start: Vec, end: Vec, radius: float, sides: int = 8, taper: float = 1.0) -> Shape:
    """A round rod between two points."""
    a, b = Vector(start), Vector(end)
    length = (b - a).length
    turn = Vector((0, 0, 1)).rotation_difference(b - a).to_matrix()
    points, faces = lathe([(radius, 0.0), (radius * taper, length)], sides=sides)
    return [tuple(turn @ Vector(p) + a) for p in points], faces


def chain(points: Sequence[Vec], radius: float, sides: int = 6) -> list[Shape]:
    """Rods through a line of points: cables, twigs, hoops."""
    return [rod(a, b, radius, sides) for a, b in pairwise(points)]


def sagging(start: Vec, end: Vec, sag: float, count: int = 24) -> list[Vec]:
    """Points of a cable that hangs between two points."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    t = np.linspace(0.0, 1.0, count + 1)[:, None]
    points = a + (b - a) * t
    points[:, 2] -= sag * 4 * (t * (1 - t))[:, 0]
    return [tuple(p) for p in points]


def leaves(rng: np.random.Generator, centres: np.ndarray, size: float, spread: float) -> list[Shape]:
    """Folded diamond leaves scattered around ``centres [N, 3]``, in random orientations."""
    out: list[Shape] = []
    for centre in centres:
        length, width = size * rng.uniform(0.7, 1.3), size * rng.uniform(0.3, 0.5)
        points = [
            (0, 0, 0),
            (width, 0.5 * length, 0.15 * size),
            (0, length, 0),
            (-width, 0.5 * length, 0.15 * size),
        ]
        at = centre + rng.normal(0.0, spread, 3)
        out.append(moved((points, [(0, 1, 2), (0, 2, 3)]), at, rng.uniform(0, 360, 3).tolist()))
    return out
