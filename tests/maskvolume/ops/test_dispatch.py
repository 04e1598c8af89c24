"""Which implementation runs: what is asked for, or the best that can; the reference is plain torch for everything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import make_camera
from ops_helpers import random_planes, random_sweep
from torch import Tensor

from maskvolume import ops
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.networks import ARCHITECTURES
from maskvolume.ops import dispatch
from maskvolume.ops.reference import ReferenceBackend
from maskvolume.runtime.devices import Precision

CPU = torch.device("cpu")
COSTS = ops.CostSettings(cap=0.6, unsure=0.35, window=9, window_fine=3)
ROBUST = ops.RobustSettings(cap=0.6, unsure=0.45, window=3, gradient_cap=0.25, gradient_gain=2.0)
PLANES = ops.PlaneSettings(logit_cap=60.0, view_cap=15.0, cost_cap=0.6, trust=torch.tensor(3.0))
PRICES = ops.PathPrices(step=0.1, jump=0.5, edge=20.0, least_jump=0.2)
NO_OPERATIONS = ("stored_dtype", "runs")
OPERATIONS = [name for name in vars(ReferenceBackend) if not name.startswith("_") and name not in NO_OPERATIONS]
INHERITED = ("blend_planes", "composite", "make_planes_with_logits")  # by the compiled loops


def to_float(camera: Camera) -> Camera:
    return camera.to(torch.float32)


def test_an_unknown_backend_raises() -> None:
    camera = to_float(make_camera(0))
    with pytest.raises(ValueError, match="reference"):
        ops.render_mpi(torch.rand(2, 4, 36, 64), camera, torch.tensor([2.0, 1.0]), camera, backend="fast")


def test_the_compiled_loops_are_not_chosen_where_a_gradient_is_wanted() -> None:
    camera, depths = make_camera(0).to(torch.float32), disparity_planes(1.0, 9.0, 2)
    rgba = torch.rand(2, 4, 36, 64, requires_grad=True)
    with pytest.raises(ValueError, match="gradient"):
        ops.render_mpi(rgba, camera, depths, camera, backend="compiled")
    assert ops.render_mpi(rgba, camera, depths, camera).color.requires_grad  # by itself it takes one that has
    with pytest.raises(ValueError, match="float64"):
        ops.render_mpi(rgba.detach().double(), camera, depths, camera, backend="compiled")


def call(operation: str, backend: str | None) -> Any:
    """Run an operation on small inputs."""
    camera, depths = make_camera(0, (8, 16)).to(torch.float32), disparity_planes(1.0, 9.0, 4)
    sweep, rgba = random_sweep(2, 4, 8, 16), random_planes((4, 8, 16), 0)
    opacities, pictures, planes = rgba[:, None, :, 3].expand(-1, 2, -1, -1, -1), rgba[0, :1, :3], rgba[0]
    mask, volume = torch.rand(1, 4, 8, 16), torch.rand(2, 1, 4, 8, 16)
    of_planes = torch.rand(2, 8, 4, 4, 8), volume, sweep, PLANES, (4, 8, 16)
    of_mask = torch.rand(2, 4, 4, 4, 8), volume, volume[:, 0]
    prior = {"slope": torch.tensor(30.0), "threshold": torch.tensor(0.1), "hidden": torch.tensor(0.05)}
    view = ops.Rendering(torch.rand(3, 8, 9), (torch.rand(1, 8, 9) > 0.5).float(), torch.rand(1, 8, 9))
    options: dict[str, Any] = {"backend": backend}
    calls: dict[str, Callable[[], Any]] = {
        "sweep_planes": lambda: ops.sweep_planes(pictures, camera[None], camera, depths, **options),
        "render_mpi": lambda: ops.render_mpi(planes, camera, depths, camera, **options),
        "render_blended": lambda: ops.render_blended(mask, planes, planes, camera, depths, camera, **options),
        "blend_planes": lambda: ops.blend_planes(mask, planes, planes, **options),
        "composite": lambda: ops.composite(planes, depths, **options),
        "fill_unseen": lambda: ops.fill_unseen(view, **options),
        "matching_evidence": lambda: ops.matching_evidence(sweep, COSTS, **options),
        "mask_evidence": lambda: ops.mask_evidence(sweep, sweep.flip(-1), opacities, COSTS, **options),
        "robust_costs": lambda: ops.robust_costs(sweep, ROBUST, **options),
        "aggregate": lambda: ops.aggregate(volume[:, 0], volume[:, 0, 0], PRICES, **options),
        "make_planes": lambda: ops.make_planes(*of_planes, **options),
        "make_planes_with_logits": lambda: ops.make_planes_with_logits(*of_planes, **options),
        "make_mask": lambda: ops.make_mask(*of_mask, **prior, size=(4, 8, 16), **options),
        "remaining_transmittance": lambda: ops.remaining_transmittance(volume[:, 0], **options),
    }
    return calls[operation]()


@pytest.fixture
def no_compiled_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every compiled loop raises."""

    def fail(*_: Any) -> Any:
        raise AssertionError("a compiled loop ran")

    from maskvolume.ops.cpu import (
        costs_kernels,
        evidence_kernels,
        filling_kernels,
        planes_kernels,
        warp_kernels,
    )

    for module in (costs_kernels, evidence_kernels, filling_kernels, planes_kernels, warp_kernels):
        for name in [name for name, value in vars(module).items() if hasattr(value, "__wrapped__")]:
            monkeypatch.setattr(module, name, fail)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_reference_is_plain_torch(operation: str, no_compiled_loops: None) -> None:
    with torch.no_grad():
        call(operation, "reference")
        if operation in INHERITED:
            call(operation, "compiled")
        else:
            with pytest.raises(AssertionError, match="a compiled loop ran"):
                call(operation, "compiled")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_model_with_the_reference_runs_no_compiled_loop(arch: str, no_compiled_loops: None) -> None:
    model = MaskVolumeModel(CheckpointMeta("mask", arch), backend="reference")
    camera, depths = make_camera(0, (8, 16)).to(torch.float32), disparity_planes(1.0, 9.0, 4)
    sources = Camera(camera.T_cam_world.expand(2, 4, 4), camera.K.expand(2, 3, 3), camera.size)
    images = torch.rand(2, 3, 8, 16)
    with torch.no_grad():
        background = model.background(images, sources, camera, depths)
        rendering = model.frame(images, sources, background).render(camera, model.backend)
        ops.fill_unseen(rendering, backend=model.backend)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_with_compiled_loops_runs_any_size(precision: Precision) -> None:
    model = MaskVolumeModel(CheckpointMeta("mask", "semiglobal"), precision, backend="compiled").requires_grad_(False)
    camera, depths = make_camera(0, (9, 18)).to(torch.float32), disparity_planes(1.0, 9.0, 5)
    sources = Camera(camera.T_cam_world.expand(2, 4, 4), camera.K.expand(2, 3, 3), camera.size)
    images = torch.rand(2, 3, 9, 18)
    background = model.background(images, sources, camera, depths)
    assert model.frame(images, sources, background).mask.shape == (1, 5, 9, 18)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_implementations_agree(operation: str) -> None:
    with torch.no_grad():
        torch.manual_seed(0)
        found = call(operation, "compiled")
        torch.manual_seed(0)
        wanted = call(operation, "reference")
    for one, other in zip(tensors(found), tensors(wanted), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, ops.Rendering):
        yield from (outputs.color, outputs.opacity, outputs.disparity)
    else:
        yield from outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("backend", ["triton", "fast"])
def test_what_can_not_run_here_raises(operation: str, backend: str) -> None:
    with pytest.raises(ValueError, match="available: compiled, reference"):
        call(operation, backend)


def test_types_and_gradients_that_loops_lack_are_the_references() -> None:
    sweep = random_sweep(2, 4, 8, 8)
    cost, volume = torch.rand(1, 2, 4, 4), torch.rand(1, 1, 4, 8, 8)
    with pytest.raises(ValueError, match="float64"):
        ops.matching_evidence(sweep.double(), COSTS, backend="compiled")
    with pytest.raises(ValueError, match="matching_evidence"):  # features would be written in another type
        ops.matching_evidence(sweep, COSTS, dtype=torch.bfloat16, backend="compiled")
    assert ops.matching_evidence(sweep.double(), COSTS, dtype=torch.float64)[1].dtype == torch.float64
    assert ops.robust_costs(sweep.to("meta"), ROBUST)[0].device.type == "meta"
    assert ops.aggregate(cost.requires_grad_(False), cost[:, 0], PRICES).isfinite().all()
    unet_output = torch.rand(1, 8, 4, 4, 4, requires_grad=True)
    arguments = unet_output, volume, sweep[:1], PLANES, (4, 8, 8)
    with pytest.raises(ValueError, match="gradient"):
        ops.make_planes(*arguments, backend="compiled")
    assert ops.make_planes(*arguments).requires_grad
    with torch.no_grad():
        assert torch.equal(ops.make_planes(*arguments), ops.make_planes(*arguments, backend="compiled"))


def test_a_graph_of_torch_compile_holds_no_loops() -> None:
    sweep = random_sweep(2, 4, 8, 8)
    traced = torch.compile(lambda x: ops.robust_costs(x, ROBUST)[0] + 1, backend="aot_eager")
    torch.testing.assert_close(traced(sweep), ops.robust_costs(sweep, ROBUST)[0] + 1)


def test_without_numba_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("maskvolume.ops.cpu")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(dispatch, "_LOADED", {"reference": ReferenceBackend()})
    try:
        assert ops.available_backends(CPU) == ["reference"]
        assert "numba" in ops.missing_backends(CPU)["compiled"]
        assert ops.stored_dtype(CPU) == torch.float32
        call("robust_costs", None)
    finally:
        monkeypatch.undo()
    assert ops.missing_backends(CPU) == {}
