"""Batches of views."""

from __future__ import annotations

import torch

from maskvolume.data.samples import join_batches, num_sources_of
from maskvolume.data.synthetic import WorldOptions, sample_worlds


def test_steps_take_turns_in_the_number_of_views() -> None:
    assert [num_sources_of(step, (2, 4)) for step in range(7)] == [2, 3, 4, 2, 3, 4, 2]


def test_joined_batches_are_their_parts() -> None:
    options = WorldOptions(size=(16, 24), num_sources=3)
    parts = [sample_worlds(options, 1, generator=seed, device="cpu") for seed in (1, 2)]
    joined = join_batches(parts)
    assert joined.images.shape[:2] == (2, 3)
    for b, part in enumerate(parts):
        assert torch.equal(joined.images[b], part.images[0])
        assert torch.equal(joined.sources.K[b], part.sources.K[0])
        assert torch.equal(joined.target.T_cam_world[b], part.target.T_cam_world[0])
        assert torch.equal(joined.near[b], part.near[0])
    assert joined.source_depth is None
