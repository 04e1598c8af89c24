"""Ray casting of textured primitives: nearest hits and their colours, for many views of many worlds at once.

Every primitive is a canonical shape (unit quad, sphere, cube, tube) under a rotation, a scale per axis and
a translation, so a ray is taken into its frame by one 3x3 matrix per view, and the ray's parameter is the
depth, because directions have z = 1 in the camera. The rays of a pixel are views of their own, shifted by a
part of a pixel. A first, dense step finds the rays that hit nearer than what is there; only those are
shaded. On the CPU primitives are taken front to back, each in the rectangle that it may cover, in bands
that stay in the cache; on other devices all worlds and views are one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from maskvolume.cameras import Camera
from maskvolume.synthetic.textures import TextureBank

BAND = 32768  # rays of a band: what torch computes without starting threads


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
    SHADE = 8  # no surface: darkens what lies in a ball, most at its centre


@dataclass(frozen=True)
class Things:
    """Primitives of B worlds, K to each; slot k is of one kind in all of them.

    Attributes:
        kinds: the kind of each of the K slots.
        active: ``[B, K]`` bool; what is not active lies far behind the cameras.
        rotation: ``[B, K, 3, 3]`` from the thing's frame to the world's.
        center: ``[B, K, 3]``.
        scale: ``[B, K, 3]`` half sizes in scene units.
        mapping: ``[B, K, 2, 3]`` texels from surface coordinates in scene units: scaled rotation, offset.
        texture: ``[B, K, 6]`` numbers of textures, one per face (-x, -y, -z, x, y, z) of rooms and boxes.
        cut: ``[B, K]`` number of the cut-out of CUT slots.
        color: ``[B, K, 3, 4]`` affine change of colours.
        gloss: ``[B, K, 2]`` strength and exponent of the highlight; of SHADE slots, strength of the shade.
        light: ``[B, 4]`` direction to the light (unit) and share of ambient light.
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


@dataclass(frozen=True)
class Layer:
    """What the S rays per pixel of L = B * V views hit first: ``depth [L, S, h, w]`` (inf where nothing)
    and ``color [3, L, S, h, w]``."""

    depth: Tensor
    color: Tensor

    def clone(self) -> Layer:
        return Layer(self.depth.clone(), self.color.clone())


def start_layer(cameras: Camera, rays_per_side: int) -> Layer:
    """An empty layer for cameras ``[B, V]``."""
    shape = (cameras.batch_shape.numel(), rays_per_side**2, *cameras.size)
    return Layer(cameras.K.new_full(shape, torch.inf), cameras.K.new_zeros((3, *shape)))


def ray_offsets(rays_per_side: int) -> list[tuple[float, float]]:
    """Places (x, y) of a pixel's rays in it: on n^2 different columns and rows, one to each of n^2 cells."""
    n = rays_per_side
    cells = [(i, j) for j in range(n) for i in range(n)]
    return [((i + (j + 0.5) / n) / n, (j + (n - 0.5 - i) / n) / n) for i, j in cells]


class RayCaster:
    """Casts the rays of cameras ``[B, V]`` at things, slot by slot, into layers.

    Args:
        things: of B worlds.
        cameras: ``[B, V]``.
        near: ``[B]``; nothing nearer than this is seen.
        by_rectangles: one world and one rectangle at a time; None: on the CPU, where that is faster.
    """

    def __init__(
        self,
        things: Things,
        cameras: Camera,
        bank: TextureBank,
        near: Tensor,
        rays_per_side: int,
        by_rectangles: bool | None = None,
    ) -> None:
        self.things, self.cameras, self.bank = things, cameras, bank
        self.device = cameras.K.device
        self.by_rectangles = self.device.type == "cpu" if by_rectangles is None else by_rectangles
        B, V = cameras.batch_shape
        self.views_per_world = V
        R, t = cameras.T_cam_world[..., :3, :3], cameras.T_cam_world[..., :3, 3:]
        center = -(R.mT @ t)  # [B, V, 3, 1]
        to_world = R.mT @ torch.linalg.inv(cameras.K)
        into = (things.rotation / things.scale[..., None, :]).mT  # [B, K, 3, 3]
        D = into[:, None] @ to_world[:, :, None]
        o = into[:, None] @ (center[:, :, None] - things.center[:, None, :, :, None])
        self.o = o[..., 0].flatten(0, 1).permute(1, 2, 0).contiguous()  # [K, 3, L]
        self.D = D.flatten(0, 1)  # [L, K, 3, 3]
        offsets = torch.tensor(ray_offsets(rays_per_side), device=self.device)
        shift = torch.cat([offsets, torch.ones_like(offsets[:, :1])], dim=1)  # [S, 3]
        self.start = self.D @ shift.mT  # [L, K, 3, S]: direction at the top left pixel
        h, w = cameras.size
        self.x = torch.arange(w, device=self.device, dtype=torch.float32)
        self.y = torch.arange(h, device=self.device, dtype=torch.float32)
        S = rays_per_side**2
        self.focal = (0.5 * rays_per_side) * (cameras.K[..., 0, 0] + cameras.K[..., 1, 1]).flatten()
        self.near = near.repeat_interleave(V)[:, None, None, None]
        shape = (B * V, S, h, w)
        self.index = torch.arange(B * V * S * h * w, device=self.device).view(shape)
        view = torch.arange(B * V, device=self.device)
        self.view = view[:, None, None, None].expand(shape).reshape(-1)
        self.world = view // V
        # Rays of a pixel choose between two mip levels in turn, so that their mean blends the levels.
        dither = 2.0 ** ((torch.arange(S, device=self.device) + 0.5) / S - 0.5)
        self.dither = dither[:, None, None].expand(shape).reshape(-1)
        self.parameters = _parameters(things)

    def cast(self, layer: Layer, slots: range) -> None:
        """Put the slots into the layer, in place, where they are nearer than what is there."""
        for k, views, rectangle in self._jobs(layer, slots):
            if views is None:
                self._cast_slot(layer, k, slice(None), rectangle, self.parameters[:, k], self.world)
            else:
                table = self.parameters[:, k, views.start // self.views_per_world]
                self._cast_slot(layer, k, views, rectangle, table, None)

    def shade(self, layer: Layer, slots: range) -> None:
        """Darken the layer, in place, by the SHADE ``slots``."""
        for k, views, (top, left, bottom, right) in self._jobs(layer, slots):
            place = (slice(None) if views is None else views, slice(None), slice(top, bottom), slice(left, right))
            d, o = self._directions(k, place)
            t = layer.depth[place]
            x, y, z = (torch.addcmul(a, t, c) for a, c in zip(o, d, strict=True))
            falloff = (1 - (x * x + y * y + z * z)).clamp_(min=0).square_()
            worlds = slice(None) if views is None else slice(views.start // self.views_per_world, None)
            strength = self.things.gloss[worlds, k, 0].repeat_interleave(self.views_per_world)
            layer.color[(slice(None), *place)] *= 1 - strength[: len(t), None, None, None] * falloff

    def _jobs(
        self, layer: Layer, slots: range
    ) -> Iterator[tuple[int, slice | None, tuple[int, int, int, int]]]:
        """Slots, with the views of one world (None: all) and the rectangle to work on."""
        if not self.by_rectangles:
            yield from ((k, None, (0, 0, *self.cameras.size)) for k in slots)
            return
        rectangles, order = self._rectangles(slots)
        V = self.views_per_world
        for b, world_order in enumerate(order):
            for i in world_order:
                top, left, bottom, right = rectangles[b][i]
                if top >= bottom or left >= right:
                    continue
                step = max(1, BAND // ((right - left) * layer.depth.shape[1] * V))
                for y in range(top, bottom, step):
                    yield slots[i], slice(b * V, (b + 1) * V), (y, left, min(y + step, bottom), right)

    def _directions(self, k: int, place: tuple[slice, slice, slice, slice]) -> tuple[list[Tensor], list[Tensor]]:
        """Directions 3 x ``[L, S, h, w]`` of the rays at a place of a layer in the frame of thing k, and
        the camera centres 3 x ``[L, 1, 1, 1]``."""
        views, _, rows, columns = place
        D, start = self.D[views, k], self.start[views, k]
        side = D[:, :, 0, None] * self.x[columns]  # [L, 3, w]
        down = start[..., None] + (D[:, :, 1, None] * self.y[rows])[:, :, None]  # [L, 3, S, h]
        d = [down[:, i, :, :, None] + side[:, i, None, None] for i in range(3)]
        return d, list(self.o[k][:, views, None, None, None].unbind())

    def _rectangles(self, slots: range) -> tuple[list[list[list[int]]], list[list[int]]]:
        """Bounds (top, left, bottom, right) in pixels over all views of a world, empty for what is not
        there, and the order from near to far."""
        things, cameras = self.things, self.cameras
        span = slice(slots.start, slots.stop)
        ends = torch.tensor([-1.0, 1.0], device=self.device)
        corners = torch.cartesian_prod(ends, ends, ends)  # [8, 3]
        extent = things.scale[:, span, None] * corners  # [B, K, 8, 3]
        flat = torch.tensor([things.kinds[k] in (Kind.QUAD, Kind.CUT) for k in slots], device=self.device)
        extent[..., 2] *= ~flat[:, None]
        points = extent @ things.rotation[:, span].mT + things.center[:, span, None]
        B, V = cameras.batch_shape
        T = cameras.T_cam_world
        seen = points.view(B, 1, -1, 3) @ T[..., :3, :3].mT + T[..., None, :3, 3]  # [B, V, K * 8, 3]
        image = (seen @ cameras.K.mT).view(B, V, len(slots), 8, 3)
        z = image[..., 2]
        xy = image[..., :2] / z.clamp(min=1e-6)[..., None]
        low, high = xy.amin((1, 3)).floor() - 1, xy.amax((1, 3)).ceil() + 1  # [B, K, 2]
        behind = z.amin((1, 3)) < 1e-3
        limit = xy.new_tensor(cameras.size[::-1])
        low = torch.where(behind[..., None], 0.0, low).clamp(min=0).minimum(limit)
        high = torch.where(behind[..., None], limit, high).clamp(min=0).minimum(limit)
        high = torch.where(things.active[:, span, None], high, low)
        order = (z.mean((1, 3)) + 1e6 * behind).argsort(dim=1)
        return torch.cat([low.flip(-1), high.flip(-1)], dim=-1).int().tolist(), order.tolist()

    def _cast_slot(
        self,
        layer: Layer,
        k: int,
        views: slice,
        rectangle: tuple[int, int, int, int],
        table: Tensor,  # [P] parameters of the one world, or [P, B]
        world: Tensor | None,  # [L] the world of each view, if there are several
    ) -> None:
        top, left, bottom, right = rectangle
        place = (views, slice(None), slice(top, bottom), slice(left, right))
        kind = self.things.kinds[k]
        d, o = self._directions(k, place)
        t, inside = _intersect(kind, d, o)
        hit = t < layer.depth[place]
        hit &= t > self.near[views]
        if inside is not None:
            hit &= inside
        found = hit.view(-1).nonzero()[:, 0]
        if found.numel() == 0:
            return
        index = self.index[place].reshape(-1).index_select(0, found)
        view = self.view.index_select(0, index)
        hits = _Hits(*(c.view(-1).index_select(0, found) for c in (t, *d)), view, index)
        look_up = _LookUp(table, None if world is None else world.index_select(0, view))
        point = [o.index_select(0, view).addcmul_(hits.t, c) for o, c in zip(self.o[k].unbind(), hits.d, strict=True)]
        if kind is Kind.CUT:
            kept = self.bank.inside_cut(look_up.cut, point[0], point[1]).nonzero()[:, 0]
            point = [c.index_select(0, kept) for c in point]
            hits, look_up = hits.select(kept), look_up.select(kept)
        color = self._shade(kind, hits, point, look_up)
        layer.depth.view(-1).scatter_(0, hits.index, hits.t)
        for channel, value in zip(layer.color.unbind(), color, strict=True):
            channel.view(-1).scatter_(0, hits.index, value)

    def _shade(self, kind: Kind, hits: _Hits, point: list[Tensor], p: _LookUp) -> list[Tensor]:
        """Colours 3 x ``[n]``: texture at the level that fits the ray's footprint, ambient and diffuse
        light, highlight."""
        scale = p.scale
        u, v, face, normal = _surface(kind, point, scale, p)
        # Directions and normals in the thing's frame, unscaled, so that angles are true.
        d = [a * b for a, b in zip(hits.d, scale, strict=True)]
        length = torch.rsqrt(_dot(d, d))
        cosine = _dot(d, normal) * length
        toward = p.light
        facing = _dot(toward, normal) * -cosine.sign()
        shade = p.ambient + p.diffuse * (facing + facing.clamp(min=0))

        a, b, c, e, f, g = p.mapping
        slant = torch.rsqrt(cosine.abs().clamp_(min=0.03))
        focal = self.focal.index_select(0, hits.view)
        footprint = hits.t * p.density / focal * slant * slant.sqrt()
        texture = p.texture(face)
        texels = self.bank.sample(
            texture, a * u + b * v + c, e * u + f * v + g, footprint * self.dither.index_select(0, hits.index)
        )
        color = p.recolor(texels, shade)
        if p.has_gloss:
            # Reflected view direction against the light.
            mirror = _dot(toward, d) * length + 2 * cosine.abs() * facing
            highlight = p.gloss[0] * mirror.clamp(0, 1).pow(p.gloss[1])
            color = [channel + highlight for channel in color]
        return color


@dataclass(frozen=True)
class _Hits:
    """n rays that hit: depth, direction in the thing's frame, view and place in the layer, each ``[n]``."""

    t: Tensor
    dx: Tensor
    dy: Tensor
    dz: Tensor
    view: Tensor
    index: Tensor

    @property
    def d(self) -> list[Tensor]:
        return [self.dx, self.dy, self.dz]

    def select(self, kept: Tensor) -> _Hits:
        fields = (self.t, self.dx, self.dy, self.dz, self.view, self.index)
        return _Hits(*(c.index_select(0, kept) for c in fields))


def _parameters(things: Things) -> Tensor:
    """``[P, K, B]`` what shading needs to know of each thing, in the order that _LookUp reads."""
    toward = (things.rotation.mT @ things.light[:, None, :3, None])[..., 0]
    ambient = things.light[:, None, 3:].expand(*toward.shape[:2], 1)
    density = things.mapping[..., 0].square().sum(-1, keepdim=True).sqrt()
    parts = [
        things.scale,
        1 / things.scale.clamp(min=1e-9),
        toward,
        ambient,
        0.5 * (1 - ambient),
        things.mapping.flatten(2),
        density,
        things.texture,
        things.cut[..., None],
        things.color.flatten(2),
        things.gloss,
    ]
    return torch.cat(parts, dim=-1).permute(2, 1, 0).contiguous()


class _LookUp:
    """The parameters of one slot: of one world (scalars), or of the world of each ray (``[n]``)."""

    def __init__(self, table: Tensor, world: Tensor | None) -> None:
        self.table, self.world = table, world
        self.rows = table.unbind()

    def select(self, kept: Tensor) -> _LookUp:
        return self if self.world is None else _LookUp(self.table, self.world.index_select(0, kept))

    def _get(self, start: int, count: int) -> list[Tensor]:
        rows = self.rows[start : start + count]
        return list(rows) if self.world is None else [row.index_select(0, self.world) for row in rows]

    @property
    def scale(self) -> list[Tensor]:
        return self._get(0, 3)

    @property
    def inverse_scale(self) -> list[Tensor]:
        return self._get(3, 3)

    @property
    def light(self) -> list[Tensor]:
        return self._get(6, 3)

    @property
    def ambient(self) -> Tensor:
        return self._get(9, 1)[0]

    @property
    def diffuse(self) -> Tensor:
        return self._get(10, 1)[0]

    @property
    def mapping(self) -> list[Tensor]:
        return self._get(11, 6)

    @property
    def density(self) -> Tensor:
        return self._get(17, 1)[0]

    def texture(self, face: Tensor | None) -> Tensor:
        """Number of the texture of each ray; ``face [n]`` in 0..5."""
        if face is None:
            return self._get(18, 1)[0]
        textures = self.table[18:24]
        if self.world is None:
            return textures.index_select(0, face)
        return textures.reshape(-1).index_select(0, face * textures.shape[1] + self.world)

    @property
    def cut(self) -> Tensor:
        return self._get(24, 1)[0]

    def recolor(self, texels: Tensor, shade: Tensor) -> list[Tensor]:
        """3 x ``[n]``: the affine change of colours ``texels [3, n]``, then the shade."""
        if self.world is None:
            matrix = self.table[25:37].view(3, 4)
            return list(torch.addmm(matrix[:, 3:], matrix[:, :3], texels).clamp_(0, 1).mul_(shade))
        rows = [self._get(25 + 4 * i, 4) for i in range(3)]
        return [(_dot(row[:3], list(texels)) + row[3]).clamp_(0, 1) * shade for row in rows]

    @property
    def has_gloss(self) -> bool:
        return self.world is not None or float(self.rows[37]) > 0

    @property
    def gloss(self) -> list[Tensor]:
        return self._get(37, 2)


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _intersect(kind: Kind, d: list[Tensor], o: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Depth of the first hit, and whether there is one; also none where the depth is NaN, infinite or
    negative."""
    if kind in (Kind.QUAD, Kind.CUT):
        t = -o[2] / d[2]
        u, v = torch.addcmul(o[0], t, d[0]).abs_(), torch.addcmul(o[1], t, d[1]).abs_()
        return t, torch.maximum(u, v) <= 1
    if kind is Kind.ROOM:
        # 1 / t of leaving: along each axis, the one of the two walls that lies ahead.
        ahead = [torch.maximum(c / (1 - a), c / (-1 - a)) for c, a in zip(d, o, strict=True)]
        return torch.maximum(torch.maximum(ahead[0], ahead[1]), ahead[2]).reciprocal_(), None
    if kind is Kind.BOX:
        inverse = [c.reciprocal() for c in d]
        middle = [-a * b for a, b in zip(o, inverse, strict=True)]
        half = [c.abs_() for c in inverse]
        leave = torch.minimum(torch.minimum(middle[0] + half[0], middle[1] + half[1]), middle[2] + half[2])
        enter = torch.maximum(torch.maximum(middle[0] - half[0], middle[1] - half[1]), middle[2] - half[2])
        return enter, enter <= leave
    if kind in (Kind.TUBE, Kind.POLE):
        a = d[0] * d[0] + d[1] * d[1]
        b = o[0] * d[0] + o[1] * d[1]
        cross = o[0] * d[1] - o[1] * d[0]
        t = (b + (a - cross * cross).sqrt_()).neg_() / a
        inside = (o[2] + t * d[2]).abs_() <= 1
        if kind is Kind.POLE:
            return t, inside
        lid = (-d[2].sign() - o[2]) / d[2]
        x, y = o[0] + lid * d[0], o[1] + lid * d[1]
        on_lid = x * x + y * y <= 1
        t = torch.minimum(torch.where(inside, t, torch.inf), torch.where(on_lid, lid, torch.inf))
        return t, None
    a = _dot(d, d)
    b = _dot(o, d)
    # |d|^2 - |o x d|^2 is the discriminant without the cancellation of b^2 - a c.
    x, y, z = o[1] * d[2] - o[2] * d[1], o[2] * d[0] - o[0] * d[2], o[0] * d[1] - o[1] * d[0]
    root = (a - (x * x + y * y + z * z)).sqrt_()
    return ((root - b) if kind is Kind.DOME else (b + root).neg_()) / a, None


def _surface(
    kind: Kind, point: list[Tensor], s: list[Tensor], p: _LookUp
) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
    """Surface coordinates u, v in scene units, number of the face, unit normal (of either side), of points
    3 x ``[n]`` in the canonical frame of a thing of half sizes ``s``."""
    x, y, z = point
    if kind in (Kind.QUAD, Kind.CUT):
        zero = torch.zeros_like(s[0])
        return x * s[0], y * s[1], None, [zero, zero, torch.ones_like(s[0])]
    if kind in (Kind.ROOM, Kind.BOX):
        ax, ay, az = x.abs(), y.abs(), z.abs()
        on_x = (ax >= torch.maximum(ay, az)).float()
        on_y = (ay >= az).float().mul_(on_x < 0.5)
        on_z = (on_x + on_y).neg_().add_(1)
        metric = [x * s[0], y * s[1], z * s[2]]
        u = torch.lerp(metric[0], metric[2], on_x)
        v = torch.lerp(metric[1], metric[2], on_y)
        positive = on_x * x + on_y * y + on_z * z > 0
        return u, v, (on_y + 2 * on_z + 3 * positive).long(), [on_x, on_y, on_z]
    inverse = p.inverse_scale
    n = [a * b for a, b in zip(point, inverse, strict=True)]
    around = torch.atan2(y, x) * (0.5 * (s[0] + s[1]))
    if kind in (Kind.TUBE, Kind.POLE):
        length = torch.rsqrt(n[0] * n[0] + n[1] * n[1])
        if kind is Kind.POLE:
            return around, z * s[2], None, [n[0] * length, n[1] * length, torch.zeros_like(length)]
        on_lid = (z.abs() > 0.9999).float()
        side = length * (1 - on_lid)
        u, v = torch.lerp(around, x * s[0], on_lid), torch.lerp(z * s[2], y * s[1], on_lid)
        return u, v, None, [n[0] * side, n[1] * side, on_lid]
    length = torch.rsqrt(_dot(n, n))
    return around, 1.2 * z * s[2], None, [c * length for c in n]
