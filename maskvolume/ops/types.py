"""What the operations return, and what a backend has to offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera

Sampling = Literal["exact", "original"]


@dataclass(frozen=True)
class Rendering:
    """A rendered view.

    Attributes:
        color: ``[..., 3, h, w]`` over black (multiplied by the opacity).
        opacity: ``[..., 1, h, w]`` in 0..1.
        disparity: ``[..., 1, h, w]`` 1 / depth in the MPI's camera, multiplied by the opacity.
    """

    color: Tensor
    opacity: Tensor
    disparity: Tensor


class Backend(Protocol):
    """One implementation of the operations; arguments have been checked. See ``maskvolume.ops``."""

    @property
    def stored_dtype(self) -> torch.dtype:
        """The type of planes that it renders many views of fastest."""
        ...

    def supports(self, device: torch.device) -> bool:
        """Whether it runs on a device of this machine."""
        ...

    def renders(self, rgba: Tensor) -> bool:
        """Whether it renders planes of this type, and with a gradient where one is wanted."""
        ...

    def sweep_planes(
        self, images: Tensor, sources: Camera, reference: Camera, depths: Tensor, sampling: Sampling
    ) -> Tensor: ...

    def render_mpi(
        self, rgba: Tensor, camera: Camera, depths: Tensor, target: Camera, premultiplied: bool
    ) -> Rendering: ...

    def render_blended(
        self,
        mask: Tensor,
        dynamic: Tensor,
        background: Tensor,
        camera: Camera,
        depths: Tensor,
        target: Camera,
        premultiplied: bool,
    ) -> Rendering: ...

    def composite(self, rgba: Tensor, depths: Tensor, premultiplied: bool) -> Rendering: ...
