"""Computes multiplane images in tiles, for frames whose working memory in the networks would be too large.

For each tile, the MPI's camera is cropped to the tile and its halo, the pictures are swept, the networks run, and the
inner part is kept. This requires networks that are local in the picture plane (``Architecture.halo``). Only the MPIs of
the background and of the frame exist at full size; sweeps never do. The result equals that of the whole frame up to
rounding. This module does not support leading batch axes.
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
        top: first row.
        left: first column.
        size: ``(h, w)``.
    """

    top: int
    left: int
    size: tuple[int, int]

    def grown(self, halo: int, size: tuple[int, int]) -> Tile:
        """The tile with ``halo`` pixels around it, clipped to a picture of ``size`` (h, w)."""
        top, left = max(self.top - halo, 0), max(self.left - halo, 0)
        bottom, right = min(self.top + self.size[0] + halo, size[0]), min(self.left + self.size[1] + halo, size[1])
        return Tile(top, left, (bottom - top, right - left))

    def within(self, other: Tile) -> Tile:
        """The same window relative to the top left corner of another one."""
        return Tile(self.top - other.top, self.left - other.left, self.size)

    def halved(self) -> Tile:
        """The same window at half the resolution; its sides and corner must be even."""
        return Tile(self.top // 2, self.left // 2, (self.size[0] // 2, self.size[1] // 2))

    def of(self, x: Tensor) -> Tensor:
        """The window of a tensor ``[..., H, W]``, as a view."""
        return x[..., self.top : self.top + self.size[0], self.left : self.left + self.size[1]]

    def of_camera(self, camera: Camera) -> Camera:
        """The camera cropped to the window."""
        return camera.cropped(self.top, self.left, self.size)

    def of_mpi(self, mpi: MultiplaneImage) -> MultiplaneImage:
        """The window of an MPI, which shares its memory."""
        return mpi.cropped(self.top, self.left, self.size)


@dataclass(frozen=True)
class Tiling:
    """A picture cut into tiles.

    Attributes:
        size: ``(h, w)`` of the picture.
        tile: ``(h, w)`` of a tile; tiles at the bottom and on the right may be smaller.
    """

    size: tuple[int, int]
    tile: tuple[int, int]

    @staticmethod
    def of(size: tuple[int, int], rows: int, columns: int, grid: int) -> Tiling:
        """A tiling with at most ``rows`` x ``columns`` tiles whose corners are multiples of ``grid`` pixels."""
        h, w = (math.ceil(side / count / grid) * grid for side, count in zip(size, (rows, columns), strict=True))
        return Tiling(size, (min(h, size[0]), min(w, size[1])))

    @property
    def is_whole(self) -> bool:
        """Whether a single tile covers the picture."""
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
    """The inputs of tiled frames that come from the background.

    Attributes:
        images: ``[V, 3, Hs, Ws]`` in 0..1, the background pictures, swept again for each tile.
        mpi: the background's multiplane image; float16 if the networks run in bfloat16, which is less precise.
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
    """``MaskVolumeModel.background`` in tiles: keeps the pictures instead of their sweep.

    Args:
        model: the model; its architecture must have a halo.
        images: ``[B, 3, Hs, Ws]`` in 0..1: the V cameras of the frames first, then any additional cameras.
        sources: ``[B]``, the cameras of the images.
        mpi_camera: ``[]``, the camera of the MPI.
        depths: ``[D]``, plane depths in scene units, the farthest first.
        tiles: the tiles that cover the picture of ``mpi_camera``.
        views: V; all by default.

    Returns:
        The pictures of the first V cameras, and the MPI of all of them.

    Raises:
        ValueError: the networks can't work in tiles.
    """
    dtype = background_dtype(model.precision)
    mpi = mpi_in_tiles(model, images, sources, mpi_camera, depths, tiles, dtype, checked=model.arch.context is not None)
    return TiledBackground(images[:views], mpi)


def background_dtype(precision: Precision) -> torch.dtype:
    """The type of a tiled background's planes; only single tiles are converted to float32."""
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
    """``MaskVolumeModel.dynamic`` in tiles.

    Args:
        model: the model; its architecture must have a halo.
        images: ``[V, 3, Hs, Ws]`` in 0..1.
        sources: ``[V]``, the cameras of the images.
        mpi_camera: ``[]``, the camera of the MPI.
        depths: ``[D]``, plane depths in scene units, the farthest first.
        tiles: the tiles that cover the picture of ``mpi_camera``.
        dtype: type of the planes.
        checked: ignore views that contradict the others, as for a background.

    Returns:
        The MPI.

    Raises:
        ValueError: the networks can't work in tiles.
    """
    mpi = _empty_mpi(model, mpi_camera, depths, dtype)
    context = _context(model, images, sources, mpi_camera, depths, tiles)
    left_out: Tensor | None = None
    if checked and context is not None:
        # Without the planes that the networks pad to a multiple.
        left_out = contradicted(context[:, : len(depths)], sources[None], mpi_camera[None], depths[None])
        context = _context(model, images, sources, mpi_camera, depths, tiles, left_out)
    for tile in tiles:
        network_tile = tile.grown(_halo(model).network, mpi_camera.size)
        camera = network_tile.of_camera(mpi_camera)
        sweep = model.sweep(images, sources, camera, depths)
        if left_out is not None:
            leave_out(sweep[None], network_tile.halved().of(left_out))
        part = model.mpi_from_sweep(sweep, camera, depths, _context_of(context, network_tile))
        del sweep
        tile.of(mpi.rgba).copy_(tile.within(network_tile).of(part.rgba))
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
    """``MaskVolumeModel.frame`` in tiles, each blended immediately, in the type of ``MultiplaneImage.prepared``.

    Args:
        model: the model; it needs a mask network and an architecture with a halo.
        images: ``[V, 3, Hs, Ws]`` in 0..1, the frame's pictures.
        sources: ``[V]``, the cameras of the images.
        background: the clip's background, from the same cameras on the same planes.
        tiles: the tiles that cover the picture of the MPI's camera.
        with_mask: keep the mask volume too.

    Returns:
        The frame's full MPI.

    Raises:
        ValueError: the networks can't work in tiles, or the model has no mask network.
    """
    camera, depths = background.mpi.camera, background.mpi.depths
    size = camera.size
    mpi = _empty_mpi(model, camera, depths, stored_dtype(images.device, model.backend))
    mask = torch.empty(1, len(depths), *size, device=images.device) if with_mask else None
    halo = _halo(model)
    context = _context(model, images, sources, camera, depths, tiles)
    for tile in tiles:
        frame_tile, network_tile = tile.grown(halo.frame, size), tile.grown(halo.network, size)
        window = network_tile.within(frame_tile)
        sweep = model.sweep(images, sources, frame_tile.of_camera(camera), depths)
        dynamic = window.of_mpi(
            model.mpi_from_sweep(sweep, frame_tile.of_camera(camera), depths, _context_of(context, frame_tile))
        )
        dynamic = replace(dynamic, rgba=dynamic.rgba.contiguous())  # frees the planes around the window
        sweep = window.of(sweep).contiguous()
        give_back_freed()
        background_part = network_tile.of_mpi(background.mpi)
        background_part = replace(background_part, rgba=background_part.rgba.float().contiguous())
        background_sweep = model.sweep(background.images, sources, background_part.camera, depths)
        part = model.mask_from_sweeps(sweep, Background(background_sweep, background_part), dynamic)
        inner_tile = tile.within(network_tile)
        blended = blend(inner_tile.of(part), inner_tile.of_mpi(dynamic), inner_tile.of_mpi(background_part))
        tile.of(mpi.rgba).copy_(blended.rgba)
        if mask is not None:
            tile.of(mask).copy_(inner_tile.of(part))
        del sweep, background_sweep, dynamic, background_part, part, blended  # before the next tile allocates its own
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
    """The networks' context of the whole picture, ``[1, D, H / 2, W / 2]``; None if the networks are purely local.

    Args:
        left_out: bool ``[1, V, H / 2, W / 2]``, where views are ignored.
    """
    context = model.arch.context
    if context is None:
        return None
    if any(side % _halo(model).grid for side in mpi_camera.size):
        raise ValueError(f"mpi_camera: sides that are multiples of {_halo(model).grid} expected, got {mpi_camera.size}")
    parts: list[list[Tensor]] = []  # context inputs of each tile
    for tile in tiles:
        context_tile = tile.grown(context.halo, mpi_camera.size)
        sweep = model.sweep(images, sources, context_tile.of_camera(mpi_camera), depths)[None]
        if left_out is not None:
            leave_out(sweep, context_tile.halved().of(left_out))
        inputs = context.inputs(sweep, model.backend)
        del sweep
        inner_tile = tile.within(context_tile).halved()
        parts.append([inner_tile.of(values).clone() for values in inputs])
        del inputs
        give_back_freed()
    h, w = (side // 2 for side in mpi_camera.size)
    joined = tuple(values.new_empty(*values.shape[:-2], h, w) for values in parts[0])
    for tile in tiles:
        for values, part in zip(joined, parts.pop(0), strict=True):
            tile.halved().of(values).copy_(part)
    return context.combine(joined, model.backend)


def _context_of(context: Tensor | None, tile: Tile) -> Tensor | None:
    """The context of a tile."""
    return None if context is None else tile.halved().of(context[0])


def _halo(model: MaskVolumeModel) -> Halo:
    if model.arch.halo is None:
        raise ValueError(f"model: the networks of {model.meta.arch!r} look at the whole picture: no tiles")
    return model.arch.halo


def _empty_mpi(model: MaskVolumeModel, camera: Camera, depths: Tensor, dtype: torch.dtype) -> MultiplaneImage:
    """An MPI with uninitialised planes."""
    rgba = torch.empty(len(depths), 4, *camera.size, dtype=dtype, device=depths.device)
    return MultiplaneImage(rgba, camera, depths, model.arch.premultiplied)
