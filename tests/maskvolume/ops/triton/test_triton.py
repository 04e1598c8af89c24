"""Where the Triton kernels can run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from triton_helpers import (
    DEVICE,
)


def test_usable_says_where_the_kernels_run(kernels: ModuleType) -> None:
    assert kernels.usable(DEVICE)
    assert not kernels.usable(torch.device("meta"))


def test_without_triton_nothing_is_usable(
    monkeypatch: pytest.MonkeyPatch, load_kernels: Callable[[], ModuleType]
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    kernels = load_kernels()
    assert not kernels.usable(torch.device("cpu"))
    assert not kernels.usable(torch.device("cuda"))


def test_the_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch, load_kernels: Callable[[], ModuleType]) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    compiled = load_kernels()
    assert not compiled.usable(torch.device("cpu"))
    assert compiled.usable(torch.device("cuda"))
