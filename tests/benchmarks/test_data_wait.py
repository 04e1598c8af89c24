"""The waiting benchmark trains on small shards and writes what it measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shard_helpers import write_shards

from maskvolume.io.triplets import ViewChoice, write_triplets


@pytest.mark.slow
def test_data_wait_tells_share_and_seconds(run_program: Callable[..., Any], tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", {"a": 40, "b": 30})
    write_triplets(data / "triplets.txt", [ViewChoice("a", 5000, (3000, 8000))])
    out = tmp_path / "wait.json"
    run = run_program(
        "benchmarks/data_wait.py", "--root_dir", data, "--steps", 20, "--num_workers", 0, 1, "--img_hw", 32, 32,
        "--num_planes", 12, "--device", "cpu", "--out", out, cwd=tmp_path,
    )  # fmt: skip
    assert run.rc == 0, run.stderr
    result = json.loads(out.read_text())
    assert {"commit", "machine", "command"} <= set(result)
    assert set(result["workers"]) == {"0", "1"}
    for one in result["workers"].values():
        assert 0 <= one["wait_share"] < 1
        assert one["seconds_a_step"] > 0
    assert result["workers"]["0"]["wait_share"] > 0  # read by the training process itself
    assert "share of waiting" in run.stdout
