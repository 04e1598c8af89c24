"""Recordings of every form open as clips: cameras, planes and pictures, those of bent lenses straightened."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lens_helpers import SIZE, make_lens, take_picture, waves

from data_tools.convert import main as convert
from maskvolume.clips.layouts import Layout
from maskvolume.clips.recordings import open_clip, open_recording
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.lenses import Lens, pinhole, straight, undistort_maps
from maskvolume.geometry.poses import PosedCamera
from maskvolume.io.colmap import write_colmap
from maskvolume.io.images import read_image, write_image
from maskvolume.io.nerfstudio import write_nerfstudio
from maskvolume.runtime.errors import InputError

FORMS = ("colmap", "nerfstudio")


def posed(lenses: dict[str, Lens], bounds: tuple[float, float] | None = (1.0, 9.0)) -> list[PosedCamera]:
    """Cameras in a row, two pictures of each."""
    cameras = []
    for number, (name, lens) in enumerate(lenses.items()):
        T = np.eye(4)
        T[0, 3] = -0.1 * number
        cameras.append(PosedCamera(name, lens, T, (f"images/{name}/00000.png", f"images/{name}/00001.png"), bounds))
    return cameras


def write_recording(root: Path, form: str, cameras: list[PosedCamera]) -> Path:
    """Pictures and their list, in a form."""
    for camera in cameras:
        for frame, file in enumerate(camera.files):
            write_image(root / file, take_picture(camera.lens, camera.T_cam_world, waves) // (frame + 1))
    if form == "nerfstudio":
        write_nerfstudio(root / "transforms.json", cameras)
        return root
    relative = [replace(each, files=tuple(file.removeprefix("images/") for file in each.files)) for each in cameras]
    write_colmap(root / "sparse/0", relative)
    known = [f"{camera.name} {camera.bounds[0]} {camera.bounds[1]}" for camera in cameras if camera.bounds]
    (root / "bounds.txt").write_text("\n".join(known))
    return root


@pytest.mark.parametrize("form", FORMS)
def test_a_rig_in_another_form_is_the_same_clip(tiny_rig: Path, tmp_path: Path, form: str) -> None:
    convert([str(tiny_rig), "--to", form, "--out_dir", str(tmp_path / form)])
    want, got = RigClip.open(tiny_rig), open_clip(tmp_path / form)
    assert (got.names, got.frame_names, got.size, got.near_far()) == (
        want.names,
        want.frame_names,
        want.size,
        want.near_far(),
    )
    torch.testing.assert_close(got.poses.cameras.K, want.poses.cameras.K, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.poses.cameras.T_cam_world, want.poses.cameras.T_cam_world, rtol=0, atol=1e-12)
    for camera in range(3):
        for frame in range(3):
            np.testing.assert_array_equal(got.read(camera, frame), want.read(camera, frame))
    assert len(got.layout.notes) == 1
    assert got.background_dir == tmp_path / form / "background"
    assert got.layout.path_file == tmp_path / form / "qual_path.txt"


def test_a_clip_with_poses_is_one_whatever_lies_beside_it(tiny_rig: Path, tmp_path: Path) -> None:
    convert([str(tiny_rig), "--to", "colmap", "--out_dir", str(tmp_path / "colmap")])
    shutil.copytree(tmp_path / "colmap/sparse", tiny_rig / "sparse")
    assert open_clip(tiny_rig).layout.kind == "frames"
    (tiny_rig / "poses_bounds.npy").unlink()
    shutil.copy(tmp_path / "colmap/bounds.txt", tiny_rig)
    assert open_clip(tiny_rig).layout.kind == "colmap"  # which names the same pictures
    assert open_clip(tiny_rig, tmp_path / "elsewhere").background_dir == tmp_path / "elsewhere"


def test_the_file_itself_can_be_named(tiny_rig: Path, tmp_path: Path) -> None:
    convert([str(tiny_rig), "--to", "nerfstudio", "--out_dir", str(tmp_path / "n")])
    assert open_clip(tmp_path / "n/transforms.json").root_dir == tmp_path / "n"


@pytest.mark.parametrize("form", FORMS)
def test_bent_lines_are_straight_when_they_are_read(tmp_path: Path, form: str) -> None:
    """As ``convert`` takes the pictures through an ideal camera; those of a straight lens stay as they are."""
    h, w = SIZE
    flat = pinhole(np.array([[100.0, 0, w / 2 + 3], [0, 104.0, h / 2 - 2], [0, 0, 1]]), SIZE)
    lenses = {"cam00": make_lens("barrel"), "cam01": flat}
    root = write_recording(tmp_path / form, form, posed(lenses))
    clip = open_clip(root)
    assert clip.layout.notes[1:] == ("pictures of cam00 are straightened when they are read: distortion",)
    ideal = straight(lenses["cam00"])
    np.testing.assert_allclose(clip.poses.cameras.K[0].numpy(), ideal, atol=1e-9)
    np.testing.assert_allclose(clip.poses.cameras.K[1].numpy(), flat.K, atol=1e-9)  # a form of its own needs no LLFF
    stored = read_image(root / "images/cam00/00001.png")
    np.testing.assert_array_equal(clip.read(0, 1), undistort_maps(lenses["cam00"], ideal).apply(stored))
    truth = take_picture(pinhole(ideal, SIZE), np.eye(4), waves)
    assert np.abs(clip.read(0, 0).astype(int) - truth)[2:-2, 2:-2].mean() < 1.5
    np.testing.assert_array_equal(clip.read(1, 0), read_image(root / "images/cam01/00000.png"))
    convert([str(root), "--to", "frames", "--out_dir", str(tmp_path / "converted"), "--ext", "png"])
    np.testing.assert_array_equal(clip.read(0, 0), RigClip.open(tmp_path / "converted").read(0, 0))
    clip.layout.source.release(0)
    np.testing.assert_array_equal(clip.read(0, 1), undistort_maps(lenses["cam00"], ideal).apply(stored))


def test_pictures_of_another_size_become_as_large_as_the_first(tmp_path: Path) -> None:
    h, w = SIZE
    first = pinhole(np.array([[100.0, 0, w / 2], [0, 100.0, h / 2], [0, 0, 1]]), SIZE)
    clip = open_clip(write_recording(tmp_path, "colmap", posed({"a": first, "b": first.scaled((h // 2, w // 2))})))
    assert clip.size == clip.read(1, 0).shape[:2] == SIZE
    assert clip.layout.notes[-1].endswith(f"pictures of {w // 2} x {h // 2} pixels")
    # The centres of the outermost pixels of the smaller picture lie farther in, and no pixel may be empty.
    farther_in = (h / 2 - 0.5) / (h / 2 - 1)
    assert float(clip.poses.cameras.K[1, 0, 0]) == pytest.approx(100 * farther_in, rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_depths_that_nothing_tells(tmp_path: Path, form: str) -> None:
    h, w = SIZE
    lens = pinhole(np.array([[100.0, 0, w / 2], [0, 100.0, h / 2], [0, 0, 1]]), SIZE)
    cameras = posed({"a": lens, "b": lens}, None)
    root = write_recording(tmp_path / "none", form, cameras)
    with pytest.raises(InputError, match=r"nothing says how near and far .*(bounds\.txt|near and far to the file)"):
        open_clip(root)
    some = [replace(cameras[0], bounds=(2.0, 5.0)), cameras[1]]
    assert open_clip(write_recording(tmp_path / "some", form, some)).bounds.tolist() == [[2, 5], [2, 5]]


def test_near_and_far_stand_for_the_whole_file_where_they_stand_in_front(tmp_path: Path) -> None:
    h, w = SIZE
    lens = pinhole(np.array([[100.0, 0, w / 2], [0, 100.0, h / 2], [0, 0, 1]]), SIZE)
    root = write_recording(tmp_path, "nerfstudio", posed({"a": lens, "b": lens}, None))
    content = json.loads((root / "transforms.json").read_text())
    (root / "transforms.json").write_text(json.dumps({**content, "near": 1.5, "far": 8.0}))
    assert open_clip(root).bounds.tolist() == [[1.5, 8], [1.5, 8]]


def test_a_picture_of_another_size_than_its_camera_is_named(tiny_rig: Path, tmp_path: Path) -> None:
    convert([str(tiny_rig), "--to", "colmap", "--out_dir", str(tmp_path / "c"), "--ext", "jpg"])
    wrong = tmp_path / "c/images/cam01/00002.jpg"
    write_image(wrong, np.zeros((24, 32, 3), np.uint8))
    clip = open_clip(tmp_path / "c")
    with pytest.raises(InputError, match=r"cam01/00002\.jpg: 32 x 24 pixels, but its camera has 64 x 48"):
        clip.read(1, 2)


def test_the_cameras_of_a_model_with_the_frames_of_a_clip(tiny_rig: Path, tmp_path: Path) -> None:
    convert([str(tiny_rig), "--to", "colmap", "--out_dir", str(tmp_path / "c"), "--end", "1"])
    clip = open_clip(tmp_path / "c", images=tiny_rig)
    assert (clip.num_frames, clip.layout.kind) == (1, "colmap")  # the pictures that the model names are there
    shutil.rmtree(tmp_path / "c/images")
    videos = tmp_path / "videos"
    convert([str(tiny_rig), "--to", "videos", "--out_dir", str(videos)])
    (videos / "poses_bounds.npy").unlink()
    clip = open_clip(tmp_path / "c", images=videos)
    assert clip.num_frames == 3
    assert clip.read(1, 2).shape == (48, 64, 3)
    with pytest.raises(InputError, match="names its pictures itself"):
        open_clip(tiny_rig, images=videos)


def test_missing_and_empty_folders_are_told_as_of_a_clip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_clip(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the folder is empty"):
        open_clip(tmp_path / "empty")


def test_recordings_describe_themselves(tiny_rig: Path) -> None:
    assert open_recording(tiny_rig).describe() == ["a frame folder, 3 cameras, 3 frames"]
    assert isinstance(RigClip.open(tiny_rig).layout, Layout)
