"""A run that is interrupted at any moment can be continued, and its output is identical to an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskvolume.io.images import read_image

POSES = 60


def start(repo_root: Path, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(repo_root / "render/render_llff_video.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_frames(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many pictures are there: few, so that the run is still far from its end on a busy machine."""
    end = time.monotonic() + 240
    while len(list(folder.glob("[0-9]*.png"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "options.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.mark.slow
def test_killed_and_interrupted_runs_end_like_one_that_was_not(
    render, repo_root: Path, tiny_rig: Path, tmp_path: Path, weights: Path
) -> None:
    options = ["--path", "circle", "--time", "loop", "--save_disparity", "--img_wh", "160", "120"]
    render(tiny_rig, tmp_path / "whole", *options).check()
    out = tmp_path / "out"
    arguments = ["--root_dir", str(tiny_rig), "--out_dir", str(out), "--ckpt_path", str(weights)]
    arguments += [*options, "--device", "cpu", "--precision", "fp32"]

    killed = start(repo_root, arguments)
    wait_for_frames(out / "frames", 2, killed)
    killed.kill()
    killed.communicate()
    after_kill = len(list((out / "frames").glob("[0-9]*.png")))
    assert after_kill < POSES
    assert not (out / "video.mp4").exists()

    interrupted = start(repo_root, arguments)
    wait_for_frames(out / "frames", after_kill + 1, interrupted)
    interrupted.send_signal(signal.SIGTERM)
    stderr = interrupted.communicate(timeout=120)[1]
    assert interrupted.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.strip().splitlines()[-1].endswith("run the same command again to continue")
    assert after_kill < len(list((out / "frames").iterdir())) < POSES
    for path in (*(out / "frames").iterdir(), *(out / "disparity").glob("*.png")):
        assert not path.name.startswith("."), "a temporary file was left"
        read_image(path)

    last = start(repo_root, arguments)
    assert last.wait(timeout=240) == 0, last.communicate()[1]
    last.communicate()
    assert contents(out) == contents(tmp_path / "whole")
