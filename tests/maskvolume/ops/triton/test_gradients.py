"""The gradients of the Triton kernels are the reference's, and belong to what is rendered."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from triton_helpers import (
    CLOSE,
    DEVICE,
    EXACT,
    Scene,
    as_type,
    assert_close,
    differentiable,
    gradcheck,
    layouts,
)


@pytest.mark.parametrize(
    ("dtype", "layout", "premultiplied", "batch", "views"),
    [
        (torch.float64, "planar", True, 1, 2),
        (torch.float64, "last", False, 2, 1),
        (torch.float32, "strided", False, 1, 1),
        (torch.bfloat16, "last", True, 1, 1),
    ],
)
def test_render_gradient_is_the_references(
    kernels: ModuleType, dtype: torch.dtype, layout: str, premultiplied: bool, batch: int, views: int
) -> None:
    scene = Scene(batch, views, count=6, seed=3)  # two segments, the second one shorter
    planes, values = as_type(scene.rgba, dtype)
    values.requires_grad_()
    made = scene.expected(values, premultiplied)
    grad = torch.randn_like(made)
    (expected,) = torch.autograd.grad(made, values, grad)
    rgba = layouts(planes.to(DEVICE), layout)
    given = grad.to(DEVICE, torch.float64 if dtype == torch.float64 else torch.float32)
    H, inverse_depths = scene.arguments(dtype)
    gradient = kernels.render_planes_backward(given, rgba, H, inverse_depths, premultiplied)
    assert gradient.dtype == given.dtype
    opaque = values[:, -1, 3] == 1
    assert expected[:, -1, 3][opaque].abs().max() > 0.1  # also where nothing shows what is behind
    # Sums over pixels and channels of the values whose errors CLOSE describes.
    assert_close(gradient, expected, EXACT if dtype == torch.float64 else 10 * CLOSE)


@pytest.mark.parametrize(("layout", "premultiplied"), [("planar", True), ("last", False)])
def test_blended_gradients_are_the_references(kernels: ModuleType, layout: str, premultiplied: bool) -> None:
    scene = Scene(batch=1, views=2 if premultiplied else 1, count=3, seed=4)
    inputs = torch.rand(1, 3, 13, 17, dtype=torch.float64), scene.rgba, Scene.planes(1, 3, 13, 17)
    mask, dynamic, background = (x.requires_grad_() for x in inputs)
    made = scene.expected(mask[:, :, None] * dynamic + (1 - mask[:, :, None]) * background, premultiplied)
    grad = torch.randn(5, 1, 1, dtype=torch.float64).expand_as(made)  # steps of 0, as sums of a picture give
    expected = torch.autograd.grad(made, (mask, dynamic, background), grad)
    weights = mask.detach().to(DEVICE)
    planes = (weights, *(layouts(x.detach().to(DEVICE), layout) for x in (dynamic, background)))
    rest = (*scene.arguments(torch.float64), premultiplied)
    gradients = kernels.render_blended_backward(grad.to(DEVICE), *planes, *rest, (True, True, True))
    for got, wanted in zip(gradients, expected, strict=True):
        assert_close(got, wanted, EXACT)


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_gradients_that_are_needed_are_made(kernels: ModuleType, needs: tuple[bool, bool, bool]) -> None:
    scene = Scene(batch=1, views=1, count=1, plane_size=(4, 5), size=(3, 4), shift=0.1)
    inputs = [torch.rand(1, 1, 4, 5, dtype=torch.float64), scene.rgba, Scene.planes(1, 1, 4, 5)]
    mask, dynamic, background = (x.requires_grad_(need) for x, need in zip(inputs, needs, strict=True))
    made = scene.expected(mask[:, :, None] * dynamic + (1 - mask[:, :, None]) * background, True)
    grad = torch.randn_like(made)
    (expected,) = torch.autograd.grad(made, next(x for x in inputs if x.requires_grad), grad)
    H, inverse_depths = scene.arguments(torch.float64)
    planes = (x.detach().to(DEVICE) for x in inputs)
    gradients = kernels.render_blended_backward(grad.to(DEVICE), *planes, H, inverse_depths, True, needs)
    assert tuple(gradient is not None for gradient in gradients) == needs
    assert_close(next(gradient for gradient in gradients if gradient is not None), expected, EXACT)


def test_planes_behind_the_end_of_a_ray_get_no_gradient(kernels: ModuleType) -> None:
    identity = torch.eye(3, device=DEVICE).expand(1, 1, 6, 3, 3)
    rgba, inverse_depths = torch.rand(1, 6, 4, 3, 3, device=DEVICE), torch.ones(1, 6, device=DEVICE)
    rgba[:, 3:, 3] = 0.98  # 8e-6 is left
    grad = torch.ones(1, 1, 5, 3, 3, device=DEVICE)
    gradient = kernels.render_planes_backward(grad, rgba, identity, inverse_depths, True)
    assert (gradient[0, :3] == 0).all()
    assert (gradient[0, 3:, :3] != 0).all()


@pytest.mark.slow
def test_gradients_belong_to_the_renderings(kernels: ModuleType) -> None:
    scene = Scene(batch=1, views=1, count=2, plane_size=(4, 5), size=(3, 4), shift=0.1)
    rest = (*scene.arguments(torch.float64), True)
    inputs = [torch.rand(1, 2, 4, 4, 5, dtype=torch.float64, device=DEVICE).mul(0.8).add(0.1) for _ in range(2)]
    rgba, background = (x.requires_grad_() for x in inputs)
    mask = torch.rand(1, 2, 4, 5, dtype=torch.float64, device=DEVICE).mul(0.8).add(0.1).requires_grad_()
    render = differentiable(
        lambda x: kernels.render_planes(x, *rest[:2], scene.size, True),
        lambda grad, x: kernels.render_planes_backward(grad, x, *rest),
    )
    assert gradcheck(render, (rgba,))
    blended = differentiable(
        lambda *x: kernels.render_blended(*x, *rest[:2], scene.size, True),
        lambda grad, *x: kernels.render_blended_backward(grad, *x, *rest, (True, True, True)),
    )
    assert gradcheck(blended, (mask, rgba, background))
