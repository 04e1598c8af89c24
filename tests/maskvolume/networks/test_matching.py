"""The mask network before any training."""

import torch

from maskvolume.networks import ARCHITECTURES


def test_matching_mask_is_low_where_nothing_changes_and_high_where_all_views_change() -> None:
    network = ARCHITECTURES["matching"].mask()
    background = torch.rand(1, 2, 3, 8, 16, 16) * 0.4
    sweep = background.clone()
    sweep[..., 8:] += 0.5
    sweep[:, 0, ..., :4] += 0.5  # one view alone: hidden behind something, not moving
    rgba = torch.zeros(1, 8, 4, 16, 16)
    mask = network(sweep, background, rgba, rgba)[0, 0]
    assert mask[..., 10:].min() > 0.9
    assert mask[..., :6].max() < 0.1


def test_matching_mask_leaves_what_an_opaque_mover_hides_to_the_background() -> None:
    network = ARCHITECTURES["matching"].mask()
    background = torch.rand(1, 2, 3, 8, 16, 16) * 0.4
    sweep = background + 0.5  # it all changes
    rgba = torch.zeros(1, 8, 4, 16, 16)
    rgba[:, 5, 3, :, 8:] = 1.0  # on one half, a plane hides those behind it
    rgba[:, 2, 3] = 1.0
    mask = network(sweep, background, rgba, torch.zeros_like(rgba))[0, 0]
    assert mask[5:, :, 8:].min() > 0.9
    assert mask[:5, :, 8:].max() < 0.1
    assert mask[2:, :, :8].min() > 0.9
    assert mask[:2, :, :8].max() < 0.1


def test_matching_mask_is_high_in_front_of_a_mover_too() -> None:
    """Nothing else is there, whatever the background's planes say."""
    network = ARCHITECTURES["matching"].mask()
    background = torch.rand(1, 2, 3, 8, 16, 16) * 0.4
    sweep = background.clone()
    sweep[:, :, :, 3] += 0.5  # all views agree that it changed on one plane alone
    rgba = torch.zeros(1, 8, 4, 16, 16)
    rgba[:, 3, 3] = 1.0
    mask = network(sweep, background, rgba, torch.zeros_like(rgba))[0, 0]
    assert mask[3:].min() > 0.9
    rgba[:, 3, 3] = 0.0  # no surface, no mover
    assert network(sweep, background, rgba, torch.zeros_like(rgba))[0, 0, 4:].max() < 0.1
