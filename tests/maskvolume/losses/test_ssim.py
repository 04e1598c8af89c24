"""Structural similarity as a loss: against the formula and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loss_helpers import samples
from skimage.metrics import structural_similarity

from maskvolume.losses import ssim
from maskvolume.losses.ssim import MSSSIM_EXPONENTS, box_ssim_map, weighted_ms_ssim


def test_ssim_is_one_for_equal_pictures_and_lower_for_others() -> None:
    a = torch.rand(1, 3, 20, 24)
    torch.testing.assert_close(box_ssim_map(a, a), torch.ones_like(a))
    assert box_ssim_map(a, torch.rand(1, 3, 20, 24)).mean() < 0.5


def test_a_scale_is_structural_similarity() -> None:
    """Luminance times contrast-structure, inside of the border, is what scikit-image computes."""
    prediction, target, weight = samples(1, (30, 33))
    luminance, structure = ssim._similarities(prediction, target, torch.ones_like(weight))
    expected = structural_similarity(
        prediction[0].numpy(), target[0].numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=1.0, full=True,
    )[1]  # fmt: skip
    inside = (slice(None), slice(5, -5), slice(5, -5))
    np.testing.assert_allclose((luminance * structure)[0].numpy()[inside], expected[inside], atol=1e-9)


def test_multi_scale_similarity_is_that_of_the_formula() -> None:
    """Computed pixel by pixel and scale by scale in plain loops, at two scales; a part of the weights is 0."""
    prediction, target, weight = (x[1:2, :, :24, -30:-6] for x in samples())
    a, b, w = prediction[0].numpy(), target[0].numpy(), weight[0, 0].numpy()
    exponents = np.array(MSSSIM_EXPONENTS[:2]) / sum(MSSSIM_EXPONENTS[:2])
    expected = np.ones(3)
    for scale, exponent in enumerate(exponents):
        values = loop_similarity(a, b, w, with_luminance=scale == 1)
        expected *= ((values * w).sum((1, 2)) / w.sum()) ** exponent
        a, b, w = loop_half(a, w), loop_half(b, w), w.reshape(w.shape[0] // 2, 2, -1, 2).mean((1, 3))
    assert (weight == 0).float().mean() > 0.1
    assert float(weighted_ms_ssim(prediction, target, weight)[0]) == pytest.approx(expected.mean(), abs=1e-9)


def loop_similarity(a: np.ndarray, b: np.ndarray, w: np.ndarray, *, with_luminance: bool) -> np.ndarray:
    """``[C, H, W]`` of pictures ``[C, H, W]`` with weights ``[H, W]``."""
    (h, w_), out = w.shape, np.ones_like(a)
    for y in range(h):
        for x in range(w_):
            ys, xs = np.mgrid[max(y - 5, 0) : min(y + 6, h), max(x - 5, 0) : min(x + 6, w_)]
            g = np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * 1.5**2)) * w[ys, xs]
            if g.sum() == 0:
                continue
            g /= g.sum()
            for c in range(len(a)):
                p, q = a[c][ys, xs], b[c][ys, xs]
                mp, mq = (g * p).sum(), (g * q).sum()
                structure = (2 * (g * (p - mp) * (q - mq)).sum() + 0.03**2) / (
                    (g * (p - mp) ** 2).sum() + (g * (q - mq) ** 2).sum() + 0.03**2
                )
                luminance = (2 * mp * mq + 0.01**2) / (mp**2 + mq**2 + 0.01**2)
                out[c, y, x] = structure * (luminance if with_luminance else 1)
    return out


def loop_half(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Weighted means of 2 x 2 pixels of ``[C, H, W]``, even sizes; 0 where there is no weight."""
    blocks = (a * w).reshape(len(a), w.shape[0] // 2, 2, -1, 2).sum((2, 4))
    weights = w.reshape(w.shape[0] // 2, 2, -1, 2).sum((1, 3))
    return np.divide(blocks, weights, out=np.zeros_like(blocks), where=weights > 0)


@pytest.mark.parametrize(
    ("side", "count"), [(3, 1), (16, 1), (20, 1), (22, 2), (44, 3), (88, 4), (160, 4), (176, 5), (2000, 5)]
)
def test_small_pictures_have_fewer_scales(side: int, count: int) -> None:
    assert ssim._count_scales(side) == count
    if side <= 176:
        a = torch.rand(1, 3, side, side)
        torch.testing.assert_close(weighted_ms_ssim(a, a, torch.ones(1, 1, side, side)), torch.ones(1))


def test_half_precision_is_computed_in_float32() -> None:
    prediction, target, weight = (x.bfloat16() for x in samples())
    with torch.autocast("cpu", torch.bfloat16):
        value = weighted_ms_ssim(prediction, target, weight)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, weighted_ms_ssim(prediction.float(), target.float(), weight.float()))
