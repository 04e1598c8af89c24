"""Options of random worlds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_helpers import CLEAN

from maskvolume.data.synthetic import WorldOptions, sample_worlds


@pytest.mark.parametrize(
    "wrong", [{"near": (2.0, 1.0)}, {"size": (2, 90)}, {"num_sources": 0}, {"blur": -1.0}, {"rays_per_side": 0}]
)
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WorldOptions(**wrong)  # type: ignore[arg-type]


def test_plain_surfaces_show_less() -> None:
    """Of a world of nothing else; the others are as they were."""
    contrasts = []
    for share in (0.0, 1.0):
        sample = sample_worlds(replace(CLEAN, plain_share=share), 8, generator=10, device="cpu")
        steps = (sample.images[..., 1:] - sample.images[..., :-1]).abs()
        contrasts.append(float(steps.median()))
    assert contrasts[1] < 0.6 * contrasts[0]
    assert WorldOptions().plain_share == 0 < WorldOptions().to_train_on().plain_share < 1
