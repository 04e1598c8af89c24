"""Shared parts of the Triton kernels: tiles of pixels, homographies, bilinear sampling of planes in any layout.

A program of a kernel computes one tile of pixels of one picture. Everything here is portable between GPU vendors.

Kernels pass tuples. A homography is its nine numbers, row by row. The taps of a pixel are the four texels around a
point: ``(column, row, exists, weight)``, with the position of the upper left one, and four values of ``exists`` and
``weight`` each, in the order upper left, upper right, lower left, lower right. Steps are strides in elements:
``(y, x)`` of a plane.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Kernel parameter types: a block of values, one pointer or a block of pointers, one value, a tuple of these.
from triton.language import tensor as Block
from triton.language import tensor as Pointer
from triton.language import tensor as Scalar
from triton.language import tuple as Tuple

# A tile is one warp wide, so that a warp reads and writes adjacent pixels, and a few rows high, so that the lower taps
# of a row are cached for the next row. Two pixels per thread keep enough reads in flight, with few enough registers for
# several programs to share a multiprocessor.
TILE_H, TILE_W = 8, 32
NUM_WARPS = 4
NUM_WARPS_BLENDED = 8  # one pixel per thread: with three tensors, two pixels would spill registers

# Rays end at a lower transmittance: the planes behind are invisible. In float64, rays never end.
SATURATED = 1e-4
NEVER = -1.0


def work_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which kernels compute: float64 for float64 input, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def launch_options(x: Tensor, num_warps: int = NUM_WARPS) -> dict[str, Any]:
    """Return the keyword arguments of every kernel for inputs with the dtype of ``x``."""
    work = tl.float64 if x.dtype == torch.float64 else tl.float32
    # Fused multiply-add: the default of Triton up to 3.9.
    compiler = {"num_warps": num_warps, "enable_fp_fusion": True}
    return {"WORK": work, "TILE_H": TILE_H, "TILE_W": TILE_W, **compiler}


def saturation(x: Tensor) -> float:
    """Return the transmittance at which a ray ends, for planes with the dtype of ``x``."""
    return NEVER if x.dtype == torch.float64 else SATURATED


def tile_count(size: tuple[int, int]) -> int:
    """Return the number of tiles in a picture of size ``(h, w)``."""
    h, w = size
    return -(-h // TILE_H) * -(-w // TILE_W)


def narrow(x: Tensor) -> Tensor:
    """Return ``x [..., H, W]``, copied if pixel offsets exceed 32 bits (unusual strides of huge data)."""
    (h, w), (step_y, step_x) = x.shape[-2:], x.stride()[-2:]
    return x if h * step_y + w * step_x < 2**31 else x.contiguous()


@triton.jit
def program_place(views: Scalar, h: Scalar, w: Scalar, TILE_H: tl.constexpr, TILE_W: tl.constexpr) -> Any:
    """Return batch, view and tile of this program.

    Views vary fastest: views along a path read nearly the same texels for the same tile, so concurrent programs share
    them in the cache.
    """
    tiles = ((h + TILE_H - 1) // TILE_H) * ((w + TILE_W - 1) // TILE_W)
    program = tl.program_id(0)
    rest = program // views
    return rest // tiles, program % views, rest % tiles


@triton.jit
def tile_pixels(tile: Scalar, h: Scalar, w: Scalar, TILE_H: tl.constexpr, TILE_W: tl.constexpr) -> Any:
    """Return first row and column of a tile, rows and columns of its pixels, and which pixels are in the picture."""
    tiles_x = (w + TILE_W - 1) // TILE_W
    first_row = (tile // tiles_x) * TILE_H
    first_column = (tile % tiles_x) * TILE_W
    pixel = tl.arange(0, TILE_H * TILE_W)
    row = first_row + pixel // TILE_W
    column = first_column + pixel % TILE_W
    return first_row, first_column, row, column, (row < h) & (column < w)


@triton.jit
def load_homography(pointer: Pointer) -> Any:
    """Load the nine numbers at ``pointer``."""
    a, b, c = tl.load(pointer), tl.load(pointer + 1), tl.load(pointer + 2)
    d, e, f = tl.load(pointer + 3), tl.load(pointer + 4), tl.load(pointer + 5)
    g, h, i = tl.load(pointer + 6), tl.load(pointer + 7), tl.load(pointer + 8)
    return a, b, c, d, e, f, g, h, i


@triton.jit
def may_see(
    homography: Tuple,
    first_row: Scalar,
    first_column: Scalar,
    H: Scalar,
    W: Scalar,
    WORK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> Any:
    """Return whether a tile may see a plane of H x W texels: False only if every pixel misses the plane.

    Homogeneous coordinates are linear in the pixel: their maximum over the tile is the value at its middle plus the
    absolute slopes times half the extent. In front of the target, u > -0.5 is x + 0.5 z > 0, without a division.
    """
    a, b, c, d, e, f, g, h, i = homography
    middle_x = first_column.to(WORK) + TILE_W / 2
    middle_y = first_row.to(WORK) + TILE_H / 2
    reach_x = (TILE_W - 1) / 2
    reach_y = (TILE_H - 1) / 2
    x = a * middle_x + b * middle_y + c
    y = d * middle_x + e * middle_y + f
    x_reach = tl.abs(a) * reach_x + tl.abs(b) * reach_y
    y_reach = tl.abs(d) * reach_x + tl.abs(e) * reach_y
    z = g * middle_x + h * middle_y + i + tl.abs(g) * reach_x + tl.abs(h) * reach_y  # the maximum
    across = (x + x_reach + 0.5 * z > 0) & ((W + 0.5) * z + x_reach - x > 0)
    down = (y + y_reach + 0.5 * z > 0) & ((H + 0.5) * z + y_reach - y > 0)
    return (z > 0) & across & down


@triton.jit
def map_pixels(homography: Tuple, row: Block, column: Block, WORK: tl.constexpr) -> Any:
    """Map pixels to the sampled picture: (x, y) in pixels with centres at +0.5, and which are in front."""
    a, b, c, d, e, f, g, h, i = homography
    x = column.to(WORK) + 0.5
    y = row.to(WORK) + 0.5
    z = g * x + h * y + i
    front = z > 0
    inverse = 1.0 / tl.where(front, z, 1.0)
    return (a * x + b * y + c) * inverse, (d * x + e * y + f) * inverse, front


@triton.jit
def make_taps(x: Block, y: Block, seen: Block, H: Scalar, W: Scalar) -> Any:
    """Return the taps for texel coordinates (centres at integers) in a picture of H x W that is 0 outside.

    Coordinates may have any value where ``seen`` is False.
    """
    seen = seen & (x > -1) & (x < W) & (y > -1) & (y < H)
    x = tl.where(seen, x, 0.0)
    y = tl.where(seen, y, 0.0)
    left, top = tl.floor(x), tl.floor(y)
    column, row = left.to(tl.int32), top.to(tl.int32)
    to_right, to_bottom = x - left, y - top
    to_left, to_top = 1.0 - to_right, 1.0 - to_bottom
    has_left, has_right = column >= 0, column + 1 < W
    has_top, has_bottom = seen & (row >= 0), seen & (row + 1 < H)
    exists = (has_top & has_left, has_top & has_right, has_bottom & has_left, has_bottom & has_right)
    weight = (to_top * to_left, to_top * to_right, to_bottom * to_left, to_bottom * to_right)
    return column, row, exists, weight


@triton.jit
def four(first: Pointer, step_y: Scalar, step_x: Scalar) -> Any:
    """Return pointers to four taps from the pointer to the upper left one."""
    below = first + step_y
    return first, first + step_x, below, below + step_x


@triton.jit
def columns_of(values: Tuple) -> Any:
    """Expand four blocks from ``[P]`` to ``[P, 1]``."""
    return values[0][:, None], values[1][:, None], values[2][:, None], values[3][:, None]


@triton.jit
def as_unit(value: Block, pointer: Pointer) -> Any:
    """Scale a value read through ``pointer`` to 0..1 if it is a byte."""
    if pointer.dtype.scalar.element_ty == tl.uint8:
        value = value * (1.0 / 255.0)
    return value


@triton.jit
def read(pointer: Pointer, exists: Block, WORK: tl.constexpr) -> Any:
    """Load values in the working dtype, 0 where they do not exist."""
    return tl.load(pointer, mask=exists, other=0).to(WORK)


@triton.jit
def read_four(pointers: Tuple, exists: Tuple, WORK: tl.constexpr) -> Any:
    """Load the values of four taps."""
    return (
        as_unit(read(pointers[0], exists[0], WORK), pointers[0]),
        as_unit(read(pointers[1], exists[1], WORK), pointers[1]),
        as_unit(read(pointers[2], exists[2], WORK), pointers[2]),
        as_unit(read(pointers[3], exists[3], WORK), pointers[3]),
    )


@triton.jit
def weigh(values: Tuple, weight: Tuple) -> Any:
    """Return the weighted sum of four values."""
    return weight[0] * values[0] + weight[1] * values[1] + weight[2] * values[2] + weight[3] * values[3]


@triton.jit
def sample(first: Pointer, step_y: Scalar, step_x: Scalar, exists: Tuple, weight: Tuple, WORK: tl.constexpr) -> Any:
    """Return bilinear samples from pointers to the upper left taps."""
    p = four(first, step_y, step_x)
    values = (
        read(p[0], exists[0], WORK),
        read(p[1], exists[1], WORK),
        read(p[2], exists[2], WORK),
        read(p[3], exists[3], WORK),
    )
    return as_unit(weigh(values, weight), first)


@triton.jit
def times(values: Tuple, others: Tuple) -> Any:
    """Multiply four values elementwise by four others."""
    return values[0] * others[0], values[1] * others[1], values[2] * others[2], values[3] * others[3]


@triton.jit
def add_four(pointers: Tuple, values: Tuple, exists: Tuple, shown: Block) -> Any:
    """Add values at four taps to a gradient, for pixels where ``shown``."""
    tl.atomic_add(pointers[0], values[0], mask=exists[0] & shown, sem="relaxed")
    tl.atomic_add(pointers[1], values[1], mask=exists[1] & shown, sem="relaxed")
    tl.atomic_add(pointers[2], values[2], mask=exists[2] & shown, sem="relaxed")
    tl.atomic_add(pointers[3], values[3], mask=exists[3] & shown, sem="relaxed")


@triton.jit
def larger(a: Scalar, b: Scalar) -> Any:
    """Return the larger value; combines values in ``tl.reduce``."""
    return tl.maximum(a, b)


# Whether kernels run in Triton's interpreter: TRITON_INTERPRET takes effect when they are defined.
INTERPRETED = not isinstance(larger, triton.JITFunction)
