from __future__ import annotations

import numpy as np
import torch

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import render_path
from maskvolume.geometry.poses import RigPoses
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.ops import Rendering
from maskvolume.web.viewpoints import ALIKE, SCALES, Viewpoints
from maskvolume.web.visibility import Visibility

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
