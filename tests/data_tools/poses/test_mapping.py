"""Models of points and cameras, from matches alone."""

from __future__ import annotations

import numpy as np
import pytest
from feature_helpers import draw_points, features_of, make_problem, true_poses

from data_tools.poses.confidence import differences
from data_tools.poses.mapping import (
    MIN_ANGLE,
    adjusted_without,
    map_incrementally,
    match_rig,
    poses_of,
    refine,
    triangulate,
    write_database,
)
from maskvolume.runtime.errors import InputError

NUM_POINTS = 300


@pytest.fixture(scope="module")
def problem():
    return make_problem(features_of(draw_points(NUM_POINTS), true_poses()))


def test_matches_are_those_of_one_point_and_count_through_all_instants():
    early = features_of(draw_points(40), true_poses()[:2])
    late = features_of(draw_points(60)[40:], true_poses()[:2])
    sets = [first + second for first, second in zip(early, late, strict=True)]
    matches = match_rig(sets)
    assert list(matches) == [(0, 1)]
    descriptors = [np.concatenate([features.descriptors for features in camera]) for camera in sets]
    a, b = matches[0, 1].T
    assert len(a) == 60
    np.testing.assert_array_equal(descriptors[0][a], descriptors[1][b])
    assert a.max() >= 40
    assert b.max() >= 40


def test_points_of_known_cameras_lie_where_they_are(problem, tmp_path):
    counts = write_database(tmp_path / "database.db", problem)
    assert set(counts) == set(problem.matches)
    assert min(counts.values()) > 0.9 * NUM_POINTS
    poses = true_poses()
    model = triangulate(tmp_path / "database.db", problem, tmp_path / "model", dict(enumerate(poses)))
    for number, T in poses_of(model).items():
        np.testing.assert_allclose(T, poses[number], atol=1e-9)
    found = np.array([point.xyz for point in model.points3D.values()])
    assert len(found) > 0.9 * NUM_POINTS
    distance = np.linalg.norm(found[:, None] - draw_points(NUM_POINTS)[None], axis=2).min(axis=1)
    assert np.median(distance) < 1e-3


def test_poses_are_found_from_nothing(problem, tmp_path):
    write_database(tmp_path / "database.db", problem)
    model = map_incrementally(tmp_path / "database.db", problem, tmp_path)
    assert model is not None
    refine(model, problem)
    poses = poses_of(model)
    assert list(poses) == [0, 1, 2, 3]
    rotation, place = differences(list(poses.values()), list(true_poses()))
    assert rotation.max() < 0.05
    assert place.max() < 0.01


def test_a_model_without_some_points_is_another_one(problem, tmp_path):
    write_database(tmp_path / "database.db", problem)
    model = triangulate(tmp_path / "database.db", problem, tmp_path / "model", dict(enumerate(true_poses())))
    before = model.num_points3D()
    dropped = sorted(model.point3D_ids())[:50]
    other = adjusted_without(model, problem, dropped)
    assert (model.num_points3D(), other.num_points3D()) == (before, before - 50)
    rotation, place = differences(list(poses_of(other).values()), list(true_poses()))
    assert rotation.max() < 0.05
    assert place.max() < 0.01


def test_cameras_in_one_place_see_no_depth(tmp_path):
    assert MIN_ANGLE > 0
    poses = true_poses()
    poses[:, :3, 3] = 0  # all in one place
    problem = make_problem(features_of(draw_points(100), poses))
    write_database(tmp_path / "database.db", problem)
    model = triangulate(tmp_path / "database.db", problem, tmp_path / "model", dict(enumerate(poses)))
    with pytest.raises(InputError, match="no point is seen by two cameras at different positions"):
        refine(model, problem)
