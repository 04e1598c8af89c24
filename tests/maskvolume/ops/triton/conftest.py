"""The Triton kernels, on a GPU where there is one, else in Triton's interpreter on the CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from maskvolume import ops

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKAGE = "maskvolume.ops.triton"


def import_kernels() -> ModuleType:
    """A copy of the kernels' modules that nothing else in this process sees."""
    before = {name: module for name, module in sys.modules.items() if name.startswith(PACKAGE)}
    kept = vars(ops).get("triton")
    for name in before:
        del sys.modules[name]
    try:
        return importlib.import_module(PACKAGE)
    finally:
        for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
            del sys.modules[name]
        sys.modules.update(before)
        vars(ops).pop("triton", None)
        if kept is not None:
            vars(ops)["triton"] = kept


@pytest.fixture(scope="session")
def load_kernels() -> Callable[[], ModuleType]:
    """The function ``import_kernels``."""
    return import_kernels


@pytest.fixture(scope="session")
def kernels() -> ModuleType:
    """``maskvolume.ops.triton``, made for ``DEVICE``.

    Kernels are interpreted where TRITON_INTERPRET is set as they are made. It is set for that moment alone: programs
    that other tests start, and what ``torch.compile`` makes, are compiled.
    """
    pytest.importorskip("triton")  # by itself it stays what it is for the rest of the process
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        made = import_kernels()
    if not made.usable(DEVICE):
        pytest.skip("needs Triton 3.3 or later")
    return made
