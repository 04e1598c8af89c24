"""Casting rays: smooth edges, and one batch equal to single rectangles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from synthetic_helpers import CLEAN, MOVING

from maskvolume.data.synthetic import sample_worlds
from maskvolume.data.synthetic.raycast import RayCaster


def test_more_rays_make_smoother_edges() -> None:
    """Few rays per pixel approach the picture of many."""
    pictures = [
        sample_worlds(replace(CLEAN, rays_per_side=n), 4, generator=11, device="cpu").target_image for n in (1, 2, 4)
    ]
    one, two = ((picture - pictures[2]).abs().mean() for picture in pictures[:2])
    assert two < 0.75 * one


def test_one_batch_of_all_worlds_is_what_rectangles_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices other than the CPU cast whole pictures of all worlds at once."""
    options = replace(MOVING, shadow_share=1.0, source_depth=False)
    by_rectangles = sample_worlds(options, 3, generator=13, device="cpu")
    start = RayCaster.__init__

    def start_batched(self: RayCaster, *args: Any) -> None:
        start(self, *args, by_rectangles=False)

    monkeypatch.setattr(RayCaster, "__init__", start_batched)
    batched = sample_worlds(options, 3, generator=13, device="cpu")
    for name in ("images", "backgrounds", "target_image", "target_background", "matte"):
        difference = (getattr(batched, name) - getattr(by_rectangles, name)).abs()
        assert difference.mean() < 1e-3, name
        assert (difference > 0.02).float().mean() < 5e-3, name
    assert torch.allclose(batched.near, by_rectangles.near, rtol=1e-3)
