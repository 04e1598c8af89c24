"""Multiplane images made part by part, where the networks' working memory for a whole frame is too much.

The MPI's camera is cropped to a tile and its halo, pictures are swept and the networks run there, and the inner part is
kept. So it needs networks that are local in the picture plane (``Architecture.halo``). What exists at full size is the
background's MPI and the frame's; sweeps do nowhere. The result is that of the whole frame but for rounding. No leading
batch axes here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.mpi.consistency import contradicted, leave_out
from maskvolume.mpi.image import MultiplaneImage, blend
from maskvolume.mpi.model import Background, MaskVolumeModel, StoredFrame
from maskvolume.networks import Halo
from maskvolume.ops import stored_dtype
from maskvolume.runtime.allocator import give_back_freed
from maskvolume.runtime.devices import Precision


@dataclass(frozen=True)
class Tile:
    """A window of the picture, in pixels.

    Attributes:
        top: its first row.
        left: its first column.
        size: ``(h, w)``.
    """

    top: int
    left: int
    size: tuple[int, int]

    def grown(self, halo: int, size: tuple[int, int]) -> Tile:
        """The tile and ``halo`` pixels around it, within a picture of ``size``."""
        top, left = max(self.top - halo, 0), max(self.left - halo, 0)
        bottom, right = min(self.top + self.size[0] + halo, size[0]), min(self.left + self.size[1] + halo, size[1])
        return Tile(top, left, (bottom - top, right - left))

    def within(self, other: Tile) -> Tile:
        """The same window counted from the corner of another one."""
        return Tile(self.top - other.top, self.left - other.left, self.size)

    def halved(self) -> Tile:
        """The same window at half the picture's resolution; its sides are even."""
        return Tile(self.top // 2, self.left // 2, (self.size[0] // 2, self.size[1] // 2))

    def of(self, x: Tensor) -> Tensor:
        """The window of ``[..., H, W]``, no copy."""
        return x[..., self.top : self.top + self.size[0], self.left : self.left + self.size[1]]

    def of_camera(self, camera: Camera) -> Camera:
        """The camera of the window."""
        return camera.cropped(self.top, self.left, self.size)

    def of_mpi(self, mpi: MultiplaneImage) -> MultiplaneImage:
        """The window of an MPI, no copy."""
        return mpi.cropped(self.top, self.left, self.size)


@dataclass(frozen=True)
class Tiling:
    """A picture cut into tiles.

    Attributes:
        size: ``(h, w)`` of the picture.
        tile: ``(h, w)`` of a tile; those at the bottom and at the right may be smaller.
    """

    size: tuple[int, int]
    tile: tuple[int, int]

    @staticmethod
    def of(size: tuple[int, int], rows: int, columns: int, grid: int) -> Tiling:
        """At most so many rows and columns of tiles, their corners on a grid."""
        h, w = (math.ceil(side / count / grid) * grid for side, count in zip(size, (rows, columns), strict=True))
        return Tiling(size, (min(h, size[0]), min(w, size[1])))

    @property
    def is_whole(self) -> bool:
        """Whether one tile is the picture."""
        return self.tile == self.size

    def tiles(self) -> list[Tile]:
        """All tiles, row by row."""
        (h, w), (tile_h, tile_w) = self.size, self.tile
        return [
            Tile(top, left, (min(tile_h, h - top), min(tile_w, w - left)))
            for top in range(0, h, tile_h)
            for left in range(0, w, tile_w)
        ]


@dataclass(frozen=True)
class TiledBackground:
    """What the background of a clip contributes to frames made in tiles.

    Attributes:
        images: ``[V, 3, Hs, Ws]`` its pictures, swept anew for each tile.
        mpi: its multiplane image; float16 where the networks run in bfloat16, which is less exact.
    """

    images: Tensor
    mpi: MultiplaneImage


def background_in_tiles(
    model: MaskVolumeModel,
    images: Tensor,  # [B, 3, Hs, Ws] in 0..1
    sources: Camera,  # [B]
    mpi_camera: Camera,  # []
    depths: Tensor,  # [D]
    tiles: Sequence[Tile],
    views: int | None = None,
) -> TiledBackground:
    """``MaskVolumeModel.background`` tile by tile, without its sweep."""
    dtype = background_dtype(model.precision)
    mpi = mpi_in_tiles(model, images, sources, mpi_camera, depths, tiles, dtype, checked=model.arch.context is not None)
    return TiledBackground(images[:views], mpi)


def background_dtype(precision: Precision) -> torch.dtype:
    """The type of a tiled background's planes; they are widened tile by tile, never as a whole."""
    return torch.float16 if precision == "bf16" else torch.float32


def mpi_in_tiles(
    model: MaskVolumeModel,
    images: Tensor,  # [V, 3, Hs, Ws] in 0..1
    sources: Camera,  # [V]
    mpi_camera: Camera,  # []
    depths: Tensor,  # [D]
    tiles: Sequence[Tile],
    dtype: torch.dtype,
    *,
    checked: bool = False,
) -> MultiplaneImage:
    """``MaskVolumeModel.dynamic`` tile by tile.

    Args:
        tiles: that make up the picture of ``mpi_camera``.
        dtype: of the planes.
        checked: without the views that contradict the others, as a background is made.
    """
    mpi = _empty_mpi(model, mpi_camera, depths, dtype)
    context = _context(model, images, sources, mpi_camera, depths, tiles)
    left_out: Tensor | None = None
    if checked and context is not None:
        # Of the planes alone, not of those that networks add to make up a multiple.
        left_out = contradicted(context[:, : len(depths)], sources[None], mpi_camera[None], depths[None])
        context = _context(model, images, sources, mpi_camera, depths, tiles, left_out)
    for tile in tiles:
        wide = tile.grown(_halo(model).network, mpi_camera.size)
        camera = wide.of_camera(mpi_camera)
        sweep = model.sweep(images, sources, camera, depths)
        if left_out is not None:
            leave_out(sweep[None], wide.halved().of(left_out))
        part = model.mpi_from_sweep(sweep, camera, depths, _cut(context, wide))
        del sweep
        tile.of(mpi.rgba).copy_(tile.within(wide).of(part.rgba))
        del part
        give_back_freed()
    return mpi


def frame_in_tiles(
    model: MaskVolumeModel,
    images: Tensor,  # [V, 3, Hs, Ws] in 0..1
    sources: Camera,  # [V]
    background: TiledBackground,
    tiles: Sequence[Tile],
    *,
    with_mask: bool = False,
) -> StoredFrame:
    """``MaskVolumeModel.frame`` tile by tile, each blended at once, in the type of ``MultiplaneImage.prepared``.

    Args:
        images: the frame's pictures.
        background: the clip's, from the same cameras on the same planes.
        tiles: that make up the picture of the MPI's camera.
        with_mask: keep the mask volume too.
    """
    camera, depths = background.mpi.camera, background.mpi.depths
    size = camera.size
    mpi = _empty_mpi(model, camera, depths, stored_dtype(images.device))
    mask = torch.empty(1, len(depths), *size, device=images.device) if with_mask else None
    halo = _halo(model)
    context = _context(model, images, sources, camera, depths, tiles)
    for tile in tiles:
        wide, near = tile.grown(halo.frame, size), tile.grown(halo.network, size)
        window = near.within(wide)
        sweep = model.sweep(images, sources, wide.of_camera(camera), depths)
        dynamic = window.of_mpi(model.mpi_from_sweep(sweep, wide.of_camera(camera), depths, _cut(context, wide)))
        dynamic = replace(dynamic, rgba=dynamic.rgba.contiguous())  # lets what is around it go
        sweep = window.of(sweep).contiguous()
        give_back_freed()
        still = near.of_mpi(background.mpi)
        still = replace(still, rgba=still.rgba.float().contiguous())
        still_sweep = model.sweep(background.images, sources, still.camera, depths)
        part = model.mask_from_sweeps(sweep, Background(still_sweep, still), dynamic)
        inner = tile.within(near)
        blended = blend(inner.of(part), inner.of_mpi(dynamic), inner.of_mpi(still))
        tile.of(mpi.rgba).copy_(blended.rgba)
        if mask is not None:
            tile.of(mask).copy_(inner.of(part))
        del sweep, still_sweep, dynamic, still, part, blended  # before the next tile's
        give_back_freed()
    return StoredFrame(mpi, mask)


def _context(
    model: MaskVolumeModel,
    images: Tensor,
    sources: Camera,
    mpi_camera: Camera,
    depths: Tensor,
    tiles: Sequence[Tile],
    left_out: Tensor | None = None,
) -> Tensor | None:
    """What the networks look at of the whole picture, ``[1, D, H / 2, W / 2]``; None where they look at parts alone.

    Args:
        left_out: ``[1, V, H / 2, W / 2]`` where views have no say.
    """
    context = model.arch.context
    if context is None:
        return None
    if any(side % _halo(model).grid for side in mpi_camera.size):
        raise ValueError(f"mpi_camera: sides that are multiples of {_halo(model).grid} expected, got {mpi_camera.size}")
    parts: list[list[Tensor]] = []  # of each tile its inputs
    for tile in tiles:
        wide = tile.grown(context.halo, mpi_camera.size)
        sweep = model.sweep(images, sources, wide.of_camera(mpi_camera), depths)[None]
        if left_out is not None:
            leave_out(sweep, wide.halved().of(left_out))
        inputs = context.inputs(sweep, model.backend)
        del sweep
        inner = tile.within(wide).halved()
        parts.append([inner.of(values).clone() for values in inputs])
        del inputs
        give_back_freed()
    h, w = (side // 2 for side in mpi_camera.size)
    whole = tuple(values.new_empty(*values.shape[:-2], h, w) for values in parts[0])
    for tile in tiles:
        for values, part in zip(whole, parts.pop(0), strict=True):
            tile.halved().of(values).copy_(part)
    return context.combine(whole, model.backend)


def _cut(context: Tensor | None, tile: Tile) -> Tensor | None:
    """The context of a tile."""
    return None if context is None else tile.halved().of(context[0])


def _halo(model: MaskVolumeModel) -> Halo:
    if model.arch.halo is None:
        raise ValueError(f"model: the networks of {model.meta.arch!r} look at the whole picture: no tiles")
    return model.arch.halo


def _empty_mpi(model: MaskVolumeModel, camera: Camera, depths: Tensor, dtype: torch.dtype) -> MultiplaneImage:
    """Planes to be filled."""
    rgba = torch.empty(len(depths), 4, *camera.size, dtype=dtype, device=depths.device)
    return MultiplaneImage(rgba, camera, depths, model.arch.premultiplied)
