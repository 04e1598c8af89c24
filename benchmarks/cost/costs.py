"""The costs of a computation besides time: arithmetic and memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def gflop(network: nn.Module, *inputs: Tensor) -> float:
    """Arithmetic of one run of a network in GFLOP; a multiply-add counts as two."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(*inputs)
    return round(counter.get_total_flops() / 1e9, 2)


def peak_bytes() -> int:
    """Peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # only this program; getrusage includes its parent's pages at the start
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
