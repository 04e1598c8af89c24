"""The compiled loops of the matching networks do what the plain functions do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from ops_helpers import random_planes, random_sweep, trained
from torch import Tensor

from maskvolume import ops
from maskvolume.networks import MatchingMaskNet, MatchingMPINet, SemiglobalMPINet, matching, semiglobal
from maskvolume.ops import types
from maskvolume.ops.cpu import evidence as loops

SIZES = [(2, 4, 8, 16), (3, 8, 24, 40), (2, 5, 17, 30), (4, 3, 9, 7)]  # views, planes, height, width


@contextmanager
def plain(*networks: torch.nn.Module) -> Iterator[None]:
    """The networks with the reference's operations."""
    for network in networks:
        network.backend = "reference"  # type: ignore[assignment]
    yield
    for network in networks:
        network.backend = None  # type: ignore[assignment]


def padded(sweep: Tensor) -> Tensor:
    return matching.pad_views(sweep)[0]


@pytest.mark.parametrize("shape", SIZES)
def test_evidence_is_that_of_the_plain_functions(shape: tuple[int, ...]) -> None:
    frame, still = padded(random_sweep(*shape)), padded(random_sweep(*shape, seed=1))
    settings = matching.cost_settings()
    wanted, found = (ops.matching_evidence(frame, settings, backend=backend) for backend in ("reference", "compiled"))
    torch.testing.assert_close(found[0], wanted[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-6, rtol=0)
    opacities = torch.stack([random_planes(tuple(frame.shape[-3:]), seed)[:, :, 3] for seed in (1, 2)], dim=1)
    wanted, found = (
        ops.mask_evidence(frame, still, opacities, settings, backend=backend) for backend in ("reference", "compiled")
    )
    torch.testing.assert_close(found[0], wanted[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-6, rtol=0)
    assert found[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert wanted[0].std(dim=(0, 2, 3, 4)).min() > 1e-3  # there is something in every feature


@pytest.mark.parametrize("make_net", [MatchingMPINet, SemiglobalMPINet])
@pytest.mark.parametrize("shape", SIZES)
def test_networks_are_the_same_by_loops(shape: tuple[int, ...], make_net: Callable[[], torch.nn.Module]) -> None:
    frame, still = random_sweep(*shape), random_sweep(*shape, seed=1)
    background = random_planes(shape[1:], 3)
    mpi_net, mask_net = trained(make_net), trained(MatchingMaskNet)
    with torch.no_grad():
        rgba = mpi_net(frame)
        mask = mask_net(frame, still, rgba, background)
        with plain(mpi_net, mask_net):
            torch.testing.assert_close(rgba, mpi_net(frame), atol=2e-5, rtol=0)
            torch.testing.assert_close(mask, mask_net(frame, still, rgba, background), atol=1e-4, rtol=0)
    assert rgba.is_contiguous()
    assert mask.std() > 0.05


@pytest.mark.parametrize("make_net", [MatchingMPINet, SemiglobalMPINet])
def test_networks_of_half_precision_are_the_same_by_loops(make_net: Callable[[], torch.nn.Module]) -> None:
    if torch.float16 not in loops.TYPES:
        pytest.skip("this processor does not convert half precision")
    shape = (2, 8, 24, 40)
    frame, still = random_sweep(*shape).half(), random_sweep(*shape, seed=1).half()
    background = random_planes(shape[1:], 3)
    mpi_net, mask_net = trained(make_net), trained(MatchingMaskNet)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rgba = mpi_net(frame)
        mask = mask_net(frame, still, rgba, background)
        with plain(mpi_net, mask_net):
            # A feature that lies between two bfloat16 is rounded to either.
            assert (rgba - mpi_net(frame)).abs().mean() < 1e-3
            assert (mask - mask_net(frame, still, rgba, background)).abs().mean() < 1e-3


@pytest.mark.parametrize("make_net", [MatchingMPINet, SemiglobalMPINet])
def test_gradients_are_those_of_the_plain_functions(make_net: Callable[[], torch.nn.Module]) -> None:
    sweep, net = random_sweep(2, 4, 8, 16), trained(make_net)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(net(sweep).square().sum(), list(net.parameters())))

    found = gradients()
    with plain(net):
        for one, other in zip(found, gradients(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("make_net", [MatchingMPINet, SemiglobalMPINet])
def test_threads_do_not_change_the_result(
    make_net: Callable[[], torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, net = random_sweep(3, 8, 40, 24), trained(make_net)
    with torch.no_grad():
        alone = net(sweep)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert torch.equal(net(sweep), alone)


CONSTANTS = [
    (matching, "COST_CAP", 0.4),
    (matching, "COST_UNSURE", 0.1),
    (matching, "WINDOW", 5),
    (matching, "WINDOW_FINE", 1),
    (matching, "LOGIT_CAP", 1.0),
    (matching, "VIEW_LOGIT_CAP", 0.01),
    (semiglobal, "COST_CAP", 0.4),
    (semiglobal, "WINDOW_FINE", 5),
    (semiglobal, "GRADIENT_CAP", 0.05),
    (semiglobal, "GRADIENT_GAIN", 7.0),
    (semiglobal, "ROBUST_UNSURE", 0.1),
    (semiglobal, "STEP_PRICE", 0.2),
    (semiglobal, "JUMP_PRICE", 0.3),
    (semiglobal, "EDGE", 1.0),
    (semiglobal, "LEAST_JUMP_PRICE", 0.5),
    (types, "VALID_ABOVE", 0.3),
]


@pytest.mark.parametrize(("module", "name", "value"), CONSTANTS)
def test_loops_follow_a_constant_that_changes(
    module: ModuleType, name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba freezes the constants that a loop imports; these are arguments."""
    frame, still = random_sweep(3, 4, 16, 24), random_sweep(3, 4, 16, 24, seed=1)
    background = random_planes((4, 16, 24), 3)
    mpi_net, mask_net = trained(SemiglobalMPINet), trained(MatchingMaskNet)

    def outputs() -> list[Tensor]:
        with torch.no_grad():
            evidence = mpi_net.evidence(frame, None)  # type: ignore[operator]
            mask = mask_net(frame, still, background, background)
            return [evidence.features, evidence.aggregated, mpi_net(frame), mask]

    before = outputs()
    monkeypatch.setattr(module, name, value)
    after = outputs()
    assert max(float((one - other).abs().max()) for one, other in zip(before, after, strict=True)) > 1e-2
    with plain(mpi_net, mask_net):
        for found, wanted in zip(after, outputs(), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
