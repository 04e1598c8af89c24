"""compress_rig: a clip becomes training data, is kept, and every missing piece is one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data_tools.compress_rig import main
from maskvolume.clips.rig import RigClip
from maskvolume.io.images import read_image, resize_image, write_image
from maskvolume.io.llff import read_poses_bounds
from maskvolume.io.rig_h5 import RigScene, open_rig_scenes
from maskvolume.runtime.errors import InputError

CAMERAS = ("cam01", "cam03", "cam10")


def matte(camera: int, frame: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    picture = np.zeros(size, np.uint8)
    picture[4 * camera : 30, 5 * frame : 40] = 255
    return picture


def add_pieces(rig: Path, mattes: str = "mattes", backgrounds: str = "background") -> Path:
    for camera, name in enumerate(CAMERAS):
        write_image(rig / backgrounds / f"{name}.png", np.full((48, 64, 3), 40 + camera, np.uint8))
        for frame in range(5):
            write_image(rig / mattes / name / f"{frame:05d}.png", matte(camera, frame))
    return rig


@pytest.fixture
def rig(tmp_path, make_rig) -> Path:
    """Three cameras whose numbers have gaps, five JPEG frames, backgrounds and mattes."""
    return add_pieces(make_rig(tmp_path / "frames", cameras=CAMERAS, num_frames=5, suffix=".jpg"))


def compress(rig: Path, *options: object) -> Path:
    out = rig.parent / "data"
    main([str(rig), "--out_dir", str(out), *map(str, options)])
    return out


@pytest.mark.parametrize("options", [(), ("--compact",)])
def test_pictures_mattes_backgrounds_and_poses(rig, capsys, options):
    (scene,) = open_rig_scenes(compress(rig, *options))
    assert "scene000.h5: 5 frames of 3 cameras, 64 x 48" in capsys.readouterr().out
    clip = RigClip.open(rig)
    assert scene.camera_names == CAMERAS
    assert scene.size == (48, 64)
    for camera in range(3):
        np.testing.assert_array_equal(scene.background(camera), clip.read_background(camera))
        for frame in range(5):
            # The JPEGs are the clip's own, so that the compact form loses nothing here.
            np.testing.assert_array_equal(scene.picture(camera, frame), clip.read(camera, frame))
            np.testing.assert_array_equal(scene.matte(camera, frame), matte(camera, frame))
    np.testing.assert_allclose(scene.poses.cameras.T_cam_world, clip.poses.cameras.T_cam_world, atol=1e-12)
    np.testing.assert_allclose(scene.poses.cameras.K, clip.cameras().K)
    np.testing.assert_array_equal(scene.poses.bounds, clip.bounds)


@pytest.mark.parametrize("options", [(), ("--compact", "--quality", 100)])
def test_size_cameras_and_frames_can_be_chosen(rig, options):
    out = compress(rig, "--img_wh", 32, 36, "--exclude", "cam03", "--first", 1, "--end", 4, "--name", "mine", *options)
    (scene,) = open_rig_scenes(out)
    clip = RigClip.open(rig)
    assert (scene.name, scene.camera_names, scene.num_frames) == ("mine", ("cam01", "cam10"), 3)
    difference = scene.picture(1, 2).astype(int) - resize_image(clip.read(2, 3), (36, 32))
    assert np.abs(difference).mean() < (12 if options else 1e-9)  # a random texture, small: colours suffer
    np.testing.assert_array_equal(scene.matte(1, 2), resize_image(matte(2, 3), (36, 32)))
    # K is scaled per axis, here by different factors.
    np.testing.assert_allclose(scene.poses.cameras.K, clip.cameras((36, 32)).K[[0, 2]])
    np.testing.assert_allclose(
        scene.poses.cameras.T_cam_world, clip.poses.cameras.T_cam_world[[0, 2]].numpy(), atol=1e-12
    )
    assert len(read_poses_bounds(out / "mine_pb.npy")) == 2


def test_pieces_elsewhere(tmp_path, make_rig):
    rig = make_rig(tmp_path / "frames", cameras=CAMERAS, num_frames=5)
    add_pieces(tmp_path / "other", "m", "b")
    out = compress(rig, "--matte_dir", tmp_path / "other/m", "--bg_dir", tmp_path / "other/b", "--compact")
    scene = RigScene(out / "scene000.h5")
    np.testing.assert_array_equal(scene.matte(2, 4), matte(2, 4))
    # PNG pictures become JPEG.
    assert np.abs(scene.picture(0, 0).astype(int) - read_image(rig / "cam01/00000.png")).mean() < 6


def test_a_second_run_keeps_the_scene(rig, capsys):
    path = compress(rig) / "scene000.h5"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    capsys.readouterr()
    compress(rig)
    assert before == (path.stat().st_mtime_ns, path.stat().st_ino)
    text = capsys.readouterr().out
    assert ", kept" in text
    assert "newer" not in text
    changed = rig / "mattes/cam03/00002.png"
    write_image(changed, np.zeros((48, 64), np.uint8))
    os.utime(changed, (path.stat().st_mtime + 10,) * 2)
    compress(rig)
    assert f"{changed} is newer; --overwrite" in capsys.readouterr().out
    assert RigScene(path).matte(1, 2).any()
    compress(rig, "--overwrite")
    assert not RigScene(path).matte(1, 2).any()


def test_another_scene_is_not_replaced_unasked(rig):
    path = compress(rig) / "scene000.h5"
    before = path.read_bytes()
    for options in (("--compact",), ("--end", 3), ("--exclude", "cam01"), ("--img_wh", 32, 24)):
        with pytest.raises(InputError, match=r"scene000\.h5: holds another clip.*--name.*--overwrite"):
            compress(rig, *options)
    assert path.read_bytes() == before
    compress(rig, "--end", 3, "--overwrite")
    assert RigScene(path).num_frames == 3
    compress(rig, "--name", "scene001", "--compact")
    assert [scene.name for scene in open_rig_scenes(path.parent)] == ["scene000", "scene001"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--name", "a/b"), "--name"),
        (("--name", ".hidden"), "--name"),
        (("--name", "scene000.h5"), "--name"),
        (("--name", "two words"), "--name"),
        (("--img_wh", 0, 10), "--img_wh"),
        (("--quality", 0), "--quality"),
        (("--quality", 101), "--quality"),
        (("--exclude", "cam02"), "no camera cam02"),
        (("--exclude", *CAMERAS), "at least one"),
        (("--first", 3, "--end", 3), "END must be above FIRST"),
        (("--end", 6), "frames 0 to 4"),
        (("--bg_dir", "nowhere"), "no folder of background pictures"),
        (("--matte_dir", "nowhere"), "nowhere/cam01/00000.png: no matte of this camera; make the mattes"),
    ],
)
def test_bad_arguments(rig, options, words):
    with pytest.raises(InputError, match=words):
        compress(rig, *options)
    assert not list(rig.parent.glob("data/*"))


def test_missing_and_damaged_pieces(rig):
    last = rig / "mattes/cam10/00004.png"
    data = last.read_bytes()
    last.unlink()
    with pytest.raises(InputError, match=r"cam10/00004\.png: no such matte; make the mattes"):
        compress(rig)
    last.write_bytes(data[:-20])
    with pytest.raises(InputError, match=r"cam10/00004\.png: the picture is cut short"):
        compress(rig)
    write_image(last, np.zeros((10, 10), np.uint8))
    with pytest.raises(InputError, match=r"cam10/00004\.png: 10 x 10 pixels, but the pictures have 64 x 48"):
        compress(rig)
    last.write_bytes(data)
    (rig / "background/cam03.png").unlink()
    with pytest.raises(InputError, match=r"background/cam03\.png: no background picture"):
        compress(rig)
    assert list((rig.parent / "data").iterdir()) == []


@pytest.mark.parametrize("options", [(), ("--compact",)])
def test_a_picture_cut_short(rig, options):
    picture = rig / "cam10/00004.jpg"
    picture.write_bytes(picture.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"cam10/00004\.jpg: the picture is cut short"):
        compress(rig, *options)
    assert list((rig.parent / "data").iterdir()) == []


def test_a_damaged_scene_is_named(rig):
    path = compress(rig) / "scene000.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"scene000\.h5: damaged"):
        compress(rig)
    compress(rig, "--overwrite")
    assert RigScene(path).num_frames == 5


def test_as_a_program_from_another_folder(run_program, call_program, rig, tmp_path):
    done = run_program("data_tools/compress_rig.py", "frames", "--out_dir", "data", "--compact", cwd=tmp_path)
    assert done.rc == 0, done.stderr
    assert len(open_rig_scenes(tmp_path / "data")) == 1
    call_program("data_tools/compress_rig.py", "frames", cwd=tmp_path).check_input_error("--out_dir")
