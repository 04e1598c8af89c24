"""The Triton kernels give what the reference gives, and so do their gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import make_camera
from torch import Tensor

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.homography import render_homographies, sweep_homographies
from maskvolume.geometry.planes import disparity_planes
from maskvolume.ops.reference import ReferenceBackend
from maskvolume.ops.types import Sampling

REFERENCE = ReferenceBackend()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Sums of some hundred products in another order.
EXACT = 1e-11
# Coordinates are rounded to float32, and a pixel's error meets the full contrast of noise; near the edge of the view of
# a plane from behind a division makes it larger. A ray may end with 1e-4 of it left.
CLOSE = 1e-3
# The same for maps that are exact but for the division, which is rounded twice on a GPU: ten pixels times 1e-7.
ROUNDED = 1e-5


def layouts(planes: Tensor, layout: str) -> Tensor:
    """The same values ``[B, D, 4, H, W]`` laid out otherwise in memory."""
    if layout == "planar":
        return planes.contiguous()
    if layout == "last":
        return planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    wide = planes.new_zeros(*planes.shape[:-1], 2 * planes.shape[-1] + 1)  # every second column, rows apart
    wide[..., 1::2] = planes
    return wide[..., 1::2]


class Scene:
    """Multiplane images, and targets around them that see some planes in part, from behind or not at all.

    Opacities are random, with patches of exactly 0 and 1.
    """

    def __init__(
        self,
        batch: int,
        views: int,
        count: int = 5,
        plane_size: tuple[int, int] = (13, 17),
        size: tuple[int, int] = (11, 15),
        seed: int = 0,
        shift: float = 0.5,
    ) -> None:
        torch.manual_seed(seed)
        h, w = plane_size
        self.size = size
        self.camera = stack_cameras([make_camera(seed + b, plane_size) for b in range(batch)])
        rows = [[make_camera(seed + 50 + 7 * b + n, size, shift, 0.3) for n in range(views)] for b in range(batch)]
        self.targets = [stack_cameras([row[n] for row in rows]) for n in range(views)]
        self.depths = torch.stack([disparity_planes(0.6 + b, 9.0, count, dtype=torch.float64) for b in range(batch)])
        self.rgba = self.planes(batch, count, h, w)
        self.homographies = torch.stack(
            [render_homographies(self.camera, self.depths, target) for target in self.targets], dim=1
        )
        self.views = views

    @staticmethod
    def planes(batch: int, count: int, h: int, w: int) -> Tensor:
        rgba = torch.rand(batch, count, 4, h, w, dtype=torch.float64)
        rgba[:, :, 3] *= torch.randint(0, 2, (batch, count, h, w))
        rgba[:, count // 2, 3, : h // 2] = 1
        rgba[:, -1, 3, :, : w // 3] = 1
        rgba[:, -1, 3, :, -(w // 2) :] *= 0.3
        return rgba

    def expected(self, rgba: Tensor, premultiplied: bool) -> Tensor:
        """What the reference renders in float64, ``[B, N, 5, h, w]``."""
        views = []
        for target in self.targets:
            made = REFERENCE.render_mpi(rgba.double(), self.camera, self.depths, target, premultiplied)
            views.append(torch.cat([made.color, made.opacity, made.disparity], dim=-3))
        return torch.stack(views, dim=1)

    def arguments(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Homographies and inverse depths on the device, for planes of a type."""
        work = torch.float64 if dtype == torch.float64 else torch.float32
        return self.homographies.to(DEVICE, work), (1 / self.depths).to(DEVICE, work)


def as_type(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """0..1 as planes of a type, and what these mean in float64."""
    if dtype == torch.uint8:
        planes = (values * 255).round().to(torch.uint8)
        return planes, planes.double() / 255
    return values.to(dtype), values.to(dtype).double()


def assert_close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got.cpu().double(), expected, atol=tolerance, rtol=tolerance)


# --- rendering ------------------------------------------------------------------------------------


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


# --- gradients of rendering -----------------------------------------------------------------------


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


# --- sweeps ---------------------------------------------------------------------------------------

SWEPT = (11, 34)  # four tiles


class Sweep:
    """Pictures of one source for each reference, in general position."""

    def __init__(self, channels: int, seed: int = 5, batch: int = 2, count: int = 3) -> None:
        torch.manual_seed(seed)
        sources = [make_camera(seed + b, (13, 17), 0.4, 0.3) for b in range(batch)]
        self.sources = stack_cameras(sources)
        self.references = stack_cameras([make_camera(seed + 20 + b, SWEPT) for b in range(batch)])
        self.depths = torch.stack([disparity_planes(0.4 + b, 9.0, count, dtype=torch.float64) for b in range(batch)])
        self.images = torch.rand(batch, channels, 13, 17, dtype=torch.float64)

    def expected(self, images: Tensor, sampling: Sampling) -> Tensor:
        """What the reference makes in float64, ``[B, C, D, h, w]``."""
        views = Camera(self.sources.T_cam_world[:, None], self.sources.K[:, None], self.sources.size)
        return REFERENCE.sweep_planes(images.double()[:, None], views, self.references, self.depths, sampling)[:, 0]

    def homographies(self, dtype: torch.dtype) -> Tensor:
        H = sweep_homographies(self.sources, self.references, self.depths)
        return H.to(DEVICE, torch.float64 if dtype == torch.float64 else torch.float32)


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


# --- both directions together ---------------------------------------------------------------------


def differentiable(forward: Callable[..., Tensor], backward: Callable[..., Any]) -> Callable[..., Tensor]:
    """A function of tensors from a kernel and its gradient, which gets the inputs after ``grad``."""

    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return backward(grad, *ctx.saved_tensors)

    return Kernel.apply


# Sums of one gradient come in any order on a GPU.
gradcheck = partial(torch.autograd.gradcheck, fast_mode=True, nondet_tol=1e-12)


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


@pytest.mark.parametrize("original", [False, True])
def test_gradients_belong_to_the_sweeps(kernels: ModuleType, original: bool) -> None:
    H = Sweep(1, batch=1, count=2).homographies(torch.float64)
    images = torch.rand(1, 2, 13, 17, dtype=torch.float64, device=DEVICE, requires_grad=True)
    sweep = differentiable(
        lambda x: kernels.sweep(x, H, (8, 9), original),
        lambda grad, _: kernels.sweep_backward(grad, H, (13, 17), original),
    )
    assert gradcheck(sweep, (images,))


# --- where kernels can run ------------------------------------------------------------------------


def test_usable_says_where_the_kernels_run(kernels: ModuleType) -> None:
    assert kernels.usable(DEVICE)
    assert not kernels.usable(torch.device("meta"))


def test_without_triton_nothing_is_usable(
    monkeypatch: pytest.MonkeyPatch, load_kernels: Callable[[], ModuleType]
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    kernels = load_kernels()
    assert not kernels.usable(torch.device("cpu"))
    assert not kernels.usable(torch.device("cuda"))


def test_the_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch, load_kernels: Callable[[], ModuleType]) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    compiled = load_kernels()
    assert not compiled.usable(torch.device("cpu"))
    assert compiled.usable(torch.device("cuda"))
