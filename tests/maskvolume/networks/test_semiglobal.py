"""Semi-global evidence: costs along paths, costs that hidden views don't spoil, what it brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.stages import load_start
from maskvolume.networks import (
    ARCHITECTURES,
    MatchingMPINet,
    SemiglobalMPINet,
    matching,
    semiglobal,
)
from maskvolume.networks.semiglobal import (
    EDGE,
    JUMP_PRICE,
    LEAST_JUMP_PRICE,
    STEP_PRICE,
    aggregate,
    robust_costs,
)
from maskvolume.runtime.errors import InputError


def aggregated_by_the_book(cost: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Hirschmueller 2008, eq. 13, pixel by pixel: ``[D, h, w]``."""
    count, h, w = cost.shape
    total = np.zeros_like(cost)
    for down, across in [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)]:
        along = np.zeros_like(cost)
        for y in range(h) if down >= 0 else reversed(range(h)):
            for x in range(w) if across >= 0 else reversed(range(w)):
                along[:, y, x] = cost[:, y, x]
                before = (y - down, x - across)
                if not (0 <= before[0] < h and 0 <= before[1] < w):
                    continue
                last = along[:, before[0], before[1]]
                jump = max(LEAST_JUMP_PRICE, JUMP_PRICE / (1 + EDGE * abs(guide[y, x] - guide[before])))
                for d in range(count):
                    steps = [last[e] + STEP_PRICE for e in (d - 1, d + 1) if 0 <= e < count]
                    along[d, y, x] += min(last[d], *steps, last.min() + jump) - last.min()
        total += along
    return total / 8


@pytest.mark.parametrize("by_loops", [False, True])
def test_costs_are_aggregated_by_the_book(by_loops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    cost, guide = torch.rand(2, 5, 6, 9, generator=generator), torch.rand(2, 6, 9, generator=generator)
    guide[:, :, :5] = 0.4  # jumps are dear there
    if not by_loops:
        monkeypatch.setattr(matching, "_compiled_loops", lambda: None)
    found = aggregate(cost, guide)
    for b in range(2):
        wanted = aggregated_by_the_book(cost[b].double().numpy(), guide[b].double().numpy())
        np.testing.assert_allclose(found[b].numpy(), wanted, atol=1e-5)


def one_plane(*colors: float) -> Tensor:
    """``[1, V, 3, 1, 4, 4]`` of grey views, -1 for one that sees nothing."""
    return torch.tensor(colors)[None, :, None, None, None, None].expand(1, -1, 3, 1, 4, 4).contiguous()


@pytest.mark.parametrize(
    ("colors", "cost", "nearest"),
    [
        ((0.5, 0.5), 0.0, 0.0),
        ((0.5, 0.4), 0.3, 0.3),
        ((0.5, 0.5, 0.9), 0.0, 0.0),  # hidden from the third: the better half counts
        ((0.9, 0.5, 0.5), 0.6, 0.0),  # hidden from the reference
        ((0.5, 0.51, 0.52, 0.9), 0.045, 0.03),
        ((0.5, -1.0), semiglobal.ROBUST_UNSURE, matching.COST_CAP),
        ((-1.0, -1.0), semiglobal.ROBUST_UNSURE, matching.COST_CAP),
        ((-1.0, 0.5, 0.6), 0.3, 0.3),  # beyond the reference's picture the others are compared
    ],
)
@pytest.mark.parametrize("by_loops", [False, True])
def test_costs_of_a_point(
    colors: tuple[float, ...], cost: float, nearest: float, by_loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_loops:
        monkeypatch.setattr(matching, "_compiled_loops", lambda: None)
    found = robust_costs(one_plane(*colors))
    for values, wanted in zip(found, (cost, nearest), strict=True):
        assert values.shape == (1, 1, 2, 2)
        torch.testing.assert_close(values, torch.full_like(values, wanted), atol=1e-5, rtol=0)


def test_brightness_that_differs_between_cameras_costs_less_than_structure_that_does() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 1, 3, 1, 16, 16) * 0.5
    brighter = torch.cat([picture, picture + 0.05], dim=1)
    another = torch.cat([picture, torch.rand_like(picture) * 0.5], dim=1)
    assert robust_costs(brighter)[0].mean() < 0.5 * robust_costs(another)[0].mean()


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


def test_training_may_start_from_a_matching_network(tmp_path: Path) -> None:
    torch.manual_seed(7)
    matching_model = MaskVolumeModel(CheckpointMeta("mask", "matching"))
    torch.nn.init.normal_(matching_model.mpi_net.unet.head.weight)  # type: ignore[union-attr, arg-type]
    save_checkpoint(tmp_path / "matching.safetensors", matching_model)
    model = load_start(str(tmp_path / "matching.safetensors"), "mask", "semiglobal")
    assert model.meta.arch == "semiglobal"
    features = torch.rand(1, SemiglobalMPINet.FEATURES, 4, 8, 8)
    torch.testing.assert_close(
        model.mpi_net.unet(features),  # type: ignore[operator]
        matching_model.mpi_net.unet(features[:, : MatchingMPINet.FEATURES]),  # type: ignore[operator]
    )
    assert model.mask_net is not None
    assert matching_model.mask_net is not None
    for found, wanted in zip(model.mask_net.parameters(), matching_model.mask_net.parameters(), strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(InputError, match="make them agree"):
        load_start(str(tmp_path / "matching.safetensors"), "mask", "original")


def test_a_part_of_a_picture_is_told_what_is_around() -> None:
    torch.manual_seed(6)
    net = ARCHITECTURES["semiglobal"].mpi()
    sweep = torch.rand(1, 2, 3, 4, 32, 48)
    whole = aggregate(*semiglobal.aggregation_of(sweep))
    with torch.no_grad():
        assert torch.equal(net(sweep, whole), net(sweep))
        other = net(sweep, whole.flip(1))
    assert not torch.allclose(other, net(sweep), atol=1e-2)
