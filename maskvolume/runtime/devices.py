"""Resolves the device and precision options on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from maskvolume.runtime.errors import InputError

Precision = Literal["fp32", "bf16"]


def resolve_device(name: str) -> torch.device:
    """The device for an option: "auto" prefers cuda, then mps, then cpu.

    Raises:
        InputError: the named device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, usable in available.items() if usable))
    if not available[name]:
        choices = ", ".join(kind for kind, usable in available.items() if usable)
        raise InputError(f"device {name}: not available on this machine; choose one of: auto, {choices}")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision for an option: "auto" means bfloat16 if the hardware multiplies it natively, else float32."""
    if name == "fp32":
        return "fp32"
    if name == "bf16":
        return "bf16"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if _cpu_has_bf16() and torch.backends.mkldnn.is_available() else "fp32"
    return "fp32"


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text(errors="ignore")
