"""Losses: what they are zero for, what counts, and that a batch is the mean of its samples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from maskvolume.losses import LOSS_NAMES, make_image_loss, mask_loss, masked_l1_loss, psnr, ssim, temporal_loss
from maskvolume.losses.pictures import IMAGE_LOSSES, l1_ssim_grad_loss
from maskvolume.losses.ssim import MSSSIM_EXPONENTS, ms_ssim, ssim_map
from maskvolume.runtime.errors import InputError

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def mask_loss_of(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The mask loss with the signature of the others: every sample has another share of movers."""
    return mask_loss(prediction[:, :1], weight * (weight > 0.3))


def masked_l1_of(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return masked_l1_loss(prediction, target, weight, (weight > 0.8).to(weight.dtype))


def temporal_loss_of(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    still = torch.zeros_like(weight)
    first = torch.zeros_like(prediction)
    return temporal_loss((first, first), (prediction, target), weight, (still, still))


ALL_LOSSES: dict[str, Loss] = {
    **IMAGE_LOSSES,
    "mask": mask_loss_of,
    "psnr": psnr,
    "masked_l1": masked_l1_of,
    "temporal": temporal_loss_of,
}


def samples(count: int = 3, size: tuple[int, int] = (26, 35)) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, targets and weights, float64; the samples differ in error and in the sum of their weights."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(count, 3, *size, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 3, *size, generator=generator, dtype=torch.float64)
    level = torch.linspace(0.02, 0.2, count, dtype=torch.float64)[:, None, None, None]
    weight = torch.rand(count, 1, *size, generator=generator, dtype=torch.float64)
    for index in range(count):
        weight[index, :, :, : index * size[1] // count] = 0
    return target + level * noise, target, weight


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_a_batch_is_the_mean_of_its_samples_and_so_is_its_gradient(name: str) -> None:
    prediction, target, weight = samples()
    prediction.requires_grad_(True)
    whole = ALL_LOSSES[name](prediction, target, weight)
    (gradient,) = torch.autograd.grad(whole, prediction)
    alone = [ALL_LOSSES[name](prediction[i : i + 1], target[i : i + 1], weight[i : i + 1]) for i in range(3)]
    mean = torch.stack(alone).mean()
    (mean_gradient,) = torch.autograd.grad(mean, prediction)
    torch.testing.assert_close(whole, mean)
    torch.testing.assert_close(gradient, mean_gradient)
    assert max(alone) > 1.2 * min(alone), "the samples are to differ, or the mean shows nothing"


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_equal_pictures_have_no_loss(name: str) -> None:
    _, target, weight = samples()
    assert abs(float(IMAGE_LOSSES[name](target, target, weight))) < 1e-12


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_a_farther_picture_has_more_loss(name: str) -> None:
    prediction, target, weight = samples()
    near, far = (target + share * (prediction - target) for share in (0.5, 1.5))
    values = [float(IMAGE_LOSSES[name](picture, target, weight)) for picture in (near, prediction, far)]
    assert values == sorted(values)


@pytest.mark.parametrize("name", ["l1", "mse", "l1_msssim_grad"])
def test_pixels_without_weight_do_not_count_at_all(name: str) -> None:
    prediction, target, weight = samples()
    weight[:, :, 5:9, 10:20] = 0
    other = torch.where(weight > 0, prediction, 7.0).requires_grad_(True)
    loss = IMAGE_LOSSES[name](other, target, weight)
    torch.testing.assert_close(loss, IMAGE_LOSSES[name](prediction, target, weight))
    (gradient,) = torch.autograd.grad(loss, other)
    unseen = (weight == 0).expand_as(gradient)
    assert gradient[unseen].abs().max() == 0
    assert gradient[~unseen].abs().min() > 0


@pytest.mark.parametrize("name", ["l1", "mse", "l1_msssim_grad"])
def test_a_sample_without_any_weight_has_neither_loss_nor_gradient(name: str) -> None:
    prediction, target, weight = samples()
    prediction.requires_grad_(True)
    loss = IMAGE_LOSSES[name](prediction, target, torch.zeros_like(weight))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert loss == 0
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("size", [(16, 16), (23, 40), (90, 95)])
@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_gradients_are_finite_for_any_picture(name: str, size: tuple[int, int]) -> None:
    flat = torch.zeros(1, 3, *size)
    wild = torch.rand(1, 3, *size)
    for prediction, target in ((flat, flat), (wild, 1 - wild), (flat, wild), (wild, flat)):
        prediction = prediction.clone().requires_grad_(True)
        IMAGE_LOSSES[name](prediction, target, torch.rand(1, 1, *size)).backward()
        assert prediction.grad is not None
        assert bool(torch.isfinite(prediction.grad).all())
        assert prediction.grad.abs().max() < 10


@pytest.mark.parametrize("name", ["l1_msssim_grad", "l1_ssim_grad"])
def test_descending_a_loss_finds_the_target(name: str) -> None:
    torch.manual_seed(0)
    target = torch.rand(1, 3, 24, 24)
    prediction = torch.full_like(target, 0.5).requires_grad_(True)
    optimizer = torch.optim.Adam([prediction], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        IMAGE_LOSSES[name](prediction, target, torch.ones(1, 1, 24, 24)).backward()
        optimizer.step()
    assert psnr(prediction.detach(), target) > 30


def test_ssim_is_one_for_equal_pictures_and_lower_for_others() -> None:
    a = torch.rand(1, 3, 20, 24)
    torch.testing.assert_close(ssim_map(a, a), torch.ones_like(a))
    assert ssim_map(a, torch.rand(1, 3, 20, 24)).mean() < 0.5


def test_image_loss_counts_only_weighted_pixels() -> None:
    target, weight = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    weight[..., :12] = 1
    wrong = target.clone()
    wrong[..., 20:] = 0  # farther from the weighted part than any window reaches
    assert l1_ssim_grad_loss(wrong, target, weight) < 1e-6
    assert l1_ssim_grad_loss(wrong, target, torch.ones_like(weight)) > 0.05


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
    assert float(ms_ssim(prediction, target, weight)[0]) == pytest.approx(expected.mean(), abs=1e-9)


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
        torch.testing.assert_close(ms_ssim(a, a, torch.ones(1, 1, side, side)), torch.ones(1))


def test_half_precision_is_computed_in_float32() -> None:
    prediction, target, weight = (x.bfloat16() for x in samples())
    with torch.autocast("cpu", torch.bfloat16):
        value = ms_ssim(prediction, target, weight)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, ms_ssim(prediction.float(), target.float(), weight.float()))


def test_mask_loss_is_zero_for_the_matte_itself() -> None:
    matte = torch.zeros(1, 1, 16, 16)
    matte[..., 4:9, 4:9] = 1
    assert mask_loss(matte, matte) == 0
    assert mask_loss(1 - matte, matte) > 0.9


def test_mask_loss_is_the_papers_formula() -> None:
    opacity, matte = torch.rand(1, 1, 9, 12), (torch.rand(1, 1, 9, 12) > 0.95).float()
    matte[..., 4, 5] = 0.51  # just above the threshold
    m, a = (matte[0, 0] > 0.5).numpy(), opacity[0, 0].double().numpy()
    dilated = np.zeros_like(m)
    for y, x in np.argwhere(m):
        dilated[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    expected = 0.5 * (1 - a[m]).mean() + 0.5 * a[~dilated].mean()
    assert float(mask_loss(opacity, matte)) == pytest.approx(expected, abs=1e-6)


def test_mask_loss_without_movers_asks_for_emptiness() -> None:
    assert mask_loss(torch.full((1, 1, 8, 8), 0.4), torch.zeros(1, 1, 8, 8)) == pytest.approx(0.2)


def test_masked_l1_weighs_what_moves_and_what_stands_alike() -> None:
    target = torch.zeros(1, 3, 40, 60)
    matte = torch.zeros(1, 1, 40, 60)
    matte[..., 10:12, 20:22] = 0.2  # 4 pixels, 6 x 6 with those within reach
    moving, still = target.clone(), target.clone()
    moving[..., 8:14, 18:24] = 0.5
    still[..., 20:40, :] = 0.5
    weight = torch.ones(1, 1, 40, 60)
    assert float(masked_l1_loss(moving, target, weight, matte)) == pytest.approx(0.25)
    assert float(masked_l1_loss(still, target, weight, matte)) == pytest.approx(0.25 * 1200 / (2400 - 36))


def test_the_temporal_loss_is_change_that_is_not_true() -> None:
    generator = torch.Generator().manual_seed(0)
    before, truth = (torch.rand(1, 3, 20, 30, generator=generator) for _ in range(2))
    weight, matte = torch.ones(1, 1, 20, 30), torch.zeros(1, 1, 20, 30)
    matte[..., :10, :] = 1.0
    after = before.clone()
    after[..., :10, :] += 0.7  # where it moves
    assert float(temporal_loss((before, truth), (after, truth), weight, (matte, matte))) == 0
    darker = temporal_loss((before, truth), (after - 0.1, truth - 0.1), weight, (matte, matte))
    assert float(darker) == pytest.approx(0, abs=1e-6)  # a cloud
    flickering = temporal_loss((before, truth), (after + 0.1, truth), weight, (matte, matte))
    assert float(flickering) == pytest.approx(0.1, abs=1e-6)
    # Rows 10 and 11 are within reach of the mover; at one of the two instants is enough.
    after = before.clone()
    after[..., 10:12, :] += 0.5
    for mattes in ((matte, torch.zeros_like(matte)), (torch.zeros_like(matte), matte)):
        assert float(temporal_loss((before, truth), (after, truth), weight, mattes)) == 0


def test_psnr_clamps() -> None:
    assert psnr(torch.full((1, 3, 2, 2), 1.7), torch.ones(1, 3, 2, 2)) == 100
    assert psnr(torch.full((1, 3, 2, 2), 0.9), torch.ones(1, 3, 2, 2)) == pytest.approx(20, abs=1e-3)


def test_psnr_of_a_batch_is_the_mean_of_its_pictures() -> None:
    target = torch.ones(2, 3, 4, 4)
    prediction = target - torch.tensor([0.1, 0.01])[:, None, None, None]
    assert psnr(prediction, target) == pytest.approx(30, abs=1e-3)


def test_losses_are_made_by_name() -> None:
    assert set(IMAGE_LOSSES) == {"l1", "mse", "l1_ssim_grad", "l1_msssim_grad"}
    assert set(LOSS_NAMES) == {*IMAGE_LOSSES, "vgg", "vgg_only"}
    for name, loss in IMAGE_LOSSES.items():
        assert make_image_loss(name) is loss
    with pytest.raises(InputError, match=r"loss lpips.*l1_msssim_grad"):
        make_image_loss("lpips")


def test_losses_without_a_network_do_not_import_torchvision() -> None:
    code = "import sys; from maskvolume.losses import *; make_image_loss('l1'); sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
