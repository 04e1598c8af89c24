"""Arithmetic and memory of a computation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.cost.costs import gflop, peak_bytes


def test_a_multiply_add_is_two() -> None:
    assert gflop(nn.Linear(500, 400, bias=False), torch.zeros(1000, 500)) == pytest.approx(2 * 0.2)
    convolution = nn.Conv2d(8, 16, 3, padding=1, bias=False)
    picture = torch.zeros(1, 8, 200, 200)
    assert gflop(convolution, picture) == pytest.approx(2 * 8 * 16 * 9 * 200 * 200 / 1e9, abs=0.006)
    assert gflop(nn.Sequential(convolution, nn.ReLU()), picture) == gflop(convolution, picture)


def test_the_peak_never_falls_and_holds_what_is_taken() -> None:
    before = peak_bytes()
    block = torch.ones(64 << 20, dtype=torch.uint8)
    with_block = peak_bytes()
    del block
    assert with_block >= before
    assert peak_bytes() >= with_block - (4 << 20)  # the system counts pages in batches
    assert with_block >= 64 << 20
