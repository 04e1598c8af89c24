from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from maskvolume.losses.ssim import ms_ssim as ms_ssim_of_training
from maskvolume.metrics import (
    BORDERS,
    MS_SSIM_SIDE,
    ms_ssim,
    psnr,
    ssim,
    ssim_map,
)


def _pictures(count: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(count, 3, 24, 32, generator=generator)
    return a, (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


@settings(max_examples=20, deadline=None)
@given(step=st.floats(0.01, 0.5))
def test_psnr_of_a_constant_error(step: float) -> None:
    truth = torch.full((3, 16, 16), 0.25)
    assert psnr(truth + step, truth).item() == pytest.approx(-20 * math.log10(step), abs=1e-3)


def test_equal_pictures_are_perfect() -> None:
    a, _ = _pictures()
    assert torch.isinf(psnr(a, a)).all()
    assert torch.allclose(ssim(a, a), torch.ones(2))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_batch_is_each_picture_alone(metric) -> None:
    a, b = _pictures(6)
    values = metric(a.view(2, 3, *a.shape[1:]), b.view(2, 3, *b.shape[1:]))
    assert values.shape == (2, 3)
    assert torch.allclose(values.flatten(), torch.stack([metric(x, y) for x, y in zip(a, b, strict=True)]))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_is_out_of_range_counts_as_clamped(metric) -> None:
    a, b = _pictures()
    wild = torch.where(b == 1, 7.0, torch.where(b == 0, -3.0, b))
    assert torch.equal(metric(a, wild), metric(a, b))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_metrics_are_symmetric(metric) -> None:
    a, b = _pictures()
    assert torch.allclose(metric(a, b), metric(b, a))


def test_mask_hides_what_it_leaves_out() -> None:
    a, b = _pictures()
    mask = torch.zeros(2, 1, 24, 32, dtype=torch.bool)
    mask[..., :12, :] = True
    changed = b.clone()
    changed[..., 12:, :] = 0
    assert torch.equal(psnr(a, b, mask), psnr(a, changed, mask))
    assert torch.allclose(psnr(a, b, mask), psnr(a[..., :12, :], b[..., :12, :]))
    mask[..., 6:, :] = False  # windows of 11 pixels: 6 rows see nothing of what was changed
    assert torch.allclose(ssim(a, b, mask), ssim(a, changed, mask))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_full_mask_and_empty_mask(metric) -> None:
    a, b = _pictures()
    full = torch.ones(2, 1, 24, 32, dtype=torch.bool)
    assert torch.allclose(metric(a, b, full), metric(a, b), atol=0.01)
    assert torch.isnan(metric(a, b, ~full)).all()


def test_the_map_tells_the_whole_and_its_parts() -> None:
    a, b = _pictures()
    values, border = ssim_map(a, b), BORDERS["ssim"]
    assert values.shape == a.shape
    assert torch.allclose(values[..., border:-border, border:-border].mean(dim=(1, 2, 3)), ssim(a, b), atol=1e-6)
    alone = structural_similarity(
        a[0].numpy(), b[0].numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=1.0,
    )  # fmt: skip
    assert ssim(a[0], b[0]).item() == pytest.approx(alone, abs=1e-6)
    mask = a.sum(dim=1, keepdim=True) > 1.5
    assert torch.allclose(ssim(a, b, mask)[0], values[0][mask[0].expand_as(values[0])].mean(), atol=1e-6)


def test_ms_ssim_weighs_scales() -> None:
    """Noise is a matter of the finest scale, a change of lightness is one of the coarsest alone."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 12, 14, generator=generator)
    truth = torch.nn.functional.interpolate(coarse[None], scale_factor=16, mode="bicubic")[0].clamp(0, 1)
    assert min(truth.shape[-2:]) >= MS_SSIM_SIDE
    noisy = truth + 0.1 * torch.randn(truth.shape, generator=generator)
    assert ms_ssim(truth, truth).item() == pytest.approx(1.0, abs=1e-6)
    assert ms_ssim(noisy, truth) > ssim(noisy, truth) + 0.1
    values = ms_ssim(torch.stack([noisy, truth])[None], torch.stack([truth, truth])[None])
    assert values.shape == (1, 2)
    assert values[0, 0].item() == pytest.approx(ms_ssim(noisy, truth).item(), abs=1e-5)
    # The loss is the same measure with windows that end at the border.
    other = ms_ssim_of_training(noisy.clamp(0, 1)[None], truth[None], torch.ones(1, 1, *truth.shape[-2:]))
    assert values[0, 0].item() == pytest.approx(other.item(), abs=0.02)


def test_bad_arguments_are_named() -> None:
    a, b = _pictures()
    with pytest.raises(ValueError, match="picture, truth"):
        psnr(a, b[..., :-1])
    with pytest.raises(ValueError, match="mask: bool"):
        psnr(a, b, torch.ones(2, 1, 24, 32))
    with pytest.raises(ValueError, match="mask"):
        ssim(a, b, torch.ones(2, 24, 32, dtype=torch.bool))
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(a[..., :8], b[..., :8])
    with pytest.raises(ValueError, match="161 x 161"):
        ms_ssim(a, b)
    with pytest.raises(ValueError, match="picture, truth"):
        ms_ssim(a, b[..., :-1])
