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
    """A batch of B samples, each with V source views and one target view.

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
        """Return the batch in page-locked memory, from which a GPU copies asynchronously; called by a DataLoader."""

        def pin(value: Any) -> Any:
            if isinstance(value, Camera):
                return replace(value, T_cam_world=value.T_cam_world.pin_memory(), K=value.K.pin_memory())
            return value.pin_memory() if isinstance(value, Tensor) else value

        return replace(self, **{field.name: pin(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class MovingBatch(ViewBatch):
    """A batch of views of scenes with moving objects, at one or several consecutive instants.

    Attributes:
        backgrounds: ``[B, V, 3, H, W]`` source views of the scene without its moving objects.
        matte: ``[B, 1, h, w]`` share of each target pixel that moving objects cover.
        later_images: ``[B, T-1, V, 3, H, W]`` the source views at the following instants; None for one instant.
        later_target_images: ``[B, T-1, 3, h, w]`` the target views at these instants, or None.
        later_mattes: ``[B, T-1, 1, h, w]`` the mattes at these instants, or None.
    """

    backgrounds: Tensor
    matte: Tensor
    later_images: Tensor | None = None
    later_target_images: Tensor | None = None
    later_mattes: Tensor | None = None


Batch = TypeVar("Batch", bound=ViewBatch)


def num_sources_of(step: int, num_sources: tuple[int, int]) -> int:
    """Return the number of source views of a step: steps cycle from the fewest to the most views.

    Args:
        step: index of the optimizer step, from 0.
        num_sources: fewest and most source views, both inclusive.
    """
    fewest, most = num_sources
    return fewest + step % (most - fewest + 1)


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches with the same picture sizes and number of views along the batch axis."""
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
