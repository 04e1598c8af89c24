"""What benchmarks record, and tables of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import record
from benchmarks.record import REPO_ROOT, default_checkpoint, display_path, markdown_table, run_record, write_result
from maskvolume.runtime.errors import InputError


def test_a_table_has_a_cell_for_every_column() -> None:
    lines = markdown_table(["a", "b"], [["left", "1"], ["x", "10.25"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ---- | ----: |"


def test_a_record_tells_the_commit_and_the_machine() -> None:
    entry = run_record()
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", entry["commit"])
    assert entry["torch"] == torch.__version__
    assert entry["machine"]["threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(entry)) == entry


def test_paths_inside_are_shown_from_the_root_and_others_by_name(tmp_path: Path) -> None:
    assert display_path(REPO_ROOT / "examples" / "rig") == "examples/rig"
    assert display_path(tmp_path / "mine.safetensors") == "mine.safetensors"


def test_a_result_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, {"seconds": 1.5})
    assert json.loads(path.read_text()) == {"seconds": 1.5}
    with pytest.raises(TypeError):
        write_result(path, {"seconds": object()})
    assert json.loads(path.read_text()) == {"seconds": 1.5}
    assert [child.name for child in tmp_path.iterdir()] == ["result.json"]


def test_the_one_checkpoint_of_stage_two_is_found(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "CHECKPOINTS_FOLDER", tmp_path)
    with pytest.raises(InputError, match="stage-two checkpoints: none; choose one with --ckpt_path"):
        default_checkpoint()
    shutil.copy(checkpoint, tmp_path / "a.safetensors")
    assert default_checkpoint() == tmp_path / "a.safetensors"
    shutil.copy(checkpoint, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors, b\.safetensors"):
        default_checkpoint()
