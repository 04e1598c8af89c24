"""Devices and precisions that options name."""

from __future__ import annotations

import pytest
import torch

from maskvolume.runtime import devices
from maskvolume.runtime.devices import resolve_device, resolve_precision
from maskvolume.runtime.errors import InputError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A function that sets what the machine has: ``machine(cuda=True)``."""

    def have(cuda: bool = False, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return have


@pytest.mark.parametrize(
    ("cuda", "mps", "kind"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")]
)
def test_auto_takes_the_fastest(machine, cuda: bool, mps: bool, kind: str) -> None:
    machine(cuda, mps)
    assert resolve_device("auto").type == kind
    assert resolve_device(kind).type == kind
    assert resolve_device("cpu").type == "cpu"


def test_a_device_that_is_not_there_is_one_line(machine) -> None:
    machine(mps=True)
    with pytest.raises(InputError, match="device cuda: not available on this machine; choose one of: auto, mps, cpu"):
        resolve_device("cuda")


def test_a_precision_that_is_named_is_taken() -> None:
    for kind in ("cpu", "cuda", "mps"):
        assert resolve_precision("fp32", torch.device(kind)) == "fp32"
        assert resolve_precision("bf16", torch.device(kind)) == "bf16"


@pytest.mark.parametrize("has", [True, False])
def test_auto_takes_bfloat16_where_the_hardware_multiplies_it(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "bf16" if has else "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation)
    assert resolve_precision("auto", torch.device("cuda")) == expected
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: has)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
