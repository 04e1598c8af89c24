"""Pictures of rigs and of paths."""

from __future__ import annotations

import pytest
import torch

from data_tools.inspection.plot import JUMP, draw_rig, plot_rig
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import render_path
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.images import read_image
from maskvolume.io.llff import read_poses_bounds


def make_rig(places: list[float]) -> RigPoses:
    """Cameras in a row that look along +z."""
    T = torch.eye(4, dtype=torch.float64).repeat(len(places), 1, 1)
    T[:, 0, 3] = -torch.tensor(places, dtype=torch.float64)
    K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64)
    bounds = torch.tensor([[1.0, 5.0]], dtype=torch.float64).expand(len(places), 2)
    return RigPoses(Camera(T, K.expand(len(places), 3, 3), (48, 64)), bounds)


def test_a_picture_of_a_rig_and_its_path_is_written(tiny_rig, tmp_path):
    poses = read_poses_bounds(tiny_rig / "poses_bounds.npy")
    path = render_path(poses, "spiral", 8)
    plot_rig(tmp_path / "new/rig.png", poses, path)
    first = read_image(tmp_path / "new/rig.png")
    assert first.shape[1] > first.shape[0] > 400
    plot_rig(tmp_path / "near.png", poses, path, focus=1.0)
    assert (read_image(tmp_path / "near.png") != first).any()


def test_cameras_are_drawn_where_they_stand_and_by_name():
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 3)
    draw_rig(axes, make_rig([-1.0, 0.0, 1.0]), None, 2.0, names=["left", "middle", "right"])
    for drawn in axes[1:]:
        places = {text.get_text(): text.xy[0] for text in drawn.texts}
        assert places == pytest.approx({"left": -1.0, "middle": 0.0, "right": 1.0})
    assert axes[2].yaxis_inverted()  # y goes down


def test_two_segments_of_a_path_are_not_joined():
    from matplotlib.figure import Figure

    poses = make_rig([-1.0, 0.0, 1.0])
    steps = [0.0, 0.1, 0.2, 0.3, 0.3 + 2 * JUMP * 0.1, 0.4 + 2 * JUMP * 0.1]
    axes = Figure().subplots(1, 3)
    draw_rig(axes, poses, make_rig(steps).cameras, 2.0)
    line = next(line for line in axes[0].lines if line.get_label() == "path")
    assert [bool(gap) for gap in torch.isnan(torch.as_tensor(line.get_xdata()))] == [0, 0, 0, 0, 1, 0, 0]
