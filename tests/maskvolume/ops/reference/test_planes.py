"""Planes and masks from the output of U-Nets: stick breaking, colours, what hides what."""

from __future__ import annotations

import pytest
import torch
from ops_helpers import random_sweep
from torch import Tensor

from maskvolume import ops

BACKENDS = ["reference", "compiled"]
SETTINGS = ops.PlaneSettings(logit_cap=60.0, view_cap=15.0, cost_cap=0.6)
SIZE = (4, 8, 16)


def random_output(channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, 4, 4, 8, generator=generator), torch.rand(2, 1, *SIZE, generator=generator)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_of_compositing_are_the_softmax_of_the_logits(backend: str) -> None:
    unet_output, penalty = random_output(8)
    sweep = random_sweep(2, *SIZE).abs()  # every view sees every point
    rgba = ops.make_planes(unet_output, penalty, sweep, SETTINGS, SIZE, backend=backend)
    _, logits = ops.make_planes_with_logits(unet_output, penalty, sweep, SETTINGS, SIZE)
    alpha = rgba[:, :, 3]
    weights = alpha * ops.remaining_transmittance(alpha)
    torch.testing.assert_close(weights, logits.softmax(dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(alpha[:, 0], torch.ones_like(alpha[:, 0]), atol=1e-5, rtol=0)  # the farthest is opaque


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plane_has_the_colour_of_the_views_that_see_it(backend: str) -> None:
    unet_output, penalty = random_output(8)
    sweep = torch.full((2, 3, 3, *SIZE), 0.25)
    sweep[:, 1] = ops.NO_DATA
    rgba = ops.make_planes(unet_output, penalty, sweep, SETTINGS, SIZE, backend=backend)
    torch.testing.assert_close(rgba[:, :, :3], 0.25 * rgba[:, :, 3:].expand(-1, -1, 3, -1, -1), atol=1e-6, rtol=0)
    nothing = ops.make_planes(unet_output, penalty, torch.full_like(sweep, -1.0), SETTINGS, SIZE, backend=backend)
    assert nothing.abs().max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_view_that_no_other_agrees_with_has_less_say_with_trust(backend: str) -> None:
    unet_output, penalty = torch.zeros(1, 8, 4, 4, 8), torch.zeros(1, 1, *SIZE)
    sweep = torch.full((1, 3, 3, *SIZE), 0.2)
    sweep[:, 0] = 0.8
    trusting = ops.PlaneSettings(60.0, 15.0, 0.6, trust=torch.tensor(30.0))
    found = [
        ops.make_planes(unet_output, penalty, sweep, settings, SIZE, backend=backend)[0, 0, 0].mean()
        for settings in (SETTINGS, trusting)
    ]
    torch.testing.assert_close(torch.stack(found), torch.tensor([0.4, 0.2]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_are_cut_to_size_and_low_behind_an_opaque_mover(backend: str) -> None:
    unet_output, evidence, opacity = torch.zeros(1, 4, 4, 4, 8), torch.full((1, 1, *SIZE), 0.5), torch.zeros(1, *SIZE)
    opacity[:, 2, :, 8:] = 1.0
    prior = {"slope": torch.tensor(30.0), "threshold": torch.tensor(0.1), "hidden": torch.tensor(0.05)}
    mask = ops.make_mask(unet_output, evidence, opacity, **prior, size=(4, 7, 15), backend=backend)
    assert mask.shape == (1, 1, 4, 7, 15)
    assert mask[:, :, 2:].min() > 0.99
    assert mask[:, :, :2, :, :8].min() > 0.99
    assert mask[:, :, :2, :, 8:].max() < 0.01
