"""The background of a fixed camera: the median over time of each pixel, in bounded memory.

The median of an even number of values is the lower of the two middle values, so every value of the
exact result was recorded at that pixel. Colour channels are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from maskvolume.clips.layouts import Layout, list_pictures
from maskvolume.io.files import require_writable_folder
from maskvolume.io.images import read_image, write_image
from maskvolume.runtime.errors import InputError

MEMORY_BUDGET = 512 * 2**20
CACHE_BYTES = 2**20  # working set of a strip if all pictures are in memory; fits the CPU cache
DIGIT_BITS = 2  # bits of the median found per pass over the pictures; 4 passes in total
DIGITS = 2**DIGIT_BITS
BIN_WIDTH = 4  # grey levels per histogram bin; the result is off by at most 2
_STRIP_VALUES = 2**16

MedianMethod = Literal["exact", "histogram"]
Picture = NDArray[np.uint8]
PictureReader = Callable[[int], Picture]


def temporal_median(read: PictureReader, count: int, *, budget: int = MEMORY_BUDGET) -> Picture:
    """Exact median over time of ``count`` pictures, each ``uint8 [H, W, C]`` or ``[H, W]``.

    Args:
        read: returns picture ``i`` in 0..count-1; called in ascending order. Each picture is read once if
            all of them fit in the budget, else 4 times (more for a picture larger than the budget).
        count: number of pictures, >= 1.
        budget: maximum bytes held besides the picture being read and the result, for any ``count``;
            one row of the picture is the minimum.

    Returns:
        ``uint8``, with the shape of a picture.

    Raises:
        ValueError: ``count`` is below 1, or a picture has another type or shape than expected.
    """
    # Counting is exact and needs no stack: 12 bytes per value for any length, where a stack needs one byte
    # per value and picture. Two bits per pass need half the decoding of a bisection, with three counters, not one.
    first = _first_picture(read, count)
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


def histogram_median(read: PictureReader, count: int) -> Picture:
    """Median over time to within 2 grey levels, from one pass over the pictures.

    Each value is counted in one of 64 bins of ``BIN_WIDTH`` grey levels; the result is the middle of the bin that
    holds the median. Memory is 64 counters per value for any ``count``: of 1 byte up to 255 pictures, 2 up to 65535.

    Args:
        read: returns picture ``i`` in 0..count-1, each ``uint8`` of the same shape; called once for each, in order.
        count: number of pictures, >= 1.

    Returns:
        ``uint8``, with the shape of a picture.

    Raises:
        ValueError: ``count`` is below 1, or a picture has another type or shape than expected.
    """
    first = _first_picture(read, count)
    num_bins = 256 // BIN_WIDTH
    counts = np.zeros((first.size, num_bins), np.min_scalar_type(count))
    strips = [slice(start, min(start + _STRIP_VALUES, first.size)) for start in range(0, first.size, _STRIP_VALUES)]
    places = np.arange(_STRIP_VALUES) * num_bins
    for i in range(count):
        picture = read(i) if i else first
        if picture.shape != first.shape:
            raise ValueError(f"read({i}): shape {list(first.shape)} expected, got {list(picture.shape)}")
        values = picture.reshape(-1)
        for strip in strips:
            bins = values[strip] // BIN_WIDTH
            counts[strip].reshape(-1)[places[: len(bins)] + bins] += 1
    result = np.empty(first.size, np.uint8)
    for strip in strips:
        below = counts[strip].cumsum(axis=1, dtype=np.uint32) <= (count - 1) // 2
        result[strip] = below.sum(axis=1) * BIN_WIDTH + BIN_WIDTH // 2
    return result.reshape(first.shape)


def make_backgrounds(
    layout: Layout,
    cameras: Sequence[int],
    folder: Path,
    frames: Sequence[int],
    *,
    method: MedianMethod = "exact",
    overwrite: bool = False,
    notice: str = "",
) -> list[int]:
    """Write the background of each camera as ``folder/NAME.png``; intact existing pictures are kept.

    Args:
        layout: the recording.
        cameras: the cameras to compute backgrounds for.
        folder: the output folder, created if missing.
        frames: positions of the frames in the recording, ascending, whose median is computed.
        method: ``exact``, or ``histogram``, which reads each frame once; see ``histogram_median``.
        overwrite: replace existing pictures.
        notice: printed before the first background is computed; not printed if there is none to compute.

    Returns:
        The cameras whose background was computed.

    Raises:
        InputError: a frame cannot be read, or the folder cannot be written.
    """
    require_writable_folder(folder)
    there = list_pictures(folder)
    missing = [camera for camera in cameras if overwrite or not _is_whole(there.get(layout.names[camera]))]
    if missing and notice:
        print(notice)
    median = histogram_median if method == "histogram" else temporal_median
    for camera in tqdm(missing, desc="backgrounds", unit="camera", disable=None):
        background = folder / f"{layout.names[camera]}.png"
        write_image(background, median(_reader(layout, camera, frames), len(frames)))
        old = there.get(background.stem)
        if old is not None and old.name != background.name:
            old.unlink()
        layout.source.release(camera)
    return missing


def _reader(layout: Layout, camera: int, frames: Sequence[int]) -> PictureReader:
    return lambda i: layout.source.read(camera, frames[i])


def _is_whole(picture: Path | None) -> bool:
    if picture is None:
        return False
    try:
        read_image(picture)
    except InputError:
        return False
    return True


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most ``count`` (>= 1) evenly spaced numbers of 0..total-1; two or more include the first and the last."""
    if count >= total:
        return list(range(total))
    if count == 1:
        return [total // 2]
    return [i * (total - 1) // (count - 1) for i in range(count)]


def _first_picture(read: PictureReader, count: int) -> Picture:
    if count < 1:
        raise ValueError(f"count: at least 1 picture expected, got {count}")
    first = read(0)
    if first.dtype != np.uint8:
        raise ValueError(f"read(0): uint8 expected, got {first.dtype}")
    return first


def _held(read: PictureReader, count: int, first: Picture) -> PictureReader:
    """A reader that holds all pictures in memory."""
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
    """Fill ``result`` with the largest value that has at most ``(count - 1) // 2`` values below it."""
    middle = (count - 1) // 2
    result[:] = 0
    below = np.empty((DIGITS - 1, *result.shape), counter)
    for shift in range(8 - DIGIT_BITS, -1, -DIGIT_BITS):
        below[:] = 0
        for strip in _strips(read, count, shape, rows):
            for digit in range(1, DIGITS):
                below[digit - 1] += strip < result + np.uint8(digit << shift)
        digits = (below <= middle).sum(axis=0, dtype=np.uint8)  # the counts increase with the digit
        result += digits << np.uint8(shift)
