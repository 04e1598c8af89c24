"""What a rendering needs of a method: the views that a renderer returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class View:
    """A rendered view with nothing missing, or N of them.

    Attributes:
        color: ``[..., 3, h, w]`` in 0..1 on the model's device.
        disparity: ``[..., 1, h, w]`` 1 / depth in scene units.
        opacity: ``[..., 1, h, w]`` before unseen pixels were filled.
        mask: ``[..., 1, h, w]`` how much of the pixel comes from what moves; None where not asked for.
    """

    color: Tensor
    disparity: Tensor
    opacity: Tensor
    mask: Tensor | None = None
