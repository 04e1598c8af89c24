"""Triton kernels of the operations and their gradients, for CUDA and ROCm, as plain functions on tensors.

This package imports without Triton, but then defines no kernels; ``usable`` returns whether they can run. Results are
on the device of the inputs. Inputs may have any strides and are not modified. ``tests/maskvolume/ops/triton`` compares
the kernels with ``maskvolume.ops.reference``; without a GPU they run in Triton's interpreter, which is only fast enough
for tests.

Axes: B batch, N views of each multiplane image, D planes (0 the farthest), C channels. Homographies map pixels of the
output picture, homogeneous with centres at +0.5, to pixels of the sampled picture.
"""

from __future__ import annotations

import torch

try:
    from maskvolume.ops.triton.aggregation import aggregate
    from maskvolume.ops.triton.common import INTERPRETED as _INTERPRETED
    from maskvolume.ops.triton.gradients import render_blended_backward, render_planes_backward
    from maskvolume.ops.triton.render import render_blended, render_planes
    from maskvolume.ops.triton.sweep import sweep, sweep_backward
except ImportError:  # no Triton on macOS and Windows; no tuples before Triton 3.3
    _AVAILABLE = _INTERPRETED = False
else:
    _AVAILABLE = True

__all__ = [
    "STORED",
    "aggregate",
    "render_blended",
    "render_blended_backward",
    "render_planes",
    "render_planes_backward",
    "sweep",
    "sweep_backward",
    "usable",
]

STORED = torch.float16  # dtype of planes that many views are rendered from


def usable(device: torch.device) -> bool:
    """Return whether the kernels run on a device: a CUDA or ROCm GPU, or the CPU in Triton's interpreter.

    The interpreter is active if TRITON_INTERPRET was 1 when this module was first imported.
    """
    return _AVAILABLE and (device.type == "cuda" or (_INTERPRETED and device.type == "cpu"))
