"""Canonical shapes: their kinds, ray intersections and surface coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Kind(IntEnum):
    """Canonical shapes; ``x, y, z`` in -1..1 in their own frames."""

    ROOM = 0  # a cube seen from inside
    DOME = 1  # a sphere seen from inside
    QUAD = 2  # z = 0
    CUT = 3  # z = 0, only inside a cut-out
    BALL = 4  # a sphere: an ellipsoid by its scale
    BOX = 5  # a cube
    TUBE = 6  # a cylinder along z, closed
    POLE = 7  # a cylinder along z without ends, for thin things
    SHADE = 8  # no surface: darkens points inside a ball, most at its centre


@dataclass(frozen=True)
class Things:
    """Primitives of B worlds with K slots each; a slot has the same kind in all worlds.

    Attributes:
        kinds: the kind of each of the K slots.
        active: ``[B, K]`` bool; inactive things are far behind the cameras.
        rotation: ``[B, K, 3, 3]`` from the frame of the thing to the world.
        center: ``[B, K, 3]`` in scene units.
        scale: ``[B, K, 3]`` half sizes in scene units.
        mapping: ``[B, K, 2, 3]`` texels from surface coordinates in scene units: scaled rotation, offset.
        texture: ``[B, K, 6]`` texture indices, one per face (-x, -y, -z, x, y, z) of rooms and boxes.
        cut: ``[B, K]`` index of the cut-out of CUT slots.
        color: ``[B, K, 3, 4]`` affine change of colours.
        gloss: ``[B, K, 2]`` strength and exponent of the highlight; for SHADE slots, strength of the shade.
        light: ``[B, 4]`` unit direction to the light and share of ambient light.
    """

    kinds: tuple[Kind, ...]
    active: Tensor
    rotation: Tensor
    center: Tensor
    scale: Tensor
    mapping: Tensor
    texture: Tensor
    cut: Tensor
    color: Tensor
    gloss: Tensor
    light: Tensor


def parameter_table(things: Things) -> Tensor:
    """Return the shading parameters ``[P, K, B]`` of all things, in the order that ``Parameters`` reads."""
    light = (things.rotation.mT @ things.light[:, None, :3, None])[..., 0]
    ambient = things.light[:, None, 3:].expand(*light.shape[:2], 1)
    density = things.mapping[..., 0].square().sum(-1, keepdim=True).sqrt()
    parts = [
        things.scale,
        1 / things.scale.clamp(min=1e-9),
        light,
        ambient,
        0.5 * (1 - ambient),
        things.mapping.mT.flatten(2),
        density,
        things.texture,
        things.cut[..., None],
        things.color.mT.flatten(2),
        things.gloss,
    ]
    return torch.cat(parts, dim=-1).permute(2, 1, 0).contiguous()


class Parameters:
    """The parameters of one slot, each ``[count, 1]`` for one world, or ``[count, n]`` by the world of each ray."""

    def __init__(self, table: Tensor, world: Tensor | None) -> None:
        self.table, self.world = table, world

    def _get(self, start: int, count: int) -> Tensor:
        rows = self.table[start : start + count]
        return rows[:, None] if self.world is None else rows.index_select(1, self.world)

    @property
    def scale(self) -> Tensor:
        return self._get(0, 3)

    @property
    def inverse_scale(self) -> Tensor:
        return self._get(3, 3)

    @property
    def light(self) -> Tensor:
        return self._get(6, 3)

    @property
    def ambient(self) -> Tensor:
        return self._get(9, 1)[0]

    @property
    def diffuse(self) -> Tensor:
        return self._get(10, 1)[0]

    @property
    def mapping(self) -> Tensor:
        """The columns of the mapping, stacked."""
        return self._get(11, 6)

    @property
    def density(self) -> Tensor:
        return self._get(17, 1)[0]

    def texture(self, face: Tensor | None) -> Tensor:
        """Return the texture index of each ray; ``face [n]`` in 0..5, or None for face 0."""
        if face is None:
            return self._get(18, 1)[0]
        textures = self.table[18:24]
        if self.world is None:
            return textures.index_select(0, face)
        return textures.reshape(-1).index_select(0, face * textures.shape[1] + self.world)

    @property
    def cut(self) -> Tensor:
        return self._get(24, 1)[0]

    def recolor(self, color: Tensor) -> Tensor:
        """Apply the affine colour change to colours ``[3, n]``."""
        columns = self._get(25, 12).unflatten(0, (4, 3))
        if self.world is None:
            return torch.addmm(columns[3], columns[:3, :, 0].T, color)
        return columns[3] + columns[0] * color[0] + columns[1] * color[1] + columns[2] * color[2]

    @property
    def has_gloss(self) -> bool:
        return self.world is not None or float(self.table[37]) > 0

    @property
    def gloss(self) -> Tensor:
        return self._get(37, 2)


def unit(vectors: Tensor) -> Tensor:
    """Normalize vectors ``[3, n]``; much faster than a norm along the first axis."""
    return vectors * (vectors * vectors).sum(0).rsqrt_()


def intersect(kind: Kind, d: Tensor, o: Tensor) -> tuple[Tensor, Tensor | None]:
    """Intersect rays ``o + t d`` with a canonical shape.

    Args:
        kind: the shape.
        d: ``[3, ...]`` directions in the frame of the shape.
        o: ``[3, ...]`` origins in the frame of the shape.

    Returns:
        The depth t ``[...]`` of the first hit, and bool ``[...]`` that is False for rays that miss, or None. A depth
        that is NaN, infinite or negative also means a miss.
    """
    if kind in (Kind.QUAD, Kind.CUT):
        t = -o[2] / d[2]
        return t, torch.addcmul(o[:2], t, d[:2]).abs_().amax(0) <= 1
    if kind is Kind.ROOM:
        # 1 / t of the exit: along each axis, through the wall ahead.
        return torch.maximum(d / (1 - o), d / (-1 - o)).amax(0).reciprocal_(), None
    if kind is Kind.BOX:
        inverse = d.reciprocal()
        middle = inverse * -o
        half = inverse.abs_()
        entry = (middle - half).amax(0)
        return entry, entry <= middle.add_(half).amin(0)
    round_axes = 2 if kind in (Kind.TUBE, Kind.POLE) else 3
    a_o, a_d = o[:round_axes], d[:round_axes]
    a = (a_d * a_d).sum(0)
    middle = (a_o * a_d).sum(0).div_(a).neg_()
    # Relative to the point nearest to the centre, to avoid a difference of large squares.
    inner = torch.addcmul(a_o, middle, a_d).square_().sum(0).neg_().add_(1)
    half = inner.div_(a).sqrt_()
    if kind is Kind.DOME:
        return middle + half, None
    t = middle - half
    if kind is Kind.BALL:
        return t, None
    inside = torch.addcmul(o[2], t, d[2]).abs_() <= 1
    if kind is Kind.POLE:
        return t, inside
    lid = (-d[2].sign() - o[2]) / d[2]
    on_lid = torch.addcmul(o[:2], lid, d[:2]).square_().sum(0) <= 1
    return torch.minimum(torch.where(inside, t, torch.inf), torch.where(on_lid, lid, torch.inf)), None


def surface(kind: Kind, point: Tensor, scale: Tensor, p: Parameters) -> tuple[Tensor, Tensor | None, Tensor]:
    """Compute the surface coordinates and normals of points on a thing.

    Args:
        kind: the shape.
        point: ``[3, n]`` points in the canonical frame.
        scale: ``[3, n]`` or ``[3, 1]`` half sizes in scene units.
        p: the parameters of the thing.

    Returns:
        Surface coordinates ``[2, n]`` in scene units, face indices ``[n]`` or None, unit normals ``[3, n]`` or
        ``[3, 1]`` of either orientation.
    """
    if kind in (Kind.QUAD, Kind.CUT):
        return point[:2] * scale[:2], None, torch.tensor([[0.0], [0.0], [1.0]], device=point.device)
    if kind in (Kind.ROOM, Kind.BOX):
        ax, ay, az = point.abs().unbind()
        on_x = (ax >= torch.maximum(ay, az)).float()
        on_y = (ay >= az).float() * (1 - on_x)
        normal = torch.stack([on_x, on_y, 1 - on_x - on_y])
        metric = point * scale
        uv = torch.lerp(metric[:2], metric[2], normal[:2])
        positive = (normal * point).sum(0) > 0
        return uv, (3 * positive + 2 - 2 * on_x - on_y).long(), normal
    outward = point * p.inverse_scale
    x, y, z = (point * scale).unbind()
    arc = torch.atan2(point[1], point[0]) * scale[:2].mean(0)
    if kind in (Kind.TUBE, Kind.POLE):
        outward[2] = 0
    normal = unit(outward)
    uv = torch.stack([arc, z])
    if kind is Kind.TUBE:
        on_lid = (point[2].abs() > 0.9999).float()
        normal = torch.lerp(normal, normal.new_tensor([[0.0], [0.0], [1.0]]), on_lid)
        uv = torch.lerp(uv, torch.stack([x, y]), on_lid)
    return uv, None, normal
