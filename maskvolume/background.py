"""The background of a fixed camera: the median over time of each pixel, in bounded memory.

The median of an even number of values is the lower of the two in the middle, so every value of the
result is one that the camera recorded at that pixel. Colour channels are taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

MEMORY_BUDGET = 512 * 2**20
CACHE_BYTES = 2**20  # working set of a strip whose pictures are in memory: stays in the processor's cache
DIGIT_BITS = 2  # found in one pass over the pictures; 4 passes in all
DIGITS = 2**DIGIT_BITS

Picture = NDArray[np.uint8]
PictureReader = Callable[[int], Picture]


def temporal_median(read: PictureReader, count: int, *, budget: int = MEMORY_BUDGET) -> Picture:
    """Exact median over time of ``count`` pictures, each ``uint8 [H, W, C]`` or ``[H, W]``.

    Args:
        read: gives picture ``i`` in 0..count-1; called in rising order. Each picture is read once if
            all of them fit in the budget, else 4 times (more for a picture larger than the budget).
        count: number of pictures, >= 1.
        budget: bytes held at once besides the picture being read and the result, however large
            ``count`` is; never less than what one row of the picture takes.

    Returns:
        ``uint8``, of the shape of a picture.
    """
    # Counting is exact and needs no stack: 12 bytes a value for any length, where a stack needs one byte
    # a value and picture. Two bits a pass halve the decoding of a bisection for three counters, not one.
    if count < 1:
        raise ValueError(f"count: at least 1 picture expected, got {count}")
    first = read(0)
    if first.dtype != np.uint8:
        raise ValueError(f"read(0): uint8 expected, got {first.dtype}")
    shape = first.shape
    row_values = max(first[0].size, 1)
    counter = np.dtype(np.uint16 if count < 2**16 else np.uint32)
    row_bytes = row_values * ((DIGITS - 1) * (counter.itemsize + 1) + 3)
    strip_bytes = budget
    if (row_bytes + row_values * count) * shape[0] <= budget:
        read = _held(read, count, first)
        strip_bytes = min(budget, CACHE_BYTES)
    del first
    result = np.empty(shape, np.uint8)
    rows = max(strip_bytes // row_bytes, 1)
    for top in range(0, shape[0], rows):
        strip = slice(top, min(top + rows, shape[0]))
        _fill_strip(result[strip], read, count, strip, shape, counter)
    return result


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most ``count`` (>= 1) of the numbers 0..total-1, evenly spaced, first and last among them."""
    if count >= total:
        return list(range(total))
    if count == 1:
        return [total // 2]
    return [i * (total - 1) // (count - 1) for i in range(count)]


def _held(read: PictureReader, count: int, first: Picture) -> PictureReader:
    """A reader of the same pictures from memory."""
    stack = [first, *(read(i) for i in range(1, count))]
    return stack.__getitem__


def _strips(read: PictureReader, count: int, shape: tuple[int, ...], rows: slice) -> Iterator[Picture]:
    for i in range(count):
        picture = read(i)
        if picture.shape != shape:
            raise ValueError(f"read({i}): shape {list(shape)} expected, got {list(picture.shape)}")
        yield picture[rows]


def _fill_strip(
    result: Picture,
    read: PictureReader,
    count: int,
    rows: slice,
    shape: tuple[int, ...],
    counter: np.dtype,
) -> None:
    """Fill ``result`` with the largest v that has at most ``(count - 1) // 2`` values below it."""
    middle = (count - 1) // 2
    result[:] = 0
    below = np.empty((DIGITS - 1, *result.shape), counter)
    for shift in range(8 - DIGIT_BITS, -1, -DIGIT_BITS):
        below[:] = 0
        for strip in _strips(read, count, shape, rows):
            for digit in range(1, DIGITS):
                below[digit - 1] += strip < result + np.uint8(digit << shift)
        digits = (below <= middle).sum(axis=0, dtype=np.uint8)  # the counts rise with the digit
        result += digits << np.uint8(shift)
