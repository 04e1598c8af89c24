"""The operators: shapes for tracing, gradients, an implementation on every device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import torch
from helpers import make_camera
from ops_helpers import smooth_planes
from torch import Tensor

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.ops import dispatch, operators
from maskvolume.ops.reference import costs, warps
from maskvolume.ops.reference.warps import mpi_homographies
from maskvolume.ops.types import PathPrices

CPU = torch.device("cpu")
IMPLEMENTATIONS = ["default", "compiled"]


@pytest.fixture(autouse=True)
def implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """The compiled kernels, or, where a test asks for it, what an operator runs where no kernels are registered."""
    dispatch.select_backend("compiled", CPU)
    disabled = getattr(request, "param", "compiled") == "default"
    with ExitStack() as stack:
        for operator in (operators.render_planes, operators.render_blended, operators.sweep, operators.aggregate):
            if disabled:
                stack.enter_context(operator.set_kernel_enabled("cpu", enabled=False))
        yield


def inputs(kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mask, two MPIs, homographies and inverse depths of one MPI and two targets."""
    camera, depths = make_camera(0, (9, 12)).to(kind), disparity_planes(1.0, 9.0, 3, dtype=kind)
    targets = stack_cameras([make_camera(seed, (7, 8)).to(kind) for seed in (1, 2)])
    dynamic, background = smooth_planes(1, 3, 4, 9, 12).to(kind), smooth_planes(1, 3, 4, 9, 12, seed=1).to(kind)
    H, inverse = mpi_homographies(dynamic, Camera(camera.T_cam_world[None], camera.K[None], camera.size), depths[None],
                                  Camera(targets.T_cam_world[None], targets.K[None], targets.size))  # fmt: skip
    return smooth_planes(1, 3, 9, 12, seed=2).to(kind), dynamic, background, H, inverse


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, indirect=True)
@pytest.mark.parametrize("differentiable", [False, True])
def test_the_operators_keep_the_rules_of_operators(differentiable: bool) -> None:
    mask, dynamic, background, H, inverse = inputs()
    for x in (mask, dynamic, background):
        x.requires_grad_(differentiable)
    torch.library.opcheck(operators.render_planes, (dynamic, H, inverse, 7, 8, True))
    torch.library.opcheck(operators.render_blended, (mask, dynamic, background, H, inverse, 7, 8, False))
    images = smooth_planes(2, 3, 9, 12).requires_grad_(differentiable)
    torch.library.opcheck(operators.sweep, (images, H[0], 7, 8, False))


def test_gradients_of_the_operators_are_those_of_the_reference() -> None:
    mask, dynamic, background, H, inverse = inputs()
    weight = torch.rand(1, 2, 5, 7, 8, generator=torch.Generator().manual_seed(3))

    def gradients(make: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in (mask, dynamic, background)]
        return list(torch.autograd.grad((make(*leaves) * weight).sum(), leaves))

    def stored(m: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return warps.render_planes(warps.blend_planes(m[:, None], a, b), H, inverse, (7, 8), True)

    def at_once(m: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return operators.render_blended(m, a, b, H, inverse, 7, 8, True)

    for found, wanted in zip(gradients(at_once), gradients(stored), strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_compiled_graph_holds_the_operators() -> None:
    _, rgba, _, H, inverse = inputs()

    def view(planes: Tensor) -> Tensor:
        return operators.render_planes(planes * 0.5, H, inverse, 7, 8, True) + 1

    made = torch.compile(view, backend="aot_eager", fullgraph=True)(rgba)
    torch.testing.assert_close(made, view(rgba))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, indirect=True)
def test_costs_are_aggregated_by_an_operator_on_every_device() -> None:
    generator = torch.Generator().manual_seed(1)
    cost, guide = torch.rand(2, 3, 4, 5, generator=generator), torch.rand(2, 4, 5, generator=generator)
    prices = 0.05, 0.8, 20.0, 0.075
    torch.library.opcheck(operators.aggregate, (cost, guide, *prices))
    wanted = costs.aggregate(cost, guide, PathPrices(*prices))
    torch.testing.assert_close(torch.ops.maskvolume.aggregate(cost, guide, *prices), wanted, atol=1e-5, rtol=0)
    shapes = torch.ops.maskvolume.aggregate(cost.to("meta"), guide.to("meta"), *prices)
    assert shapes.shape == cost.shape


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, indirect=True)
@pytest.mark.parametrize("original", [False, True])
def test_every_implementation_of_an_operator_is_within_its_tolerance(original: bool) -> None:
    mask, dynamic, background, H, inverse = inputs()
    views = warps.render_planes(dynamic, H, inverse, (7, 8), original)
    torch.testing.assert_close(
        torch.ops.maskvolume.render_planes(dynamic, H, inverse, 7, 8, original), views, atol=1e-3, rtol=0
    )
    layers = mask, dynamic, background
    views = warps.render_blended_planes(*layers, H, inverse, (7, 8), original)
    found = torch.ops.maskvolume.render_blended(*layers, H, inverse, 7, 8, original)
    torch.testing.assert_close(found, views, atol=1e-3, rtol=0)
    swept = torch.ops.maskvolume.sweep(dynamic[:, 0], H[:, 0], 7, 8, original)
    torch.testing.assert_close(swept, warps.sweep(dynamic[:, 0], H[:, 0], (7, 8), original), atol=1e-3, rtol=0)
