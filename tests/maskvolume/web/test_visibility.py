"""What some viewpoint sees."""

from __future__ import annotations

import numpy as np
import torch

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.poses import RigPoses
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.web.viewpoints import Viewpoints
from maskvolume.web.visibility import Visibility

SIZE = (48, 64)


def make_poses() -> RigPoses:
    K = torch.tensor([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]], dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    T[:, 0, 3] = torch.tensor([-0.3, 0, 0.3, -0.3, 0, 0.3])
    T[:, 1, 3] = torch.tensor([-0.1, -0.1, -0.1, 0.1, 0.1, 0.1])
    return RigPoses(Camera(T, K.repeat(6, 1, 1), SIZE), torch.tensor([[1.0, 10.0]] * 6, dtype=torch.float64))


def test_only_what_some_viewpoint_sees_is_visible() -> None:
    viewpoints = Viewpoints.of(make_poses(), SIZE)
    camera = viewpoints.center()[0]
    depths = (10.0, 2.0)
    layers = np.zeros((2, *SIZE, 4), dtype=np.uint8)
    layers[0] = 255
    layers[1, :, 12:52] = 255  # hides the middle of what is behind it, but for what shows at its sides
    seen = Visibility(camera, depths, viewpoints.all_over()).of(layers)
    assert seen.shape == (2, *SIZE)
    assert seen[1].min() > 0.9
    assert seen[0, 24, 32] < 0.05
    assert seen[0, 24, 2] > 0.9
    # A pixel of the farther layer shows beside the nearer one, as the renderer says.
    marked = torch.zeros(2, 4, *SIZE)
    marked[1] = torch.from_numpy(layers[1]).permute(2, 0, 1) / 255
    marked[1, :3] = 0
    mpi = MultiplaneImage(marked, camera.to(torch.float32), torch.tensor(depths))
    border = viewpoints.border().to(torch.float32)
    for column in (14, 20, 32):
        mpi.rgba[0] = 0
        mpi.rgba[0, :, 20:28, column - 1 : column + 2] = 1
        shows = mpi.render(border).color.amax() > 0.5
        assert bool(shows) == bool(seen[0, 24, column] > 0.5)


def test_what_is_transparent_hides_nothing() -> None:
    viewpoints = Viewpoints.of(make_poses(), SIZE)
    camera = viewpoints.center()[0]
    layers = np.zeros((3, *SIZE, 4), dtype=np.uint8)
    layers[0] = 255
    seen = Visibility(camera, (10.0, 4.0, 2.0), viewpoints.all_over()).of(layers)
    assert seen.dtype == np.float32
    assert seen.min() > 0.9
    assert seen.max() <= 1.0


def test_half_of_what_is_behind_a_half_opaque_layer_is_seen() -> None:
    viewpoints = Viewpoints.of(make_poses(), SIZE)
    layers = np.zeros((2, *SIZE, 4), dtype=np.uint8)
    layers[0] = 255
    layers[1, ..., 3] = 128
    seen = Visibility(viewpoints.center()[0], (10.0, 2.0), viewpoints.center()).of(layers)
    assert abs(float(seen[0, 24, 32]) - 127 / 255) < 0.01
