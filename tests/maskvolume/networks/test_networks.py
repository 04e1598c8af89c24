"""Laws of all architectures: any size, any number of planes and views, no data never shows."""

import pytest
import torch

from maskvolume.networks import ARCHITECTURES

OURS = [name for name, architecture in ARCHITECTURES.items() if architecture.gives_logits]
SIZES = [(8, 16, 24), (5, 19, 30), (3, 9, 17)]


def random_sweep(views: int, planes: int, h: int, w: int) -> torch.Tensor:
    sweep = torch.rand(2, views, 3, planes, h, w)
    hole = torch.rand(2, views, 1, planes, h, w) < 0.2
    return sweep.masked_fill(hole, -1.0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES)
def test_any_size_and_number_of_planes(arch: str, size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    networks = ARCHITECTURES[arch]
    sweep, background = random_sweep(2, *size), random_sweep(2, *size)
    rgba = networks.mpi()(sweep)
    assert rgba.shape == (2, size[0], 4, *size[1:])
    assert rgba.min() >= 0
    assert rgba.max() <= 1 + 1e-5
    mask = networks.mask()(sweep, background, rgba, rgba)
    assert mask.shape == (2, 1, *size)
    assert mask.min() >= 0
    assert mask.max() <= 1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_data_never_shows(arch: str) -> None:
    torch.manual_seed(1)
    network = ARCHITECTURES[arch].mpi()
    sweep = random_sweep(2, 8, 16, 16).clamp_max(0.5)
    sweep[..., :4] = -1  # a part that no view sees
    rgba = network(sweep)
    assert rgba[..., :4][:, :, 3].abs().max() == 0  # empty, not coloured
    assert rgba[:, :, :3].min() >= 0
    assert rgba[:, :, :3].max() <= 0.5 + 1e-5


@pytest.mark.parametrize("arch", OURS)
def test_any_number_of_views_symmetric_in_all_but_the_reference(arch: str) -> None:
    torch.manual_seed(2)
    network = ARCHITECTURES[arch].mpi()
    sweep = random_sweep(4, 8, 16, 16)
    if arch == "semiglobal":  # its costs are differences from the first view that sees a point
        sweep[:, 0] = sweep[:, 0].abs()
    torch.testing.assert_close(network(sweep), network(sweep[:, [0, 3, 1, 2]]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", OURS)
def test_the_plane_where_views_agree_is_found_before_any_training(arch: str) -> None:
    torch.manual_seed(3)
    network = ARCHITECTURES[arch].mpi()
    sweep = torch.rand(1, 2, 3, 8, 24, 24)
    sweep[:, :, :, 5] = torch.rand(1, 1, 3, 24, 24)  # the views agree on plane 5
    alpha = network(sweep)[0, :, 3]
    nearer = torch.cat([(1 - alpha).flip(0).cumprod(0).flip(0)[1:], torch.ones(1, 24, 24)])
    weights = alpha * nearer
    assert (weights.argmax(dim=0) == 5).all()
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(24, 24))  # the farthest plane is opaque


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_parameter_gets_a_gradient_after_a_step(arch: str) -> None:
    torch.manual_seed(0)
    for name in ("mpi", "mask"):
        network = getattr(ARCHITECTURES[arch], name)()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
        views = ARCHITECTURES[arch].max_views or 3
        sweep, background = random_sweep(views, 8, 16, 16), random_sweep(views, 8, 16, 16)
        rgba = torch.rand(2, 8, 4, 16, 16)
        for _ in range(2):  # last layers start at zero: the layers before them move from the second step on
            optimizer.zero_grad()
            out = network(sweep) if name == "mpi" else network(sweep, background, rgba, rgba)
            (out * torch.rand_like(out)).sum().backward()
            optimizer.step()
        silent = [key for key, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
        assert silent == []


def test_half_precision_sweeps_run_under_autocast() -> None:
    """As the renderer keeps them beside bfloat16 networks."""
    sweep, background = (random_sweep(2, 8, 16, 16).half() for _ in range(2))
    for architecture in ARCHITECTURES.values():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rgba = architecture.mpi()(sweep)
            mask = architecture.mask()(sweep, background, rgba.float(), rgba.float())
        assert mask.isfinite().all()
