"""Bad input of the renderer: exit status 2, one line that names the file, nothing half-written."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoWriter
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.session import make_backgrounds
from maskvolume.rendering import loop as rendering

SHORT = ("--path", "circle", "--num_frames", 5)


def whole_files(folder: Path) -> list[Path]:
    """The files of a folder; asserts that none is a leftover and that every picture is whole."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    assert not [path for path in files if path.name.startswith(".")]
    for path in files:
        if path.suffix in (".png", ".jpg"):
            read_image(path)
    return files


def edit_poses(rig: Path, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    rows = np.load(rig / "poses_bounds.npy")
    changed = change(rows)
    np.save(rig / "poses_bounds.npy", rows if changed is None else changed)


def set_value(row: int, column: int, value: float) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        rows[row, column] = value

    return change


def make_singular(rows: np.ndarray) -> None:
    rows[1, [0, 5, 10]] = rows[1, [1, 6, 11]]


def save_pickled(rig: Path) -> None:
    np.save(rig / "poses_bounds.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def resize_one(rig: Path) -> None:
    for path in (rig / "cam01").iterdir():
        write_image(path, read_image(path, (24, 32)))


BROKEN_RIGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing folder": (shutil.rmtree, ""),
    "empty folder": (lambda rig: (shutil.rmtree(rig), rig.mkdir()), ""),
    "empty camera": (lambda rig: [path.unlink() for path in (rig / "cam02").iterdir()], "cam02"),
    "one frame less": (lambda rig: (rig / "cam01/00002.png").unlink(), "cam01"),
    "another size": (resize_one, "cam01"),
    "no poses": (lambda rig: (rig / "poses_bounds.npy").unlink(), "poses_bounds.npy"),
    "fewer poses": (lambda rig: edit_poses(rig, lambda rows: rows[:2]), "poses_bounds.npy"),
    "NaN": (lambda rig: edit_poses(rig, set_value(1, 3, np.nan)), "poses_bounds.npy"),
    "singular": (lambda rig: edit_poses(rig, make_singular), "poses_bounds.npy"),
    "near 0": (lambda rig: edit_poses(rig, set_value(2, 15, 0.0)), "poses_bounds.npy"),
    "far below near": (lambda rig: edit_poses(rig, set_value(0, 16, 0.5)), "poses_bounds.npy"),
    "wrong shape": (lambda rig: edit_poses(rig, lambda rows: rows[:, :15]), "poses_bounds.npy"),
    "pickled": (save_pickled, "poses_bounds.npy"),
}


@pytest.mark.parametrize("name", BROKEN_RIGS)
def test_broken_rigs(render, tiny_rig: Path, tmp_path: Path, name: str) -> None:
    breaks, word = BROKEN_RIGS[name]
    breaks(tiny_rig)
    render(tiny_rig, tmp_path / "out", *SHORT).check_input_error(str(tiny_rig), word)
    assert not (tmp_path / "out").exists()


BAD_OPTIONS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "no such camera": (("--indices", 0, 7), ("7", "cam02")),
    "no such camera name": (("--indices", "cam00", "cam11"), ("cam11",)),
    "one camera": (("--indices", 0), ("indices", "two")),
    "the same camera twice": (("--indices", 1, "cam01"), ("indices", "different")),
    "no such view": (("--view", "fix:9"), ("9",)),
    "nonsense view": (("--view", "there"), ("view", "there")),
    "no such time": (("--time", "fix:3"), ("time", "0 to 2")),
    "a time between frames": (("--time", "fix:0.5"), ("time", "0.5", "between two frames", "0 or 1")),
    "nonsense time": (("--time", "slow"), ("time", "slow")),
    "tiny pictures": (("--img_wh", 8, 8), ("img_wh",)),
    "a width alone": (("--img_wh", 64), ("img_wh",)),
    "no pictures": (("--num_frames", 0), ("num_frames",)),
    "one plane": (("--num_planes", 1), ("num_planes",)),
    "one camera for the background": (("--background_cameras", 1), ("background_cameras", "2")),
    "crf": (("--crf", 99), ("crf",)),
    "fps": (("--fps", 0), ("fps",)),
    "margin": (("--margin", -1), ("margin",)),
    "backend": (("--backend", "magic"), ("backend", "magic", "reference")),
    "frame format": (("--frame_format", "gif"), ("frame_format", "png")),
    "path file": (("--path", "missing.txt"), ("missing.txt",)),
    "background folder": (("--bg_dir", "nowhere"), ("nowhere",)),
    "unknown option": (("--img_hw", 64, 48), ("img_hw", "img_wh")),
    "config": (("--config", "no_such_config.txt"), ("no_such_config.txt",)),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(render, tiny_rig: Path, tmp_path: Path, name: str) -> None:
    options, words = BAD_OPTIONS[name]
    render(tiny_rig, tmp_path / "out", *SHORT, *options).check_input_error(*words)
    assert not [path for path in whole_files(tmp_path / "out") if path.suffix == ".png"]


@pytest.mark.parametrize("text", ["3\n" + "0 " * 15 + "\n", "two\n", "", "1\n1 2 3\n"])
def test_broken_path_files(render, tiny_rig: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "path.txt"
    path.write_text(text)
    render(tiny_rig, tmp_path / "out", "--path", path).check_input_error(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("img_hw = [64, 48]\n", ("img_hw", "img_wh")),
        ("bg_dir = [path_to_background]\n", ("bg_dir",)),
        ("time = \n", ("time",)),
    ],
)
def test_broken_configs(render, tiny_rig: Path, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    config = tmp_path / "mine.txt"
    config.write_text(text)
    render(tiny_rig, tmp_path / "out", "--config", config).check_input_error(str(config), "line 1", *words)


class RunsCode:
    """An object that would run code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch unpickled",)


def break_checkpoint(kind: str, weights: Path, folder: Path) -> Path:
    path = folder / "broken.ckpt"
    state = {f"models.{key}": value for key, value in load_model(weights).state_dict().items()}
    if kind == "missing":
        return folder / "none.safetensors"
    if kind == "truncated":
        path = folder / "broken.safetensors"
        path.write_bytes(weights.read_bytes()[:5000])
    elif kind == "foreign keys":
        torch.save({"state_dict": state}, path)
    elif kind == "code":
        path.write_bytes(pickle.dumps({"state_dict": RunsCode()}))
    elif kind == "text":
        path.write_text("not weights")
    return path


@pytest.mark.parametrize("kind", ["missing", "truncated", "foreign keys", "code", "text"])
def test_broken_checkpoints(render, tiny_rig: Path, tmp_path: Path, weights: Path, kind: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = break_checkpoint(kind, weights, tmp_path)
    render(tiny_rig, tmp_path / "out", *SHORT, ckpt=path).check_input_error(str(path))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "unpickled").exists()


def test_a_stage_one_checkpoint_has_no_mask_to_save(
    render, tiny_rig: Path, tmp_path: Path, stage_one_weights: Path
) -> None:
    outcome = render(tiny_rig, tmp_path / "out", *SHORT, "--save_mask", ckpt=stage_one_weights)
    outcome.check_input_error(str(stage_one_weights), "stage")


def test_a_stage_one_checkpoint_has_no_background_to_make(
    render, tiny_rig: Path, tmp_path: Path, stage_one_weights: Path
) -> None:
    outcome = render(tiny_rig, tmp_path, "--path", "circle", "--background_cameras", 3, ckpt=stage_one_weights)
    outcome.check_input_error("--background_cameras", "mpi.safetensors")


def test_a_truncated_picture_ends_the_run_and_leaves_what_is_whole(render, make_rig, tmp_path: Path) -> None:
    rig = make_rig(tmp_path / "frames", suffix=".jpg")
    RigClip.open(rig)
    make_backgrounds(RigClip.open(rig), range(3), rig / "background", keep=True)
    cut = rig / "cam01/00002.jpg"
    original = cut.read_bytes()
    cut.write_bytes(original[: len(original) // 2])
    render(rig, tmp_path / "out", *SHORT).check_input_error(str(cut))
    made = [path for path in whole_files(tmp_path / "out") if path.parent.name == "frames"]
    assert 0 < len(made) < 5
    assert not (tmp_path / "out/video.mp4").exists()
    cut.write_bytes(original)
    outcome = render(rig, tmp_path / "out", *SHORT).check()
    assert f"{5 - len(made)} pictures rendered, {len(made)} kept" in outcome.stdout


def test_a_truncated_background(render, tiny_rig: Path, tmp_path: Path) -> None:
    write_image(tiny_rig / "background/cam00.png", np.zeros((48, 64, 3), np.uint8))
    whole = (tiny_rig / "background/cam00.png").read_bytes()
    (tiny_rig / "background/cam01.png").write_bytes(whole[:60])
    outcome = render(tiny_rig, tmp_path / "out", *SHORT, "--indices", 0, 1)
    outcome.check_input_error(str(tiny_rig / "background/cam01.png"))
    (tiny_rig / "background/cam01.png").unlink()
    outcome = render(tiny_rig, tmp_path / "out", *SHORT, "--indices", 0, 1)
    outcome.check_input_error(str(tiny_rig / "background/cam01.png"), "collect_data")


def test_a_truncated_video(render, tiny_rig: Path, tmp_path: Path) -> None:
    clip = RigClip.open(tiny_rig)
    videos = tmp_path / "videos"
    for number, name in enumerate(clip.names):
        with VideoWriter(videos / f"{name}.mp4", clip.size) as writer:
            for frame in range(3):
                writer.append(clip.read(number, frame))
    (videos / "poses_bounds.npy").write_bytes((tiny_rig / "poses_bounds.npy").read_bytes())
    cut = videos / "cam01.mp4"
    cut.write_bytes(cut.read_bytes()[:-1500])
    render(videos, tmp_path / "out", *SHORT).check_input_error(str(cut))
    assert not (tmp_path / "out/video.mp4").exists()


def test_an_output_folder_below_a_file(render, tiny_rig: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    render(tiny_rig, tmp_path / "file/out", *SHORT).check_input_error(str(tmp_path / "file/out"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_can_not_be_written(render, tiny_rig: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    render(tiny_rig, tmp_path / "out", *SHORT).check_input_error(str(tmp_path / "out"))


def test_a_writer_that_finds_the_disk_full_ends_the_run(
    render, tiny_rig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(path: Path, picture: np.ndarray) -> None:
        if path.name == "00001.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_image(path, picture)

    monkeypatch.setattr(rendering, "write_image", fill_up)
    out = tmp_path / "out"
    render(tiny_rig, out, *SHORT).check_input_error(str(out / "frames/00001.png"), "disk is full")
    assert not (out / "video.mp4").exists()
    whole_files(out)


def test_a_disk_that_is_really_full(render, tiny_rig: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=44k", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a small disk")
    try:
        render(tiny_rig, disk / "out", *SHORT).check_input_error(str(disk), "disk is full")
        whole_files(disk)
        assert not (disk / "out/video.mp4").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_as_a_real_program_there_is_one_line_and_no_traceback(
    run_program, tiny_rig: Path, tmp_path: Path, weights: Path
) -> None:
    (tiny_rig / "cam01/00002.png").unlink()
    options = ["--root_dir", "frames", "--out_dir", "out", "--ckpt_path", weights]
    done = run_program("render/render_llff_video.py", *options, cwd=tmp_path)
    done.check_input_error("frames/cam01")
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
