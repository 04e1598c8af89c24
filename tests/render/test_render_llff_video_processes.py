"""Several processes share the frames of a clip, and make what one makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskvolume.io.images import read_image

WORLD = 2


def torchrun(repo_root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The renderer in two processes on this machine."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={WORLD}"),
            str(repo_root / "render/render_llff_video.py"),
            *map(str, arguments),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "options.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.mark.slow
def test_two_processes_make_what_one_makes_and_go_on_where_one_stopped(
    render, repo_root: Path, tiny_rig: Path, tmp_path: Path, weights: Path
) -> None:
    options = ["--path", "circle", "--num_frames", 7, "--save_disparity", "--img_wh", 64, 48]
    render(tiny_rig, tmp_path / "one", *options).check()
    out = tmp_path / "two"
    arguments = ["--root_dir", tiny_rig, "--out_dir", out, "--ckpt_path", weights, *options]
    arguments += ["--device", "cpu", "--precision", "fp32"]
    done = torchrun(repo_root, *arguments)
    assert done.returncode == 0, done.stderr
    assert "in 2 processes" in done.stdout
    assert done.stdout.count("pictures rendered") == 1
    assert contents(out) == contents(tmp_path / "one")

    for pose in (0, 5):
        (out / f"frames/{pose:05d}.png").unlink()
    (out / "video.mp4").unlink()
    again = torchrun(repo_root, *arguments)
    assert again.returncode == 0, again.stderr
    assert "2 pictures rendered, 5 kept" in again.stdout
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.slow
def test_what_one_process_cannot_read_ends_all_in_one_line(
    repo_root: Path, tiny_rig: Path, tmp_path: Path, weights: Path
) -> None:
    last = sorted((tiny_rig / "cam00").iterdir())[-1]
    last.write_bytes(b"no picture")
    out = tmp_path / "out"
    arguments = ["--root_dir", tiny_rig, "--out_dir", out, "--ckpt_path", weights, "--path", "circle"]
    arguments += ["--indices", 0, 1, "--img_wh", 64, 48, "--device", "cpu", "--precision", "fp32", "--time", "loop"]
    done = torchrun(repo_root, *arguments)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if ": error: " in line and last.name in line]
    assert len(lines) == WORLD, done.stderr
    assert not (out / "video.mp4").exists()
    for path in (out / "frames").iterdir():  # what was made is whole, and is kept
        read_image(path)
