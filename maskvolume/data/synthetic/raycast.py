"""Ray casting of textured primitives: nearest hits and their colours, for many views of many worlds at once.

Every primitive is a canonical shape (unit quad, sphere, cube, tube) with a rotation, a scale per axis and a
translation. One 3x3 matrix per view maps a ray into the frame of the primitive. The ray parameter is the depth,
because directions have z = 1 in the camera frame. The rays of a pixel are treated as views with subpixel shifts. A
first, dense step finds the rays with a hit nearer than the current depth; only those are shaded. On the CPU the
primitives are cast front to back, each in its bounding rectangle, in bands that fit in the cache; on other devices
all worlds and views are one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from maskvolume.data.synthetic.shapes import (
    Kind,
    Parameters,
    Things,
    intersect,
    parameter_table,
    surface,
    unit,
)
from maskvolume.data.synthetic.textures import TextureBank
from maskvolume.geometry.cameras import Camera

BAND = 65536  # rays per band: few enough for the cache, enough to amortize the calls


@dataclass(frozen=True)
class Layer:
    """The first hits of the S rays per pixel of L = B * V views.

    Attributes:
        depth: ``[L, S, h, w]``, inf for rays that hit nothing.
        color: ``[3, L, S, h, w]``.
    """

    depth: Tensor
    color: Tensor

    def clone(self) -> Layer:
        return Layer(self.depth.clone(), self.color.clone())


def start_layer(cameras: Camera, rays_per_side: int) -> Layer:
    """Return an empty layer for cameras ``[B, V]``."""
    shape = (cameras.batch_shape.numel(), rays_per_side**2, *cameras.size)
    return Layer(cameras.K.new_full(shape, torch.inf), cameras.K.new_zeros((3, *shape)))


def ray_offsets(rays_per_side: int) -> list[tuple[float, float]]:
    """Return the positions (x, y) of the n^2 rays in a pixel: one per cell, no two in the same column or row."""
    n = rays_per_side
    cells = [(i, j) for j in range(n) for i in range(n)]
    return [((i + (j + 0.5) / n) / n, (j + (n - 0.5 - i) / n) / n) for i, j in cells]


class RayCaster:
    """Casts the rays of cameras ``[B, V]`` at things, slot by slot, into layers.

    Args:
        things: the things of B worlds.
        cameras: ``[B, V]`` cameras.
        bank: the textures and cut-outs.
        near: ``[B]`` depth below which hits are ignored.
        rays_per_side: rays per pixel along each axis.
        by_rectangles: cast one world and one rectangle at a time; None: only on the CPU, where that is faster.
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
        # The rays of a pixel alternate between two mip levels, so that their mean blends the levels.
        dither = 2.0 ** ((torch.arange(S, device=self.device) + 0.5) / S - 0.5)
        focal = (0.5 * rays_per_side) * (cameras.K[..., 0, 0] + cameras.K[..., 1, 1]).view(-1, 1, 1, 1)
        self.width = (dither[:, None, None] / focal).expand(shape).reshape(-1)  # of rays, at depth 1
        self.parameters = parameter_table(things)

    def cast(self, layer: Layer, slots: range) -> None:
        """Draw the slots into the layer, in place, where they are nearer than its depth."""
        for k, views, rectangle in self._jobs(layer, slots):
            if views is None:
                self._cast_slot(layer, k, slice(None), rectangle, self.parameters[:, k], self.world)
            else:
                table = self.parameters[:, k, views.start // self.views_per_world]
                self._cast_slot(layer, k, views, rectangle, table, None)

    def shade(self, layer: Layer, slots: range) -> None:
        """Darken the layer, in place, with the SHADE ``slots``."""
        for k, views, (top, left, bottom, right) in self._jobs(layer, slots):
            place = (slice(None) if views is None else views, slice(None), slice(top, bottom), slice(left, right))
            d, o = self._directions(k, place)
            point = torch.addcmul(o, layer.depth[place], d)
            falloff = (point * point).sum(0).neg_().add_(1).clamp_(min=0).square_()
            worlds = slice(None) if views is None else slice(views.start // self.views_per_world, None)
            strength = self.things.gloss[worlds, k, 0].repeat_interleave(self.views_per_world)
            colors = (slice(None), *place)
            layer.color[colors] *= 1 - strength[: len(falloff), None, None, None] * falloff

    def _jobs(self, layer: Layer, slots: range) -> Iterator[tuple[int, slice | None, tuple[int, int, int, int]]]:
        """Yield slots, each with the views of one world (None: all) and a rectangle of pixels."""
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
        """Return ray directions ``[3, L, S, h, w]`` and camera centres ``[3, L, 1, 1, 1]`` in the frame of thing k."""
        views, _, rows, columns = place
        d = self.down[k, :, views, :, rows] + self.side[k, :, views, :, :, columns]
        return d, self.o[k, :, views, None, None, None]

    def _rectangles(self, slots: range) -> tuple[list[list[list[int]]], list[list[int]]]:
        """Return the bounds of slots over all views of each world, and their order from near to far.

        Bounds are (top, left, bottom, right) in pixels, empty for inactive slots.
        """
        things, cameras = self.things, self.cameras
        span = slice(slots.start, slots.stop)
        ends = torch.tensor([-1.0, 1.0], device=self.device)
        corners = torch.cartesian_prod(ends, ends, ends)  # [8, 3]
        extent = things.scale[:, span, None] * corners  # [B, K, 8, 3]
        is_flat = torch.tensor([things.kinds[k] in (Kind.QUAD, Kind.CUT) for k in slots], device=self.device)
        extent[..., 2] *= ~is_flat[:, None]
        points = extent @ things.rotation[:, span].mT + things.center[:, span, None]
        B, V = cameras.batch_shape
        T = cameras.T_cam_world
        camera_points = points.view(B, 1, -1, 3) @ T[..., :3, :3].mT + T[..., None, :3, 3]  # [B, V, K * 8, 3]
        image = (camera_points @ cameras.K.mT).view(B, V, len(slots), 8, 3)
        z = image[..., 2]
        xy = image[..., :2] / z.clamp(min=1e-6)[..., None]
        low, high = xy.amin((1, 3)).floor() - 1, xy.amax((1, 3)).ceil() + 1  # [B, K, 2]
        is_behind = z.amin((1, 3)) < 1e-3
        limit = xy.new_tensor(cameras.size[::-1])
        low = torch.where(is_behind[..., None], 0.0, low).clamp(min=0).minimum(limit)
        high = torch.where(is_behind[..., None], limit, high).clamp(min=0).minimum(limit)
        high = torch.where(things.active[:, span, None], high, low)
        order = (z.mean((1, 3)) + 1e6 * is_behind).argsort(dim=1)
        return torch.cat([low.flip(-1), high.flip(-1)], dim=-1).int().tolist(), order.tolist()

    def _cast_slot(
        self,
        layer: Layer,
        k: int,
        views: slice,
        rectangle: tuple[int, int, int, int],
        table: Tensor,  # [P] parameters of one world, or [P, B]
        world: Tensor | None,  # [L] world index of each view; None for one world
    ) -> None:
        top, left, bottom, right = rectangle
        place = (views, slice(None), slice(top, bottom), slice(left, right))
        kind = self.things.kinds[k]
        d, o = self._directions(k, place)
        t, inside = intersect(kind, d, o)
        hit = t < layer.depth[place]
        hit &= t > self.near[views]
        if inside is not None:
            hit &= inside
        hits = hit.view(-1).nonzero()[:, 0]
        if hits.numel() == 0:
            return
        index = self.index[place].reshape(-1).index_select(0, hits)
        view = self.view.index_select(0, index)
        t, d = t.reshape(-1).index_select(0, hits), d.view(3, -1).index_select(1, hits)
        world = None if world is None else world.index_select(0, view)
        point = self.o[k].index_select(1, view).addcmul_(t, d)
        if kind is Kind.CUT:
            cut = Parameters(table, world).cut
            solid = self.bank.inside_cut(cut, point[0], point[1]).nonzero()[:, 0]
            index, t, d, point = (c.index_select(-1, solid) for c in (index, t, d, point))
            world = None if world is None else world.index_select(0, solid)
        color = self._shade(kind, _Hits(d, point, t * self.width.index_select(0, index)), Parameters(table, world))
        layer.depth.view(-1).scatter_(0, index, t)
        for channel, value in zip(layer.color.unbind(), color.unbind(), strict=True):
            channel.view(-1).scatter_(0, index, value)

    def _shade(self, kind: Kind, hits: _Hits, p: Parameters) -> Tensor:
        """Return colours ``[3, n]``: texture, ambient and diffuse light, highlight."""
        scale = p.scale
        uv, face, normal = surface(kind, hits.point, scale, p)
        # Directions and normals are in the frame of the thing before scaling, which preserves angles.
        d = unit(hits.d * scale)
        cosine = (d * normal).sum(0)
        light = p.light
        facing = (normal * light).sum(0) * cosine.sign().neg_()
        shade = torch.addcmul(p.ambient, p.diffuse, facing + facing.clamp(min=0))

        m = p.mapping
        texels = (m[0:2] * uv[0]).add_(m[2:4] * uv[1]).add_(m[4:6])
        slant = cosine.abs()
        spread = torch.rsqrt(slant.clamp(min=0.03))
        footprint = hits.width * p.density * spread * spread.sqrt()
        color = p.recolor(self.bank.sample(p.texture(face), texels, footprint)).clamp_(0, 1).mul_(shade)
        if p.has_gloss:
            # The cosine between the reflected view direction and the light.
            mirror = (light * d).sum(0) + 2 * slant * facing
            strength, exponent = p.gloss
            color += strength * mirror.clamp_(0, 1).pow(exponent)
        return color


@dataclass(frozen=True)
class _Hits:
    """Rays that hit a thing.

    Attributes:
        d: ``[3, n]`` directions in the frame of the thing.
        point: ``[3, n]`` the hit points in the same frame.
        width: ``[n]`` ray widths at the hit points, in scene units.
    """

    d: Tensor
    point: Tensor
    width: Tensor
