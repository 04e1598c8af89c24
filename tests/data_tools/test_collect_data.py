"""collect_data: the collected clip, its backgrounds, what is kept, and bad input."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_tools.collect_data import main
from maskvolume.clips.backgrounds import evenly_spaced, make_backgrounds
from maskvolume.clips.rig import RigClip
from maskvolume.io.images import read_image, write_image
from maskvolume.io.llff import read_poses_bounds
from maskvolume.io.video import VideoWriter
from maskvolume.runtime.errors import InputError


@pytest.fixture
def recording(tmp_path, make_rig) -> Path:
    """Three cameras whose numbers have gaps, six frames of JPEG."""
    return make_rig(tmp_path / "frames", cameras=["cam01", "cam03", "cam10"], num_frames=6, suffix=".jpg")


def collect(frames: Path, first: int, end: int, name: str = "qual", *options: object) -> Path:
    main([str(frames), str(first), str(end), name, *map(str, options)])
    return frames / name


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def lower_median(recording: Path, camera: str) -> np.ndarray:
    stack = np.stack([read_image(path) for path in sorted((recording / camera).iterdir())])
    return np.sort(stack, axis=0)[(len(stack) - 1) // 2]


def test_layout_and_contents(recording, capsys):
    clip_dir = collect(recording, 0, 4)
    visible = [name for name in tree(clip_dir) if not name.startswith(".")]
    pictures = [f"{i:05d}/images/{c:03d}.jpg" for i in range(4) for c in range(3)]
    assert visible == sorted([*pictures, *(f"{i:05d}/poses_bounds.npy" for i in range(4))])
    backgrounds = recording / "background"
    assert sorted(path.name for path in backgrounds.iterdir()) == ["cam01.png", "cam03.png", "cam10.png"]
    assert "4 frames of 3 cameras, 64 x 48" in capsys.readouterr().out

    source, clip = RigClip.open(recording), RigClip.open(clip_dir)
    assert clip.num_frames == 4
    assert clip.poses.cameras.T_cam_world.equal(source.poses.cameras.T_cam_world)
    for camera, name in enumerate(source.names):
        for frame in range(4):
            np.testing.assert_array_equal(clip.read(camera, frame), source.read(camera, frame))
        np.testing.assert_array_equal(clip.read_background(camera), lower_median(recording, name))


def test_files_are_linked_and_poses_are_not(recording):
    clip_dir = collect(recording, 0, 2)
    assert (clip_dir / "00001/images/002.jpg").samefile(recording / "cam10/00001.jpg")
    assert not (clip_dir / "00001/poses_bounds.npy").samefile(recording / "poses_bounds.npy")


def test_files_are_copied_where_links_cannot_be_made(recording, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    clip_dir = collect(recording, 0, 2)
    copy = clip_dir / "00001/images/002.jpg"
    assert copy.read_bytes() == (recording / "cam10/00001.jpg").read_bytes()
    before = copy.stat().st_ino
    collect(recording, 0, 2)
    assert copy.stat().st_ino == before


def test_frames_keep_their_numbers(recording):
    clip_dir = collect(recording, 2, 5)
    assert RigClip.open(clip_dir).frame_names == ("00002", "00003", "00004")
    np.testing.assert_array_equal(RigClip.open(clip_dir).read(1, 0), read_image(recording / "cam03" / "00002.jpg"))


def test_another_size(recording, tmp_path):
    clip_dir = collect(recording, 0, 2, "small", "--img_wh", 32, 20)
    clip, source = RigClip.open(clip_dir), RigClip.open(recording)
    assert clip.size == (20, 32)
    write_image(tmp_path / "wanted.jpg", source.read(0, 1, (20, 32)))
    np.testing.assert_array_equal(clip.read(0, 1), read_image(tmp_path / "wanted.jpg"))
    assert clip.cameras().K[0, 0, 0] == source.cameras().K[0, 0, 0] / 2
    assert read_image(recording / "background/cam01.png").shape == (48, 64, 3)


def test_another_form(recording):
    clip_dir = collect(recording, 0, 1, "png", "--ext", "png")
    np.testing.assert_array_equal(
        read_image(clip_dir / "00000/images/000.png"), read_image(recording / "cam01/00000.jpg")
    )


def test_png_frames_stay_png(tiny_rig):
    clip_dir = collect(tiny_rig, 0, 3)
    assert (clip_dir / "00002/images/001.png").samefile(tiny_rig / "cam01/00002.png")


def test_videos(recording, tmp_path):
    source, folder = RigClip.open(recording), tmp_path / "videos"
    folder.mkdir()
    (folder / "poses_bounds.npy").write_bytes((recording / "poses_bounds.npy").read_bytes())
    for camera, name in enumerate(source.names):
        with VideoWriter(folder / f"{name}.mp4", source.size, fps=30, crf=10) as writer:
            for frame in range(source.num_frames):
                writer.append(source.read(camera, frame))
    videos = RigClip.open(folder)
    clip = RigClip.open(collect(folder, 1, 5, "qual", "--ext", "png"))
    assert clip.frame_names == ("00001", "00002", "00003", "00004")
    for camera in range(3):
        for frame in range(4):
            np.testing.assert_array_equal(clip.read(camera, frame), videos.read(camera, frame + 1))
        stack = np.stack([videos.read(camera, frame) for frame in range(6)])
        np.testing.assert_array_equal(clip.read_background(camera), np.sort(stack, axis=0)[2])
    jpeg = RigClip.open(collect(folder, 0, 2, "jpeg"))
    assert jpeg.file(2, 1).name == "002.jpg"
    assert np.abs(jpeg.read(0, 0).astype(int) - videos.read(0, 0)).mean() < 8


def test_excluded_camera(recording):
    clip_dir = collect(recording, 0, 2, "two", "--exclude", "cam03")
    clip = RigClip.open(clip_dir)
    assert len(clip.names) == 2
    poses = read_poses_bounds(recording / "poses_bounds.npy").cameras
    np.testing.assert_allclose(clip.poses.cameras.T_cam_world, poses.T_cam_world[[0, 2]], atol=1e-12)
    np.testing.assert_array_equal(clip.read(1, 1), read_image(recording / "cam10/00001.jpg"))
    np.testing.assert_array_equal(clip.read_background(1), lower_median(recording, "cam10"))
    assert not (recording / "background").exists()


def test_background_of_a_subset_of_the_frames(recording):
    collect(recording, 0, 1, "qual", "--bg_frames", 1)
    np.testing.assert_array_equal(
        read_image(recording / "background/cam01.png"), read_image(recording / "cam01/00003.jpg")
    )


def test_a_second_run_changes_nothing(recording):
    collect(recording, 0, 3, "a", "--img_wh", 32, 24)
    files = [*(recording / "a").rglob("*.jpg"), *(recording / "background").iterdir()]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}
    assert len(before) == 12
    collect(recording, 0, 3, "a", "--img_wh", 32, 24)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def test_a_clip_grows(recording):
    collect(recording, 0, 3)
    (recording / "qual/00000/qual_path.txt").write_text("kept")
    collect(recording, 0, 5)
    assert RigClip.open(recording / "qual").num_frames == 5
    assert (recording / "qual/00000/qual_path.txt").read_text() == "kept"


@pytest.mark.parametrize("options", [(), ("--img_wh", "32", "24")])
def test_a_changed_frame_is_taken_again(recording, options):
    collect(recording, 0, 2, "qual", *options)
    write_image(recording / "cam01/00001.jpg", np.full((48, 64, 3), 77, np.uint8))
    collect(recording, 0, 2, "qual", *options)
    assert (read_image(recording / "qual/00001/images/000.jpg") == 77).all()


def test_lost_and_damaged_pieces_are_made_again(recording):
    collect(recording, 0, 2)
    before = tree(recording)
    (recording / "qual/00001/images/001.jpg").unlink()
    (recording / "qual/00001/poses_bounds.npy").unlink()
    damaged = recording / "background/cam03.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    collect(recording, 0, 2)
    assert tree(recording) == before


def test_a_kept_background_may_be_ones_own(recording):
    own = np.full((48, 64, 3), 99, np.uint8)
    write_image(recording / "background/cam03.jpg", own)
    collect(recording, 0, 1)
    assert not (recording / "background/cam03.png").exists()
    collect(recording, 0, 1, "qual", "--overwrite")
    assert not (recording / "background/cam03.jpg").exists()
    assert read_image(recording / "background/cam03.png").std() > 5


class Stop(KeyboardInterrupt):
    """The interruption of a run."""


@pytest.mark.parametrize("options", [(), ("--img_wh", "32", "24")])
def test_interrupted_at_any_moment(make_rig, tmp_path, monkeypatch, options):
    """Whenever a run ends early there are only whole frames, and the next run completes them."""
    source = ["cam00", "cam01"]
    whole = make_rig(tmp_path / "whole", cameras=source, num_frames=3, suffix=".jpg")
    collect(whole, 0, 2, "qual", *options)
    expected = tree(whole)
    replace, rename, steps = os.replace, Path.rename, 0

    def step() -> None:
        nonlocal steps
        steps -= 1
        if steps == 0:
            raise Stop

    def counted_replace(src: str | Path, dst: str | Path) -> None:
        step()
        replace(src, dst)

    def counted_rename(self: Path, target: Path) -> Path:
        step()
        return rename(self, target)

    monkeypatch.setattr(os, "replace", counted_replace)
    monkeypatch.setattr(Path, "rename", counted_rename)
    interruptions = 0
    for interruptions in range(1, 100):
        rig = make_rig(tmp_path / f"rig{interruptions}", cameras=source, num_frames=3, suffix=".jpg")
        steps = interruptions
        try:
            collect(rig, 0, 2, "qual", *options)
        except Stop:
            found = tree(rig)
            clip = rig / "qual"
            for frame in clip.glob("[0-9]*"):
                assert len(list((frame / "images").iterdir())) == 2
                assert (frame / "poses_bounds.npy").is_file()
            assert all(found[name] == expected[name] for name in found if ".partial/" not in name)
            collect(rig, 0, 2, "qual", *options)
            assert tree(rig) == expected
        else:
            break
    assert interruptions > 8  # 1 record, 4 pictures, 2 poses, 2 frames, 2 backgrounds


def test_memory_does_not_grow_with_the_recording(make_rig, tmp_path):
    def peak(num_frames: int) -> int:
        rig = make_rig(tmp_path / str(num_frames), cameras=["cam00"], num_frames=num_frames, size=(120, 160))
        clip = RigClip.open(rig)
        tracemalloc.start()
        try:
            make_backgrounds(clip.layout, [0], rig / "background", evenly_spaced(num_frames, 8))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60) < peak(8) + 120 * 160 * 3


def test_output_elsewhere(recording, tmp_path):
    out = tmp_path / "out"
    before = tree(recording)
    main([str(recording), "0", "2", "qual", "--out_dir", str(out)])
    assert tree(recording) == before
    assert RigClip.open(out / "qual").read_background(2).shape == (48, 64, 3)
    main([str(recording), "0", "2", "qual", "--out_dir", str(out), "--bg_dir", str(tmp_path / "bg")])
    assert len(list((tmp_path / "bg").iterdir())) == 3


def test_a_clip_and_its_backgrounds_can_be_moved_together(recording, tmp_path):
    collect(recording, 0, 2)
    recording.rename(tmp_path / "elsewhere")
    collect(tmp_path / "elsewhere", 0, 3)
    assert RigClip.open(tmp_path / "elsewhere/qual").num_frames == 3


def test_other_settings_need_another_name(recording):
    collect(recording, 0, 3)
    before = tree(recording)
    for arguments in (
        (0, 2, "qual"),
        (3, 6, "qual"),
        (0, 3, "qual", "--img_wh", 32, 24),
        (0, 3, "qual", "--exclude", "cam01"),
        (0, 3, "qual", "--ext", "png"),
    ):
        with pytest.raises(InputError, match=r"another NAME, or give --overwrite"):
            collect(recording, *arguments)
        assert tree(recording) == before
    collect(recording, 3, 6, "qual", "--overwrite", "--img_wh", 32, 24)
    clip = RigClip.open(recording / "qual")
    assert clip.frame_names == ("00003", "00004", "00005")
    assert clip.size == (24, 32)


def test_overwrite_spares_what_is_not_a_clip(recording):
    strange = recording / "qual/00007/diary.doc"
    strange.parent.mkdir(parents=True)
    strange.write_text("mine")
    with pytest.raises(InputError, match=r"diary\.doc"):
        collect(recording, 0, 2, "qual", "--overwrite")
    assert strange.read_text() == "mine"


def test_backgrounds_of_other_cameras_are_refused(recording):
    write_image(recording / "background/cam07.png", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"cam07\.png.*--bg_dir"):
        collect(recording, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "frames"),
        (("frames", 0, 2), "name"),
        (("frames", 0, 2, "qual", "more"), "more"),
        (("frames", "zero", 2, "qual"), "whole number"),
        (("nowhere", 0, 2, "qual"), "nowhere"),
        (("empty", 0, 2, "qual"), "empty"),
        (("frames", 0, 7, "qual"), "frames 0 to 5"),
        (("frames", -1, 2, "qual"), "frames 0 to 5"),
        (("frames", 3, 3, "qual"), "END must be above FIRST"),
        (("frames", 3, 1, "qual"), "END must be above FIRST"),
        (("frames", 0, 2, "a/b"), "plain folder name"),
        (("frames", 0, 2, ".."), "plain folder name"),
        (("frames", 0, 2, "background"), "plain folder name"),
        (("frames", 0, 2, "cam04"), "plain folder name"),
        (("frames", 0, 2, "00001"), "plain folder name"),
        (("frames", 0, 2, "qual", "--exclude", "cam02"), "cam02"),
        (("frames", 0, 2, "qual", "--img_wh", 0, 10), "--img_wh"),
        (("frames", 0, 2, "qual", "--bg_frames", 0), "--bg_frames"),
        (("frames", 0, 2, "qual", "--ext", "gif"), "gif"),
        (("frames", 0, 2, "qual", "--out_dir", "frames/poses_bounds.npy"), "poses_bounds.npy"),
        (("frames", 0, 2, "qual", "--sideways", 1), "sideways"),
    ],
)
def test_bad_arguments(recording, tmp_path, monkeypatch, arguments, words):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=words):
        main([str(argument) for argument in arguments])
    assert tree(tmp_path) == before


def test_a_cut_picture_stops_the_run_by_name(recording):
    cut = recording / "cam03/00004.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cam03/00004\.jpg"):
        collect(recording, 0, 2)
    assert not (recording / "background/cam03.png").exists()


def test_cameras_that_do_not_match(recording):
    (recording / "cam03/00005.jpg").unlink()
    with pytest.raises(InputError, match="cam03"):
        collect(recording, 0, 2)
    np.save(recording / "poses_bounds.npy", np.load(recording / "poses_bounds.npy")[:2])
    (recording / "cam03/00005.jpg").write_bytes((recording / "cam03/00004.jpg").read_bytes())
    with pytest.raises(InputError, match="2 poses for 3 cameras"):
        collect(recording, 0, 2)


def test_as_a_program_from_another_folder(run_program, call_program, recording, tmp_path):
    done = run_program("data_tools/collect_data.py", "frames", 0, 2, "qual", cwd=tmp_path)
    assert done.rc == 0, done.stderr
    assert RigClip.open(recording / "qual").num_frames == 2
    done = call_program("data_tools/collect_data.py", "frames", 0, 20, "qual", cwd=tmp_path)
    done.check_input_error("frames 0 to 5", "END <= 6")


def test_a_full_disk_is_one_line(recording, monkeypatch):
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if len(data) > 100:
            raise OSError(28, "No space left on device")
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        collect(recording, 0, 2, "qual", "--img_wh", 32, 24)
    assert Path(caught.value.filename).name == "000.jpg"
    monkeypatch.undo()
    collect(recording, 0, 2, "qual", "--img_wh", 32, 24)
    assert RigClip.open(recording / "qual").num_frames == 2


def test_a_collected_clip_keeps_the_names_of_its_cameras(make_rig, tmp_path):
    frames = make_rig(tmp_path / "frames", cameras=("cam01", "cam03", "cam07"))
    collect(frames, 0, 2)
    clip = RigClip.open(frames / "qual", frames / "background")
    assert clip.names == ("cam01", "cam03", "cam07")
    assert clip.index("cam07") == 2
    wrong = frames / "background/cam00.png"  # of a camera that the clip does not have
    shutil.copy(frames / "background/cam01.png", wrong)
    for camera, name in enumerate(clip.names):
        assert (clip.read_background(camera) == read_image(frames / f"background/{name}.png")).all()
