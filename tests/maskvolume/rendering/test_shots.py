"""Shots: the order of time, paths, fixed views."""

from __future__ import annotations

import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.rendering.shots import Shots, fixed_camera, fixed_shots, path_shots, time_order
from maskvolume.runtime.errors import InputError


@pytest.fixture(scope="module")
def clip(make_rig, tmp_path_factory: pytest.TempPathFactory) -> RigClip:
    return RigClip.open(make_rig(tmp_path_factory.mktemp("rig") / "frames"))


def test_time_order() -> None:
    assert time_order("loop", 3) == (0, 1, 2)
    assert time_order("pingpong", 4) == (0, 1, 2, 3, 2, 1)
    assert time_order("pingpong", 1) == (0,)
    assert time_order("pingpong", 2) == (0, 1)
    assert time_order("fix:2", 3) == (2,)
    assert time_order("fix:0.25", 3) == (0.25,)


@pytest.mark.parametrize(
    "mode", ["fix", "fix:", "fix:-1", "fix:3", "fix:2.1", "fix:1e0", "fix:nan", "fix:x", "bounce", ""]
)
def test_an_impossible_time_is_an_input_error(mode: str) -> None:
    with pytest.raises(InputError, match="time: "):
        time_order(mode, 3)


def test_a_path_wraps_time_around_the_clip(clip: RigClip) -> None:
    path = clip.cameras()[[0, 1, 2, 1, 0, 1, 2]]
    assert path_shots(path, "loop", 3).times == (0, 1, 2, 0, 1, 2, 0)
    assert path_shots(path, "pingpong", 3).times == (0, 1, 2, 1, 0, 1, 2)
    assert path_shots(path, "fix:1", 3).times == (1,) * 7
    assert path_shots(path, "loop", 3, count=2).times == (0, 1)
    assert len(path_shots(path, "loop", 3, count=99)) == 7


def test_a_fixed_view_lasts_one_pass_through_time_or_as_long_as_asked(clip: RigClip) -> None:
    camera = clip.cameras()[1]
    shots = fixed_shots(camera, "loop", 3)
    assert shots.times == (0, 1, 2)
    assert torch.equal(shots.targets[2].T_cam_world, camera.T_cam_world)
    assert fixed_shots(camera, "pingpong", 3).times == (0, 1, 2, 1)
    assert fixed_shots(camera, "loop", 3, count=5).times == (0, 1, 2, 0, 1)


def test_view_names_a_camera_by_name_or_number(clip: RigClip) -> None:
    assert fixed_camera("path", clip) is None
    assert fixed_camera("fix:cam02", clip) == 2
    assert fixed_camera("fix:1", clip) == 1
    for view in ("fix:7", "fix:", "fix", "cam01", "fix:cam09"):
        with pytest.raises(InputError):
            fixed_camera(view, clip)


def test_shots_of_one_time_belong_together(clip: RigClip) -> None:
    shots = Shots(clip.cameras()[[0, 1, 2, 1, 0]], (1.5, 0.0, 1.5, 1.0, 0.0))
    assert shots.by_time(range(5)) == [(0.0, [1, 4]), (1.0, [3]), (1.5, [0, 2])]
    assert shots.by_time([2, 3]) == [(1.0, [3]), (1.5, [2])]
