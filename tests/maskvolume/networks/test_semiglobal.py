"""What semi-global evidence brings, and what a part of a picture needs of the whole."""

from __future__ import annotations

import torch

from maskvolume.networks import ARCHITECTURES


def test_a_surface_without_texture_is_as_deep_as_what_is_around_it() -> None:
    """A patch that windows can't tell the depth of, on a wall that lies on plane 5."""
    torch.manual_seed(5)
    sweep = torch.rand(1, 2, 3, 8, 64, 64)
    sweep[:, :, :, 5] = torch.rand(1, 1, 3, 64, 64)
    sweep[..., 16:48, 16:48] = 0.5
    shares = {}
    for arch in ("matching", "semiglobal"):
        with torch.no_grad():
            alpha = ARCHITECTURES[arch].mpi()(sweep)[0, :, 3]
        nearer = torch.cat([(1 - alpha).flip(0).cumprod(0).flip(0)[1:], torch.ones(1, 64, 64)])
        shares[arch] = float(((alpha * nearer).argmax(dim=0) == 5)[24:40, 24:40].float().mean())
    assert shares["matching"] < 0.2
    assert shares["semiglobal"] > 0.95


def test_what_only_near_planes_show_twice_does_not_seem_near() -> None:
    """At the picture's sides cameras see near planes together and farther ones alone; this wall lies on plane 2."""
    torch.manual_seed(8)
    sweep = torch.rand(1, 2, 3, 8, 64, 64)
    sweep[:, :, :, 2] = torch.rand(1, 1, 3, 64, 64)
    side = sweep[..., :16]
    side[:, 1, :, 5:] = side[:, 0, :, 5:] + 0.15  # colours that are alike by chance, but not the same
    side[:, 1, :, :5] = -1
    with torch.no_grad():
        alpha = ARCHITECTURES["semiglobal"].mpi()(sweep)[0, :, 3]
    nearer = torch.cat([(1 - alpha).flip(0).cumprod(0).flip(0)[1:], torch.ones(1, 64, 64)])
    weights = (alpha * nearer)[..., 2:12].mean(dim=(1, 2))
    assert weights.argmax() == 2
    assert weights[5:].sum() < 0.1


def test_a_part_of_a_picture_is_told_what_is_around() -> None:
    torch.manual_seed(6)
    net = ARCHITECTURES["semiglobal"].mpi()
    sweep = torch.rand(1, 2, 3, 4, 32, 48)
    context = ARCHITECTURES["semiglobal"].context
    assert context is not None
    whole = context.of(sweep)
    with torch.no_grad():
        assert torch.equal(net(sweep, whole), net(sweep))
        other = net(sweep, whole.flip(1))
    assert not torch.allclose(other, net(sweep), atol=1e-2)
