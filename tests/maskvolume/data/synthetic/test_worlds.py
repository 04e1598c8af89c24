"""Worlds: backgrounds, movers and their shadows."""

from __future__ import annotations

from dataclasses import replace

import torch
from synthetic_helpers import CLEAN, MOVING

from maskvolume.data.synthetic import SyntheticSample, sample_worlds


def test_background_is_the_picture_where_no_mover_is(moving: SyntheticSample) -> None:
    still = (moving.matte == 0).expand_as(moving.target_image)
    assert torch.equal(moving.target_image[still], moving.target_background[still])
    changed = (moving.backgrounds != moving.images).any(2).float().mean((1, 2, 3))
    assert (changed < 0.9).all()
    assert (changed > 0).any()


def test_matte_holds_what_movers_change(moving: SyntheticSample) -> None:
    changed = (moving.target_image - moving.target_background).abs().amax(1, keepdim=True) > 1 / 255
    assert (moving.matte[changed] > 0).all()
    assert changed[moving.matte > 0.9].float().mean() > 0.7
    assert 0.002 < moving.matte.mean() < 0.6


def test_a_static_world_is_its_background(clean: SyntheticSample) -> None:
    assert torch.equal(clean.images, clean.backgrounds)
    assert torch.equal(clean.target_image, clean.target_background)
    assert not clean.matte.any()


def test_worlds_do_not_depend_on_their_neighbours_in_the_batch(clean: SyntheticSample) -> None:
    fewer = sample_worlds(CLEAN, 2, generator=3, device="cpu")
    assert torch.equal(fewer.target_image, clean.target_image[:2])


def test_movers_go_on_from_instant_to_instant() -> None:
    """The first instant is what it is without the others; then the movers, and nothing else, have gone as far again."""
    options = replace(MOVING, shadow_share=0.0, num_movers=(1, 1), mover_step=(0.04, 0.04), size=(72, 96))
    clip = sample_worlds(replace(options, instants=3), 4, generator=3, device="cpu")
    one = sample_worlds(options, 4, generator=3, device="cpu")
    assert torch.equal(clip.images, one.images)
    assert torch.equal(clip.target_image, one.target_image)
    assert clip.later_images is not None
    assert clip.later_target_images is not None
    assert clip.later_mattes is not None
    assert clip.later_images.shape == (4, 2, *clip.images.shape[1:])
    mattes = torch.cat([clip.matte[:, None], clip.later_mattes], dim=1)
    pictures = torch.cat([clip.target_image[:, None], clip.later_target_images], dim=1)
    still = (mattes == 0).expand_as(pictures)
    assert torch.equal(pictures[still], clip.target_background[:, None].expand_as(pictures)[still])
    assert all(
        not torch.equal(a, b) for a, b in zip(mattes[:, 1:].flatten(0, 1), mattes[:, :-1].flatten(0, 1), strict=True)
    )
    # Those that are seen whole: their middle goes equally far both times, and about as far as asked.
    w = options.size[1]
    x = torch.arange(w) + 0.5
    area = mattes.sum((-1, -2))[..., 0]
    middle = (mattes * x).sum((-1, -2))[..., 0] / area.clamp_min(1e-6)
    whole = (
        (mattes[..., [0, -1]].amax((2, 3, 4)) == 0).all(1) & (area.amin(1) > 0.9 * area.amax(1)) & (area.amin(1) > 20)
    )
    assert whole.sum() >= 1
    steps = middle.diff(dim=1)[whole]
    torch.testing.assert_close(steps[:, 0], steps[:, 1], atol=0.5, rtol=0.1)
    assert ((steps.abs() > 0.01 * w) & (steps.abs() < 0.05 * w)).all()


def test_movers_darken_what_is_around_them() -> None:
    plain, shaded = (
        sample_worlds(replace(MOVING, shadow_share=share), 6, generator=14, device="cpu") for share in (0.0, 1.0)
    )
    assert torch.equal(plain.matte, shaded.matte)
    assert torch.equal(plain.target_background, shaded.target_background)
    still = (plain.matte == 0).expand_as(plain.target_image)
    change = (shaded.target_image - plain.target_image)[still]
    assert change.max() <= 0
    assert change.min() < -0.05
