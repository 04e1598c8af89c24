"""The interface between the render loop and a view synthesis method: renderers, moments and views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from maskvolume.rendering.shots import Shots

Source = tuple[int, int]  # (camera, frame) numbers of one recorded picture


@dataclass(frozen=True)
class View:
    """A rendered view with unseen pixels filled, or N of them.

    Attributes:
        color: ``[..., 3, h, w]`` in 0..1, on the renderer's device.
        disparity: ``[..., 1, h, w]``, 1 / depth in scene units.
        opacity: ``[..., 1, h, w]`` in 0..1, before unseen pixels were filled.
        mask: ``[..., 1, h, w]`` in 0..1, the share of each pixel that comes from moving things; None if not requested.
    """

    color: Tensor
    disparity: Tensor
    opacity: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """The shots of one time, which share their preparation.

    A method may store additional data in a subclass.

    Attributes:
        time: in frames of the clip; 2.5 lies midway between frames 2 and 3.
        sources: the recorded pictures that the views of this moment are rendered from.
        batches: numbers of the shots, in rendering order; the shots of a batch can be rendered in one call.
    """

    time: float
    sources: tuple[Source, ...]
    batches: tuple[tuple[int, ...], ...]


AnyMoment = TypeVar("AnyMoment", bound=Moment)


class Renderer(Protocol[AnyMoment]):
    """A view synthesis method set up to render one clip; ``maskvolume.mpi.blending`` implements one.

    The loop calls :meth:`begin` once, then for each moment :meth:`read` (ahead of time, in threads), :meth:`prepare`,
    and :meth:`render` for parts of its batches.
    """

    @property
    def device(self) -> torch.device:
        """The device that computes the views."""
        ...

    @property
    def depth_range(self) -> tuple[float, float]:
        """Nearest and farthest depth in scene units; the range of 16-bit disparity pictures."""
        ...

    @property
    def has_masks(self) -> bool:
        """Whether the renderer can render masks."""
        ...

    @property
    def indices(self) -> tuple[int, ...]:
        """Numbers of the source cameras, the most important first."""
        ...

    def begin(self, shots: Shots, numbers: Sequence[int]) -> Sequence[AnyMoment]:
        """Group shots into moments and prepare what all moments share.

        Args:
            shots: all shots of the rendering.
            numbers: the shots to render now.

        Returns:
            The moments, in rendering order.

        Raises:
            InputError: the method can't show a time, or a picture can't be read.
        """
        ...

    def views_at_once(self, size: tuple[int, int]) -> int:
        """Number of views of size ``(h, w)`` to pass to :meth:`render` in one call; valid after :meth:`begin`."""
        ...

    def read(self, source: Source) -> np.ndarray:
        """Read a recorded picture for :meth:`prepare`, uint8 ``[H, W, 3]`` RGB; called from other threads."""
        ...

    def prepare(self, moment: AnyMoment, pictures: Mapping[Source, np.ndarray]) -> None:
        """Compute what the views of a moment share, and release the data of the previous moment.

        Args:
            moment: a moment returned by :meth:`begin`.
            pictures: uint8 ``[H, W, 3]`` RGB for each of its sources.
        """
        ...

    def render(self, moment: AnyMoment, numbers: Sequence[int], *, with_mask: bool = False) -> View:
        """Render shots of one batch.

        Args:
            moment: the moment that was prepared last.
            numbers: N numbers of shots.
            with_mask: render masks too; requires ``has_masks``.

        Returns:
            Views ``[N, ...]``, without the leading axis for a single shot.
        """
        ...
