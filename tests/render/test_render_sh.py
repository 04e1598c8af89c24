"""render.sh: from a frame folder to a video, from any working directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maskvolume.io.video import VideoFrames


def run_sh(script: Path, *arguments: object, cwd: Path, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, str(script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def script(repo_root: Path) -> Path:
    path = repo_root / "render/render.sh"
    assert os.access(path, os.X_OK)
    return path


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_shells_can_read_it(script: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", str(script)], check=True)


@pytest.mark.parametrize("arguments", [[], ["frames"], ["frames", 0, 20]])
def test_missing_arguments_show_the_usage(script: Path, tmp_path: Path, arguments: list[object]) -> None:
    done = run_sh(script, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_frames_become_a_video(script: Path, tiny_rig: Path, tmp_path: Path, weights: Path) -> None:
    options = ["--ckpt_path", weights, "--num_frames", 4, "--time", "loop", "--device", "cpu"]
    done = run_sh(script, "frames/", 0, 2, "qual", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "video: frames/qual_video/video.mp4"
    assert VideoFrames(tiny_rig / "qual_video/video.mp4").count == 4
    assert (tiny_rig / "qual/00000/qual_path.txt").is_file()
    assert sorted(path.name for path in (tiny_rig / "qual").glob("0*")) == ["00000", "00001"]
    assert len(list((tiny_rig / "background").glob("cam*.png"))) == 3
    assert not (tiny_rig / "qual_video/background").exists()

    late = run_sh(script, "frames", 1, 3, "late", "--ckpt_path", weights, "--num_frames", 1, cwd=tmp_path)
    assert late.returncode == 0, late.stderr
    assert sorted(path.name for path in (tiny_rig / "late").glob("0*")) == ["00001", "00002"]
    assert (tiny_rig / "late/00001/qual_path.txt").is_file()

    failed = run_sh(script, "nowhere", 0, 2, "qual", cwd=tmp_path)
    assert failed.returncode == 2
    assert "nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr
