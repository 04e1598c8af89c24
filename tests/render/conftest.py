"""Fixtures of the programs that render: a program run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from render_helpers import Finished

from maskvolume.clips.rig import RigClip
from maskvolume.mpi.session import make_backgrounds
from maskvolume.runtime import errors
from render.render_llff_video import main


class Outcome:
    """How a program ended."""

    def __init__(self, rc: int, stdout: str, stderr: str) -> None:
        self.rc, self.stdout, self.stderr = rc, stdout, stderr

    def check(self) -> Outcome:
        """Assert that it went well."""
        assert self.rc == 0, self.stderr
        return self

    def check_input_error(self, *words: str) -> None:
        """Assert that it ended on bad input, with one line that holds ``words``."""
        assert self.rc == 2, f"{self.rc}: {self.stderr}"
        lines = [line for line in self.stderr.splitlines() if "it/s" not in line and "frames" not in line[:60]]
        assert "Traceback" not in self.stderr
        last = self.stderr.strip().splitlines()[-1]
        assert ": error: " in last, lines
        missing = [word for word in words if word not in last]
        assert not missing, f"{missing} expected in: {last}"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, make_rig: Callable[..., Path], weights: Path) -> Finished:
    """Five views of a tiny rig with disparity and masks."""
    folder = tmp_path_factory.mktemp("finished")
    rig, out = make_rig(folder / "frames"), folder / "out"
    clip = RigClip.open(rig)
    make_backgrounds(clip, range(len(clip.names)), clip.background_dir, keep=True)
    options = ("--path", "circle", "--num_frames", 5, "--save_disparity", "--save_mask", "--fps", 12)
    places = ("--root_dir", rig, "--out_dir", out, "--ckpt_path", weights, "--device", "cpu", "--precision", "fp32")
    main([str(argument) for argument in (*places, *options)])
    return Finished(rig, out, options)


@pytest.fixture
def outcome_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, Callable[[list[str]], None], Sequence[object]], Outcome]:
    """Run a program in this process: ``outcome_of(name, main, arguments)``."""
    monkeypatch.setattr(errors.signal, "signal", lambda *_: None)

    def run(name: str, main: Callable[[list[str]], None], arguments: Sequence[object]) -> Outcome:
        monkeypatch.setattr(sys, "argv", [name])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            errors.run_program(lambda: main([str(argument) for argument in arguments]))
        output = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), output.out, output.err)

    return run


@pytest.fixture
def render(outcome_of: Callable[..., Outcome], weights: Path) -> Callable[..., Outcome]:
    """Run the renderer in this process, as a program: ``render(root_dir, out_dir, *options)``."""

    def run(root: object, out: object, *options: object, ckpt: Path | None = weights) -> Outcome:
        arguments = ["--root_dir", root, "--out_dir", out, "--device", "cpu", "--precision", "fp32", *options]
        arguments += ["--ckpt_path", ckpt] if ckpt is not None else []
        return outcome_of("render_llff_video.py", main, arguments)

    return run
