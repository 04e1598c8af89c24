"""The operations on the processor, by loops that Numba compiles at their first use and keeps on disk.

The same functions on tensors as those for GPUs; see ``maskvolume.ops.fused``, which makes torch operators of both.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from maskvolume.ops import compiled_kernels as kernels

BAND = 24  # rows that a thread takes at once, a multiple of a tile's
PLANE_CHUNK = 4  # planes of a sweep that are converted to another type together

_EMPTY = np.empty(0, np.float32)


def render_planes(
    rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, size: tuple[int, int], premultiplied: bool
) -> Tensor:
    """Views of multiplane images.

    Args:
        rgba: ``[B, D, 4, H, W]`` with any strides, plane 0 the farthest; uint8 stands for value * 255. Fastest where
            the four channels lie side by side (``MultiplaneImage.prepared``).
        homographies: ``[B, N, D, 3, 3]`` pixel of each of N targets to pixel of each plane (``render_homographies``).
        inverse_depths: ``[B, D]`` 1 / depth of the planes.
        size: ``(h, w)`` of the targets.
        premultiplied: whether colours are multiplied by their opacity.

    Returns:
        ``[B, N, 5, h, w]`` float32: colour over black, opacity, disparity.
    """
    rgba = _values(rgba)
    mask = np.zeros((0, 0, 0), np.float32)
    return _render(rgba, rgba, mask, False, homographies, inverse_depths, size, premultiplied)


def render_blended(
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    size: tuple[int, int],
    premultiplied: bool,
) -> Tensor:
    """Views of ``mask * dynamic + (1 - mask) * background``, which is never stored.

    Args:
        mask: ``[B, D, H, W]`` in 0..1.
        dynamic: ``[B, D, 4, H, W]`` planes; see ``render_planes``, also for what follows.
        background: the same.
        homographies: ``[B, N, D, 3, 3]``.
        inverse_depths: ``[B, D]``.
        size: ``(h, w)``.
        premultiplied: of both.

    Returns:
        ``[B, N, 5, h, w]`` float32: colour over black, opacity, disparity.
    """
    dynamic, background = _values(dynamic), _values(background)
    return _render(
        dynamic, background, mask.float().detach().numpy(), True, homographies, inverse_depths, size, premultiplied
    )


def _values(planes: Tensor) -> Tensor:
    """Planes in float32; bytes stand for value * 255."""
    return planes.float() / 255 if planes.dtype == torch.uint8 else planes.float()


def _render(
    rgba: Tensor,
    background: Tensor,
    mask: np.ndarray,
    blended: bool,
    homographies: Tensor,
    inverse_depths: Tensor,
    size: tuple[int, int],
    premultiplied: bool,
) -> Tensor:
    h, w = size
    out = np.empty((*homographies.shape[:2], 5, h, w), np.float32)
    planes, still = rgba.detach().numpy(), background.detach().numpy()
    matrices, inverse = homographies.float().contiguous().numpy(), inverse_depths.float().contiguous().numpy()
    for b in range(rgba.shape[0]):
        texels = rgba[b].movedim(1, 3)
        direct = not blended and texels.is_contiguous()
        flat = texels.reshape(-1).numpy() if direct else _EMPTY
        for n in range(out.shape[1]):

            def rows(first: int, b: int = b, n: int = n, flat: np.ndarray = flat) -> None:
                kernels.render_rows(
                    planes[b], still[b], mask[b] if blended else mask, blended, flat, matrices[b, n], inverse[b],
                    premultiplied, first, min(first + BAND, h), out[b, n],
                )  # fmt: skip

            share(rows, range(0, h, BAND))
    return torch.from_numpy(out)


def sweep(images: Tensor, homographies: Tensor, size: tuple[int, int], original: bool) -> Tensor:
    """Pictures warped to planes.

    Args:
        images: ``[B, C, Hs, Ws]``.
        homographies: ``[B, D, 3, 3]`` reference pixel to source pixel over each plane (``sweep_homographies``).
        size: ``(h, w)`` of the reference.
        original: the original's sampling instead of the exact one.

    Returns:
        ``[B, C, D, h, w]`` of the type of ``images``, -1 where there is no data.
    """
    (batch, channels), (h, w), planes = images.shape[:2], size, homographies.shape[1]
    swept = torch.empty(batch, channels, planes, h, w, dtype=images.dtype)
    for b in range(batch):
        image = images[b].detach().float().contiguous().numpy()
        matrices = homographies[b].float().contiguous().numpy()
        if planes > 1 and (matrices == matrices[0]).all():  # a source at the reference's place: all planes are alike
            swept[b] = sweep(images[b : b + 1], homographies[b : b + 1, :1], size, original)[0]
            continue
        if images.dtype == torch.float32:
            _sweep(image, matrices, original, swept[b].numpy())
            continue
        for start in range(0, planes, PLANE_CHUNK):
            chunk = matrices[start : start + PLANE_CHUNK]
            part = np.empty((channels, len(chunk), h, w), np.float32)
            _sweep(image, chunk, original, part)
            swept[b, :, start : start + len(chunk)] = torch.from_numpy(part)
    return swept


def _sweep(image: np.ndarray, homographies: np.ndarray, original: bool, out: np.ndarray) -> None:
    lines = out.shape[1] * out.shape[2]

    def rows(first: int) -> None:
        kernels.sweep_rows(image, homographies, original, first, min(first + BAND, lines), out)

    share(rows, range(0, lines, BAND))


def share(work: Callable[[int], None], items: range) -> None:
    """Do the work on each item, with as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        for item in items:
            work(item)
        return
    queue = iter(items)

    def take() -> None:
        for item in queue:  # each item goes to the thread that asks first
            work(item)

    for task in [_pool(multiprocessing.current_process().pid).submit(take) for _ in range(threads)]:
        task.result()


@cache
def _pool(process: int | None) -> ThreadPoolExecutor:
    """The threads of a process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(multiprocessing.cpu_count(), thread_name_prefix="maskvolume")
