"""Laws of multiplane images: their own view, windows, blending."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import make_camera
from torch import Tensor

from maskvolume.mpi.image import MultiplaneImage, blend, render_blended

SIZE = (12, 16)


def image(seed: int, *, premultiplied: bool = True) -> MultiplaneImage:
    rgba = torch.rand(5, 4, *SIZE, generator=torch.Generator().manual_seed(seed))
    if premultiplied:
        rgba[:, :3] *= rgba[:, 3:]
    camera = make_camera(0, SIZE).to(torch.float32)
    return MultiplaneImage(rgba, camera, torch.linspace(5, 1, 5), premultiplied)


def mask_of(value: float) -> Tensor:
    return torch.full((1, 5, *SIZE), value)


@pytest.mark.parametrize("premultiplied", [True, False])
def test_its_own_camera_sees_the_composite(premultiplied: bool) -> None:
    mpi = image(1, premultiplied=premultiplied)
    seen, composite = mpi.render(mpi.camera), mpi.composite()
    for name in ("color", "opacity", "disparity"):
        torch.testing.assert_close(getattr(seen, name), getattr(composite, name), atol=2e-4, rtol=0)


def test_a_window_shows_what_the_whole_shows_there() -> None:
    mpi = image(2)
    window = mpi.cropped(3, 4, (6, 8))
    assert window.camera.size == (6, 8)
    torch.testing.assert_close(window.composite().color, mpi.composite().color[:, 3:9, 4:12])
    inner = window.camera.cropped(1, 1, (4, 6))
    torch.testing.assert_close(window.render(inner).color, mpi.render(inner).color, atol=2e-4, rtol=0)


def test_prepared_planes_render_alike() -> None:
    mpi = image(3)
    torch.testing.assert_close(
        mpi.prepared().composite().color.float(), mpi.composite().color, atol=4e-3, rtol=0
    )  # 11 bits a value, five planes
    assert torch.equal(mpi.prepared("reference").rgba, mpi.rgba)


def test_a_mask_of_one_takes_the_frame_and_of_zero_the_background() -> None:
    dynamic, background = image(4), image(5)
    assert torch.equal(blend(mask_of(1.0), dynamic, background).rgba, dynamic.rgba)
    assert torch.equal(blend(mask_of(0.0), dynamic, background).rgba, background.rgba)


def test_blending_commutes_with_rendering_the_blended_planes() -> None:
    dynamic, background, target = image(6), image(7), make_camera(1, (10, 14)).to(torch.float32)
    mask = torch.rand(1, 5, *SIZE, generator=torch.Generator().manual_seed(8))
    stored = blend(mask, dynamic, background).render(target)
    direct = render_blended(mask, dynamic, background, target)
    torch.testing.assert_close(direct.color, stored.color, atol=1e-4, rtol=0)
    torch.testing.assert_close(direct.disparity, stored.disparity, atol=1e-4, rtol=0)


def test_straight_and_premultiplied_planes_do_not_blend() -> None:
    other = replace(image(9), premultiplied=False)
    with pytest.raises(ValueError, match="both premultiplied or both straight"):
        blend(mask_of(0.5), image(9), other)
    with pytest.raises(ValueError, match="both premultiplied or both straight"):
        render_blended(mask_of(0.5), image(9), other, image(9).camera)
