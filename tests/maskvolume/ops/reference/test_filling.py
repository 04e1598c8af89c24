"""Pixels that no plane covers get the colour of their surroundings."""

from __future__ import annotations

import pytest
import torch

from maskvolume.ops import Rendering, fill_unseen


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (1, 5)])
def test_filling_keeps_what_is_seen_and_invents_no_new_colour(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    color = torch.rand(3, *size) * 0.5 + 0.25
    opacity = torch.ones(1, *size)
    opacity[..., : size[1] // 3] = 0
    filled = fill_unseen(Rendering(color * opacity, opacity, opacity * 0.5))
    torch.testing.assert_close(filled.color * opacity, color * opacity)
    assert filled.color.min() > 0.2
    assert filled.color.max() < 0.8
    torch.testing.assert_close(filled.disparity, torch.full_like(filled.disparity, 0.5), atol=1e-4, rtol=0)


def test_filling_a_half_covered_pixel_does_not_darken_it() -> None:
    opacity = torch.ones(1, 16, 16)
    opacity[..., 8] = 0.5
    filled = fill_unseen(Rendering(0.6 * opacity.expand(3, -1, -1), opacity, 0.2 * opacity))
    torch.testing.assert_close(filled.color, torch.full((3, 16, 16), 0.6), atol=1e-3, rtol=0)


def test_views_are_filled_each_by_itself() -> None:
    torch.manual_seed(0)
    color, opacity = torch.rand(3, 3, 18, 30), torch.ones(3, 1, 18, 30)
    opacity[1, :, :, 20:] = 0
    views = Rendering(color * opacity, opacity, 0.4 * opacity)
    filled = fill_unseen(views)
    for index in range(3):
        alone = fill_unseen(Rendering(views.color[index], opacity[index], views.disparity[index]))
        assert torch.equal(filled.color[index], alone.color)
        assert torch.equal(filled.disparity[index], alone.disparity)
    assert torch.equal(filled.color[0], color[0])


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (3, 5), (2, 7)])
def test_filling_by_compiled_loops_is_that_of_plain_torch(
    size: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    opacity = ((torch.rand(2, 1, *size, generator=generator) - 0.3) * 3).clamp(0, 1)
    opacity[..., : size[1] // 2] = 0
    views = Rendering(torch.rand(2, 3, *size, generator=generator) * opacity, opacity, opacity * 0.5)
    fast, slow = (fill_unseen(views, backend=backend) for backend in ("compiled", "reference"))
    torch.testing.assert_close(fast.color, slow.color, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.disparity, slow.disparity, atol=1e-5, rtol=0)
