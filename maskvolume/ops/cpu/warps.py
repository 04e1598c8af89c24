"""Rendering and plane sweeps on the CPU, by loops that Numba compiles on first use and caches on disk.

The functions match those for GPUs; both are kernels of the operators in ``maskvolume.ops.operators``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.ops.cpu import warp_kernels as kernels
from maskvolume.ops.cpu.threads import share
from maskvolume.ops.cpu.vectors import HALVES
from maskvolume.ops.reference.warps import plane_values

# The dtype of planes that many views are rendered from; half precision if the processor converts it.
STORED = torch.float16 if HALVES else torch.float32
PARTS = 4  # parts of a view per thread; few, since the first rows of each part are not prefetched
LINES = 64  # rows of a sweep per part
PLANE_CHUNK = 4  # planes of a sweep that are converted to another dtype together


def render_planes(
    rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, size: tuple[int, int], premultiplied: bool
) -> Tensor:
    """Render N views of each of B multiplane images.

    Args:
        rgba: ``[B, D, 4, H, W]``, plane 0 the farthest; uint8 stores value * 255. Contiguous uint8, float16
            (``MultiplaneImage.prepared``) and float32 are read directly; anything else is converted first.
        homographies: ``[B, N, D, 3, 3]`` target pixel to plane pixel (``render_homographies``).
        inverse_depths: ``[B, D]`` 1 / depth of the planes.
        size: ``(h, w)`` of the targets.
        premultiplied: whether colours are multiplied by their opacity.

    Returns:
        ``[B, N, 5, h, w]`` float32: colour over black, opacity, disparity.
    """
    return _render([rgba], homographies, inverse_depths, size, premultiplied)


def render_blended(
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    size: tuple[int, int],
    premultiplied: bool,
) -> Tensor:
    """Render ``mask * dynamic + (1 - mask) * background`` without storing the blend.

    Args:
        mask: ``[B, D, H, W]`` in 0..1.
        dynamic: ``[B, D, 4, H, W]`` planes as in ``render_planes``.
        background: ``[B, D, 4, H, W]``.
        homographies: ``[B, N, D, 3, 3]`` as in ``render_planes``.
        inverse_depths: ``[B, D]`` as in ``render_planes``.
        size: ``(h, w)`` of the targets.
        premultiplied: whether colours of both MPIs are multiplied by their opacity.

    Returns:
        ``[B, N, 5, h, w]`` float32: colour over black, opacity, disparity.
    """
    return _render([dynamic, background, mask], homographies, inverse_depths, size, premultiplied)


def _render(
    layers: list[Tensor],  # planes, or planes, background and mask
    homographies: Tensor,
    inverse_depths: Tensor,
    size: tuple[int, int],
    premultiplied: bool,
) -> Tensor:
    (count, _, height, width), (h, w) = layers[0].shape[1:], size
    out = np.empty((*homographies.shape[:2], 5, h, w), np.float32)
    if len(layers) == 1 and HALVES and layers[0].dtype == torch.float16:
        render_rows, flat = kernels.render_rows_of_halves, [_flat(layers[0]).view(np.uint16)]
    elif len(layers) == 1 and layers[0].dtype == torch.uint8:
        render_rows, flat = kernels.render_rows_of_bytes, [_flat(layers[0])]
    else:
        render_rows = kernels.render_rows if len(layers) == 1 else kernels.blend_rows
        flat = [_flat(plane_values(layer)) for layer in layers]
    matrices, inverse = homographies.float().contiguous().numpy(), inverse_depths.float().contiguous().numpy()
    band = max(h // (PARTS * torch.get_num_threads()), 1)
    for b, n in np.ndindex(*out.shape[:2]):

        def rows(first: int, b: int = b, n: int = n) -> None:
            render_rows(
                *(layer[b] for layer in flat), count, height, width, matrices[b, n], inverse[b], premultiplied,
                first, min(first + band, h), out[b, n],
            )  # fmt: skip

        share(rows, range(0, h, band))
    return torch.from_numpy(out)


def _flat(layer: Tensor) -> np.ndarray:
    """View ``[B, ...]`` as flat arrays."""
    return layer.detach().contiguous().flatten(1).numpy()


def sweep(images: Tensor, homographies: Tensor, size: tuple[int, int], original: bool) -> Tensor:
    """Warp pictures to planes.

    Args:
        images: ``[B, C, Hs, Ws]``.
        homographies: ``[B, D, 3, 3]`` reference pixel to source pixel over each plane (``sweep_homographies``).
        size: ``(h, w)`` of the reference.
        original: sample as the original does.

    Returns:
        ``[B, C, D, h, w]`` in the dtype of ``images``, -1 where there is no data.
    """
    (batch, channels), (h, w), planes = images.shape[:2], size, homographies.shape[1]
    swept = torch.empty(batch, channels, planes, h, w, dtype=images.dtype)
    for b in range(batch):
        matrices = homographies[b].float().contiguous().numpy()
        if planes > 1 and (matrices == matrices[0]).all():  # a source at the reference pose: all planes are equal
            swept[b] = sweep(images[b : b + 1], homographies[b : b + 1, :1], size, original)[0]
            continue
        image = images[b].detach().float()
        if not original:  # repeating a single row or column changes nothing
            image = F.pad(image, (0, image.shape[-1] == 1, 0, image.shape[-2] == 1), mode="replicate")
        picture = image.contiguous().numpy()
        if images.dtype == torch.float32:
            _sweep(kernels.sweep_rows, picture, matrices, original, swept[b].numpy())
            continue
        if HALVES and images.dtype == torch.float16:
            bits = swept[b].view(torch.uint16).numpy()
            _sweep(kernels.sweep_rows_to_halves, picture, matrices, original, bits)
            continue
        for start in range(0, planes, PLANE_CHUNK):
            chunk = matrices[start : start + PLANE_CHUNK]
            part = np.empty((channels, len(chunk), h, w), np.float32)
            _sweep(kernels.sweep_rows, picture, chunk, original, part)
            swept[b, :, start : start + len(chunk)] = torch.from_numpy(part)
    return swept


def _sweep(
    sweep_rows: Callable[..., None], picture: np.ndarray, homographies: np.ndarray, original: bool, out: np.ndarray
) -> None:
    lines = out.shape[1] * out.shape[2]

    def rows(first: int) -> None:
        sweep_rows(picture, homographies, original, first, min(first + LINES, lines), out)

    share(rows, range(0, lines, LINES))
