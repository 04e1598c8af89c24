"""The program runs on a small clip, and what it writes is complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_speed_compares_both_sides(rig: Path, checkpoint: Path, tmp_path: Path, run_program) -> None:
    out = tmp_path / "speed.json"
    done = run_program(
        "benchmarks/speed.py",
        *("--root_dir", rig, "--ckpt_path", checkpoint, "--repeats", 1, "--threads", 1),
        *("--img_wh", 64, 48, "--num_planes", 8, "--most_planes", 16, "--device", "cpu", "--out", out),
    )
    assert done.rc == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["device"] == "cpu"
    assert result["checkpoint"] == checkpoint.name
    for side in ("original", "ours"):
        rendering = {"original": {"blend", "warp", "composite"}, "ours": {"blend and render"}}[side]
        assert {"total", "sweep", "mpi network", "mask network", *rendering} <= set(result["frame"][side])
        assert result["peak_memory_gb"][side] > 0
    assert set(result["view"]) == {"random MPI", "network's MPI"}
    assert all(value > 0 for value in result["gflop"].values())
    assert result["gflop"]["original, mpi network"] == pytest.approx(711 * 8 * 48 * 64 / (32 * 360 * 640), rel=0.05)
    wide = 4 * 8 * result["mpi_size_wh"][0] * result["mpi_size_wh"][1]
    views = {"float32": 4, "float16": 2, "uint8": 1}
    for name, element in views.items():
        entry = result["planes"][name]
        assert entry["bytes"] == wide * element + 5 * 4 * 48 * 64
        assert entry["of_copy"] == pytest.approx(entry["floor"] / entry["median"], abs=2e-3)
    assert result["path"]["one launch"]["bytes"] == wide * 4 + result["path"]["views"] * 5 * 4 * 48 * 64
    assert result["blend"]["blend, then render"]["bytes"] - result["blend"]["fused"]["bytes"] == 2 * wide * 4
    for way in ("from memory", "from files to files"):
        pace = result["pipeline"][way]
        assert pace["frames_a_second"] == pytest.approx(1 / pace["ours"], rel=0.1)
        assert pace["ratio"] == pytest.approx(pace["original"] / pace["ours"], rel=0.1)
    growth = result["growth"]
    assert [row["num_planes"] for row in growth["planes"]] == [8, 16]
    assert [row["value"] for row in growth["pixels"]] == [0.25, 0.5625, 1, 2.25, 4]
    assert [row["value"] for row in growth["views"]] == [1, 4, 16, 64]
    for table in ("Times and floors", "The pipeline over 3 frames", "How time grows", "one launch"):
        assert table in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_speed_on_a_gpu_that_is_not_there_is_one_line(call_program) -> None:
    call_program("benchmarks/speed.py", "--device", "cuda").check_input_error("device cuda", "not available")
