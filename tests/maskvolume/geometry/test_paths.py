"""Laws of the render paths, on rigs of any number of cameras in any place."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.paths import (
    PARTS_OF_ALL,
    PATH_KINDS,
    average_pose,
    close_depth,
    focus_distance,
    join_paths,
    path_radii,
    render_path,
    rig_baseline,
)
from maskvolume.geometry.poses import RigPoses
from maskvolume.runtime.errors import InputError

SIZE = (360, 640)
COUNTS = {"x": 1, "y": 1, "z": 1, "circle": 2, "spiral": 4, "all": 9, "extrapolate": 2}


def rotation(vector: Tensor) -> Tensor:
    """``[..., 3, 3]`` from rotation vectors ``[..., 3]``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1)
    return torch.linalg.matrix_exp(skew.reshape(*vector.shape[:-1], 3, 3))


def make_rig(count: int, seed: int = 0, spread: float = 0.3, turn: float = 0.1) -> RigPoses:
    """Cameras that look about the same way from places ``spread`` apart, somewhere in the world."""
    g = torch.Generator().manual_seed(seed)
    T_rig_cam = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    T_rig_cam[:, :3, :3] = rotation(turn * torch.randn(count, 3, generator=g, dtype=torch.float64))
    T_rig_cam[:, :3, 3] = spread * torch.randn(count, 3, generator=g, dtype=torch.float64)
    T_world_rig = torch.eye(4, dtype=torch.float64)
    T_world_rig[:3, :3] = rotation(2 * torch.randn(3, generator=g, dtype=torch.float64))
    T_world_rig[:3, 3] = 5 * torch.randn(3, generator=g, dtype=torch.float64)
    near = 1.0 + torch.rand(count, generator=g, dtype=torch.float64)
    bounds = torch.stack([near, near + 1 + 10 * torch.rand(count, generator=g, dtype=torch.float64)], dim=1)
    K = torch.tensor([[500.0, 0, 320], [0, 500, 180], [0, 0, 1]], dtype=torch.float64).repeat(count, 1, 1)
    return RigPoses(Camera(invert_rigid(T_world_rig @ T_rig_cam), K, SIZE), bounds)


def in_average_frame(poses: RigPoses, cameras: Camera) -> Tensor:
    """``T_avg_cam [P, 4, 4]``."""
    return invert_rigid(average_pose(poses.cameras)) @ invert_rigid(cameras.T_cam_world)


rigs = st.builds(make_rig, count=st.integers(1, 12), seed=st.integers(0, 10_000))


@settings(max_examples=30, deadline=None)
@given(poses=rigs, kind=st.sampled_from([k for k in PATH_KINDS if k != "inputs"]), num=st.integers(1, 12))
def test_every_pose_is_rigid_and_looks_at_the_focus_point(poses, kind, num):
    path = render_path(poses, kind, num)
    assert len(path) == COUNTS[kind] * num
    assert path.size == SIZE
    assert torch.equal(path.K, poses.cameras.K[:1].expand(len(path), 3, 3))
    R = path.T_cam_world[:, :3, :3]
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(R @ R.mT, eye.expand_as(R), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(len(path), dtype=torch.float64))

    ahead = torch.tensor([0.0, 0.0, focus_distance(poses.bounds), 1.0], dtype=torch.float64)
    focus = path.T_cam_world @ average_pose(poses.cameras) @ ahead
    assert (focus[:, 2] > 0).all()
    torch.testing.assert_close(focus[:, :2], torch.zeros(len(path), 2, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(poses=rigs)
def test_places_stay_within_the_radii_and_reach_them(poses):
    r_x, r_y = path_radii(poses, average_pose(poses.cameras))
    z = 0.2 * close_depth(poses.bounds)
    reach = {
        "x": (0.8 * r_x, 0, 0),
        "y": (0, 0.8 * r_y, 0),
        "z": (0, 0, 0.8 * z),
        "circle": (r_x, r_y, 0),
        "spiral": (r_x, r_y, z),
        "extrapolate": (10 * rig_baseline(poses), 0, 0),
    }
    for kind, bound in reach.items():
        places = in_average_frame(poses, render_path(poses, kind, 8))[:, :3, 3]
        expected = torch.tensor(bound, dtype=torch.float64)
        torch.testing.assert_close(places.abs().amax(dim=0), expected, atol=1e-9, rtol=0)


@settings(max_examples=30, deadline=None)
@given(poses=rigs, num=st.integers(20, 40))
def test_no_jump_inside_a_segment(poses, num):
    for kind in (*PARTS_OF_ALL, "extrapolate"):
        T = in_average_frame(poses, render_path(poses, kind, num))
        steps = T[1:, :3, 3] - T[:-1, :3, 3]
        whole = (T[:, :3, 3].amax(0) - T[:, :3, 3].amin(0)).norm()
        assert steps.norm(dim=1).max() <= 4 * math.pi * whole / (2 * num)
        turns = ((T[1:, :3, :3].mT @ T[:-1, :3, :3]).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        assert turns.min() > math.cos(0.5)


def test_the_whole_path_is_its_parts_one_after_the_other():
    poses = make_rig(10)
    path = render_path(poses)
    parts = join_paths([render_path(poses, kind) for kind in ("x", "y", "z", "circle", "spiral")])
    assert len(path) == 30 + 30 + 30 + 60 + 120
    torch.testing.assert_close(path.T_cam_world, parts.T_cam_world)
    assert torch.equal(path.K, parts.K)


def test_segments_go_their_way():
    """x to the right, y downwards, z from ahead to behind; the circle begins on the right and rises."""
    poses = make_rig(10)
    for kind, axis, sign in (("x", 0, 1), ("y", 1, 1), ("z", 2, -1)):
        places = in_average_frame(poses, render_path(poses, kind))[:, axis, 3]
        assert places[0] * sign < 0
        assert (places.diff() * sign > 0).all()
        torch.testing.assert_close(places[15].item(), 0.0)
    circle = in_average_frame(poses, render_path(poses, "circle"))[:, :3, 3]
    assert circle[0, 0] == circle[:, 0].max()
    assert circle[1, 1] < 0
    spiral = in_average_frame(poses, render_path(poses, "spiral"))[:, :3, 3]
    assert (spiral[1:60, 2] > 0).all()
    assert (spiral[61:, 2] < 0).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_average_of_identical_poses_is_that_pose(seed, count):
    one = make_rig(1, seed).cameras
    same = Camera(one.T_cam_world.repeat(count, 1, 1), one.K.repeat(count, 1, 1), one.size)
    torch.testing.assert_close(average_pose(same), invert_rigid(one.T_cam_world[0]))


def test_average_does_not_depend_on_the_world():
    poses = make_rig(7)
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = rotation(torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)), torch.ones(3)
    moved = Camera(poses.cameras.T_cam_world @ invert_rigid(T), poses.cameras.K, SIZE)
    torch.testing.assert_close(average_pose(moved), T @ average_pose(poses.cameras))


@pytest.mark.parametrize("count", [1, 5])
def test_cameras_in_one_place_get_a_radius(count):
    poses = make_rig(count, spread=0.0)
    r = 0.05 * close_depth(poses.bounds)
    assert path_radii(poses, average_pose(poses.cameras)) == (r, r)
    assert rig_baseline(poses) == pytest.approx(r)
    assert len(render_path(poses).center.unique(dim=0)) > 200


def test_cameras_in_a_row_move_along_the_row_only():
    poses = make_rig(5, turn=0.0, spread=0.0)
    T = poses.cameras.T_cam_world.clone()
    T[:, 0, 3] += 0.1 * torch.arange(5)
    row = RigPoses(Camera(T, poses.cameras.K, SIZE), poses.bounds)
    r_x, r_y = path_radii(row, average_pose(row.cameras))
    assert r_x == pytest.approx(0.2)
    assert r_y == pytest.approx(0)
    assert rig_baseline(row) == pytest.approx(0.1)


def test_inputs_are_the_rigs_own_cameras():
    poses = make_rig(4)
    assert render_path(poses, "inputs") is poses.cameras


def test_focus_and_scale():
    poses = make_rig(10)
    scaled = in_average_frame(poses, render_path(poses, "circle", scale=0.5))
    whole = in_average_frame(poses, render_path(poses, "circle"))
    torch.testing.assert_close(scaled[:, :3, 3], 0.5 * whole[:, :3, 3])
    near = render_path(poses, "x", focus=2.0).T_cam_world @ average_pose(poses.cameras)
    axis_point = near @ torch.tensor([0.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(axis_point[:, :2], torch.zeros(30, 2, dtype=torch.float64))


def test_focus_lies_between_the_close_and_the_far_depth():
    bounds = torch.tensor([[2.0, 10.0], [3.0, 20.0]])
    assert focus_distance(bounds) == pytest.approx(1 / (0.25 / 1.8 + 0.75 / 100))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "zigzag"}, "zigzag"),
        ({"num": 0}, "at least 1"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"focus": -1.0}, "focus distance"),
        ({"kind": "z", "focus": 0.01}, "focus"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(InputError, match=words):
        render_path(make_rig(3), **arguments)


def test_cameras_that_look_in_opposite_directions():
    poses = make_rig(2, turn=0.0)
    T = poses.cameras.T_cam_world.clone()
    T[1, 0], T[1, 2] = -T[0, 0], -T[0, 2]
    opposed = RigPoses(Camera(T, poses.cameras.K, SIZE), poses.bounds)
    with pytest.raises(InputError, match="opposite directions"):
        render_path(opposed, "x")
    assert len(render_path(opposed, "inputs")) == 2
