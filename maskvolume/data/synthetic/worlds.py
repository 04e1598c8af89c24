"""Random worlds: the positions, sizes, rotations and surfaces of their things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from maskvolume.data.synthetic.options import WorldOptions
from maskvolume.data.synthetic.patterns import TILE
from maskvolume.data.synthetic.rigs import Rig, log_uniform, rotation_about
from maskvolume.data.synthetic.shapes import Kind, Things
from maskvolume.data.synthetic.textures import TextureBank

Array = NDArray[np.float64]

STATIC_KINDS = (
    (Kind.ROOM, Kind.DOME)
    + 3 * (Kind.QUAD,)  # floor, walls
    + 6 * (Kind.QUAD,)
    + 6 * (Kind.CUT,)
    + 4 * (Kind.BALL,)
    + 5 * (Kind.BOX,)
    + 4 * (Kind.TUBE,)
    + 7 * (Kind.POLE,)
)
MOVER_KINDS = 2 * (Kind.CUT,) + 8 * (Kind.BALL,) + 3 * (Kind.BOX,) + 6 * (Kind.TUBE,) + (Kind.POLE,)
MAX_SHADES = 4
KINDS = STATIC_KINDS + MOVER_KINDS + 2 * MAX_SHADES * (Kind.SHADE,)
STATIC_SLOTS = range(len(STATIC_KINDS))
MOVER_SLOTS = range(STATIC_SLOTS.stop, STATIC_SLOTS.stop + len(MOVER_KINDS))
STATIC_SHADES = range(MOVER_SLOTS.stop, MOVER_SLOTS.stop + MAX_SHADES)
MOVER_SHADES = range(STATIC_SHADES.stop, len(KINDS))
FIRST_WALL, FIRST_THING = 2, 5
TEXELS_PER_PIXEL = 2.0
FRUSTUM_MARGIN = 1.5  # half width of the view of other cameras, in half widths of the reference picture


@dataclass
class World:
    """The arrays of one world under construction: the fields of Things, one row per slot."""

    rng: np.random.Generator
    rig: Rig
    bank: TextureBank
    texels: float  # per scene unit at depth 1, for a texture of average sharpness
    plain_share: float  # share of nearly textureless surfaces

    def __post_init__(self) -> None:
        k = len(KINDS)
        self.active = np.zeros(k, bool)
        self.rotation = np.tile(np.eye(3), (k, 1, 1))
        self.center = np.tile(np.array([0.0, 0.0, -1e4]), (k, 1))
        self.scale = np.ones((k, 3))
        self.mapping = np.zeros((k, 2, 3))
        self.texture = np.zeros((k, 6))
        self.cut = np.zeros(k)
        self.color = np.zeros((k, 3, 4))
        self.gloss = np.tile(np.array([0.0, 1.0]), (k, 1))
        self.light = np.zeros(4)
        self.step = np.zeros((k, 3))
        self.free: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        self.free_movers: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        for i, kind in enumerate(KINDS):
            if FIRST_THING <= i < MOVER_SLOTS.stop:
                (self.free_movers if i in MOVER_SLOTS else self.free)[kind].append(i)

    def place(self, k: int, center: Array, scale: Array, rotation: Array, detail_depth: float | None = None) -> None:
        """Place slot k, with a random surface whose texels suit ``detail_depth`` (default: its own depth)."""
        rng = self.rng
        self.active[k] = True
        self.center[k], self.scale[k], self.rotation[k] = center, scale, rotation
        depth = max(float(center[2]), 1e-3) if detail_depth is None else detail_depth
        density = self.texels / depth * log_uniform(rng, 0.35, 2.0)
        angle = 0.0 if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
        c, s = density * np.cos(angle), density * np.sin(angle)
        self.mapping[k] = [[c, -s, rng.uniform(0, 2 * TILE)], [s, c, rng.uniform(0, 2 * TILE)]]
        self.texture[k] = rng.integers(self.bank.num_textures, size=6)
        if rng.random() < 0.5:
            self.texture[k] = self.texture[k, 0]
        self.color[k] = _random_colors(rng, self.plain_share)
        if rng.random() < 0.2:
            self.gloss[k] = rng.uniform(0.05, 0.4), log_uniform(rng, 4, 60)


def draw_things(
    rngs: list[np.random.Generator],
    step_rngs: list[np.random.Generator],
    rigs: list[Rig],
    bank: TextureBank,
    options: WorldOptions,
) -> tuple[Things, torch.Tensor]:
    """Draw random things for B rigs.

    Args:
        rngs: random generators of the worlds.
        step_rngs: random generators of the motion, one per world.
        rigs: the rigs, one per world.
        bank: the textures and cut-outs.
        options: the distribution of the worlds.

    Returns:
        The things, and their displacement ``[B, K, 3]`` per instant in scene units; all CPU tensors.
    """
    inputs = zip(rngs, step_rngs, rigs, strict=True)
    worlds = [_draw_world(rng, step_rng, rig, bank, options) for rng, step_rng, rig in inputs]

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(world, name) for world in worlds])).float()

    names = ("rotation", "center", "scale", "mapping", "texture", "cut", "color", "gloss", "light")
    active = torch.from_numpy(np.stack([world.active for world in worlds]))
    return Things(KINDS, active, **{name: stack(name) for name in names}), stack("step")


def _draw_world(
    rng: np.random.Generator, step_rng: np.random.Generator, rig: Rig, bank: TextureBank, options: WorldOptions
) -> World:
    world = World(rng, rig, bank, TEXELS_PER_PIXEL * rig.focal, options.plain_share)
    light = np.array([rng.normal(0, 0.6), -1.0, rng.normal(-0.3, 0.6)])
    world.light[:3] = light / np.linalg.norm(light)
    world.light[3] = rng.uniform(0.35, 0.8)
    _place_backdrop(world)
    count = int(rng.integers(options.num_things[0], options.num_things[1] + 1))
    for i in rng.permutation(count):
        _place_thing(world, 1.0 - (i + rng.random()) / count)
    shade_rng = np.random.default_rng(int(rng.integers(2**62)))
    for k in STATIC_SHADES[: int(shade_rng.integers(MAX_SHADES + 1))]:
        shaded = shade_rng.choice(np.nonzero(world.active[FIRST_WALL:])[0]) + FIRST_WALL
        half = float(world.scale[shaded].max())
        _place_shade(world, shade_rng, k, world.center[shaded], half, shade_rng.uniform(-0.4, 0.7))
    if options.moving:
        for i in range(int(rng.integers(options.num_movers[0], options.num_movers[1] + 1))):
            size, former_active = rng.uniform(*options.mover_size), world.active.copy()
            center = _place_mover(world, size)
            if center is None:
                continue
            if i < MAX_SHADES and shade_rng.random() < options.shadow_share:
                half = size / 2 * rig.width / rig.focal * float(center[2])
                _place_shade(world, shade_rng, MOVER_SHADES[i], center, half, shade_rng.uniform(0.2, 0.8))
            world.step[world.active & ~former_active] = _draw_step(step_rng, rig, float(center[2]), options.mover_step)
    return world


def _draw_step(rng: np.random.Generator, rig: Rig, depth: float, sizes: tuple[float, float]) -> Array:
    """Draw the displacement ``[3]`` of a mover per instant: mostly across the picture, seldom along y or z."""
    direction = np.array([rng.choice([-1.0, 1.0]), rng.normal(0, 0.3), rng.normal(0, 0.2)])
    return direction / np.linalg.norm(direction) * rng.uniform(*sizes) * rig.width / rig.focal * depth


def _place_shade(world: World, rng: np.random.Generator, k: int, center: Array, half: float, strength: float) -> None:
    """Place a shade behind and below a thing of size ``2 * half``, away from the light."""
    offset = -world.light[:3] * half * rng.uniform(0.2, 1.2)
    world.active[k] = True
    world.scale[k] = half * np.array([rng.uniform(1, 2.2), rng.uniform(0.7, 2.2), rng.uniform(1, 6)])
    world.center[k] = center + offset + np.array([0, 0, 0.5 * float(world.scale[k, 2])])
    world.gloss[k, 0] = strength


def _random_colors(rng: np.random.Generator, plain_share: float) -> Array:
    """Draw an affine colour map ``[3, 4]`` that changes contrast, saturation, hue and lightness around mid-grey."""
    hue = rng.choice([0.0, rng.normal(0, 0.3), rng.uniform(0, 2 * np.pi)], p=[0.6, 0.25, 0.15])
    c, s = np.cos(hue), np.sin(hue)
    saturation = rng.uniform(0.2, 1.4)
    contrast = log_uniform(rng, 0.5, 1.4)
    if plain_share and rng.random() < plain_share:
        contrast = log_uniform(rng, 0.08, 0.5)
    grey = np.full((3, 3), 1 / 3)
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    matrix = contrast * (grey + saturation * (c * (np.eye(3) - grey) + s * axis))
    shift = rng.normal(0.02, 0.12) + rng.normal(0, 0.03, 3)
    return np.concatenate([matrix, (0.5 - matrix @ np.full(3, 0.5) + shift)[:, None]], 1)


def _place_backdrop(world: World) -> None:
    """Place a room, a dome or a far wall; without a room often a floor; sometimes walls in between."""
    rng, rig = world.rng, world.rig
    n, f = rig.near, rig.far
    style = rng.choice(["room", "room", "dome", "wall"])
    rotation = rotation_about(rng.normal(0, 4), rng.normal(0, 18), rng.normal(0, 3))
    if style == "dome":
        scale = f * rng.uniform(0.8, 1.4, 3)
        # The poles, where the texture converges, are above and below.
        upright = rotation @ rotation_about(90, 0, 0)
        world.place(1, np.array([0, 0, f - scale[1]]), scale, upright, 0.6 * f)
    elif style == "wall":
        world.place(0, np.array([0, 0, f / 2 - n]), np.array([9 * f, 9 * f, f / 2 + n]), rotation, 0.7 * f)
    else:
        _place_room(world, rotation)
    slot = FIRST_WALL
    if style != "room" and rng.random() < 0.65:
        _place_floor(world, slot)
        slot += 1
    for k in range(slot, FIRST_THING):
        if rng.random() < 0.25:
            _place_wall(world, k)


def _frustum(rig: Rig) -> Array:
    """Return rays ``[25, 3]`` of depth 1 over a wider frustum, which contains the views of all cameras."""
    steps = np.linspace(-FRUSTUM_MARGIN, FRUSTUM_MARGIN, 5)
    x, y = np.meshgrid(steps * rig.tangents[0], steps * rig.tangents[1])
    return np.stack([x.ravel(), y.ravel(), np.ones(25)], 1)


def _place_room(world: World, turned: Array) -> None:
    """Place walls, floor and ceiling around the cameras; their visible parts are no nearer than near."""
    rng, rig = world.rng, world.rig
    n, f = rig.near, rig.far
    tangents = np.repeat(rig.tangents, 2)
    sides = np.array([log_uniform(rng, n, max(2 * n, 1.3 * f * tangent)) for tangent in tangents])
    low, high = np.array([-sides[0], -sides[2], -2 * n]), np.array([sides[1], sides[3], f])
    rays = _frustum(rig) @ turned  # in the room's frame, where it is a box around the origin
    with np.errstate(divide="ignore"):
        steepness = np.maximum(rays[:, :2] / low[:2], rays[:, :2] / high[:2]).max()
    growth = max(1.0, n * float(steepness))
    low[:2], high[:2] = low[:2] * growth, high[:2] * growth
    detail = np.sqrt(f * min(float(sides.min() * growth) / max(rig.tangents), f))
    world.place(0, turned @ ((low + high) / 2), (high - low) / 2, turned, detail)


def _place_floor(world: World, k: int) -> None:
    rng, rig = world.rng, world.rig
    rotation = rotation_about(90 + rng.normal(0, 4), 0, 0) @ rotation_about(0, 0, rng.uniform(0, 90))
    rotation = rotation_about(0, 0, rng.normal(0, 4)) @ rotation
    height = rig.near * rig.tangents[1] * log_uniform(rng, 1.05, 4.0)
    center = np.array([0, height, 0.5 * rig.far])
    # The plane's depth along each ray; it grows with the plane's distance.
    inverse = _frustum(rig) @ rotation[:, 2] / (center @ rotation[:, 2])
    growth = max(1.0, rig.near * float(inverse.max()))
    depth = growth * height / rig.tangents[1]
    detail = np.sqrt(depth * min(4 * depth, rig.far))
    world.place(k, center * growth, np.array([3 * rig.far, 3 * rig.far, 1.0]), rotation, detail)


def _place_wall(world: World, k: int) -> None:
    """Place a large slanted plane at one side of the picture."""
    rng, rig = world.rng, world.rig
    depth = 1 / rng.uniform(1 / rig.far, 0.6 / rig.near)
    side = rng.choice([-1.0, 1.0])
    place = np.array([side * rng.uniform(0.6, 1.3), rng.normal(0, 0.3), 1.0])
    rotation = rotation_about(rng.normal(0, 5), -side * rng.uniform(10, 70), rng.normal(0, 5))
    half = depth * np.array([rig.tangents[0] * rng.uniform(0.4, 1.0), rig.tangents[1] * rng.uniform(0.5, 1.5)])
    half *= min(1.0, 0.9 * (depth - rig.near) / float(np.abs(rotation[2, :2]) @ half))
    center = depth * place * np.array([*rig.tangents, 1.0])
    world.place(k, center, np.array([*half, 1.0]), rotation)


def _place_thing(world: World, nearness: float) -> None:
    """Place one static thing; ``nearness`` interpolates its inverse depth from far (0) to near (1)."""
    rng = world.rng
    kinds = [Kind.QUAD, Kind.CUT, Kind.BALL, Kind.BOX, Kind.TUBE, Kind.POLE]
    for kind in rng.choice(np.array(kinds), 6, replace=False, p=[0.2, 0.2, 0.15, 0.15, 0.08, 0.22]):
        if world.free[Kind(kind)]:
            k = world.free[Kind(kind)].pop()
            break
    else:
        return
    place = rng.uniform(-1.15, 1.15, 2)
    radius = log_uniform(rng, 0.035, 0.2)
    cut = None
    if kind == Kind.CUT and rng.random() < 0.5:
        radius = rng.uniform(0.1, 0.35)
        cut = int(rng.integers(world.bank.dense_cuts, world.bank.num_cuts))
    _place_shape(world, k, Kind(kind), place, nearness, radius, cut)


def _place_shape(
    world: World, k: int, kind: Kind, place: Array, nearness: float, radius: float, cut: int | None = None
) -> None:
    """Place a shape.

    Args:
        world: the world under construction.
        k: the slot.
        kind: the shape.
        place: (x, y) in -1..1 over the picture.
        nearness: interpolates the inverse depth from far (0) to near (1).
        radius: as a fraction of the picture width.
        cut: number of the cut-out; None for a random solid one.
    """
    rng, rig = world.rng, world.rig
    depth = 1 / (1 / rig.far + nearness * (1 / rig.near - 1 / rig.far))
    ratio = np.exp(rng.normal(0, 0.35))
    tilt = float(np.clip(rng.normal(0, 32), -70, 70))
    axis_angle = rng.uniform(0, np.pi)
    roll = rng.normal(0, 8) if rng.random() < 0.6 else rng.uniform(0, 360)
    if kind in (Kind.QUAD, Kind.CUT):
        scale = np.array([ratio, 1 / ratio, 0.0])
        rotation = rotation_about(tilt * np.cos(axis_angle), tilt * np.sin(axis_angle), roll)
    elif kind is Kind.POLE:
        width = log_uniform(rng, 0.5, 2.2) / rig.width
        radius = rng.uniform(0.12, 0.6)
        scale = np.array([width / radius, width / radius, 1.0])
        lean = rng.choice([rng.normal(0, 4), 90 + rng.normal(0, 8), rng.uniform(0, 180)], p=[0.5, 0.2, 0.3])
        rotation = rotation_about(0, 0, lean) @ rotation_about(90 + rng.normal(0, 20), 0, 0)
    elif kind is Kind.TUBE:
        scale = np.array([0.5, 0.5, 1.5]) * np.array([ratio, ratio, 1 / ratio])
        rotation = rotation_about(0, 0, roll) @ rotation_about(90 + tilt, 0, 0)
    else:
        scale = np.exp(rng.normal(0, 0.25, 3))
        rotation = rotation_about(rng.normal(0, 10), rng.uniform(-60, 60), roll)
        if kind is Kind.BALL:
            rotation = rotation @ rotation_about(90, 0, 0)
    size = radius * rig.width / rig.focal * depth
    extent = size * float(np.abs(rotation[2]) @ scale)
    # A shape that would come nearer than near is shrunk first, then moved away.
    size, extent = size * min(1.0, 0.45 * depth / extent), min(extent, 0.45 * depth)
    depth = max(depth, rig.near + extent)
    center = depth * np.array([place[0] * rig.tangents[0], place[1] * rig.tangents[1], 1.0])
    world.place(k, center, np.maximum(size * scale, 1e-6), rotation)
    if kind is Kind.CUT:
        world.cut[k] = rng.integers(world.bank.dense_cuts) if cut is None else cut
        world.scale[k, :2] = size * scale[:2]


def _place_mover(world: World, size: float) -> Array | None:
    """Place a mover, one shape or a figure of several, and return its centre ``[3]``; None without a free slot.

    Args:
        world: the world under construction.
        size: largest extent, as a fraction of the picture width.
    """
    rng = world.rng
    place = rng.uniform(-0.8, 0.8, 2)
    nearness = rng.uniform(0.3, 0.95)
    free = world.free_movers
    if rng.random() < 0.5 and len(free[Kind.BALL]) >= 2 and len(free[Kind.TUBE]) >= 2:
        return _place_figure(world, place, nearness, size)
    choices = [kind for kind in free if free[kind]]
    if not choices:
        return None
    kind = Kind(rng.choice(np.array(choices)))
    k = free[kind].pop()
    _place_shape(world, k, kind, place, nearness, size / 2)
    return world.center[k]


def _place_figure(world: World, place: Array, nearness: float, size: float) -> Array:
    """Place a body (an ellipsoid or a box), a head and limbs of tubes in one leaning frame; return its centre."""
    rng, rig, free = world.rng, world.rig, world.free_movers
    depth = 1 / (1 / rig.far + nearness * (1 / rig.near - 1 / rig.far))
    half = size / 2 * rig.width / rig.focal * depth
    depth = max(depth, rig.near + 0.5 * half)
    center = depth * np.array([place[0] * rig.tangents[0], place[1] * rig.tangents[1], 1.0])
    frame = rotation_about(rng.normal(0, 10), rng.uniform(-40, 40), rng.normal(0, 15))

    def part(kind: Kind, at: Array, scale: Array, turned: Array, same: int | None = None) -> int | None:
        if not free[kind]:
            return None
        k = free[kind].pop()
        world.place(k, center + frame @ (half * at), half * scale, frame @ turned)
        if same is not None and rng.random() < 0.6:
            world.texture[k], world.color[k] = world.texture[same], world.color[same]
        return k

    body_kind = Kind.BOX if rng.random() < 0.25 else Kind.BALL
    width = rng.uniform(0.18, 0.35)
    body = part(body_kind, np.array([0, -0.1, 0]), np.array([width, rng.uniform(0.3, 0.5), 0.6 * width]), np.eye(3))
    part(Kind.BALL, np.array([0, -0.75, 0]), np.full(3, rng.uniform(0.13, 0.2)), np.eye(3))
    for i in range(int(rng.integers(2, 5))):
        side = -1.0 if i % 2 else 1.0
        is_leg = i < 2
        lean = rng.normal(0, 18) if is_leg else side * rng.uniform(20, 110)
        half_length = rng.uniform(0.28, 0.4)
        turned = rotation_about(0, 0, lean) @ rotation_about(90 + rng.normal(0, 15), 0, 0)
        root = np.array([side * width * (0.5 if is_leg else 0.8), 0.2 if is_leg else -0.35, 0.0])
        radius = rng.uniform(0.05, 0.09)
        # The tube's axis is z; after the rotation the tube hangs from its root.
        axis = turned[:, 2] * (1.0 if turned[1, 2] > 0 or not is_leg else -1.0)
        part(Kind.TUBE, root + axis * half_length, np.array([radius, radius, half_length]), turned, body)
    return center
