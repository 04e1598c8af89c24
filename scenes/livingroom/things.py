"""The objects in the living room: table and railway, shelves, plants, lamps, chairs.

Convention: as in ``scenes.livingroom.scene``.
"""

from __future__ import annotations

import math

import numpy as np

from scenes.courtyard import parts as p
from scenes.livingroom import parts as q
from scenes.livingroom import prints
from scenes.livingroom.movers import TRACK_CENTRE, TRACK_RADII

GREENS = (
    ["ffffff", "c8e0a0", "9ac080", "e0f0b0"],
    ["f0ffd0", "a8c890", "d0e8a0", "80a878"],
)


def build_things(rng: np.random.Generator) -> None:
    """Build all objects in the room."""
    _table()
    _railway(rng)
    _bookshelf(rng)
    _plants(rng)
    _lamps()
    _chairs()
    _odds_and_ends()


def _table() -> None:
    x, y, top = TRACK_CENTRE
    wood = q.printed("table", prints.boards((400, 600), 61, ["5a3218", "a8683a", "d9a86a"], 130, 600), 0.9)
    parts = [p.box((1.62, 0.86, 0.04), (x, y, top - 0.055))]
    parts += [
        p.box((0.06, 0.06, top - 0.07), (x + i * 0.74, y + j * 0.36, top / 2 - 0.035)) for i in (-1, 1) for j in (-1, 1)
    ]
    q.rounded(p.mesh_object("table", parts, wood), 0.012)
    grass = q.printed("meadow", prints.meadow((600, 1160), 62), 1.5, roughness=0.95)
    p.mesh_object("meadow", [p.box((1.5, 0.76, 0.03))], grass, at=(x, y, top - 0.02))


def _railway(rng: np.random.Generator) -> None:
    """Rails on sleepers, houses, hills, trees and lamp posts."""
    (x, y, top), (a, b) = TRACK_CENTRE, TRACK_RADII
    angles = np.linspace(0, 2 * math.pi, 73)
    steel = q.printed("rails", prints.blotches((128, 128), 63, ["5a5f66", "aab0b5", "8a7a6a"], 9), 0.1, roughness=0.35)
    rails: list[p.Shape] = []
    for side in (-0.03, 0.03):
        rails += p.chain([((a + side) * math.cos(t), (b + side) * math.sin(t), 0.004) for t in angles], 0.005)
    p.mesh_object("rails", rails, steel, at=(x, y, top - 0.005))
    tar = q.printed("sleepers", prints.boards((100, 200), 64, ["2a1c12", "6a4a30", "8a6a48"], 100, 200), 0.2)
    sleepers = []
    for t in np.linspace(0, 2 * math.pi, 64, endpoint=False):
        turn = math.degrees(math.atan2(b * math.cos(t), -a * math.sin(t)))
        sleepers.append(p.box((0.018, 0.095, 0.008), (a * math.cos(t), b * math.sin(t), 0), (0, 0, turn)))
    p.mesh_object("sleepers", sleepers, tar, at=(x, y, top - 0.004))
    walls = ["e8d9b0", "d98f6a", "b8c9c0", "f0e8d8", "c9a06a"]
    tiles = prints.stripes((200, 200), 66, ["a8482f", "c9603f", "8a3a28", "b5573a"], 9, across=True)
    roof = q.printed("roofs", tiles, 0.12, tints=["ffffff", "d0c0c0", "a8a0b0"])
    for k, (dx, dy, w, d, h, turn) in enumerate(
        [
            (-0.3, 0.02, 0.16, 0.11, 0.12, 12),
            (-0.06, 0.09, 0.13, 0.1, 0.16, -8),
            (0.16, -0.03, 0.18, 0.11, 0.1, 24),
            (0.33, 0.07, 0.12, 0.1, 0.13, -30),
            (-0.62, 0.29, 0.15, 0.1, 0.14, 30),
            (0.63, 0.28, 0.14, 0.11, 0.17, -18),
        ]
    ):
        at, front = (x + dx, y + dy, top - 0.005), q.printed(f"house {k}", prints.facade(67 + k, walls[k % 5]), 0.15)
        p.mesh_object("house", [p.box((w, d, h), (0, 0, h / 2))], front, at=at, turn=(0, 0, turn))
        p.mesh_object("roof", [q.gable((w + 0.03, d + 0.03, 0.07), (0, 0, h))], roof, at=at, turn=(0, 0, turn))
    stone = q.printed("tower", prints.facade(75, "d8cdb8"), 0.13)
    p.mesh_object("tower", [p.box((0.06, 0.06, 0.26), (0, 0, 0.13))], stone, at=(x + 0.03, y + 0.02, top))
    spire = [p.lathe([(0.05, 0.0), (0.03, 0.03), (0.002, 0.13)], (0, 0, 0.26), sides=8)]
    p.mesh_object("spire", spire, roof, at=(x + 0.03, y + 0.02, top))
    rock = q.printed("hill", prints.blotches((400, 400), 76, ["4d6b2a", "7d8a4f", "8f8670", "5f7f35"], 40), 0.5)
    hill = p.lathe([(0.15, 0), (0.13, 0.04), (0.08, 0.09), (0.03, 0.12), (0.005, 0.125)], sides=20)
    p.mesh_object("hill", [hill], rock, at=(x - 0.66, y - 0.27, top - 0.01), smooth=True)
    _small_trees(rng)
    posts = [p.rod((s * 0.44, -0.14, 0), (s * 0.44, -0.14, 0.17), 0.004) for s in (-1, 1)]
    posts += [p.rod((s * 0.44, -0.14, 0.17), (s * 0.4, -0.14, 0.18), 0.004) for s in (-1, 1)]
    p.mesh_object("lamp posts", posts, steel, at=(x, y, top))


def _small_trees(rng: np.random.Generator) -> None:
    x, y, top = TRACK_CENTRE
    needles = prints.blotches((128, 128), 77, ["1f3d1c", "3f6b2a", "6a8f3f"], 8)
    fir = q.printed("firs", needles, 0.1, tints=["ffffff", "d8f0c0", "b0c8b0"])
    places = [(-0.7, 0.05), (-0.68, -0.12), (0.7, -0.28), (0.6, -0.32), (0.71, 0.02), (-0.2, 0.33), (0.05, 0.34)]
    places += [(0.3, 0.33), (-0.42, 0.34), (-0.15, -0.1), (0.38, -0.08), (0.24, 0.12), (-0.4, 0.11)]
    firs: list[p.Shape] = []
    for dx, dy in places:
        size = rng.uniform(0.75, 1.3)
        for level in range(4):
            r, z = 0.045 * size * (1 - 0.2 * level), size * (0.03 + 0.035 * level)
            firs.append(p.lathe([(r, z), (0.004, z + 0.06 * size)], (dx, dy, 0), sides=10))
        firs.append(p.rod((dx, dy, 0), (dx, dy, 0.05), 0.006))
    p.mesh_object("firs", firs, fir, at=(x, y, top - 0.005))


def _bookshelf(rng: np.random.Generator) -> None:
    at = (1.5, 4.17, 0)
    wood = q.printed("shelf", prints.boards((300, 500), 81, ["6a4526", "a87a48", "cfa870"], 150, 500), 0.9)
    levels = (0.08, 0.46, 0.84, 1.22, 1.6, 1.98)
    frame = [p.box((1.2, 0.3, 0.028), (0, 0, z)) for z in levels]
    frame += [p.box((0.03, 0.3, 2.0), (x, 0, 1.0)) for x in (-0.6, 0.02, 0.6)]
    frame += [p.box((1.2, 0.012, 1.95), (0, 0.145, 1.0))]
    p.mesh_object("shelf", frame, wood, at=at)
    books: list[p.Shape] = []
    for k, level in enumerate(levels[:-1]):
        for first, last in ((-0.57, -0.02), (0.05, 0.57)):
            x = first
            if (k + (first > 0)) % 3 == 2:
                x = first + 0.24  # room for an ornament
            while x < last - 0.06:
                thick, high, deep = rng.uniform(0.02, 0.05), rng.uniform(0.2, 0.32), rng.uniform(0.17, 0.24)
                tilt = rng.normal(0, 2.0)
                middle = (x + thick / 2, -0.14 + deep / 2, level + 0.014 + high / 2)
                books.append(p.box((thick * 0.94, deep, high), middle, (0, tilt, 0)))
                x += thick + (rng.uniform(0.01, 0.06) if rng.uniform() < 0.08 else 0)
    tints = ["a8282c", "e0b840", "2a6080", "f4ead0", "3a7a48", "704070", "e08a40", "383c48", "90b8c8", "c86a5a"]
    p.mesh_object("books", books, q.printed("books", prints.spines((700, 900), 82), 0.75, tints=tints), at=at)
    globe = q.printed(
        "globe", prints.landscape((200, 400), 83, ["2f6f9a", "4a8fb5", "3f7fa8"], ["9aa85a"]), 1.0, wrap="SPHERE"
    )
    p.mesh_object("globe", [p.ball(0.11)], globe, at=(at[0] + 0.17, at[1] - 0.03, levels[1] + 0.17), smooth=True)
    vase = p.lathe([(0.04, 0), (0.09, 0.07), (0.095, 0.13), (0.04, 0.22), (0.05, 0.26)])
    glaze = prints.wallpaper((240, 400), 84, "e8e4d8", ["2f5f8f", "2f5f8f", "6f9fc5", "1f3f6f"], 60)
    china = q.printed("china", glaze, 0.6, wrap="TUBE", roughness=0.25)
    for dx, z in ((-0.45, levels[2]), (0.17, levels[4]), (-0.3, 1.98)):
        p.mesh_object("vase", [vase], china, at=(at[0] + dx, at[1] - 0.02, z + 0.014), smooth=True)
    radio = prints.poster((200, 300), 85, ["RADIO"], ["b58a5a", "3a2414", "e9c46a", "8f6035", "d9c8a0"])
    p.mesh_object("radio", [p.box((0.3, 0.14, 0.2))], q.printed("radio", radio, 0.3), at=(at[0] + 0.25, at[1], 2.1))


def _plants(rng: np.random.Generator) -> None:
    clay = q.printed("clay", prints.blotches((300, 300), 91, ["8a4327", "c4683f", "e0a070"], 30), 0.4, roughness=0.8)
    basket = q.printed(
        "basket", prints.stripes((300, 300), 92, ["8a6a3a", "c9a468", "e0c48c", "6a4a28"], 8, across=True), 0.25
    )
    greens = [
        q.printed(f"green {k}", prints.blotches((256, 256), 93 + k, tones, 16), 0.25, tints=GREENS[k], roughness=0.45)
        for k, tones in enumerate((["3f6b2a", "6a9a3f", "8fb55a"], ["4f7f4a", "7fae6a", "a8c88a"]))
    ]
    pot = [(0.09, 0), (0.13, 0.18), (0.15, 0.25), (0.15, 0.28), (0.12, 0.28), (0.11, 0.24)]
    # A palm in the corner, a broad-leaved plant near the rig, one on a stool; below, a hanging one.
    for at, size, kind, count, skin in (
        ((-1.86, 3.95, 0.0), 1.3, 1, 26, basket),
        ((1.5, 2.35, 0.0), 1.15, 0, 20, clay),
        ((0.62, 4.05, 0.55), 0.6, 0, 16, clay),
    ):
        p.mesh_object("pot", [([tuple(size * c for c in v) for v in p.lathe(pot)[0]], p.lathe(pot)[1])], skin, at=at)
        leaves: list[p.Shape] = []
        foot = np.array([at[0], at[1], at[2] + 0.25 * size])
        for k in range(count):
            heading, t = 137.5 * k + rng.normal(0, 12), (k + 0.5) / count
            if kind == 1:
                leaves.append(
                    q.frond(tuple(foot), heading, size * rng.uniform(0.7, 0.95), 0.07 * size, 85 - 35 * t, 95)
                )
                continue
            tall = size * (0.15 + 0.55 * (1 - t)) * rng.uniform(0.85, 1.1)
            lean = math.radians(heading)
            tip = foot + np.array([0.16 * size * t * math.cos(lean), 0.16 * size * t * math.sin(lean), tall])
            leaves += p.chain([tuple(foot), tuple((foot + tip) / 2 + [0, 0, 0.03]), tuple(tip)], 0.006 * size)
            leaves.append(q.frond(tuple(tip), heading, 0.34 * size, 0.19 * size, 35 - 25 * t, 75))
        p.mesh_object("plant", leaves, greens[kind], smooth=True)
    centre = np.array([-1.0, 2.25, 1.42])
    bowl = [p.lathe([(0.03, -0.02), (0.09, 0.02), (0.11, 0.09), (0.1, 0.09), (0.08, 0.05)])]
    p.mesh_object("bowl", bowl, basket, at=tuple(centre))
    hook = tuple(centre + np.array([0, 0, 1.2]))
    cords = [
        p.rod(tuple(centre + np.array([0.105 * math.cos(t), 0.105 * math.sin(t), 0.08])), hook, 0.003, 5)
        for t in (0.4, 2.5, 4.6)
    ]
    p.mesh_object("cords", cords, basket)
    trailing = [
        q.frond(tuple(centre + np.array([0, 0, 0.08])), 137.5 * k, rng.uniform(0.22, 0.42), 0.045, 60, 150)
        for k in range(26)
    ]
    p.mesh_object("trailing plant", trailing, greens[0], smooth=True)
    stool = q.printed("stool", prints.boards((200, 300), 98, ["7a5230", "c0905a", "e0bc84"], 100, 300), 0.5)
    parts = [p.box((0.36, 0.3, 0.03), (0, 0, 0.535))]
    parts += [p.rod((x * 0.15, y * 0.12, 0.53), (x * 0.19, y * 0.15, 0), 0.014) for x in (-1, 1) for y in (-1, 1)]
    p.mesh_object("stool", parts, stool, at=(0.62, 4.05, 0))


def _lamps() -> None:
    """A hanging lamp and a floor lamp beside the sofa."""
    shade = prints.wallpaper((240, 700), 101, "f4e4b8", ["8a6a3a", "c9603a", "d9a03a", "7a3a28"], 70)
    cloth = q.printed("shades", shade, 1.0, wrap="TUBE", roughness=0.9)
    cone = [(0.19, 0.0), (0.17, 0.03), (0.09, 0.2), (0.06, 0.21)]
    dark = p.mottled("lamp metal", ["2a2622", "5a5048", "8a7a60"], 22.0, 0.4)
    p.mesh_object("pendant", [p.lathe(cone, sides=32)], cloth, at=(0.86, 2.95, 1.62), smooth=True)
    p.mesh_object("flex", [p.rod((0.86, 2.95, 1.8), (0.86, 2.95, 2.9), 0.005)], dark)
    at = (-1.78, 3.35, 0)
    stand = [p.rod((0, 0, 0), (0, 0, 1.36), 0.011), p.lathe([(0.14, 0), (0.14, 0.02), (0.03, 0.035)])]
    p.mesh_object("lamp stand", stand, dark, at=at)
    drum = [(0.2, 0.0), (0.15, 0.26)]
    p.mesh_object("lamp shade", [p.lathe(drum, sides=32)], cloth, at=(at[0], at[1], 1.3), smooth=False)


def _chairs() -> None:
    """A chair of rods close to the rig at the left, and an armchair at the right."""
    wood = q.printed("chair", prints.boards((200, 300), 111, ["5a2f18", "9a5a30", "c98a50"], 60, 300), 0.4)
    at, turn = (-1.15, 1.75, 0), (0, 0, 28)
    parts = [p.rod((x * 0.2, y * 0.2, 0), (x * 0.18, y * 0.18, 0.45), 0.016) for x in (-1, 1) for y in (-1, 1)]
    parts += [p.rod((x, 0.18, 0.45), (x * 1.1, 0.27, 0.95), 0.01) for x in np.linspace(-0.17, 0.17, 6)]
    parts += p.chain([(-0.21, 0.27, 0.95), (-0.1, 0.29, 0.985), (0.1, 0.29, 0.985), (0.21, 0.27, 0.95)], 0.02)
    parts += [p.rod((x * 0.19, -0.19, 0.2), (x * 0.19, 0.19, 0.2), 0.01) for x in (-1, 1)]
    p.mesh_object("chair", parts, wood, at=at, turn=turn)
    seat = q.printed("seat", prints.stripes((300, 300), 112, ["d9b88a", "8a2f3a", "f1e9d6", "2f5f6f"], 20), 0.3)
    p.mesh_object("seat", [q.cushion((0.42, 0.42, 0.08), (0, 0, 0.47))], seat, at=at, turn=turn, smooth=True)
    flowers = prints.wallpaper((500, 500), 113, "7a2f38", ["4f6f4a", "e8b04a", "f0dcc0", "d9803a"], 78)
    cover = q.printed("armchair", flowers, 0.8, roughness=0.95)
    body = [
        p.box((0.72, 0.7, 0.3), (0, 0, 0.25)),
        p.box((0.72, 0.17, 0.6), (0, 0.3, 0.62), (-9, 0, 0)),
        *(p.box((0.14, 0.7, 0.3), (x, 0, 0.48)) for x in (-0.36, 0.36)),
    ]
    q.rounded(p.mesh_object("armchair", body, cover, at=(1.72, 3.2, 0), turn=(0, 0, -38)), 0.04)


def _odds_and_ends() -> None:
    """A pile of books, a ball and a toy chest on the floor."""
    pile = [
        p.box((0.3 - 0.02 * k, 0.22, 0.045), (0.01 * k, 0, 0.0225 + 0.045 * k), (0, 0, 19.0 * k * (-1) ** k))
        for k in range(5)
    ]
    tints = ["a8282c", "e0b840", "2a6080", "f4ead0", "3a7a48"]
    p.mesh_object(
        "pile", pile, q.printed("pile", prints.spines((400, 500), 121), 0.4, tints=tints), at=(1.15, 2.95, 0.012)
    )
    skin = prints.dots((300, 600), 122, "e9b93f", ["c8322f", "2f6fa8", "f4efe1"], 66)
    ball = q.printed("toy ball", skin, 1.0, wrap="SPHERE", roughness=0.35)
    p.mesh_object("toy ball", [p.ball(0.13)], ball, at=(-1.28, 2.75, 0.14), smooth=True)
    chest = prints.poster((300, 460), 123, ["TOYS"], ["b5573a", "f1e9d6", "e9c46a", "2f5f6f", "3f8a8a"])
    p.mesh_object(
        "chest", [p.box((0.5, 0.36, 0.32))], q.printed("chest", chest, 0.5), at=(0.86, 3.45, 0.17), turn=(0, 0, -12)
    )
