"""Random rigs of cameras."""

from __future__ import annotations

from dataclasses import replace

from synthetic_helpers import CLEAN

from maskvolume.data.synthetic import sample_worlds


def test_disparity_between_sources_is_as_asked() -> None:
    options = replace(CLEAN, disparity=(0.1, 0.1), rotation=0.0)
    sample = sample_worlds(options, 8, generator=12, device="cpu")
    baseline = (sample.sources.center[:, 0] - sample.sources.center[:, 1]).norm(dim=-1)
    shift = baseline * sample.sources.K[:, 0, 0, 0] / (sample.near / 0.9) / 80
    assert (shift < 0.12).all()
    assert (shift > 0.02).all()
