"""What networks and frames take of memory: a measurement grows with what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.memory import MARK, MemoryOptions, frame_memory, network_memory
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.options import Size
from maskvolume.runtime.errors import InputError

OPTIONS = MemoryOptions(arch="matching", precision="fp32", num_planes=8, img_wh=Size(h=48, w=64))


def test_a_network_takes_no_less_than_its_planes(model: MaskVolumeModel) -> None:
    options = replace(OPTIONS, memory_of="mpi")
    taken, before = network_memory(model, options, (192, 256))
    assert before > 0
    assert taken >= 4 * 4 * 8 * 192 * 256  # the planes that it gives: colour and opacity in float32


def test_a_frame_is_planned_with_what_is_there_before(model: MaskVolumeModel, rig: Path) -> None:
    taken, before, planned = frame_memory(model, replace(OPTIONS, root_dir=str(rig), memory_of="frame"))
    assert before > 0
    assert taken >= 0
    assert before + planned > 0  # the whole plan: this process is larger than the program that is planned for


def test_figures_are_read_from_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode = 0
        stdout = f"something else\n{MARK} 3 2 1\n"

    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: Done())
    assert memory._measure(OPTIONS, "mask") == (3, 2, 1)
    Done.stdout = ""
    with pytest.raises(InputError, match=r"--memory_of mask .*ended with status 0; run it separately"):
        memory._measure(OPTIONS, "mask")
