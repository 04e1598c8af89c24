"""What a rendering needs of a method: the moments that it renders, and the views that it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from maskvolume.rendering.shots import Shots

Source = tuple[int, int]  # number of a camera and of a recorded frame: one picture of a clip


@dataclass(frozen=True)
class View:
    """A rendered view with nothing missing, or N of them.

    Attributes:
        color: ``[..., 3, h, w]`` in 0..1 on the renderer's device.
        disparity: ``[..., 1, h, w]`` 1 / depth in scene units.
        opacity: ``[..., 1, h, w]`` before unseen pixels were filled.
        mask: ``[..., 1, h, w]`` how much of the pixel comes from what moves; None where not asked for.
    """

    color: Tensor
    disparity: Tensor
    opacity: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """The shots of one time. What they share is made once.

    A method may keep more in a class of its own that extends this one.

    Attributes:
        time: in frames of the clip; 2.5 lies midway between frames 2 and 3.
        sources: the recorded pictures that the views of this moment are made from.
        batches: numbers of the shots, in the order of rendering; those of a batch can be rendered at once.
    """

    time: float
    sources: tuple[Source, ...]
    batches: tuple[tuple[int, ...], ...]


AnyMoment = TypeVar("AnyMoment", bound=Moment)


class Renderer(Protocol[AnyMoment]):
    """A method of view synthesis that is ready to render one clip; ``maskvolume.mpi.blending`` has one.

    The loop calls :meth:`begin` once, then for each moment :meth:`read` (in threads, ahead of the rest),
    :meth:`prepare`, and :meth:`render` for parts of its batches.
    """

    @property
    def device(self) -> torch.device:
        """Where views are made."""
        ...

    @property
    def depth_range(self) -> tuple[float, float]:
        """Nearest and farthest depth in scene units, which the 16-bit pictures of disparity span."""
        ...

    @property
    def has_masks(self) -> bool:
        """Whether views can have a mask."""
        ...

    @property
    def indices(self) -> tuple[int, ...]:
        """Numbers of the cameras that views are made from, the most important first."""
        ...

    def begin(self, shots: Shots, numbers: Sequence[int]) -> Sequence[AnyMoment]:
        """Divide shots into moments, in the order of rendering, and make what all of them share.

        Args:
            shots: all shots of the rendering.
            numbers: those to render now.

        Raises:
            InputError: a time that the method can't show, or a picture that can't be read.
        """
        ...

    def views_at_once(self, size: tuple[int, int]) -> int:
        """How many views of a size ``(h, w)`` to ask :meth:`render` for at once; asked after :meth:`begin`."""
        ...

    def read(self, source: Source) -> np.ndarray:
        """A recorded picture as :meth:`prepare` wants it, uint8 ``[H, W, 3]`` RGB; runs in other threads."""
        ...

    def prepare(self, moment: AnyMoment, pictures: Mapping[Source, np.ndarray]) -> None:
        """Make what the views of a moment share, and release that of the moment before.

        Args:
            moment: one of :meth:`begin`.
            pictures: of each of its sources.
        """
        ...

    def render(self, moment: AnyMoment, numbers: Sequence[int], *, with_mask: bool = False) -> View:
        """The views of shots of one batch, ``[N, ...]``; without the leading axis for a single one.

        Args:
            moment: the one that was prepared last.
            numbers: of the shots.
            with_mask: render masks too; only where ``has_masks``.
        """
        ...
