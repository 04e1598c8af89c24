"""The static part of the example scene: a walled courtyard, 1.5 to 10 m from the rig.

Convention: metres; the rig is near the origin at a height of about 1 m and looks along +y; z is up.
"""

from __future__ import annotations

import math

import bpy
import numpy as np

from scenes.courtyard import parts as p
from scenes.courtyard.things import build_things

SEED = 7


def build_courtyard() -> None:
    """Build the static objects and the lights."""
    rng = np.random.default_rng(SEED)
    _ground()
    _walls()
    _back_wall(rng)
    build_things(rng)
    _light()


def _ground() -> None:
    stone = p.cobbles("ground", ["b89a78", "a3a098", "8f8478", "c9b79a", "9a6f58"], "6b5d4e", 2.5)
    p.mesh_object("ground", [p.box((9, 11, 0.1), (0, 5, -0.05))], stone)
    rug = p.painting("rug", ["7a1f2b", "d9a441", "1f4e5f", "e8dcc0", "a63a2a"], 1.5, 3.0, "rings")
    p.mesh_object("rug", [p.box((1.9, 1.3, 0.015))], rug, at=(0.1, 3.1, 0.008), turn=(0, 0, 9))
    step = p.bricks("steps", "a7725a", "8a6a5a", "cfc4b4", 0.8)
    p.mesh_object(
        "steps",
        [p.box((1.7, 0.35 * (3 - k), 0.17), (0, 0.17 * -(3 - k), 0.085 + 0.17 * k)) for k in range(3)],
        step,
        at=(-0.75, 9.6, 0),
    )


def _walls() -> None:
    left = p.cobbles("left wall", ["c7ae8c", "a99a86", "d6c3a1", "8d8072", "b98a66"], "7a6a58", 2.0)
    p.mesh_object("left wall", [p.box((0.3, 9, 4.4), (0, 4.5, 2.2))], left, at=(-2.45, 1.2, 0), turn=(0, 0, 3))
    right = p.bricks("right wall", "b5543c", "8c3f30", "b39c84", 0.5)
    p.mesh_object("right wall", [p.box((0.3, 9, 4.4), (0, 4.5, 2.2))], right, at=(2.75, 1.2, 0), turn=(0, 0, -2))
    beam = p.wood("beams", ["3b2517", "8a5a36", "c08a58"], 3.0, 0.3)
    beams = [p.box((6.2, 0.12, 0.16), (0, y, 2.68 + 0.05 * k)) for k, y in enumerate((8.3, 9.3))]
    p.mesh_object("beams", beams, beam)


def _window(at: p.Vec, turn: p.Vec, tone: list[str], glass: list[str], seed: float) -> None:
    """A window with a cross, slatted shutters and a sill."""
    frame = [p.box((0.8, 0.06, 0.06), (0, 0, z)) for z in (-0.5, 0.0, 0.5)]
    frame += [p.box((0.06, 0.06, 1.06), (x, 0, 0)) for x in (-0.4, 0.0, 0.4)]
    frame += [p.box((0.95, 0.2, 0.06), (0, -0.06, -0.56))]
    p.mesh_object("frame", frame, p.wood("frame", ["d9c7a0", "f0e6cf", "b79d74"], 3.0, 0.5), at=at, turn=turn)
    p.mesh_object("glass", [p.box((0.8, 0.02, 1.0))], p.painting("glass", glass, 1.7, seed), at=at, turn=turn)
    slats: list[p.Shape] = []
    for side in (-1, 1):
        slats += [p.box((0.36, 0.015, 0.06), (side * 0.63, -0.03, -0.46 + 0.066 * k), (35, 0, 0)) for k in range(15)]
        slats += [p.box((0.04, 0.05, 1.06), (side * (0.63 + 0.19 * e), -0.03, 0)) for e in (-1, 1)]
    p.mesh_object("shutters", slats, p.mottled("shutters", tone, 9.0), at=at, turn=turn)


def _back_wall(rng: np.random.Generator) -> None:
    p.mesh_object(
        "back wall",
        [p.box((8, 0.3, 4.6), (0, 0, 2.3))],
        p.bricks("back wall", "d9b58a", "b98d62", "a8906f", 0.45),
        at=(0, 9.85, 0),
    )
    door = p.wood("door", ["14424a", "2f7f86", "62b0ac"], 2.5, 0.16)
    p.mesh_object("door", [p.box((1.0, 0.08, 2.1))], door, at=(-0.75, 9.68, 1.5))
    frame = [p.box((0.14, 0.2, 2.2), (x, 0, 1.1)) for x in (-0.6, 0.6)] + [p.box((1.5, 0.24, 0.16), (0, 0, 2.25))]
    p.mesh_object(
        "door frame",
        frame,
        p.mottled("door frame", ["8f8476", "d9cfbd", "a89a86"], 11.0),
        at=(-0.75, 9.66, 0.5),
    )
    _window(
        (1.15, 9.68, 1.75),
        (0, 0, 0),
        ["23424f", "3f7f8f", "8ec3c0"],
        ["22303c", "6f8fa3", "d9c98f", "34495a"],
        2.0,
    )
    _window(
        (-2.25, 9.68, 1.75),
        (0, 0, 0),
        ["5d1f1f", "a63d33", "d9805f"],
        ["2a2f3c", "8fa38f", "d9a98f", "54495a"],
        8.0,
    )
    posters = [
        (0.28, 1.75, 0.42, 0.6, ["f2c14e", "e4572e", "17324d", "f4efe1"], "cells"),
        (2.25, 1.2, 0.5, 0.7, ["20504f", "d9e3c9", "ce6a85", "f0b67f"], "rings"),
        (2.3, 2.25, 0.6, 0.45, ["2d3047", "e0a458", "419d78", "fff1d0"], "noise"),
    ]
    for k, (x, z, width, height, colors, style) in enumerate(posters):
        art = p.painting(f"poster {k}", colors, 6.0, 1.7 * k, style)
        p.mesh_object("poster", [p.box((width, 0.02, height))], art, at=(x, 9.67, z), turn=(0, 3 * (-1) ** k, 0))
    ivy = p.leaf("ivy", ["1f3d17", "3f6b22", "7a9a35", "2f5a2a"])
    strands = np.concatenate(
        [
            np.stack(
                [
                    x + np.cumsum(rng.normal(0, 0.04, 60)),
                    np.full(60, 9.62),
                    np.linspace(3.4, rng.uniform(1.9, 2.9), 60),
                ],
                1,
            )
            for x in np.linspace(-3, 3, 15)
        ]
    )
    p.mesh_object("ivy", p.leaves(rng, strands[::2], 0.19, 0.06), ivy)


def _light() -> None:
    """A low warm sun from behind the rig, at its left, and a sky."""
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.angle, sun.color = 4.2, math.radians(4.0), p.linear("ffe6c4")[:3]
    lamp = bpy.data.objects.new("sun", sun)
    lamp.rotation_euler = (math.radians(44), 0, math.radians(-15))
    bpy.context.scene.collection.objects.link(lamp)
    world = bpy.data.worlds.new("sky")
    bpy.context.scene.world = world
    world.use_nodes = True
    sky = next(n for n in world.node_tree.nodes if n.type == "BACKGROUND")
    sky.inputs["Color"].default_value = p.linear("c4dcff")
    sky.inputs["Strength"].default_value = 1.5
