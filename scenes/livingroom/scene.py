"""The static part of the second scene: a living room with a model railway on the table, 1.3 to 4.5 m from the rig.

Convention: metres; the rig is near the origin at a height of about 1.3 m and looks along +y; z is up. The room has no
ceiling and no wall behind the rig, so that it is lit evenly; neither would be visible.
"""

from __future__ import annotations

import math

import bpy
import numpy as np

from scenes.courtyard import parts as p
from scenes.livingroom import parts as q
from scenes.livingroom import prints
from scenes.livingroom.things import build_things

SEED = 11
BACK = 4.35  # y of the back wall
SIDE = 2.35  # |x| of the side walls
HEIGHT = 3.6  # of the walls


def build_living_room() -> None:
    """Build the static objects and the lights."""
    rng = np.random.default_rng(SEED)
    _shell()
    _pictures()
    _sofa()
    build_things(rng)
    _light()


def _shell() -> None:
    """Floor, carpet, walls, skirting, a window at the left, curtains."""
    wood = prints.boards((1000, 1300), 1, ["4f3119", "8f6035", "c2905a"])
    p.mesh_object("floor", [p.box((6, 6, 0.1), (0, 2.5, -0.05))], q.printed("floor", wood, 4.2, roughness=0.4))
    rug = prints.carpet((560, 820), 2, ["7a1f2b", "e0cfa0", "1f3f5f", "c9803a", "2f5a3a"])
    p.mesh_object(
        "carpet", [p.box((2.7, 1.84, 0.012))], q.printed("carpet", rug, 2.7, roughness=0.9), at=(0.15, 2.55, 0.006)
    )
    inks = ["7a9068", "b5605a", "c9954a", "5a7f9a", "f2d27a"]
    back = q.printed("back paper", prints.wallpaper((720, 1300), 3, "e4d9c2", inks, 52), 4.9, at=(0, 1.3))
    p.mesh_object("back wall", [p.box((5, 0.1, HEIGHT), (0, 0, HEIGHT / 2))], back, at=(0, BACK + 0.05, 0))
    side = q.printed("side paper", prints.wallpaper((720, 1250), 4, "d9cdb4", inks, 52), 4.7, at=(2.0, 1.3))
    right = [p.box((0.1, 4.6, HEIGHT), (SIDE + 0.05, 2.1, HEIGHT / 2))]
    # The window lets the sun in; it is outside all pictures.
    sill, head, first, last = 0.7, 2.35, 0.4, 2.6
    left = [
        p.box((0.1, 4.6, sill), (-SIDE - 0.05, 2.1, sill / 2)),
        p.box((0.1, 4.6, HEIGHT - head), (-SIDE - 0.05, 2.1, (HEIGHT + head) / 2)),
        p.box((0.1, first + 0.2, head - sill), (-SIDE - 0.05, (first - 0.2) / 2, (head + sill) / 2)),
        p.box((0.1, BACK + 0.05 - last, head - sill), (-SIDE - 0.05, (BACK + 0.05 + last) / 2, (head + sill) / 2)),
    ]
    p.mesh_object("side walls", right + left, side)
    bars = [p.box((0.05, 0.05, head - sill), (-SIDE, (first + last) / 2, (head + sill) / 2))]
    bars += [p.box((0.05, last - first, 0.05), (-SIDE, (first + last) / 2, (head + sill) / 2))]
    white = q.printed("paint", prints.blotches((256, 256), 5, ["cfc6b2", "efe8d8", "ded4be"]), 0.5)
    skirting = [p.box((4.7, 0.03, 0.13), (0, BACK - 0.015, 0.065))]
    skirting += [p.box((0.03, 4.4, 0.13), (x, 2.1, 0.065)) for x in (-SIDE + 0.015, SIDE - 0.015)]
    p.mesh_object("skirting", bars + skirting, white)
    cloth = prints.stripes((500, 700), 6, ["2f5a5f", "7fa39a", "e4d3a4", "c9803a", "24474f"], 22)
    folds = [q.drapery((-SIDE + 0.12, 3.0, 0.02), (-SIDE + 0.12, 3.75, 0.02), 2.45, 6, 0.05)]
    p.mesh_object("curtain", folds, q.printed("curtain", cloth, 1.1, roughness=0.9), smooth=True)
    pole = [p.rod((-SIDE + 0.12, 0.6, 2.47), (-SIDE + 0.12, 3.95, 2.47), 0.014)]
    p.mesh_object("curtain pole", pole, q.printed("pole", prints.blotches((128, 128), 7, ["5a3a20", "a87440"]), 0.2))


def _pictures() -> None:
    """Paintings, posters and a clock on the back wall."""
    skies = (["3f74ad", "c4d9e8", "f5d9a0"], ["2a3560", "a8576a", "f2b06a"])
    lands = (["7f95a0", "5f8050", "8a8a3f"], ["4a4a6a", "35505a", "24382f"])
    arts = [
        (-1.62, 1.6, 0.5, prints.landscape((330, 460), 41, skies[0], lands[0])),
        (
            -1.0,
            1.68,
            0.36,
            prints.poster((430, 310), 42, ["SUMMER", "BY THE LAKE"], ["f4ead2", "20304a", "d9472f"] * 2),
        ),
        (-0.36, 1.58, 0.62, prints.landscape((340, 520), 43, skies[1], lands[1])),
        (0.3, 1.7, 0.38, prints.abstract((400, 340), 44, ["f1e4c8", "d9a35a", "7fa3a8", "c8322f", "1f3a5a", "20232b"])),
        (0.31, 1.28, 0.26, prints.landscape((200, 260), 45, skies[0], lands[1])),
        (-1.02, 1.24, 0.24, prints.abstract((240, 240), 46, ["20304a", "3f8a8a", "e9b93f", "f4ead2", "d9472f"])),
    ]
    grain = prints.boards((200, 300), 47, ["3a2414", "7a4f2a", "b58a4f"], 100, 300)
    frame = q.printed("frames", grain, 0.4, tints=["ffffff", "b0a090", "e0c890"], roughness=0.35)
    for k, (x, z, width, art) in enumerate(arts):
        height = width * art.shape[0] / art.shape[1]
        y = BACK - 0.018
        canvas = q.printed(f"art {k}", art, width, roughness=0.5)
        p.mesh_object(f"art {k}", [p.box((width, 0.016, height))], canvas, at=(x, y, z))
        edge = 0.035
        parts = [p.box((width + 2 * edge, 0.04, edge), (0, 0, s * (height + edge) / 2)) for s in (-1, 1)]
        parts += [p.box((edge, 0.04, height), (s * (width + edge) / 2, 0, 0)) for s in (-1, 1)]
        q.rounded(p.mesh_object(f"frame {k}", parts, frame, at=(x, y, z)), 0.006)


def _sofa() -> None:
    """A sofa with cushions, a blanket and a bear."""
    at = (-0.62, 3.72, 0)
    weave = prints.stripes((420, 600), 51, ["5f7f86", "6f8f94", "557278", "7c9a9c"], 9)
    cover = q.printed("sofa", weave, 0.9, roughness=0.95)
    body = [
        p.box((1.95, 0.8, 0.24), (0, 0, 0.24)),
        p.box((1.95, 0.2, 0.52), (0, 0.35, 0.58), (-8, 0, 0)),
        *(p.box((0.18, 0.82, 0.42), (x, -0.01, 0.4)) for x in (-0.98, 0.98)),
        *(p.box((0.86, 0.62, 0.15), (x, -0.07, 0.43)) for x in (-0.44, 0.44)),
    ]
    q.rounded(p.mesh_object("sofa", body, cover, at=at), 0.04)
    feet = [p.rod((x, y, 0), (x, y, 0.13), 0.022) for x in (-0.9, 0.9) for y in (-0.34, 0.34)]
    p.mesh_object("feet", feet, bpy.data.materials["pole"], at=at)
    prints_of = [
        prints.wallpaper((400, 400), 52, "f0e4c8", ["3f6f5a", "c9503a", "d9803a", "e9c46a"], 88),
        prints.stripes((400, 400), 53, ["c9503a", "f1e9d6", "e0b45a", "2f5f6f"], 26),
        prints.dots((400, 400), 54, "2a4a5f", ["f2c14e", "e8764a", "f4efe1"], 74),
        prints.abstract((400, 400), 55, ["e9c46a", "f4a261", "d1495b", "2f5f6f", "f1e9d6"], 80),
    ]
    places = [(-0.74, -12), (-0.34, 6), (0.44, -8), (0.8, 14)]
    for k, (art, (x, turn)) in enumerate(zip(prints_of, places, strict=True)):
        shape = [q.cushion((0.42, 0.42, 0.17), turn=(68, turn, turn))]
        material = q.printed(f"cushion {k}", art, 0.42, roughness=0.9)
        p.mesh_object(f"cushion {k}", shape, material, at=(at[0] + x, at[1] + 0.1, 0.69), smooth=True)
    plaid = prints.stripes((400, 500), 56, ["8a2f3a", "d9b88a", "f1e9d6", "3f4f6a"], 30, across=True)
    sheet = [
        p.box((0.2, 0.42, 0.014), (0, 0, 0.624)),
        p.box((0.014, 0.42, 0.34), (0.098, 0, 0.46)),
        p.box((0.014, 0.42, 0.2), (-0.098, 0, 0.53)),
    ]
    p.mesh_object("blanket", sheet, q.printed("blanket", plaid, 0.4), at=(at[0] + 0.98, at[1] - 0.1, 0))
    fur = prints.blotches((300, 300), 57, ["7a4f2a", "a8743f", "c9985a"], 12)
    bear = [
        p.ball(0.12, (0, 0, 0.12)),
        p.ball(0.085, (0, -0.02, 0.3)),
        *(p.ball(0.034, (x, 0, 0.37), 8) for x in (-0.065, 0.065)),
        *(p.rod((x * 0.1, -0.02, 0.2), (x * 0.17, -0.1, 0.1), 0.035, 12) for x in (-1, 1)),
        *(p.rod((x * 0.06, -0.05, 0.05), (x * 0.09, -0.2, 0.04), 0.042, 12) for x in (-1, 1)),
    ]
    p.mesh_object("bear", bear, q.printed("fur", fur, 0.3, roughness=1.0), at=(at[0] + 0.05, at[1] - 0.02, 0.5))
    face = [p.ball(0.032, (0, -0.1, 0.285), 8)]
    eyes = [p.ball(0.011, (x, -0.095, 0.325), 6) for x in (-0.032, 0.032)] + [p.ball(0.01, (0, -0.132, 0.292), 6)]
    p.mesh_object("snout", face, bpy.data.materials["paint"], at=(at[0] + 0.05, at[1] - 0.02, 0.5), smooth=True)
    p.mesh_object("eyes", eyes, p.mottled("eyes", ["0c0c0e", "1a1a1e"]), at=(at[0] + 0.05, at[1] - 0.02, 0.5))


def _light() -> None:
    """The sun through the window, the sky from above, and a large soft lamp behind the rig."""
    scene = bpy.context.scene
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.angle, sun.color = 13.0, math.radians(2.0), p.linear("ffe2b8")[:3]
    lamp = bpy.data.objects.new("sun", sun)
    lamp.rotation_euler = (math.radians(60), 0, math.radians(-66))
    scene.collection.objects.link(lamp)
    fill = bpy.data.lights.new("fill", "AREA")
    fill.shape, fill.size, fill.size_y, fill.energy = "RECTANGLE", 3.0, 1.6, 45.0
    fill.color = p.linear("fff0dc")[:3]
    soft = bpy.data.objects.new("fill", fill)
    soft.location, soft.rotation_euler = (0.6, -1.2, 2.6), (math.radians(58), 0, 0)
    scene.collection.objects.link(soft)
    world = bpy.data.worlds.new("sky")
    scene.world = world
    world.use_nodes = True
    sky = next(n for n in world.node_tree.nodes if n.type == "BACKGROUND")
    sky.inputs["Color"].default_value = p.linear("e8ecff")
    sky.inputs["Strength"].default_value = 0.7
