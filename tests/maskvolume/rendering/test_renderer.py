"""The protocol of renderers: the family of this project keeps to it, and its types can't be changed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from maskvolume.mpi.blending import BlendedMoment, BlendedRenderer
from maskvolume.rendering.renderer import Moment, Renderer, View


def test_the_multiplane_images_keep_to_the_protocol() -> None:
    names = {name for name in vars(Renderer) if not name.startswith("_")}
    assert names == {
        *("device", "depth_range", "has_masks", "indices"),
        *("begin", "views_at_once", "read", "prepare", "render"),
    }
    assert all(hasattr(BlendedRenderer, name) or name == "indices" for name in names)  # indices are set when it is made
    assert issubclass(BlendedMoment, Moment)


def test_views_and_moments_are_frozen() -> None:
    view = View(*[torch.zeros(1, 2, 2)] * 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.color = torch.ones(1)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Moment(0.0, (), ()).time = 1.0  # type: ignore[misc]
