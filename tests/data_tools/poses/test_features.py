"""Features of pictures and their matches."""

from __future__ import annotations

import numpy as np

from data_tools.poses.features import Features, match_features


def test_matches_are_mutual_and_clear():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 128)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    points = np.zeros((50, 2), np.float32)
    order = rng.permutation(50)
    pairs = match_features(Features(points, values), Features(points, values[order]))
    assert len(pairs) == 50
    assert (order[pairs[:, 1]] == pairs[:, 0]).all()
    twice = Features(np.zeros((100, 2), np.float32), np.concatenate([values, values]))
    assert len(match_features(Features(points, values), twice)) == 0
    nothing = Features(points[:0], values[:0])
    assert match_features(nothing, twice).shape == (0, 2)
    assert match_features(twice, nothing).shape == (0, 2)
