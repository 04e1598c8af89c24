"""Training samples: posed source views and a target view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera


@dataclass(frozen=True)
class ViewBatch:
    """B times V source views and a target.

    Attributes:
        images: ``[B, V, 3, H, W]`` source views in 0..1.
        sources: cameras ``[B, V]``; view 0 is the reference.
        target: cameras ``[B]``, of their own size (h, w).
        target_image: ``[B, 3, h, w]`` in 0..1.
        near: ``[B]`` depth of the nearest plane, in the reference view.
        far: ``[B]`` depth of the farthest plane.
    """

    images: Tensor
    sources: Camera
    target: Camera
    target_image: Tensor
    near: Tensor
    far: Tensor

    def pin_memory(self) -> ViewBatch:
        """The same batch in page-locked memory, which a GPU reads asynchronously; a DataLoader calls this."""

        def pin(value: Any) -> Any:
            if isinstance(value, Camera):
                return replace(value, T_cam_world=value.T_cam_world.pin_memory(), K=value.K.pin_memory())
            return value.pin_memory() if isinstance(value, Tensor) else value

        return replace(self, **{field.name: pin(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class MovingBatch(ViewBatch):
    """Views of scenes in which something moves, at one instant or at several consecutive ones.

    Attributes:
        backgrounds: ``[B, V, 3, H, W]`` each source's view of the scene without its moving objects.
        matte: ``[B, 1, h, w]`` share of each target pixel that moving objects cover.
        later_images: ``[B, T-1, V, 3, H, W]`` the source views at the following instants, or None.
        later_target_images: ``[B, T-1, 3, h, w]`` the target views of these instants.
        later_mattes: ``[B, T-1, 1, h, w]`` the mattes of these instants.
    """

    backgrounds: Tensor
    matte: Tensor
    later_images: Tensor | None = None
    later_target_images: Tensor | None = None
    later_mattes: Tensor | None = None


Batch = TypeVar("Batch", bound=ViewBatch)


def num_sources_of(step: int, num_sources: tuple[int, int]) -> int:
    """The number of source views of a step: the steps take turns, from the fewest to the most views."""
    fewest, most = num_sources
    return fewest + step % (most - fewest + 1)


def join_batches(batches: Sequence[Batch]) -> Batch:
    """One batch of several, all of the same sizes and number of views."""
    if len(batches) == 1:
        return batches[0]
    joined: dict[str, Any] = {}
    for field in fields(batches[0]):
        values = [getattr(batch, field.name) for batch in batches]
        if isinstance(values[0], Camera):
            poses, K = torch.cat([c.T_cam_world for c in values]), torch.cat([c.K for c in values])
            joined[field.name] = Camera(poses, K, values[0].size)
        else:
            joined[field.name] = None if values[0] is None else torch.cat(values)
    return replace(batches[0], **joined)
