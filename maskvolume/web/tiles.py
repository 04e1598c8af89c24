"""Cuts layers into tiles, classifies them as empty, static or moving, and packs them into atlases.

Layers are uint8 ``[L, H, W, 4]``, premultiplied. A tile is a square of ``size`` texels of a layer. In an atlas it is in
a slot with a gutter that repeats the texels of its neighbours, so that bilinear look-ups have no seams.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from maskvolume.runtime.errors import InputError

EMPTY = 4  # grey levels of opacity up to which a texel counts as empty
BLED = 24  # grey levels of opacity below which a texel's colour is blended with that of its surroundings
AT_ONCE = 64  # slots processed at once, so that they fit in the processor's cache
BLOCK = 4  # side in texels of the blocks over which changes are averaged, against noise
STILL = 12.0  # largest difference in grey levels of a static tile's blocks from their mean over time


@dataclass(frozen=True)
class TileGrid:
    """The partition of layers into tiles.

    Attributes:
        shape: ``(L, H, W)`` of the layers.
        size: side of a tile in texels.
        gutter: width in texels of the gutter around it in a slot.
    """

    shape: tuple[int, int, int]
    size: int = 28
    gutter: int = 2

    @property
    def slot(self) -> int:
        """Side of a slot in texels."""
        return self.size + 2 * self.gutter

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of tiles: ``(layers, rows, columns)``."""
        layers, h, w = self.shape
        return layers, math.ceil(h / self.size), math.ceil(w / self.size)

    def padded(self, layers: np.ndarray) -> np.ndarray:
        """Layers ``[L, H, W, ...]`` padded with zeros to contain all slots."""
        _, rows, columns = self.counts
        _, h, w = self.shape
        g = self.gutter
        sides = (0, 0), (g, rows * self.size - h + g), (g, columns * self.size - w + g)
        return np.pad(layers, sides + ((0, 0),) * (layers.ndim - 3))

    def slots(self, layers: np.ndarray, tiles: np.ndarray) -> np.ndarray:
        """The slots ``[N, S, S, 4]`` of tiles ``[N, 3]`` (layer, row, column)."""
        padded = self.padded(layers)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.slot, self.slot), axis=(1, 2))
        windows = windows[:, :: self.size, :: self.size]  # [L, rows, columns, 4, S, S]
        return np.ascontiguousarray(windows[tuple(tiles.T)].transpose(0, 2, 3, 1))

    def largest(self, values: np.ndarray, every: int = 1) -> np.ndarray:
        """The largest value in each tile, ``[rows, columns]``, of values sampled every ``every`` texels in x and y."""
        _, rows, columns = self.counts
        side = self.size // every
        h, w = values.shape
        padded = np.pad(values, ((0, rows * side - h), (0, columns * side - w)))
        return padded.reshape(rows, side, columns, side).max(axis=(1, 3))


@dataclass(frozen=True)
class Tiles:
    """The tiles of a clip that are not empty: ``[N, 3]`` (layer, row, column), the farthest layer first."""

    still: np.ndarray
    moving: np.ndarray


class Changes:
    """Finds the static tiles of a clip in two passes over its frames: first the mean, then the changes.

    Texels that no viewpoint sees are ignored.
    """

    def __init__(self, grid: TileGrid) -> None:
        self.grid = grid
        self._sum = np.zeros((*grid.shape, 4), dtype=np.float32)
        self._count = 0
        self._most = np.zeros(grid.counts, dtype=np.float32)  # largest visible opacity of each tile
        self._change = np.zeros(grid.counts, dtype=np.float32)  # largest change of each tile

    def add(self, layers: np.ndarray) -> None:
        """First pass: add a frame, uint8 ``[L, H, W, 4]``."""
        for total, layer in zip(self._sum, layers, strict=True):
            cv2.accumulate(layer, total)
        self._count += 1

    @property
    def mean(self) -> np.ndarray:
        """The mean of the frames, uint8 ``[L, H, W, 4]``."""
        return np.stack([np.round(total / self._count).astype(np.uint8) for total in self._sum])

    def compare(self, layers: np.ndarray, mean: np.ndarray, seen: np.ndarray) -> None:
        """Second pass: compare a frame with ``mean``; ``seen`` is each texel's visibility, ``[L, H, W]`` in 0..1."""
        for number, (layer, still, share) in enumerate(zip(layers, mean, seen, strict=True)):
            change = cv2.absdiff(layer, still).max(axis=-1) * share
            blocks = self.grid.largest(_block_means(change), BLOCK)
            np.maximum(self._change[number], blocks, out=self._change[number])
            most = self.grid.largest(layer[..., 3] * share)
            np.maximum(self._most[number], most, out=self._most[number])

    def tiles(self) -> Tiles:
        """The static and the moving tiles."""
        is_visible = self._most > EMPTY
        is_moving = is_visible & (self._change > STILL)
        return Tiles(np.argwhere(is_visible & ~is_moving), np.argwhere(is_moving))


def _block_means(values: np.ndarray) -> np.ndarray:
    """Means of ``BLOCK`` x ``BLOCK`` blocks of values ``[H, W]``, padded at the border with the edge values."""
    h, w = values.shape
    padded = np.pad(values, ((0, -h % BLOCK), (0, -w % BLOCK)), mode="edge")
    return cv2.resize(padded, (padded.shape[1] // BLOCK, padded.shape[0] // BLOCK), interpolation=cv2.INTER_AREA)


def straight_slots(slots: np.ndarray) -> np.ndarray:
    """Convert premultiplied slots uint8 ``[N, S, S, 4]`` to straight colours, extended into empty texels.

    Empty texels get increasingly coarse means of their surroundings (pull-push), so that neither bilinear look-ups nor
    a video codec mix in a wrong colour. An empty slot is grey.
    """
    out = slots.copy()
    for begin in range(0, len(slots), AT_ONCE):
        part = slots[begin : begin + AT_ONCE].astype(np.float32) / 255
        color, alpha = part[..., :3], part[..., 3:]
        weight = np.minimum(alpha * (255 / BLED), 1)
        straight = weight * color / np.maximum(alpha, 1e-3) + (1 - weight) * _pull_push(color, alpha)
        out[begin : begin + AT_ONCE, ..., :3] = np.round(straight.clip(0, 1) * 255)
    return out


def _pull_push(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Dense straight colours ``[N, S, S, 3]`` from premultiplied ones and their opacity ``[N, S, S, 1]``."""
    size = color.shape[1]
    if size == 1:
        return np.where(alpha > 1e-4, color / np.maximum(alpha, 1e-4), 0.5)
    half = [np.pad(x, ((0, 0), (0, size % 2), (0, size % 2), (0, 0))) for x in (color, alpha)]
    side = half[0].shape[1] // 2
    total_color, total = (x.reshape(len(x), side, 2, side, 2, -1).sum(axis=(2, 4)) for x in half)
    weight = np.minimum(total, 1)
    coarse = _pull_push(total_color / np.maximum(total, 1e-4) * weight, weight)
    wide = coarse.repeat(2, axis=1).repeat(2, axis=2)[:, :size, :size]
    return np.where(alpha > 0, color + (1 - alpha) * wide, wide)


@dataclass(frozen=True)
class Atlas:
    """The layout of slots in a picture: colour in its upper half, opacity as grey in the lower one.

    Attributes:
        count: number of slots.
        columns: slots per row.
        slot: side of a slot in texels.
        size: ``(h, w)`` of the picture, both even.
    """

    count: int
    columns: int
    slot: int
    size: tuple[int, int]

    @classmethod
    def of(cls, count: int, slot: int, largest: tuple[int, int], what: str) -> Atlas:
        """A roughly square layout for ``count`` slots.

        Args:
            count: number of slots.
            slot: side of a slot in texels.
            largest: limits in texels of the longer and of the shorter side.
            what: the contents, for the message.

        Raises:
            InputError: the slots don't fit within the limits.
        """
        longer, shorter = largest
        columns = max(1, min(math.ceil(math.sqrt(2 * count)), shorter // slot))
        rows = max(1, math.ceil(count / columns))
        size = 2 * rows * slot, columns * slot + columns * slot % 2
        if max(size) > longer or min(size) > shorter:
            raise InputError(
                f"{what}: {count} tiles of {slot} x {slot} texels don't fit into {longer} x {shorter}; give a smaller "
                f"--img_wh, fewer --layers, or for computers, not phones, a larger --atlas"
            )
        return cls(count, columns, slot, size)

    def draw(self, slots: np.ndarray) -> np.ndarray:
        """Draw slots uint8 ``[N, S, S, 4]`` into a picture ``[h, w, 3]``."""
        h, w = self.size
        rows = h // 2 // self.slot
        sheet = np.zeros((rows * self.columns, self.slot, self.slot, 4), dtype=np.uint8)
        sheet[: self.count] = slots
        sheet = sheet.reshape(rows, self.columns, self.slot, self.slot, 4).transpose(0, 2, 1, 3, 4)
        sheet = sheet.reshape(h // 2, self.columns * self.slot, 4)
        picture = np.zeros((h, w, 3), dtype=np.uint8)
        picture[: h // 2, : sheet.shape[1]] = sheet[..., :3]
        picture[h // 2 :, : sheet.shape[1]] = sheet[..., 3:]
        return picture

    def read(self, picture: np.ndarray) -> np.ndarray:
        """Read the slots of a picture back: straight colours and opacity, uint8 ``[N, S, S, 4]``."""
        h, _ = self.size
        width = self.columns * self.slot
        rgba = np.concatenate([picture[: h // 2, :width], picture[h // 2 :, :width, 1:2]], axis=-1)
        rgba = rgba.reshape(h // 2 // self.slot, self.slot, self.columns, self.slot, 4).transpose(0, 2, 1, 3, 4)
        return rgba.reshape(-1, self.slot, self.slot, 4)[: self.count]


def assemble(grid: TileGrid, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Build premultiplied layers uint8 ``[L, H, W, 4]`` from tiles ``[N, 3]`` and straight slots ``[N, S, S, 4]``."""
    _, rows, columns = grid.counts
    layers, h, w = grid.shape
    stacked = np.zeros((layers, rows, grid.size, columns, grid.size, 4), dtype=np.uint8)
    inner = slice(grid.gutter, grid.gutter + grid.size)
    for tiles, slots in parts:
        content = slots[:, inner, inner].astype(np.float32)
        content[..., :3] *= content[..., 3:] / 255
        layer, row, column = tiles.T
        stacked[layer, row, :, column] = np.round(content)
    return stacked.reshape(layers, rows * grid.size, columns * grid.size, 4)[:, :h, :w]
