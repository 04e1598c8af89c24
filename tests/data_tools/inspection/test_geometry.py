"""What pairs of cameras share: colours and disparities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_tools.inspection.geometry import colour_gains, common_view, neighbour_pairs
from maskvolume.geometry.cameras import Camera


def test_gains_of_cameras_that_share_nothing():
    T = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    T[1, :3, :3] = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    cameras = Camera(T, K, (48, 64))
    assert np.isnan(colour_gains(cameras, [np.full((48, 64, 3), 100, np.float32)] * 2, [3.0])).all()
    assert common_view(cameras[0], cameras[1], 3.0) == 0


def test_disparities_are_those_of_the_formula():
    T = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    T[:, 0, 3] = torch.tensor([0.0, -0.1, -0.3])
    K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64).expand(3, 3, 3)
    pairs = neighbour_pairs(Camera(T, K, (48, 64)), 1.0, 10.0, 10)
    assert [pair.neighbour for pair in pairs] == [1, 0, 1]
    assert [pair.baseline for pair in pairs] == pytest.approx([0.1, 0.1, 0.2])
    assert pairs[0].disparity == pytest.approx(60 * 0.1 * 0.9)
    assert pairs[2].disparity == pytest.approx(60 * 0.2 * 0.9)
    assert pairs[0].step == pytest.approx(60 * 0.1 * 0.9 / 9)
