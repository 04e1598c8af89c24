"""The compiled loops of the matching networks do what the plain functions do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from maskvolume.networks import (
    MatchingMaskNet,
    MatchingMPINet,
    SemiglobalMPINet,
    matching,
)
from maskvolume.ops.cpu import matching as compiled_matching

SIZES = [(2, 4, 8, 16), (3, 8, 24, 40), (2, 5, 17, 30), (4, 3, 9, 7)]  # views, planes, height, width


def random_sweep(views: int, *size: int, seed: int = 0) -> Tensor:
    """``[2, V, 3, D, H, W]`` with smooth colours; parts of the views have no data, and some places no view has."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2 * views, 3, *(max(side // 3, 2) for side in size), generator=generator)
    sweep = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear").unflatten(0, (2, views))
    holes = torch.rand(2, views, 1, *size, generator=generator) < 0.2
    holes |= torch.rand(2, 1, 1, *size, generator=generator) < 0.05
    return sweep.masked_fill(holes, -1.0)


def random_planes(size: tuple[int, ...], seed: int) -> Tensor:
    """``[2, D, 4, H, W]`` with some opaque and some empty texels."""
    generator = torch.Generator().manual_seed(seed)
    rgba = torch.rand(2, size[0], 4, *size[1:], generator=generator)
    rgba[:, :, 3] = ((rgba[:, :, 3] - 0.5) * 4).clamp(0, 1)
    return rgba


def trained(make_net: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """The network with weights that say something, always the same: at a kink of one a gradient is one of two."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = make_net()
    head = net.unet.head  # type: ignore[union-attr]
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))  # type: ignore[union-attr, operator, arg-type]
    return net.eval()


@contextmanager
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(matching, "_compiled_loops", lambda: None)
        yield


def padded(sweep: Tensor) -> Tensor:
    return matching.pad_views(sweep)[0]


@pytest.mark.parametrize("shape", SIZES)
def test_evidence_is_that_of_the_plain_functions(shape: tuple[int, ...]) -> None:
    frame, still = padded(random_sweep(*shape)), padded(random_sweep(*shape, seed=1))
    cost, fine = matching.matching_costs(frame)
    found = compiled_matching.matching_evidence(frame, 23, matching.COST_CAP, matching.COST_UNSURE)
    torch.testing.assert_close(found[0], cost, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], matching.matching_features(frame, cost, fine), atol=1e-6, rtol=0)
    opacities = torch.stack([random_planes(tuple(frame.shape[-3:]), seed)[:, :, 3] for seed in (1, 2)], dim=1)
    wanted, evidence = matching.mask_features(frame, still, opacities)
    found = compiled_matching.mask_evidence(frame, still, opacities, MatchingMaskNet.FEATURES, matching.COST_CAP)
    torch.testing.assert_close(found[0], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], evidence, atol=1e-6, rtol=0)
    assert found[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert wanted.std(dim=(0, 2, 3, 4)).min() > 1e-3  # there is something in every feature


@pytest.mark.parametrize("make_net", [MatchingMPINet, SemiglobalMPINet])
@pytest.mark.parametrize("shape", SIZES)
def test_networks_are_the_same_by_loops(
    shape: tuple[int, ...], make_net: Callable[[], torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, still = random_sweep(*shape), random_sweep(*shape, seed=1)
    background = random_planes(shape[1:], 3)
    mpi_net, mask_net = trained(make_net), trained(MatchingMaskNet)
    with torch.no_grad():
        rgba = mpi_net(frame)
        mask = mask_net(frame, still, rgba, background)
        with plain(monkeypatch):
            torch.testing.assert_close(rgba, mpi_net(frame), atol=2e-5, rtol=0)
            torch.testing.assert_close(mask, mask_net(frame, still, rgba, background), atol=1e-4, rtol=0)
    assert rgba.is_contiguous()
    assert mask.std() > 0.05


@pytest.mark.parametrize("make_net", [MatchingMPINet, SemiglobalMPINet])
def test_networks_of_half_precision_are_the_same_by_loops(
    make_net: Callable[[], torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.float16 not in compiled_matching.TYPES:
        pytest.skip("this processor does not convert half precision")
    shape = (2, 8, 24, 40)
    frame, still = random_sweep(*shape).half(), random_sweep(*shape, seed=1).half()
    background = random_planes(shape[1:], 3)
    mpi_net, mask_net = trained(make_net), trained(MatchingMaskNet)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert matching.compiled_loops(frame) is compiled_matching
        rgba = mpi_net(frame)
        mask = mask_net(frame, still, rgba, background)
        with plain(monkeypatch):
            # A feature that lies between two bfloat16 is rounded to either.
            assert (rgba - mpi_net(frame)).abs().mean() < 1e-3
            assert (mask - mask_net(frame, still, rgba, background)).abs().mean() < 1e-3


def test_loops_are_taken_for_what_there_are_some_for() -> None:
    sweep = random_sweep(2, 4, 8, 8)
    assert matching.compiled_loops(sweep) is compiled_matching
    assert matching.compiled_loops(sweep.double()) is None
    assert matching.compiled_loops(sweep.to("meta")) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert matching.compiled_loops(sweep) is None  # features would be written in another type


@pytest.mark.parametrize("make_net", [MatchingMPINet, SemiglobalMPINet])
def test_gradients_are_those_of_the_plain_functions(
    make_net: Callable[[], torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, net = random_sweep(2, 4, 8, 16), trained(make_net)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(net(sweep).square().sum(), list(net.parameters())))

    found = gradients()
    with plain(monkeypatch):
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
