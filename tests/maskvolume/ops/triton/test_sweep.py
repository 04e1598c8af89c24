"""The Triton kernels sweep as the reference does, and so do their gradients."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from helpers import make_camera
from triton_helpers import (
    CLOSE,
    DEVICE,
    EXACT,
    REFERENCE,
    ROUNDED,
    SWEPT,
    Sweep,
    assert_close,
    differentiable,
    gradcheck,
)

from maskvolume.geometry.homography import sweep_homographies
from maskvolume.ops.types import Sampling


@pytest.mark.parametrize("sampling", ["exact", "original"])
@pytest.mark.parametrize(
    ("dtype", "channels", "last"),
    [(torch.float64, 3, False), (torch.float32, 2, True), (torch.bfloat16, 1, False), (torch.float16, 3, True)],
)
def test_sweep_is_the_reference(
    kernels: ModuleType, dtype: torch.dtype, channels: int, last: bool, sampling: Sampling
) -> None:
    scene = Sweep(channels)
    images = scene.images.to(dtype)
    expected = scene.expected(images, sampling)
    given = images.to(DEVICE).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    swept = kernels.sweep(given, scene.homographies(dtype), SWEPT, sampling == "original")
    assert swept.dtype == dtype
    assert swept.is_contiguous()
    missing = expected == -1
    assert 0.1 < missing.double().mean() < 0.9
    if sampling == "exact" or dtype in (torch.float64, torch.float32):  # else what is almost -1 becomes it
        assert torch.equal(swept.cpu() == -1, missing)
    # In half precision values up to 1 are rounded once, to 11 or 8 bits.
    assert_close(swept, expected, {torch.float64: EXACT, torch.bfloat16: 5e-3}.get(dtype, CLOSE))


@pytest.mark.parametrize("sampling", ["exact", "original"])
def test_sweep_at_the_borders_of_a_picture(kernels: ModuleType, sampling: Sampling) -> None:
    source = make_camera(1, (3, 4))
    reference = source.padded(1).scaled((11, 34))  # steps of less than half a pixel
    images, depths = torch.rand(1, 2, 3, 4, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    H = sweep_homographies(source, reference, depths)[None]
    swept = kernels.sweep(images.to(DEVICE), H.to(DEVICE), reference.size, sampling == "original")
    expected = REFERENCE.sweep_planes(images, source[None], reference, depths, sampling)
    assert torch.equal(swept.cpu() == -1, expected == -1)
    assert_close(swept, expected, EXACT)


@pytest.mark.parametrize("original", [False, True])
def test_sweep_to_the_own_camera_is_the_picture(kernels: ModuleType, original: bool) -> None:
    images = torch.rand(1, 2, 7, 9, device=DEVICE)
    swept = kernels.sweep(images, torch.eye(3, device=DEVICE).expand(1, 2, 3, 3), (7, 9), original)
    same = (swept - images[:, :, None]).abs().max() < ROUNDED
    assert bool(same) is not original  # half a pixel off


@pytest.mark.parametrize(("dtype", "sampling"), [(torch.float64, "exact"), (torch.float32, "original")])
def test_sweep_gradient_is_the_references(kernels: ModuleType, dtype: torch.dtype, sampling: Sampling) -> None:
    scene = Sweep(channels=2)
    images = scene.images.requires_grad_()
    made = scene.expected(images, sampling)
    grad = torch.randn_like(made)
    (expected,) = torch.autograd.grad(made, images, grad)
    given = grad.to(DEVICE, dtype).transpose(0, 1).contiguous().transpose(0, 1)  # the batch is not the first in memory
    gradient = kernels.sweep_backward(given, scene.homographies(dtype), (13, 17), sampling == "original")
    assert gradient.dtype == dtype
    # In float32 some hundred terms of CLOSE add up.
    assert_close(gradient, expected, EXACT if dtype == torch.float64 else 10 * CLOSE)


@pytest.mark.parametrize("original", [False, True])
def test_gradients_belong_to_the_sweeps(kernels: ModuleType, original: bool) -> None:
    H = Sweep(1, batch=1, count=2).homographies(torch.float64)
    images = torch.rand(1, 2, 13, 17, dtype=torch.float64, device=DEVICE, requires_grad=True)
    sweep = differentiable(
        lambda x: kernels.sweep(x, H, (8, 9), original),
        lambda grad, _: kernels.sweep_backward(grad, H, (13, 17), original),
    )
    assert gradcheck(sweep, (images,))
