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
import torch.nn.functional as F
from torch import Tensor

from maskvolume.cameras import Camera
from maskvolume.synthetic.textures import TextureBank

BAND = 65536  # rays of a band: few enough for the cache, enough to outweigh the calls


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
        o = into[:, None] @ (center[:, :, None] - things.center[:, None, :, :, None])  # [B, V, K, 3, 1]
        self.o = o[..., 0].flatten(0, 1).permute(1, 2, 0).contiguous()  # [K, 3, L]
        # Takes (x, y, 1) of a ray, in pixels, to its direction in the frame of a thing.
        D = (into[:, None] @ to_world[:, :, None]).flatten(0, 1).permute(1, 2, 3, 0).contiguous()  # [K, 3, 3, L]
        h, w = cameras.size
        S = rays_per_side**2
        x = torch.arange(w, device=self.device, dtype=torch.float32)
        y = torch.arange(h, device=self.device, dtype=torch.float32)
        shift = torch.tensor(ray_offsets(rays_per_side), device=self.device)
        side, down, start = (D[:, :, i, :, None, None, None] for i in range(3))  # [K, 3, L, 1, 1, 1]
        self.side = side * x  # [K, 3, L, 1, 1, w]
        start = start + side * shift[:, 0, None, None] + down * shift[:, 1, None, None]
        self.down = start + down * y[:, None]  # [K, 3, L, S, h, 1]
        self.near = near.repeat_interleave(V)[:, None, None, None]
        shape = (B * V, S, h, w)
        self.index = torch.arange(B * V * S * h * w, device=self.device).view(shape)
        view = torch.arange(B * V, device=self.device)
        self.view = view[:, None, None, None].expand(shape).reshape(-1)
        self.world = view // V
        # Rays of a pixel choose between two mip levels in turn, so that their mean blends the levels.
        dither = 2.0 ** ((torch.arange(S, device=self.device) + 0.5) / S - 0.5)
        focal = (0.5 * rays_per_side) * (cameras.K[..., 0, 0] + cameras.K[..., 1, 1]).view(-1, 1, 1, 1)
        self.width = (dither[:, None, None] / focal).expand(shape).reshape(-1)  # of rays, at depth 1
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
            point = torch.addcmul(o, layer.depth[place], d)
            falloff = (point * point).sum(0).neg_().add_(1).clamp_(min=0).square_()
            worlds = slice(None) if views is None else slice(views.start // self.views_per_world, None)
            strength = self.things.gloss[worlds, k, 0].repeat_interleave(self.views_per_world)
            layer.color[(slice(None), *place)] *= 1 - strength[: len(falloff), None, None, None] * falloff

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

    def _directions(self, k: int, place: tuple[slice, slice, slice, slice]) -> tuple[Tensor, Tensor]:
        """Directions ``[3, L, S, h, w]`` of the rays at a place of a layer in the frame of thing k, and the
        camera centres ``[3, L, 1, 1, 1]``."""
        views, _, rows, columns = place
        d = self.down[k, :, views, :, rows] + self.side[k, :, views, :, :, columns]
        return d, self.o[k, :, views, None, None, None]

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
        t, d = t.reshape(-1).index_select(0, found), d.view(3, -1).index_select(1, found)
        world = None if world is None else world.index_select(0, view)
        point = self.o[k].index_select(1, view).addcmul_(t, d)
        if kind is Kind.CUT:
            cut = _Parameters(table, world).cut
            kept = self.bank.inside_cut(cut, point[0], point[1]).nonzero()[:, 0]
            index, t, d, point = (c.index_select(-1, kept) for c in (index, t, d, point))
            world = None if world is None else world.index_select(0, kept)
        color = self._shade(kind, _Hits(t, d, point, t * self.width.index_select(0, index)), _Parameters(table, world))
        layer.depth.view(-1).scatter_(0, index, t)
        for channel, value in zip(layer.color.unbind(), color.unbind(), strict=True):
            channel.view(-1).scatter_(0, index, value)

    def _shade(self, kind: Kind, hits: _Hits, p: _Parameters) -> Tensor:
        """Colours ``[3, n]``: texture at the level that fits the ray's footprint, ambient and diffuse light,
        highlight."""
        scale = p.scale
        uv, face, normal = _surface(kind, hits.point, scale, p)
        # Directions and normals in the thing's frame, unscaled, so that angles are true.
        d = F.normalize(hits.d * scale, dim=0)
        cosine = (d * normal).sum(0)
        toward = p.light
        facing = (normal * toward).sum(0) * cosine.sign().neg_()
        shade = torch.addcmul(p.ambient, p.diffuse, facing + facing.clamp(min=0))

        m = p.mapping
        texels = torch.addcmul(torch.addcmul(m[4:6], m[0:2], uv[0]), m[2:4], uv[1])
        slant = cosine.abs()
        spread = torch.rsqrt(slant.clamp(min=0.03))
        footprint = hits.width * p.density * spread * spread.sqrt()
        c = self.bank.sample(p.texture(face), texels, footprint)
        recolor = p.color.unflatten(0, (4, 3))
        color = torch.addcmul(torch.addcmul(recolor[3], recolor[0], c[0]), recolor[1], c[1])
        color = color.addcmul_(recolor[2], c[2]).clamp_(0, 1).mul_(shade)
        if p.has_gloss:
            # Reflected view direction against the light.
            mirror = (toward * d).sum(0) + 2 * slant * facing
            strength, exponent = p.gloss
            color += strength * mirror.clamp_(0, 1).pow(exponent)
        return color


@dataclass(frozen=True)
class _Hits:
    """n rays that hit: depth ``[n]``, direction and point ``[3, n]`` in the thing's frame, and how wide the
    ray is there, ``[n]`` in scene units."""

    t: Tensor
    d: Tensor
    point: Tensor
    width: Tensor


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
        things.mapping.mT.flatten(2),
        density,
        things.texture,
        things.cut[..., None],
        things.color.mT.flatten(2),
        things.gloss,
    ]
    return torch.cat(parts, dim=-1).permute(2, 1, 0).contiguous()


class _Parameters:
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
        """Columns of the mapping, one below the other."""
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

    @property
    def color(self) -> Tensor:
        """Columns of the change of colours, one below the other."""
        return self._get(25, 12)

    @property
    def has_gloss(self) -> bool:
        return self.world is not None or float(self.table[37]) > 0

    @property
    def gloss(self) -> Tensor:
        return self._get(37, 2)


def _intersect(kind: Kind, d: Tensor, o: Tensor) -> tuple[Tensor, Tensor | None]:
    """Depth of the first hit, and whether there is one; also none where the depth is NaN, infinite or
    negative. Of rays ``o + t d``, both ``[3, ...]``."""
    if kind in (Kind.QUAD, Kind.CUT):
        t = -o[2] / d[2]
        return t, torch.addcmul(o[:2], t, d[:2]).abs_().amax(0) <= 1
    if kind is Kind.ROOM:
        # 1 / t of leaving: along each axis, the one of the two walls that lies ahead.
        return torch.maximum(d / (1 - o), d / (-1 - o)).amax(0).reciprocal_(), None
    if kind is Kind.BOX:
        inverse = d.reciprocal()
        middle = inverse * -o
        half = inverse.abs_()
        enter = (middle - half).amax(0)
        return enter, enter <= middle.add_(half).amin(0)
    round_axes = 2 if kind in (Kind.TUBE, Kind.POLE) else 3
    a_o, a_d = o[:round_axes], d[:round_axes]
    a = (a_d * a_d).sum(0)
    middle = (a_o * a_d).sum(0).div_(a).neg_()
    # From the point nearest to the centre: no difference of large squares.
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


def _surface(
    kind: Kind, point: Tensor, scale: Tensor, p: _Parameters
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Surface coordinates ``[2, n]`` in scene units, number of the face, unit normals ``[3, n]`` (of either
    side), of points ``[3, n]`` in the canonical frame of a thing of half sizes ``scale``."""
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
    around = torch.atan2(point[1], point[0]) * scale[:2].mean(0)
    if kind in (Kind.TUBE, Kind.POLE):
        outward[2] = 0
    normal = F.normalize(outward, dim=0)
    uv = torch.stack([around, z])
    if kind is Kind.TUBE:
        on_lid = (point[2].abs() > 0.9999).float()
        normal = torch.lerp(normal, normal.new_tensor([[0.0], [0.0], [1.0]]), on_lid)
        uv = torch.lerp(uv, torch.stack([x, y]), on_lid)
    return uv, None, normal
