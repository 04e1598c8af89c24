"""Effects of cameras on rendered pictures."""

from __future__ import annotations

from dataclasses import replace

import torch
from synthetic_helpers import CLEAN

from maskvolume.data.synthetic import sample_worlds


def test_effects_change_pictures_but_little() -> None:
    options = replace(CLEAN, gain=0.03, white_balance=0.015, blur=0.6, noise=0.012, block_noise_share=1.0)
    plain = sample_worlds(CLEAN, 3, generator=8, device="cpu")
    rough = sample_worlds(options, 3, generator=8, device="cpu")
    difference = (plain.images - rough.images).abs().mean()
    assert 0.001 < difference < 0.05
    assert not torch.equal(rough.images, rough.backgrounds), "noise is other in the backgrounds"


def test_calibration_that_is_wrong_changes_what_is_given_not_what_is_seen() -> None:
    right = sample_worlds(CLEAN, 16, generator=9, device="cpu")
    wrong = sample_worlds(replace(CLEAN, calibration=0.5), 16, generator=9, device="cpu")
    assert torch.equal(right.images, wrong.images)
    assert torch.equal(right.sources.T_cam_world, wrong.sources.T_cam_world)
    assert torch.equal(right.target.K, wrong.target.K)
    error = wrong.sources.K - right.sources.K
    assert 0.1 < error[..., :2, 2].std() < 0.5  # in pixels
    edge = error[..., 0, 0] / right.sources.K[..., 0, 0] * (0.5 * CLEAN.size[1])
    assert 0.1 < edge.std() < 0.5
    torch.testing.assert_close(
        error[..., 0, 0] / right.sources.K[..., 0, 0], error[..., 1, 1] / right.sources.K[..., 1, 1]
    )
