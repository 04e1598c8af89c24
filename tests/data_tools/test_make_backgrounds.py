"""make_backgrounds: the median of the frames that are chosen, for every layout, kept and refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_tools.make_backgrounds import main
from maskvolume.clips.backgrounds import make_backgrounds
from maskvolume.clips.layouts import open_layout
from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoWriter
from maskvolume.runtime.errors import InputError

CAMERAS = ("cam01", "cam03")


@pytest.fixture
def recording(tmp_path, make_rig) -> Path:
    """Two cameras, seven frames; no poses."""
    folder = make_rig(tmp_path / "frames", cameras=CAMERAS, num_frames=7)
    (folder / "poses_bounds.npy").unlink()
    return folder


def make(folder: Path, *options: object) -> dict[str, np.ndarray]:
    main([str(folder), *map(str, options)])
    return {path.stem: read_image(path) for path in sorted((folder / "background").iterdir())}


def lower_median(folder: Path, camera: str, frames: list[int]) -> np.ndarray:
    stack = np.stack([read_image(folder / camera / f"{frame:05d}.png") for frame in frames])
    return np.sort(stack, axis=0)[(len(stack) - 1) // 2]


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ((), [0, 1, 2, 3, 4, 5, 6]),
        (("--count", 3), [0, 3, 6]),
        (("--first", 1, "--end", 4), [1, 2, 3]),
        (("--every", 2), [0, 2, 4, 6]),
        (("--first", 1, "--every", 3), [1, 4]),
        (("--every", 2, "--count", 2), [0, 6]),
        (("--frame_list", 5, 2, 4), [2, 4, 5]),
        (("--count", 1), [3]),
    ],
)
def test_the_frames_that_are_chosen(recording, capsys, options, frames):
    made = make(recording, *options)
    assert list(made) == list(CAMERAS)
    for camera in CAMERAS:
        np.testing.assert_array_equal(made[camera], lower_median(recording, camera, frames))
    text = capsys.readouterr().out
    assert f"exact median over {len(frames)} of 7 frames" in text
    assert "2 backgrounds, 0 of them kept" in text


def test_the_histogram_is_near_the_exact_median(recording):
    made = make(recording, "--method", "histogram")
    for camera in CAMERAS:
        difference = made[camera].astype(int) - lower_median(recording, camera, list(range(7)))
        assert np.abs(difference).max() <= 2
        assert difference.any()


def test_videos_and_collected_clips(recording, tmp_path):
    (tmp_path / "videos").mkdir()
    for camera in CAMERAS:
        with VideoWriter(tmp_path / "videos" / f"{camera}.mp4", (48, 64), 30, 16) as writer:
            for frame in range(7):
                writer.append(read_image(recording / camera / f"{frame:05d}.png"))
    layout = open_layout(tmp_path / "videos")
    made = make(tmp_path / "videos")
    for number, camera in enumerate(CAMERAS):
        stack = np.stack([layout.source.read(number, frame) for frame in range(7)])
        np.testing.assert_array_equal(made[camera], np.sort(stack, axis=0)[3])
    for frame in range(7):
        for number, camera in enumerate(CAMERAS):
            picture = read_image(recording / camera / f"{frame:05d}.png")
            write_image(tmp_path / f"collected/{frame:05d}/images/{number:03d}.png", picture)
    made = make(tmp_path / "collected")
    np.testing.assert_array_equal(made["cam01"], lower_median(recording, "cam03", list(range(7))))


def test_what_is_there_is_kept(recording, capsys):
    own = np.full((48, 64, 3), 99, np.uint8)
    write_image(recording / "background/cam01.jpg", own)
    assert make(recording)["cam01"].std() < 2
    assert "2 backgrounds, 1 of them kept" in capsys.readouterr().out
    (recording / "background/cam03.png").write_bytes(b"damaged")
    write_image(recording / "cam01/00003.png", own)
    make(recording)
    text = capsys.readouterr().out
    assert "cam01.jpg: kept, though frames of cam01 are newer; --overwrite replaces it" in text
    assert "1 of them kept" in text
    np.testing.assert_array_equal(
        read_image(recording / "background/cam03.png"), lower_median(recording, "cam03", list(range(7)))
    )
    assert make(recording, "--overwrite")["cam01"].std() > 5
    assert not (recording / "background/cam01.jpg").exists()


def test_excluded_cameras_and_another_folder(recording, tmp_path):
    main([str(recording), "--exclude", "cam03", "--out_dir", str(tmp_path / "bg")])
    assert [path.name for path in (tmp_path / "bg").iterdir()] == ["cam01.png"]
    assert not (recording / "background").exists()


def test_memory_of_the_histogram_does_not_grow_with_the_recording(tmp_path, make_rig):
    """That of the exact median is bounded by its budget, which tests/maskvolume/clips/test_backgrounds.py measures."""

    def peak(num_frames: int) -> int:
        rig = make_rig(tmp_path / str(num_frames), cameras=["cam00"], num_frames=num_frames, size=(60, 80))
        layout = open_layout(rig)
        tracemalloc.start()
        try:
            make_backgrounds(layout, [0], rig / "background", range(num_frames), method="histogram")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60) < peak(5) + 60 * 80 * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--exclude", "cam07"), "no camera cam07; choose one of cam01, cam03"),
        (("--exclude", *CAMERAS), "leave at least one"),
        (("--first", 3, "--end", 3), "END must be above FIRST"),
        (("--end", 8), "the clip has frames 0 to 6"),
        (("--every", 0), "--every 0"),
        (("--count", 0), "--count 0"),
        (("--frame_list", 3, 7), "no frame 7; the clip has frames 0 to 6"),
        (("--frame_list", 3, "--every", 2), "--frame_list"),
        (("--method", "mean"), "mean"),
        (("--out_dir", "frames/cam01/00000.png"), "is a file"),
    ],
)
def test_bad_arguments(recording, monkeypatch, options, words):
    monkeypatch.chdir(recording.parent)
    with pytest.raises(InputError, match=words):
        make(Path("frames"), *options)
    assert not (recording / "background").exists()


def test_other_pictures_and_damage(recording):
    write_image(recording / "background/cam07.png", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"cam07\.png: is no camera of this clip.*--out_dir"):
        make(recording)
    (recording / "background/cam07.png").unlink()
    cut = recording / "cam03/00004.png"
    cut.write_bytes(cut.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cam03/00004\.png"):
        make(recording)
    assert [path.name for path in (recording / "background").iterdir()] == ["cam01.png"]


def test_as_a_program_from_another_folder(run_program, call_program, recording, tmp_path):
    done = run_program("data_tools/make_backgrounds.py", "frames", cwd=tmp_path)
    assert done.rc == 0, done.stderr
    call_program("data_tools/make_backgrounds.py", "nowhere", cwd=tmp_path).check_input_error("nowhere")
