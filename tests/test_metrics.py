from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskvolume.metrics import psnr, ssim


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
