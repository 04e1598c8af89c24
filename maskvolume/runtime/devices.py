"""Which device and which precision an option means on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from maskvolume.runtime.errors import InputError

Precision = Literal["fp32", "bf16"]


def resolve_device(name: str) -> torch.device:
    """The device of an option: "auto" takes cuda, then mps, then cpu.

    Raises:
        InputError: the device is asked for by name and is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[name]:
        usable = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f"device {name}: not available on this machine; choose one of: auto, {usable}")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision of an option: "auto" takes bfloat16 where the hardware multiplies it, else float32."""
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
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "avx512_bf16" in flags.read_text(errors="ignore")
