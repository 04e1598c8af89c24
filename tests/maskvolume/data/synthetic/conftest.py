"""A batch of still worlds and one of worlds with movers."""

from __future__ import annotations

import pytest
from synthetic_helpers import CLEAN, MOVING

from maskvolume.data.synthetic import SyntheticSample, sample_worlds


@pytest.fixture(scope="session")
def clean() -> SyntheticSample:
    return sample_worlds(CLEAN, 6, generator=3, device="cpu")


@pytest.fixture(scope="session")
def moving() -> SyntheticSample:
    return sample_worlds(MOVING, 6, generator=4, device="cpu")
