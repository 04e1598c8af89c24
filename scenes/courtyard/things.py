"""The objects in the courtyard of the example scene: furniture, plants, poles, cables and other thin things.

Convention: as in ``scenes.courtyard.scene``.
"""

from __future__ import annotations

import math

import numpy as np

from scenes.courtyard import parts as p


def build_things(rng: np.random.Generator) -> None:
    """Build all objects between the walls."""
    _book_stall(rng)
    _pots_and_trellis(rng)
    _table_and_chairs(rng)
    _tree(rng)
    _poles_and_cables(rng)
    _easel()
    _odds_and_ends(rng)
    _foreground(rng)


def _book_stall(rng: np.random.Generator) -> None:
    """Open shelves with books along the right wall, under a striped awning."""
    frame = [p.box((0.34, 2.2, 0.03), (0, 0, z)) for z in (0.15, 0.6, 1.05, 1.5, 1.95)]
    frame += [p.box((0.34, 0.04, 1.95), (0, y, 0.975)) for y in (-1.1, -0.37, 0.37, 1.1)]
    wood = p.wood("shelves", ["4a2c17", "9a6436", "cf9a60"], 3.0, 0.5, upright=False)
    at, turn = (2.28, 4.75, 0), (0, 0, -2)
    p.mesh_object("shelves", frame, wood, at=at, turn=turn)
    books: list[p.Shape] = []
    for shelf in (0.165, 0.615, 1.065, 1.515):
        y = -1.05
        while y < 1.0:
            thick, high = rng.uniform(0.025, 0.06), rng.uniform(0.22, 0.36)
            if rng.uniform() < 0.9:
                depth = rng.uniform(0.18, 0.26)
                books.append(
                    p.box(
                        (depth, thick * 0.94, high),
                        (-0.16 + depth / 2, y + thick / 2, shelf + high / 2),
                        (rng.normal(0, 2.5), 0, 0),
                    )
                )
            y += thick
    colors = ["8f1d21", "c9a227", "1d4e6b", "e6dcc2", "2f6b3a", "5b2a59", "d9772f", "20232b", "7fa7b8"]
    p.mesh_object("books", books, p.pieces("books", colors, 60.0), at=at, turn=turn)
    stripes = p.Shader("awning", 0.8)
    wave = stripes.node("TexWave", 0, {"bands_direction": "Y"}, Vector=stripes.coords(), Scale=1.2)
    cloth = stripes.done(stripes.dirt(stripes.ramp(wave, ["c8322f", "f3e7cd"], steps=True), 9.0, 0.5))
    p.mesh_object(
        "awning",
        [p.box((0.95, 2.5, 0.02), (-0.35, 0, 0), (0, -18, 0))],
        cloth,
        at=(2.35, 4.75, 2.2),
        turn=turn,
    )
    posts = [p.rod((-0.72, y, 0), (-0.72, y, 2.02), 0.016) for y in (-1.15, 1.15)]
    p.mesh_object(
        "awning posts", posts, p.mottled("iron", ["1c1d20", "3a3d42", "6b5a48"], 20.0, 0.45), at=at, turn=turn
    )


def _pots_and_trellis(rng: np.random.Generator) -> None:
    """A lattice with a climbing plant and plant pots along the left wall."""
    lattice = [p.box((0.02, 0.025, 2.4), (0, y, 1.2)) for y in np.linspace(0, 2.4, 13)]
    lattice += [p.box((0.02, 2.4, 0.025), (0.02, 1.2, z)) for z in np.linspace(0.1, 2.3, 12)]
    white = p.mottled("lattice", ["b7ad98", "efe8d8", "d0c4ac"], 14.0)
    p.mesh_object("lattice", lattice, white, at=(-2.33, 4.4, 0.2), turn=(0, 0, 3))
    green = p.leaf("creeper", ["29501c", "58852c", "9bb54a", "c9583a"])
    where = np.stack(
        [
            rng.normal(-2.28, 0.04, 300),
            4.4 + 2.4 * rng.beta(2, 1.2, 300),
            0.3 + 2.3 * rng.beta(1.4, 1.3, 300),
        ],
        1,
    )
    p.mesh_object("creeper", p.leaves(rng, where, 0.15, 0.03), green)
    clay = p.mottled("clay", ["8a4327", "c4683f", "e0a070"], 7.0, 0.75)
    glaze = p.mottled("glaze", ["14394a", "2f7f96", "d9dcc0"], 9.0, 0.35)
    for k, (x, y, size) in enumerate(
        [
            (-2.0, 4.1, 0.9),
            (-2.05, 4.75, 1.2),
            (-2.1, 5.6, 1.0),
            (-1.6, 7.6, 1.5),
            (1.9, 6.9, 1.6),
            (2.2, 7.8, 1.2),
            (0.35, 9.2, 1.3),
        ]
    ):
        pot = p.lathe([(0.1, 0), (0.15, 0.22), (0.19, 0.3), (0.19, 0.34), (0.15, 0.34), (0.14, 0.28)])
        bowl = [([tuple(size * c for c in v) for v in pot[0]], pot[1])]
        p.mesh_object("pot", bowl, glaze if k % 3 == 1 else clay, at=(x, y, 0), smooth=False)
        tips = (
            np.array([x, y, 0.32 * size])
            + rng.normal(0, 1, (26, 3)) * [0.13 * size, 0.13 * size, 0.1]
            + [0, 0, 0.28 * size]
        )
        bush = p.leaf(f"bush {k}", [["2d5a27", "7fa03c"], ["44632a", "b8c25a"], ["224d33", "5f9a6a"]][k % 3])
        p.mesh_object("bush", p.leaves(rng, np.repeat(tips, 3, 0), 0.17, 0.05), bush)
        bloom = [p.ball(0.035, tuple(t + np.array([0, -0.05, 0.1])), 6) for t in tips[:9]]
        p.mesh_object(
            "bloom",
            bloom,
            p.pieces("bloom", [["e8476a", "f6a6b8"], ["f2c230", "f08a24"], ["8a5ac2", "d9c3f0"]][k % 3]),
        )


def _chair(at: p.Vec, turn: float, tone: list[str]) -> None:
    """A chair with thin legs and a back of rods."""
    wood = p.mottled("chair", tone, 16.0, 0.5)
    parts = [p.rod((x * 0.2, y * 0.2, 0), (x * 0.17, y * 0.17, 0.45), 0.013) for x in (-1, 1) for y in (-1, 1)]
    parts += [p.rod((x, 0.18, 0.45), (x * 1.05, 0.25, 0.92), 0.011) for x in np.linspace(-0.18, 0.18, 6)]
    parts += p.chain([(-0.2, 0.25, 0.92), (0, 0.27, 0.96), (0.2, 0.25, 0.92)], 0.016)
    parts += [p.rod((x * 0.19, -0.19, 0.2), (x * 0.19, 0.19, 0.2), 0.009) for x in (-1, 1)]
    p.mesh_object("chair", parts, wood, at=at, turn=(0, 0, turn))
    seat = p.checks("seat", tone[1], "f0e2c4", 11.0)
    p.mesh_object("seat", [p.lathe([(0.2, 0.44), (0.22, 0.455), (0.2, 0.475)])], seat, at=at, turn=(0, 0, turn))


def _table_and_chairs(rng: np.random.Generator) -> None:
    x, y = -1.25, 4.0
    legs = [p.rod((i * 0.33, j * 0.33, 0), (i * 0.28, j * 0.28, 0.68), 0.016) for i in (-1, 1) for j in (-1, 1)]
    p.mesh_object("table legs", legs, p.mottled("table legs", ["2a2018", "5c4330", "8a6a4a"], 18.0), at=(x, y, 0))
    p.mesh_object(
        "cloth",
        [p.lathe([(0.52, 0.52), (0.47, 0.69), (0.46, 0.7), (0.01, 0.7)], sides=36)],
        p.checks("cloth", "2f5f8f", "f1e9d6", 7.0),
        at=(x, y, 0),
    )
    vase = p.lathe([(0.05, 0), (0.1, 0.08), (0.11, 0.15), (0.05, 0.26), (0.06, 0.31), (0.05, 0.31), (0.03, 0.25)])
    p.mesh_object(
        "vase",
        [vase],
        p.cobbles("vase", ["1f6f78", "e9c46a", "e76f51", "f4f1de"], "20303a", 16.0, 0.3, False),
        at=(x - 0.16, y + 0.05, 0.7),
        smooth=True,
    )
    stems = [p.rod((0, 0, 0.28), (*rng.normal(0, 0.11, 2), rng.uniform(0.42, 0.6)), 0.004, 5) for _ in range(14)]
    p.mesh_object("stems", stems, p.mottled("stem", ["35571f", "6f8f3a", "4f6f2a"]), at=(x - 0.16, y + 0.05, 0.7))
    heads = [p.ball(0.028, s[0][-1], 6) for s in stems]
    p.mesh_object(
        "flowers",
        heads,
        p.pieces("flowers", ["f2545b", "f5d547", "f7f0e0", "b86bd6"]),
        at=(x - 0.16, y + 0.05, 0.7),
    )
    stack = [
        p.box((0.26 - 0.02 * k, 0.19, 0.04), (0.01 * k, 0, 0.02 + 0.04 * k), (0, 0, 17.0 * k * (-1) ** k))
        for k in range(4)
    ]
    p.mesh_object(
        "stack",
        stack,
        p.pieces("stack", ["7a2230", "d8b24a", "2a5d6e", "e9e0c9"], 40.0),
        at=(x + 0.16, y - 0.12, 0.7),
    )
    fruit = [p.ball(0.045, (0.07 * math.cos(a), 0.07 * math.sin(a), 0.9), 8) for a in (0, 1.6, 3.1, 4.7)]
    p.mesh_object(
        "fruit",
        fruit,
        p.pieces("fruit", ["e07a1f", "c9302c", "9fb53a"]),
        at=(x + 0.16, y - 0.12, 0.0),
        smooth=True,
    )
    _chair((-0.45, 4.35, 0), -50, ["4a2b16", "a6552f", "d98f55"])
    _chair((1.25, 4.2, 0), 35, ["173a3a", "2f7a6f", "8fc0a0"])
    _chair((0.75, 6.3, 0), 160, ["5a3a16", "c9932f", "efd08a"])


def _tree(rng: np.random.Generator) -> None:
    """A slender tree: a forked skeleton with leaves at the tips."""
    bark = p.mottled("bark", ["2b2119", "6b5642", "a08a70"], 13.0, 0.9)
    parts: list[p.Shape] = []
    tips: list[np.ndarray] = []

    def grow(start: np.ndarray, heading: np.ndarray, length: float, radius: float, depth: int) -> None:
        end = start + heading * length
        parts.append(p.rod(tuple(start), tuple(end), radius, 7, 0.75))
        if depth == 0:
            tips.append(end)
            return
        for _ in range(3):
            new = heading + rng.normal(0, 0.45, 3) * [1, 1, 0.6]
            grow(end, new / np.linalg.norm(new), length * rng.uniform(0.6, 0.8), radius * 0.7, depth - 1)

    grow(np.array([0.95, 7.6, 0.0]), np.array([-0.05, 0.0, 1.0]), 0.95, 0.05, 4)
    p.mesh_object("tree", parts, bark)
    crown = p.leaf("crown", ["315a1c", "6d9a2f", "b5c24a", "4a7a2a"])
    p.mesh_object("crown", p.leaves(rng, np.repeat(np.array(tips), 4, 0), 0.18, 0.09), crown)


def _poles_and_cables(rng: np.random.Generator) -> None:
    """Thin poles, cables with pennants and lamps, and a ladder."""
    iron = p.mottled("pole", ["20262b", "46525a", "8a7a60"], 25.0, 0.5)
    poles = [
        p.rod((-0.95, 3.35, 0), (-0.97, 3.35, 2.3), 0.011),
        p.rod((1.62, 3.45, 0), (1.6, 3.45, 2.4), 0.013),
        p.rod((0.2, 5.6, 0), (0.2, 5.6, 2.6), 0.014),
    ]
    p.mesh_object("poles", poles, iron)
    lines = [
        ((-0.97, 3.35, 1.62), (1.6, 3.45, 1.78), 0.12),
        ((-2.2, 5.2, 2.1), (0.2, 5.6, 2.2), 0.2),
        ((0.2, 5.6, 2.2), (2.5, 5.9, 2.3), 0.18),
        ((-2.4, 7.8, 2.5), (2.5, 7.9, 2.6), 0.3),
    ]
    p.mesh_object(
        "cables",
        [rod for a, b, sag in lines for rod in p.chain(p.sagging(a, b, sag), 0.005)],
        p.mottled("cable", ["15130f", "3c352c", "5a4a3a"], 30.0),
    )
    flags: list[p.Shape] = []
    for a, b, sag in lines:
        for x, y, z in p.sagging(a, b, sag, 15)[1:-1]:
            flags.append(
                (
                    [
                        (x - 0.055, y, z),
                        (x + 0.055, y, z),
                        (x + rng.normal(0, 0.01), y + rng.normal(0, 0.03), z - 0.15),
                    ],
                    [(0, 1, 2)],
                )
            )
    p.mesh_object(
        "pennants",
        flags,
        p.pieces("pennants", ["d6453d", "f2c14e", "2f7f96", "f4efe1", "5a9a4a", "b5508f"], 45.0),
    )
    ladder = [p.rod((x, 0, 0), (x * 0.85, 0.6, 2.5), 0.022) for x in (-0.22, 0.22)]
    ladder += [p.rod((-0.21, 0.6 * t, 2.5 * t), (0.21, 0.6 * t, 2.5 * t), 0.014) for t in np.linspace(0.08, 0.95, 9)]
    p.mesh_object(
        "ladder",
        ladder,
        p.wood("ladder", ["8a6a3a", "d0a868", "efd9a4"], 3.0, 0.4),
        at=(-1.95, 8.85, 0),
        turn=(0, 0, 4),
    )


def _easel() -> None:
    """A painting on thin wooden legs."""
    at, turn = (-0.25, 5.4, 0), (0, 0, 14)
    legs = [p.rod((x, -0.1, 0), (0.15 * x, 0.1, 1.5), 0.014) for x in (-0.35, 0.35)] + [
        p.rod((0, 0.55, 0), (0, 0.1, 1.45), 0.014)
    ]
    legs += [p.box((0.75, 0.05, 0.03), (0, -0.06, 0.52))]
    p.mesh_object("easel", legs, p.wood("easel", ["6a4524", "b98a52", "e0bd84"], 3.0, 0.4), at=at, turn=turn)
    art = p.painting("canvas", ["1d3557", "457b9d", "f1faee", "e9c46a", "e63946", "2a9d8f"], 4.0, 5.0)
    p.mesh_object("canvas", [p.box((0.72, 0.025, 0.56), (0, -0.05, 0.83), (-9, 0, 0))], art, at=at, turn=turn)


def _odds_and_ends(rng: np.random.Generator) -> None:
    """Crates, a barrel and a wheel with spokes."""
    crate = p.wood("crates", ["7a5a34", "bf9558", "e3c48c"], 3.0, 0.09, upright=False)
    parts = [
        p.box((0.5, 0.5, 0.42), (0, 0, 0.21), (0, 0, 8)),
        p.box((0.46, 0.46, 0.4), (0.55, 0.1, 0.2), (0, 0, -12)),
        p.box((0.42, 0.42, 0.36), (0.2, 0.05, 0.6), (0, 0, 25)),
    ]
    p.mesh_object("crates", parts, crate, at=(-1.75, 6.5, 0))
    barrel = p.lathe([(0.22, 0), (0.27, 0.2), (0.285, 0.38), (0.27, 0.56), (0.22, 0.76), (0.2, 0.76), (0.2, 0.72)])
    p.mesh_object("barrel", [barrel], p.wood("barrel", ["4a2c18", "8f5f35", "b9854f"], 3.0, 0.07), at=(1.75, 8.6, 0))
    spokes = [
        p.rod((0, 0, 0), (0.36 * math.cos(a), 0, 0.36 * math.sin(a)), 0.006, 5)
        for a in np.linspace(0, 2 * math.pi, 14, False)
    ]
    rim = p.chain([(0.37 * math.cos(a), 0, 0.37 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 41)], 0.02)
    iron = p.mottled("wheel", ["5a1f1a", "b0402f", "d98a5a"], 18.0)
    p.mesh_object("wheel", [*spokes, *rim, p.ball(0.05)], iron, at=(-0.75, 6.75, 0.39), turn=(-14, 0, 22))


def _foreground(rng: np.random.Generator) -> None:
    """Things close to the rig: a low table at the right, a hanging branch at the left."""
    at, turn = (0.98, 1.85, 0), (0, 0, 14)
    legs = [p.rod((x, y, 0), (0.85 * x, 0.85 * y, 0.5), 0.013) for x in (-0.2, 0.2) for y in (-0.17, 0.17)]
    p.mesh_object("stool legs", legs, p.mottled("stool legs", ["3a2416", "7a5030", "a87a4a"], 22.0), at=at, turn=turn)
    p.mesh_object(
        "stool",
        [p.box((0.5, 0.42, 0.035), (0, 0, 0.51))],
        p.wood("stool", ["6a3f1f", "b07a42", "dcb47a"], 4.0, 0.1),
        at=at,
        turn=turn,
    )
    books = [
        p.box((0.27, 0.19, 0.035), (-0.06, 0.0, 0.547 + 0.036 * k), (0, 0, (-1) ** k * 9.0 + 12 * k)) for k in range(3)
    ]
    p.mesh_object("novels", books, p.pieces("novels", ["1f5a6b", "d9a03a", "a32f3a"], 60.0), at=at, turn=turn)
    mug = p.lathe([(0.04, 0), (0.042, 0.09), (0.037, 0.09), (0.035, 0.02)])
    p.mesh_object(
        "mug",
        [mug],
        p.checks("mug", "e4572e", "f6efdc", 60.0, 0.3, False),
        at=(0.9, 1.84, 0.638),
        smooth=False,
    )
    jar = p.lathe([(0.05, 0), (0.065, 0.03), (0.065, 0.12), (0.04, 0.16), (0.045, 0.18)])
    p.mesh_object(
        "jar",
        [jar],
        p.cobbles("jar", ["264653", "e9c46a", "e76f51"], "f4f1de", 30.0, 0.3, False),
        at=(1.14, 1.93, 0.528),
        smooth=True,
    )
    bark = p.mottled("twig", ["2f241a", "6a543c", "9a8262"], 30.0, 0.9)
    twigs: list[p.Shape] = []
    where: list[p.Vec] = []
    for k in range(7):
        line = np.array([[-1.25, 1.75, 1.75]]) + np.cumsum(
            rng.normal([0.075, 0.01 * (k - 3), -0.012 - 0.02 * k], 0.012, (9, 3)), 0
        )
        twigs += p.chain([tuple(q) for q in line], 0.006)
        where += [tuple(q) for q in np.repeat(line[1:], 3, 0)]
    p.mesh_object("twigs", twigs, bark)
    p.mesh_object(
        "branch",
        p.leaves(rng, np.array(where), 0.075, 0.025),
        p.leaf("branch", ["2a5a1f", "6fa032", "c0c850"]),
    )
