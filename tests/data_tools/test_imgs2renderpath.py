"""imgs2renderpath: where it reads, what it writes, and what it says of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.imgs2renderpath import find_poses, main
from maskvolume.geometry.paths import PATH_KINDS, render_path
from maskvolume.io.images import read_image
from maskvolume.io.llff import read_path, read_poses_bounds
from maskvolume.runtime.errors import InputError


@pytest.fixture
def clip(tmp_path, tiny_rig) -> Path:
    """A collected clip, as far as poses go, that begins at frame 20."""
    for frame in ("00020", "00021"):
        folder = tmp_path / "frames" / "qual" / frame
        folder.mkdir(parents=True)
        (folder / "poses_bounds.npy").write_bytes((tiny_rig / "poses_bounds.npy").read_bytes())
    return tmp_path / "frames" / "qual"


def test_the_path_lies_beside_the_poses(tiny_rig, clip, capsys):
    main([str(tiny_rig)])
    main([str(clip)])
    assert len(read_path(tiny_rig / "qual_path.txt")) == 270
    assert (clip / "00020" / "qual_path.txt").read_text() == (tiny_rig / "qual_path.txt").read_text()
    assert not (clip / "00021" / "qual_path.txt").exists()
    assert "270 poses around 3 cameras" in capsys.readouterr().out


def test_scene_by_name_and_by_file(tiny_rig, tmp_path):
    main(["--scene", str(tiny_rig), "--out", str(tmp_path / "a.txt")])
    main([str(tiny_rig / "poses_bounds.npy"), "--out", str(tmp_path / "b.txt")])
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
@pytest.mark.parametrize("kind", PATH_KINDS)
def test_a_written_path_is_the_path_that_was_made(tiny_rig, tmp_path, kind, suffix):
    out = tmp_path / "deeper" / f"path{suffix}"
    main([str(tiny_rig), "--kind", kind, "--num", "5", "--out", str(out)])
    made, written = render_path(read_poses_bounds(tiny_rig / "poses_bounds.npy"), kind, 5), read_path(out)
    torch.testing.assert_close(written.T_cam_world, made.T_cam_world)
    torch.testing.assert_close(written.K, made.K)


def test_several_paths_follow_one_another(tiny_rig, tmp_path):
    out = tmp_path / "path.txt"
    main([str(tiny_rig), "--kind", "circle", "inputs", "--num", "4", "--out", str(out)])
    written, poses = read_path(out), read_poses_bounds(tiny_rig / "poses_bounds.npy")
    assert len(written) == 8 + 3
    torch.testing.assert_close(written.T_cam_world[8:], poses.cameras.T_cam_world)


def test_focus_and_scale_reach_the_path(tiny_rig, tmp_path):
    out = tmp_path / "path.npy"
    main([str(tiny_rig), "--kind", "x", "--focus", "3", "--scale", "0.5", "--out", str(out)])
    made = render_path(read_poses_bounds(tiny_rig / "poses_bounds.npy"), "x", focus=3, scale=0.5)
    torch.testing.assert_close(read_path(out).T_cam_world, made.T_cam_world)


@pytest.mark.parametrize("cameras", [["cam00"], ["cam00", "cam01", "cam02", "cam03"]])
def test_plot_of_any_number_of_cameras(make_rig, tmp_path, cameras):
    rig = make_rig(tmp_path / "rig", cameras=cameras, num_frames=1)
    main([str(rig), "--plot", str(tmp_path / "plots" / "rig.png"), "--num", "6"])
    picture = read_image(tmp_path / "plots" / "rig.png")
    assert picture.shape[1] > 1000
    assert picture.std() > 10
    main([str(rig), "--plot", str(tmp_path / "one.png"), "--num", "1", "--kind", "x"])


def test_as_a_program_from_another_folder(run_program, call_program, tiny_rig, tmp_path):
    done = run_program("data_tools/imgs2renderpath.py", "frames", "--kind", "spiral", cwd=tmp_path)
    assert done.rc == 0, done.stderr
    assert len(read_path(tiny_rig / "qual_path.txt")) == 120
    done = call_program("data_tools/imgs2renderpath.py", "nowhere", cwd=tmp_path)
    done.check_input_error("nowhere", "no such file or folder")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "scene"),
        (["frames", "more"], "more"),
        (["frames", "--kind", "zigzag"], "zigzag"),
        (["frames", "--kind", "[]"], "--kind"),
        (["frames", "--num", "0"], "at least 1"),
        (["frames", "--focus", "-2"], "focus"),
        (["frames", "--scale", "0"], "scale"),
        (["frames", "--out", "path.csv"], "path.csv"),
        (["frames", "--plot", "rig.jpg"], "rig.jpg"),
        (["frames", "--out", "frames/poses_bounds.npy/path.txt"], "poses_bounds.npy"),
        (["frames/cam00"], "poses_bounds.npy"),
        (["empty"], "empty"),
    ],
)
def test_bad_input(tiny_rig, tmp_path, monkeypatch, arguments, words):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        main(arguments)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "frames"]
    assert not (tiny_rig / "qual_path.txt").exists()


def test_bad_poses_leave_the_old_path(tiny_rig):
    main([str(tiny_rig), "--kind", "x"])
    before = (tiny_rig / "qual_path.txt").read_bytes()
    rows = np.load(tiny_rig / "poses_bounds.npy")
    rows[1, 0] = np.nan
    np.save(tiny_rig / "poses_bounds.npy", rows)
    with pytest.raises(InputError, match=r"poses_bounds\.npy"):
        main([str(tiny_rig)])
    assert (tiny_rig / "qual_path.txt").read_bytes() == before


def test_poses_of_the_folder_come_before_those_of_a_frame(clip):
    assert find_poses(clip) == clip / "00020" / "poses_bounds.npy"
    assert find_poses(clip.parent) == clip.parent / "poses_bounds.npy"
