"""The operations as Triton kernels, for CUDA and ROCm: plain functions on tensors, with their gradients beside them.

Importing this needs no Triton; ``usable`` says whether the functions can run, and where they can't they don't exist.
All give their results on the device of their inputs, take inputs of any strides and change none.
``tests/maskvolume/ops/triton`` compares them with ``maskvolume.ops.reference``, without a GPU in Triton's
interpreter, which is far too slow for anything else.

Axes: B batch, N views of each multiplane image, D planes (0 the farthest), C channels. Homographies map pixels of
the picture that is made, homogeneous with centres at +0.5, to pixels of the picture that is sampled.
"""

from __future__ import annotations

import torch

try:
    from maskvolume.ops.triton.aggregation import aggregate
    from maskvolume.ops.triton.common import INTERPRETED as _INTERPRETED
    from maskvolume.ops.triton.gradients import render_blended_backward, render_planes_backward
    from maskvolume.ops.triton.render import render_blended, render_planes
    from maskvolume.ops.triton.sweep import sweep, sweep_backward
except ImportError:  # macOS and Windows have no Triton; one older than 3.3 has no tuples
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

STORED = torch.float16  # planes that many views are rendered of


def usable(device: torch.device) -> bool:
    """Whether the kernels can run on a device: a GPU of CUDA or ROCm, or the CPU in Triton's interpreter.

    The interpreter is on if TRITON_INTERPRET was 1 when this module was first imported.
    """
    return _AVAILABLE and (device.type == "cuda" or (_INTERPRETED and device.type == "cpu"))
