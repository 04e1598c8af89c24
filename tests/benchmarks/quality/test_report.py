"""Results of an evaluation as files and as tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.report import report, write_json

FIGURES = {"psnr": 31.234, "ssim": 0.98765, "ms_ssim": 0.9, "psnr_dynamic": None, "flicker": 1.5}
RESULT: dict[str, Any] = {
    "command": "python benchmarks/evaluate.py",
    "commit": "0123456789+changes",
    "torch": "2.9",
    "machine": {"cpu": "a processor"},
    "lpips": None,
    "rows": [{"name": "nearest camera"}, {"name": "mask volume"}],
    "checkpoints": {
        "a": {"path": "a.safetensors", "stage": "mask", "arch": "matching", "num_planes": 8, "precision": "fp32"}
        | {"digest": "abc"}
    },
    "clip": {
        "clip": "examples/rig",
        "frames": [0, 1],
        "size_wh": [64, 48],
        "targets": {"target0": {"sources": ["cam00", "cam01"], "mean": {"nearest camera": FIGURES}}},
        "mean": {"mask volume": FIGURES},
    },
}


def test_a_list_of_numbers_is_on_one_line_and_is_read_back(tmp_path: Path) -> None:
    result = {"values": [1, 2.5, -3e-5, None], "names": ["a", "b"], "nested": [[1, 2], [3, 4]]}
    write_json(tmp_path / "result.json", result)
    text = (tmp_path / "result.json").read_text()
    assert json.loads(text) == result
    assert any("1, 2.5, -3e-05, null" in line for line in text.splitlines())


def test_what_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "result.json", {"value": math.nan})
    assert not list(tmp_path.iterdir())


def test_tables_have_a_row_for_every_view_and_method() -> None:
    text = report(RESULT)
    assert "examples/rig, held-out cameras, 2 frames, 64 x 48 (target0 from cam00 cam01):" in text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert {"target0, nearest camera", "mean, mask volume"} <= set(rows)
    assert "LPIPS" not in rows["view, method"]
    for cell in ("31.23", "0.988", "0.900", "1.50", " - "):
        assert cell in rows["mean, mask volume"]
    assert "commit 0123456 with changes" in text
    assert "- a: a.safetensors (stage mask, matching, 8 planes, fp32; abc)" in text


def test_lpips_is_a_column_where_it_was_measured() -> None:
    lpips = {"backbone": "squeeze", "weights": "w.pth", "digest": "abc", "input_range": "-1..1"}
    text = report({**RESULT, "lpips": lpips})
    assert "LPIPS |" in text
    assert "- LPIPS: squeeze, w.pth (abc), -1..1" in text
