"""The plain reading of the original makes what the original made, and its parts obey their laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cost import original

DATA = Path(__file__).parents[2] / "data" / "original_parity"
SIZE = (72, 128)
CAMERAS = (4, 5)
# Rounding alone was 1.3e-5 on the machine where this was written; the data's own demand is 2e-3.
TOLERANCE = 1e-3


def test_original_frames_are_reproduced() -> None:
    pose = 3  # of frame 1: the clip has two, and poses go round
    clip = original.Clip(DATA / "frames", DATA / "background", SIZE)
    networks = original.load_networks(DATA / "checkpoint.ckpt")
    picture = original.render_pose(clip, networks, pose, CAMERAS)
    expected = torch.from_numpy(np.load(DATA / "expected" / f"{pose:05d}.npy"))
    assert picture.shape == expected.shape
    assert (picture - expected).abs().max() < TOLERANCE


def test_networks_have_the_published_numbers_of_parameters() -> None:
    networks = original.random_networks()
    counts = [sum(p.numel() for p in network.parameters()) for network in (networks.mpi, networks.mask)]
    assert counts == [576_994, 593_241]


def test_planes_are_uniform_in_inverse_depth_farthest_first() -> None:
    depths = original.plane_depths(1.5, 24.0, 32)
    assert depths[0] == pytest.approx(24.0)
    assert depths[-1] == pytest.approx(1.5)
    steps = (1.0 / depths).diff()
    assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-5)


def test_rendering_from_the_own_view_is_compositing() -> None:
    generator = torch.Generator().manual_seed(0)
    rgba = torch.rand(4, 4, 12, 20, generator=generator)
    K = torch.tensor([[16.0, 0.0, 10.0], [0.0, 16.0, 6.0], [0.0, 0.0, 1.0]])
    view = original.View(torch.eye(4), K)
    mpi = original.Mpi(rgba, original.plane_depths(1.0, 10.0, 4), view)
    assert torch.allclose(original.render(mpi, view), original.composite(rgba), atol=1e-4)


def test_sweep_is_no_data_behind_the_source() -> None:
    K = torch.tensor([[16.0, 0.0, 10.0], [0.0, 16.0, 6.0], [0.0, 0.0, 1.0]])
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    depths = original.plane_depths(1.0, 10.0, 4)
    swept = original.sweep_view(torch.rand(3, 12, 20), original.View(turned, K), original.View(torch.eye(4), K), depths)
    assert (swept == -1.0).all()
