"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from maskvolume.runtime import errors

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job of a shell; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPO_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder of the checkout."""
    return REPO_ROOT


@dataclass(frozen=True)
class ProgramResult:
    """Exit status and output of a program."""

    rc: int
    stdout: str
    stderr: str

    def check_input_error(self, *words: str) -> None:
        """Assert that the program rejected its input, with one line of error that contains ``words``."""
        assert self.rc == 2, f"exit status {self.rc}\n{self.stdout}\n{self.stderr}"
        assert "Traceback" not in self.stderr, self.stderr
        last_line = self.stderr.strip().splitlines()[-1]
        assert ": error: " in last_line, self.stderr
        missing = [word for word in words if word not in last_line]
        assert not missing, f"{missing} expected in: {last_line}"


ProgramRunner = Callable[..., ProgramResult]


@pytest.fixture(scope="session")
def run_program() -> ProgramRunner:
    """A function that runs a program of the repository; it takes the path from the root and the arguments."""

    def run(
        program: str | Path,
        *arguments: object,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> ProgramResult:
        command = [sys.executable, str(REPO_ROOT / program), *(str(argument) for argument in arguments)]
        done = subprocess.run(
            command,
            cwd=cwd or REPO_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return ProgramResult(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def call_program(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> ProgramRunner:
    """Like ``run_program``, but within this process, which saves the start of a process and its imports.

    Tests of signals, of processes and of output at exit need ``run_program``.
    """
    monkeypatch.setattr(errors.signal, "signal", lambda *_: None)

    def call(
        program: str | Path,
        *arguments: object,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ProgramResult:
        main = importlib.import_module(".".join(Path(program).with_suffix("").parts)).main
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd or REPO_ROOT)
            patch.setattr(sys, "argv", [str(REPO_ROOT / program), *map(str, arguments)])
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                errors.run_program(main)
        output = capfd.readouterr()
        return ProgramResult(int(ended.value.code or 0), output.out, output.err)

    return call


RIG_FOCAL = 60.0
RIG_BASELINE = 0.1
RIG_DEPTHS = (4.0, 2.0)  # the textured wall, the moving square
RIG_BOUNDS = (1.5, 6.0)


def write_rig(
    folder: Path,
    cameras: Sequence[str] = ("cam00", "cam01", "cam02"),
    num_frames: int = 3,
    size: tuple[int, int] = (48, 64),
    suffix: str = ".png",
    seed: int = 0,
) -> Path:
    """Write a frame folder: a row of cameras that see a square move in front of a wall.

    Square and wall are parallel to the pictures, so that a camera sees them shifted by focal * x / depth. The square
    crosses the picture, so that the median over 3 frames or more is the wall.

    Args:
        folder: created if missing.
        cameras: names of the camera folders, from left to right.
        num_frames: frames per camera, named from 00000.
        size: ``(h, w)`` of the pictures in pixels.
        suffix: ``.png`` or ``.jpg``.
        seed: seed of the textures.

    Returns:
        ``folder``, which also contains ``poses_bounds.npy``.
    """
    rng = np.random.default_rng(seed)
    h, w = size
    wall = cv2.resize(rng.integers(30, 226, (h // 4, w // 4, 3), np.uint8), (2 * w, h), interpolation=cv2.INTER_CUBIC)
    side = h // 3
    square = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    rows = []
    for index, name in enumerate(cameras):
        x = (index - (len(cameras) - 1) / 2) * RIG_BASELINE
        rows.append(_llff_row(x, size))
        (folder / name).mkdir(parents=True, exist_ok=True)
        wall_shift, square_shift = (-RIG_FOCAL * x / depth for depth in RIG_DEPTHS)
        background = _shifted(wall, wall_shift - w / 2, 0, size, cv2.BORDER_REFLECT)
        for frame in range(num_frames):
            left = (w - side) * frame / max(num_frames - 1, 1) + square_shift
            matte = _shifted(np.full((side, side, 1), 1, np.float32), left, h / 3, size)[..., None]
            color = _shifted(square, left, h / 3, size, cv2.BORDER_REPLICATE)
            picture = np.round(matte * color + (1 - matte) * background).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{frame:05d}{suffix}"), picture)
    np.save(folder / "poses_bounds.npy", np.stack(rows))
    return folder


def _shifted(
    picture: np.ndarray, x: float, y: float, size: tuple[int, int], border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """``picture`` with its top left corner at (x, y) in a picture of ``size``."""
    move = np.array([[1, 0, x], [0, 1, y]], np.float64)
    return cv2.warpAffine(picture, move, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=border)


def _llff_row(x: float, size: tuple[int, int]) -> np.ndarray:
    """A row of poses_bounds.npy for a camera at (x, 0, 0) that looks along +z with y down."""
    down, right, back = (0, 1, 0), (1, 0, 0), (0, 0, -1)
    matrix = np.stack([down, right, back, (x, 0, 0), (*size, RIG_FOCAL)], axis=1)
    return np.concatenate([matrix.astype(np.float64).ravel(), RIG_BOUNDS])


@pytest.fixture(scope="session")
def make_rig() -> Callable[..., Path]:
    """The function ``write_rig``, for rigs other than ``tiny_rig``."""
    return write_rig


@pytest.fixture
def tiny_rig(tmp_path: Path) -> Path:
    """A frame folder of 3 cameras and 3 frames of 64 x 48, with poses_bounds.npy."""
    return write_rig(tmp_path / "frames")


def save_random_weights(path: Path, stage: str) -> Path:
    """Write a checkpoint with few planes; noise moves the weights off their start, where half of the layers are 0."""
    from maskvolume.mpi.checkpoints import save_checkpoint
    from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel

    torch.manual_seed(0)
    model = MaskVolumeModel(CheckpointMeta(stage, "semiglobal", num_planes=6))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 0:
                parameter += 0.02 * torch.randn_like(parameter)
    save_checkpoint(path, model)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage-two checkpoint."""
    return save_random_weights(tmp_path_factory.mktemp("weights") / "mask.safetensors", "mask")


@pytest.fixture(scope="session")
def stage_one_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage-one checkpoint."""
    return save_random_weights(tmp_path_factory.mktemp("weights") / "mpi.safetensors", "mpi")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser of benchmarks/cost/browser.py, shared by all tests of a process; skips if none is installed."""
    from benchmarks.cost import browser

    program = browser.find_chromium()
    if program is None:
        pytest.skip(browser.MISSING)
    with browser.launch_chromium(program) as launched:
        yield launched


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens a page in a folder: ``open_page(folder).goto("index.html")``; see browser.new_page."""
    from benchmarks.cost import browser

    with ExitStack() as pages:
        yield lambda folder, **options: pages.enter_context(browser.new_page(chromium, folder, **options))
