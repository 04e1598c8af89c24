"""Which pixels the figures of novel views are about."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.quality.regions import disoccluded, flicker, static_pixels
from maskvolume.data.synthetic import SyntheticSample, WorldOptions, sample_worlds
from maskvolume.geometry.cameras import Camera


@pytest.fixture(scope="module")
def world() -> SyntheticSample:
    options = WorldOptions(
        size=(72, 96), moving=True, shadow_share=0.0, num_movers=(3, 4), mover_size=(0.2, 0.4), instants=2,
        gain=0.0, white_balance=0.0, blur=0.0, noise=0.0, block_noise_share=0.0,
    )  # fmt: skip
    return sample_worlds(options, 1, generator=21, device="cpu")


def test_a_wall_behind_a_mover_is_hidden_where_geometry_says() -> None:
    """A frontal wall at depth 4, and a matte of columns 10 to 19 in a camera that stands 0.2 to the right."""
    K = torch.tensor([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
    T = torch.eye(4).repeat(2, 1, 1)
    T[1, 0, 3] = -0.2
    target, sources = Camera(torch.eye(4), K, (48, 64)), Camera(T, K.expand(2, 3, 3), (48, 64))
    mattes = torch.zeros(2, 1, 48, 64)
    mattes[1, :, :, 10:20] = 1.0
    hidden = disoccluded(torch.full((1, 48, 64), 4.0), target, sources, mattes)
    shift = int(40 * 0.2 / 4)
    expected = torch.zeros(1, 48, 64, dtype=torch.bool)
    expected[:, :, 10 + shift : 20 + shift] = True
    assert torch.equal(hidden, expected)
    behind = replace(sources, T_cam_world=sources.T_cam_world - torch.tensor([0, 0, 0, 9.0]).diag().roll(-1, 1) * 0)
    behind.T_cam_world[:, 2, 3] = -9.0  # the wall is behind these cameras
    assert not disoccluded(torch.full((1, 48, 64), 4.0), target, behind, torch.ones(2, 1, 48, 64)).any()


def test_what_a_world_hides_differs_from_its_background_there(world: SyntheticSample) -> None:
    """Uncovered pixels, looked up in a source, show the mover: frame and background of the source differ."""
    target, sources = world.target[0], world.sources[0]
    mattes = world.source_mattes[0, 0]
    uncovered = disoccluded(world.target_background_depth[0], target, sources, mattes)
    assert 0.001 < uncovered.float().mean() < 0.7
    none = disoccluded(world.target_background_depth[0], target, sources, torch.zeros_like(mattes))
    assert not none.any()
    changed = (world.images[0] - world.backgrounds[0]).abs().sum(1, keepdim=True)
    assert changed[mattes == 1].mean() > 10 * changed[mattes == 0].mean()


def test_only_what_stands_still_counts_for_flicker(world: SyntheticSample) -> None:
    assert world.later_target_images is not None
    assert world.later_mattes is not None
    before, after = world.target_image[0], world.later_target_images[0, 0]
    moving = (world.matte[0] > 0) | (world.later_mattes[0, 0] > 0)
    still = static_pixels(before, after, moving)
    assert not (still & moving).any()
    assert still.float().mean() > 0.4
    assert flicker(before, after, still) == 0
    assert flicker(before, after, torch.ones_like(still)) > 0.5
    noisy = before + 0.02 * torch.ones_like(before)
    assert flicker(before, noisy, still) == pytest.approx(0.02 * 255, rel=1e-4)
    assert math.isnan(flicker(before, after, torch.zeros_like(still)))
    # A shadow that nothing moving casts into the matte is no standstill either.
    shaded = after.clone()
    shaded[:, 10:30, 10:30] *= 0.5
    assert not static_pixels(before, shaded, torch.zeros_like(moving))[:, 14:26, 14:26][
        :, (before[:, 14:26, 14:26].mean(0) > 0.1)
    ].any()
    assert np.isfinite(before).all()
