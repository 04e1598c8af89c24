"""The benchmark programs run on a small clip, and what they write is complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.quality.holdout import Targets
from benchmarks.record import markdown_table
from maskvolume.geometry.cameras import nearest_cameras, stack_cameras
from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)
CAMERAS = ("cam00", "cam01", "cam02", "cam03")


@pytest.fixture(scope="module")
def rig(make_rig: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 4 cameras with one held-out camera in their middle."""
    root = make_rig(tmp_path_factory.mktemp("clip") / "rig", cameras=CAMERAS, size=SIZE)
    make_rig(root / "targets", cameras=("target0",), size=SIZE)
    masks = root / "targets" / "masks" / "target0"
    masks.mkdir(parents=True)
    for frame in range(3):
        mask = np.zeros(SIZE, np.uint8)
        mask[16:32, 16:32] = 255
        cv2.imwrite(str(masks / f"{frame:05d}.png"), mask)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of few planes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta("mask", "matching", num_planes=8)))
    return path


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
def test_speed_on_a_gpu_that_is_not_there_is_one_line(run_program) -> None:
    run_program("benchmarks/speed.py", "--device", "cuda").check_input_error("device cuda", "not available")


def test_missing_targets_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--target_dir"):
        Targets.open(tmp_path / "no", SIZE)
    with pytest.raises(InputError, match="holds no folder of a held-out camera"):
        Targets.open(tmp_path, SIZE)


def test_targets_are_found_by_frame_name(rig: Path) -> None:
    targets = Targets.open(rig / "targets", SIZE)
    assert targets.names == ("target0",)
    assert targets.mattes.read("target0", "00001.jpg").sum() == 16 * 16
    assert targets.mattes.known("target0")
    assert not targets.mattes.known("target0", "cam00")
    with pytest.raises(InputError, match="00007"):
        targets.picture(0, "00007.jpg")
    with pytest.raises(InputError, match="00007"):
        targets.mattes.read("target0", "00007.jpg")


def test_nearest_cameras_are_sorted_by_distance(rig: Path) -> None:
    camera = Targets.open(rig / "targets", SIZE).camera(0)
    shifted = []
    for x in (0.3, -0.1, 0.2):
        T = camera.T_cam_world.clone()
        T[0, 3] += x
        shifted.append(type(camera)(T, camera.K, camera.size))
    assert nearest_cameras(stack_cameras(shifted), camera, 3) == (1, 2, 0)


def test_a_table_has_a_cell_for_every_column() -> None:
    lines = markdown_table(["a", "b"], [["left", "1"], ["x", "10.25"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ---- | ----: |"
