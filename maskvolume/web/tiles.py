"""Layers cut into tiles: which are empty, which stay the same, which move, and the pictures that hold them.

Layers are uint8 ``[L, H, W, 4]``, premultiplied. A tile is a square of ``size`` texels of a layer; in an atlas it lies
in a slot with a gutter around it, which has the texels of its neighbours, so that a bilinear look-up has no seams.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from maskvolume.runtime.errors import InputError

EMPTY = 4  # levels of opacity, up to which a texel is empty
BLED = 24  # levels of opacity, below which a colour is taken in part from around it
AT_ONCE = 64  # slots whose colours are made at once: what a processor's cache holds
BLOCK = 4  # texels a side over which changes are averaged, so that noise of a texel is none
STILL = 12.0  # levels that a block of a still tile differs from its mean over time, at most


@dataclass(frozen=True)
class TileGrid:
    """How layers are cut.

    Attributes:
        shape: ``(L, H, W)`` of the layers.
        size: texels of a tile, a side.
        gutter: texels around it in a slot.
    """

    shape: tuple[int, int, int]
    size: int = 28
    gutter: int = 2

    @property
    def slot(self) -> int:
        """Texels of a slot, a side."""
        return self.size + 2 * self.gutter

    @property
    def counts(self) -> tuple[int, int, int]:
        """``(layers, rows, columns)`` of tiles."""
        layers, h, w = self.shape
        return layers, math.ceil(h / self.size), math.ceil(w / self.size)

    def padded(self, layers: np.ndarray) -> np.ndarray:
        """Layers ``[L, H, W, ...]`` with zeros around, so that all slots lie within."""
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
        """The largest of the values of each tile ``[rows, columns]``, of one value every so many texels a side."""
        _, rows, columns = self.counts
        side = self.size // every
        h, w = values.shape
        padded = np.pad(values, ((0, rows * side - h), (0, columns * side - w)))
        return padded.reshape(rows, side, columns, side).max(axis=(1, 3))


@dataclass(frozen=True)
class Tiles:
    """The tiles of a clip that show something: ``[N, 3]`` (layer, row, column), the farthest layer first."""

    still: np.ndarray
    moving: np.ndarray


class Changes:
    """Finds what stays the same in a clip: fed with its frames twice, first for the mean and then for the changes.

    What no viewpoint sees counts as nothing.
    """

    def __init__(self, grid: TileGrid) -> None:
        self.grid = grid
        self._sum = np.zeros((*grid.shape, 4), dtype=np.float32)
        self._count = 0
        self._most = np.zeros(grid.counts, dtype=np.float32)  # opacity of a tile's texels that is seen, at its highest
        self._change = np.zeros(grid.counts, dtype=np.float32)  # of a tile, at its largest

    def add(self, layers: np.ndarray) -> None:
        """First round: a frame, uint8 ``[L, H, W, 4]``."""
        for total, layer in zip(self._sum, layers, strict=True):
            cv2.accumulate(layer, total)
        self._count += 1

    @property
    def mean(self) -> np.ndarray:
        """The mean of the frames, uint8 ``[L, H, W, 4]``."""
        return np.stack([np.round(total / self._count).astype(np.uint8) for total in self._sum])

    def compare(self, layers: np.ndarray, mean: np.ndarray, seen: np.ndarray) -> None:
        """Second round: a frame again, ``mean``, and how much of each texel is seen, ``[L, H, W]`` in 0..1."""
        for number, (layer, still, share) in enumerate(zip(layers, mean, seen, strict=True)):
            change = cv2.absdiff(layer, still).max(axis=-1) * share
            blocks = self.grid.largest(_block_means(change), BLOCK)
            np.maximum(self._change[number], blocks, out=self._change[number])
            most = self.grid.largest(layer[..., 3] * share)
            np.maximum(self._most[number], most, out=self._most[number])

    def tiles(self) -> Tiles:
        """What was found."""
        shown = self._most > EMPTY
        moves = shown & (self._change > STILL)
        return Tiles(np.argwhere(shown & ~moves), np.argwhere(moves))


def _block_means(values: np.ndarray) -> np.ndarray:
    """The means of blocks of ``BLOCK`` x ``BLOCK`` of values ``[H, W]``; at the ends of what there is."""
    h, w = values.shape
    padded = np.pad(values, ((0, -h % BLOCK), (0, -w % BLOCK)), mode="edge")
    return cv2.resize(padded, (padded.shape[1] // BLOCK, padded.shape[0] // BLOCK), interpolation=cv2.INTER_AREA)


def straight_slots(slots: np.ndarray) -> np.ndarray:
    """Premultiplied slots uint8 ``[N, S, S, 4]`` with straight colours, which go on into empty texels.

    There they come from ever coarser means of what is around (pull-push), so that neither a bilinear look-up nor a
    video's codec mixes in a colour that is not there. A slot without anything is grey.
    """
    out = slots.copy()
    for begin in range(0, len(slots), AT_ONCE):
        part = slots[begin : begin + AT_ONCE].astype(np.float32) / 255
        color, alpha = part[..., :3], part[..., 3:]
        sure = np.minimum(alpha * (255 / BLED), 1)
        straight = sure * color / np.maximum(alpha, 1e-3) + (1 - sure) * _pull_push(color, alpha)
        out[begin : begin + AT_ONCE, ..., :3] = np.round(straight.clip(0, 1) * 255)
    return out


def _pull_push(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight colours everywhere ``[N, S, S, 3]``, from premultiplied ones and their opacity ``[N, S, S, 1]``."""
    size = color.shape[1]
    if size == 1:
        return np.where(alpha > 1e-4, color / np.maximum(alpha, 1e-4), 0.5)
    half = [np.pad(x, ((0, 0), (0, size % 2), (0, size % 2), (0, 0))) for x in (color, alpha)]
    side = half[0].shape[1] // 2
    total_color, total = (x.reshape(len(x), side, 2, side, 2, -1).sum(axis=(2, 4)) for x in half)
    sure = np.minimum(total, 1)
    coarse = _pull_push(total_color / np.maximum(total, 1e-4) * sure, sure)
    wide = coarse.repeat(2, axis=1).repeat(2, axis=2)[:, :size, :size]
    return np.where(alpha > 0, color + (1 - alpha) * wide, wide)


@dataclass(frozen=True)
class Atlas:
    """Where slots lie in a picture: colour in its upper half, opacity as grey in the lower one.

    Attributes:
        count: of the slots.
        columns: slots in a row.
        slot: texels of a slot, a side.
        size: ``(h, w)`` of the picture, both even.
    """

    count: int
    columns: int
    slot: int
    size: tuple[int, int]

    @classmethod
    def of(cls, count: int, slot: int, largest: tuple[int, int], what: str) -> Atlas:
        """About as wide as high.

        Args:
            count: of the slots.
            slot: texels of one, a side.
            largest: texels of the longer and of the shorter side, at most.
            what: lies in it, for the message.

        Raises:
            InputError: it doesn't fit.
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
        """Slots uint8 ``[N, S, S, 4]`` as the picture ``[h, w, 3]``."""
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
        """The slots of a picture again: straight colours and opacity, uint8 ``[N, S, S, 4]``."""
        h, _ = self.size
        width = self.columns * self.slot
        rgba = np.concatenate([picture[: h // 2, :width], picture[h // 2 :, :width, 1:2]], axis=-1)
        rgba = rgba.reshape(h // 2 // self.slot, self.slot, self.columns, self.slot, 4).transpose(0, 2, 1, 3, 4)
        return rgba.reshape(-1, self.slot, self.slot, 4)[: self.count]


def assemble(grid: TileGrid, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Layers uint8 ``[L, H, W, 4]``, premultiplied, from tiles ``[N, 3]`` and their straight slots ``[N, S, S, 4]``."""
    _, rows, columns = grid.counts
    layers, h, w = grid.shape
    whole = np.zeros((layers, rows, grid.size, columns, grid.size, 4), dtype=np.uint8)
    inner = slice(grid.gutter, grid.gutter + grid.size)
    for tiles, slots in parts:
        content = slots[:, inner, inner].astype(np.float32)
        content[..., :3] *= content[..., 3:] / 255
        layer, row, column = tiles.T
        whole[layer, row, :, column] = np.round(content)
    return whole.reshape(layers, rows * grid.size, columns * grid.size, 4)[:, :h, :w]
