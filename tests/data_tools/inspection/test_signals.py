"""Signals of motion, and the offsets in time found in them."""

from __future__ import annotations

import numpy as np

from data_tools.inspection.signals import correlations, find_offsets


def test_offsets_of_made_signals():
    rng = np.random.default_rng(0)
    long = rng.gamma(1.0, 1.0, 260)
    smooth = np.convolve(long, [0.25, 0.5, 0.25], "same")
    motions = [smooth[20 - lag : 220 - lag] + rng.normal(0, 0.05, 200) for lag in (0, 0, 7, 0, -12)]
    offsets = find_offsets(motions)
    assert [round(offset.frames or 0) for offset in offsets] == [0, 0, 7, 0, -12]
    assert all(offset.is_sure for offset in offsets)
    other = find_offsets([*motions[:2], rng.gamma(1.0, 1.0, 200), motions[3]])
    assert not other[2].is_sure
    assert correlations(motions[0], motions[0], 3).argmax() == 3
    assert find_offsets([motion[:5] for motion in motions])[0].frames is None
