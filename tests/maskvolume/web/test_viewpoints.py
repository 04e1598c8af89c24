from __future__ import annotations

import numpy as np
import torch

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import render_path
from maskvolume.geometry.poses import RigPoses
from maskvolume.ops import Rendering
from maskvolume.web.viewpoints import ALIKE, SCALES, Viewpoints

SIZE = (48, 64)


def make_poses() -> RigPoses:
    K = torch.tensor([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]], dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    T[:, 0, 3] = torch.tensor([-0.3, 0, 0.3, -0.3, 0, 0.3])
    T[:, 1, 3] = torch.tensor([-0.1, -0.1, -0.1, 0.1, 0.1, 0.1])
    return RigPoses(Camera(T, K.repeat(6, 1, 1), SIZE), torch.tensor([[1.0, 10.0]] * 6, dtype=torch.float64))


def test_viewpoints_are_those_of_the_paths() -> None:
    poses = make_poses()
    viewpoints = Viewpoints.of(poses, SIZE)
    circle = render_path(poses, "circle", 6)
    x, y, _ = viewpoints.limits
    angles = torch.arange(12, dtype=torch.float64) * (np.pi / 6)
    offsets = torch.stack([x * angles.cos(), y * angles.sin(), torch.zeros(12)], dim=1)
    made = viewpoints.cameras(offsets)
    distances = (made.center[:, None] - circle.center).norm(dim=-1)
    assert distances.min(dim=1).values.max() < 1e-6  # the same places
    nearest = distances.argmin(dim=1)
    torch.testing.assert_close(made.T_cam_world, circle.T_cam_world[nearest], atol=1e-6, rtol=0)


def test_limits_shrink_until_planes_cover_the_views() -> None:
    viewpoints = Viewpoints.of(make_poses(), SIZE)
    x = viewpoints.limits[0]

    def covered_up_to(reach: float):
        def render(views: Camera) -> Rendering:
            far = (views.center - viewpoints.center().center[0])[0].abs() > reach
            opacity = torch.where(far, 0.5, 1.0).expand(1, *SIZE)
            return Rendering(opacity.expand(3, -1, -1), opacity, opacity)

        return render

    whole = covered_up_to(10.0)
    assert viewpoints.good_scale(whole, whole) == 1
    assert viewpoints.good_scale(covered_up_to(0.55 * x), covered_up_to(0.55 * x)) == 0.5
    assert viewpoints.good_scale(covered_up_to(-1), whole) == SCALES[-1]


def test_limits_shrink_until_layers_show_what_planes_show() -> None:
    viewpoints = Viewpoints.of(make_poses(), SIZE)
    x = viewpoints.limits[0]

    def off_by(error: float):
        def render(views: Camera) -> Rendering:
            away = (views.center - viewpoints.center().center[0])[0].abs() / x * error
            return Rendering((0.5 + away).expand(3, *SIZE), torch.ones(1, *SIZE), torch.ones(1, *SIZE))

        return render

    most = 10 ** (-ALIKE / 20)
    assert viewpoints.good_scale(off_by(0), off_by(0.95 * most)) == 1
    assert viewpoints.good_scale(off_by(0), off_by(most / 0.85)) == 0.8
