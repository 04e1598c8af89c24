"""The way from matches to poses: the model that is chosen, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from feature_helpers import draw_points, features_of, make_problem, true_poses

from data_tools.poses.confidence import differences
from data_tools.poses.solving import solve
from maskvolume.runtime.errors import InputError


@pytest.fixture(scope="module")
def sets():
    return features_of(draw_points(), true_poses())


def check(estimate) -> None:
    rotation, place = differences([image.T_cam_world for image in estimate.images], list(true_poses()))
    assert rotation.max() < 0.05
    assert place.max() < 0.01


def test_a_prior_is_kept_where_it_is_true(sets, tmp_path):
    problem = make_problem(sets)
    chosen, estimate = solve([problem], [[]] * 4, true_poses(), tmp_path, allow_missing=False)
    assert chosen is problem
    assert [image.name for image in estimate.images] == ["cam00", "cam01", "cam02", "cam03"]
    check(estimate)
    assert estimate.confidence.error < 0.05
    assert estimate.moving is None


def test_depths_of_what_moves_are_told_by_its_own_points(sets, tmp_path):
    movers = draw_points(60)
    movers *= 0.8 / movers[:, 2:]  # all at one depth of the world
    _, estimate = solve(
        [make_problem(sets)], features_of(movers, true_poses()), true_poses(), tmp_path, allow_missing=False
    )
    assert estimate.moving is not None
    np.testing.assert_allclose(estimate.moving, 0.8, atol=0.05)


def test_a_camera_without_a_pose_is_named(sets, tmp_path, capsys):
    blind = [*sets[:3], [sets[3][0].select(np.arange(5))]]
    (tmp_path / "strict").mkdir()
    with pytest.raises(InputError, match=r"no pose found for cam03 \([0-9]+ matches .*--allow_missing"):
        solve([make_problem(blind)], [[]] * 4, None, tmp_path / "strict", allow_missing=False)
    (tmp_path / "lenient").mkdir()
    _, estimate = solve([make_problem(blind)], [[]] * 4, None, tmp_path / "lenient", allow_missing=True)
    assert estimate.positions == (0, 1, 2)
    assert "no pose found for cam03" in capsys.readouterr().out


def test_cameras_that_share_nothing_are_one_line(sets, tmp_path):
    problem = make_problem(sets)
    few = {pair: matches[:10] for pair, matches in problem.matches.items()}
    with pytest.raises(InputError, match="no two cameras have enough in common"):
        solve([replace(problem, matches=few)], [[]] * 4, None, tmp_path, allow_missing=False)
