"""The Triton kernels render what the reference renders."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from triton_helpers import (
    CLOSE,
    DEVICE,
    EXACT,
    ROUNDED,
    Scene,
    as_type,
    assert_close,
    layouts,
)


@pytest.mark.parametrize(
    ("dtype", "layout", "premultiplied"),
    [
        (torch.float64, "planar", True),
        (torch.float64, "last", False),
        (torch.float32, "planar", False),
        (torch.float32, "last", True),
        (torch.float32, "strided", True),
        (torch.float16, "last", False),
        (torch.bfloat16, "planar", True),
        (torch.uint8, "last", True),
        (torch.uint8, "strided", False),
    ],
)
def test_render_is_the_reference(kernels: ModuleType, dtype: torch.dtype, layout: str, premultiplied: bool) -> None:
    scene = Scene(batch=2 if dtype == torch.float64 else 1, views=2, seed=3)
    planes, values = as_type(scene.rgba, dtype)
    expected = scene.expected(values, premultiplied)
    rgba = layouts(planes.to(DEVICE), layout)
    views = kernels.render_planes(rgba, *scene.arguments(dtype), scene.size, premultiplied)
    assert views.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert views.shape == (len(planes), 2, 5, *scene.size)
    shown = expected[:, :, 3]
    assert (shown > 0.99).any()
    assert (shown == 0).any()  # outside of every plane
    assert_close(views, expected, EXACT if dtype == torch.float64 else CLOSE)


@pytest.mark.parametrize("size", [(8, 32), (9, 33), (1, 1)])
def test_render_of_whole_and_cut_tiles(kernels: ModuleType, size: tuple[int, int]) -> None:
    scene = Scene(batch=1, views=1, count=2, plane_size=(10, 35), size=size)
    views = kernels.render_planes(scene.rgba.to(DEVICE), *scene.arguments(torch.float64), size, True)
    assert_close(views, scene.expected(scene.rgba, True), EXACT)


def test_rays_end_where_all_are_saturated(kernels: ModuleType) -> None:
    identity = torch.eye(3, device=DEVICE).expand(1, 1, 6, 3, 3)
    rgba, depths = torch.full((1, 6, 4, 9, 9), 0.5, device=DEVICE), torch.ones(1, 6, device=DEVICE)
    rgba[:, 5] = 1
    rgba[:, :2] = float("nan")  # further away than the planes between two looks
    opaque = kernels.render_planes(rgba, identity, depths, (9, 9), True)
    assert_close(opaque, torch.ones(1, 1, 5, 9, 9, dtype=torch.float64), ROUNDED)
    rgba[:, 5, 3, 4, 4] = 0.5  # one pixel lets through
    seen = kernels.render_planes(rgba, identity, depths, (9, 9), True)
    assert seen[0, 0, 0].isnan()[4, 4]


def test_rays_never_end_in_float64(kernels: ModuleType) -> None:
    identity = torch.eye(3, dtype=torch.float64, device=DEVICE).expand(1, 1, 6, 3, 3)
    rgba = torch.full((1, 6, 4, 2, 2), 0.5, dtype=torch.float64, device=DEVICE)
    rgba[:, 2:, 3] = 1 - 2.0**-10
    views = kernels.render_planes(rgba, identity, rgba.new_ones(1, 6), (2, 2), False)
    left = (views.new_full((1, 1, 2, 2), 2.0**-42), 1 - views[:, :, 3])
    assert_close(left[1], left[0].cpu(), 1e-15)
    assert (left[1] > 0).all()


def test_planes_that_a_tile_misses_are_skipped(kernels: ModuleType) -> None:
    behind = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    away = [torch.tensor([[1.0, 0, x], [0, 1, y], [0, 0, 1]]) for x, y in ((-40, 0), (40, 0), (0, -40), (0, 40))]
    H = torch.stack([torch.eye(3), behind, *away])[None, None].to(DEVICE)
    rgba = torch.rand(1, 6, 4, 9, 9, device=DEVICE)
    inverse_depths = torch.tensor([[1.0, *[float("nan")] * 5]], device=DEVICE)  # 0 times this is seen
    views = kernels.render_planes(rgba, H, inverse_depths, (9, 9), True)
    assert_close(views[0, 0, :4], rgba[0, 0].cpu().double(), ROUNDED)
    assert_close(views[0, 0, 4], rgba[0, 0, 3].cpu().double(), ROUNDED)


def test_what_lies_behind_the_target_is_not_seen(kernels: ModuleType) -> None:
    # Each pixel falls on (5, 5) by its first two coordinates; the third is negative left of x = 8.
    H = torch.tensor([[5.0, 0, -40], [5, 0, -40], [1, 0, -8]], device=DEVICE)
    rgba = torch.rand(1, 1, 4, 9, 9, device=DEVICE)
    expected = torch.zeros(4, 9, 15, dtype=torch.float64)
    expected[:, :, 8:] = rgba[0, 0, :, 4:6, 4:6].mean(dim=(1, 2))[:, None, None].double().cpu()
    views = kernels.render_planes(rgba, H.expand(1, 1, 1, 3, 3), torch.ones(1, 1, device=DEVICE), (9, 15), True)
    assert_close(views[0, 0, :4], expected, ROUNDED)
    expected[:, :, :8] = -1
    for original in (False, True):
        swept = kernels.sweep(rgba[0], H.expand(1, 1, 3, 3), (9, 15), original)
        assert torch.equal(swept[0, :, 0].cpu() == -1, expected == -1)


@pytest.mark.parametrize(
    ("mask_type", "dtype", "background_type", "layout", "premultiplied"),
    [
        (torch.float64, torch.float64, torch.float64, "strided", False),
        (torch.float32, torch.float32, torch.float32, "last", True),
        (torch.float16, torch.uint8, torch.float16, "planar", True),
    ],
)
def test_blended_render_is_the_reference(
    kernels: ModuleType,
    mask_type: torch.dtype,
    dtype: torch.dtype,
    background_type: torch.dtype,
    layout: str,
    premultiplied: bool,
) -> None:
    scene = Scene(batch=2, views=1, count=3, seed=1)
    weights, mask = as_type(torch.rand(2, 3, 13, 17, dtype=torch.float64).mul(1.5).clamp_max(1), mask_type)
    planes, dynamic = as_type(scene.rgba, dtype)
    others, background = as_type(Scene.planes(2, 3, 13, 17), background_type)
    blended = mask[:, :, None] * dynamic + (1 - mask[:, :, None]) * background
    near, far = layouts(planes.to(DEVICE), layout), layouts(others.to(DEVICE), layout)
    wide = layouts(weights[:, :, None].to(DEVICE), layout)[:, :, 0]
    views = kernels.render_blended(wide, near, far, *scene.arguments(dtype), scene.size, premultiplied)
    assert_close(views, scene.expected(blended, premultiplied), EXACT if dtype == torch.float64 else CLOSE)
