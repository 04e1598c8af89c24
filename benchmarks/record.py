"""The provenance of every result (commit, machine, versions, command), and functions to write and print results."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from maskvolume.io.files import atomic_path
from maskvolume.runtime.errors import InputError

REPO_ROOT = Path(__file__).resolve().parents[1]
RESULTS_FOLDER = REPO_ROOT / "benchmarks" / "results"
CHECKPOINTS_FOLDER = REPO_ROOT / "checkpoints"


def run_record() -> dict[str, Any]:
    """The provenance of a figure: commit, command, machine and versions."""
    return {
        "commit": _commit(),
        "command": shlex.join(["python", *(_relative(word) if os.path.isabs(word) else word for word in _words())]),
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result atomically as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned as plain text; the first column is text, the others are figures."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0])]
        aligned += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(aligned)} |"

    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def default_checkpoint() -> Path:
    """The shipped stage-two checkpoint: the only one in ``checkpoints/`` with that stage in its header.

    Raises:
        InputError: there is none, or more than one.
    """
    from safetensors import safe_open

    candidates = []
    for path in sorted(CHECKPOINTS_FOLDER.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("maskvolume", "{}"))
        if header.get("stage") == "mask":
            candidates.append(path)
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates) or "none"
        raise InputError(f"{CHECKPOINTS_FOLDER}: stage-two checkpoints: {names}; choose one with --ckpt_path")
    return candidates[0]


def display_path(path: Path | str) -> str:
    """A path for results: relative to the repository if it is inside, else only its name."""
    return _relative(str(path))


def _relative(path: str) -> str:
    resolved = Path(path).resolve()
    return str(resolved.relative_to(REPO_ROOT)) if resolved.is_relative_to(REPO_ROOT) else resolved.name


def _words() -> list[str]:
    return [str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]


def _commit() -> str:
    """The commit of the checkout, with ``+changes`` if files differ from it."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPO_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="ignore").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
