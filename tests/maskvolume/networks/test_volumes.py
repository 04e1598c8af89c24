"""Padding, and colours of views."""

import pytest
import torch

from maskvolume.networks.volumes import blend_views, double_size, pad_to_multiple


def test_blend_views_ignores_views_without_data() -> None:
    sweep = torch.full((1, 2, 3, 1, 1, 2), 0.25)
    sweep[:, 1] = 0.75
    sweep[:, 1, ..., 1] = -1
    color, seen = blend_views(sweep, torch.zeros(1, 2, 1, 1, 1, 2))
    torch.testing.assert_close(color[0, :, 0, 0], torch.tensor([[0.5, 0.25]] * 3))
    assert seen.min() == 1
    mixed, _ = blend_views(sweep, torch.zeros(1, 2, 1, 1, 1, 2), mix_no_data=True)
    assert mixed[0, 0, 0, 0, 1] == pytest.approx((0.25 - 1) / 2)


def test_padding_is_cropped_again() -> None:
    x = torch.rand(1, 2, 5, 9, 11)
    padded, crop = pad_to_multiple(x, (4, 8, 8))
    assert padded.shape[-3:] == (8, 16, 16)
    assert torch.equal(padded[crop], x)


def test_each_voxel_becomes_eight() -> None:
    x = torch.rand(1, 2, 3, 4, 5)
    wide = double_size(x)
    assert wide.shape == (1, 2, 6, 8, 10)
    for offset in range(2):
        assert torch.equal(wide[:, :, offset::2, offset::2, 1 - offset :: 2], x)


def test_padding_under_autocast_keeps_the_type() -> None:
    x = torch.rand(1, 2, 5, 9, 11).half()
    with torch.autocast("cpu", torch.bfloat16):
        padded, crop = pad_to_multiple(x, (4, 8, 8))
    assert padded.dtype == x.dtype
    assert torch.equal(padded[crop], x)
