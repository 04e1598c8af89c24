"""Frames of scenes: the nearest to each timestamp, in one pass a video, and what is missing is said."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from realestate10k_helpers import FPS, MadeData, number_of, numbered_frame, write_numbered_video
from video_helpers import copy_packets, encode_frames

from maskvolume.io.images import read_image
from maskvolume.io.realestate10k import list_scene_files, read_scene_cameras, video_stem
from maskvolume.io.video import FrameStream
from maskvolume.runtime.errors import InputError
from preprocessing import extract_frames as program
from preprocessing.extract_frames import DAMAGED, ENDED, NO_FRAME, main, nearest_frames
from preprocessing.make_example_data import plan_video

URL = "https://www.youtube.com/watch?v=abcdefghijk"
OTHER_URL = "https://www.youtube.com/watch?v=ABCDEFGHIJK"
STEP = 1_000_000 // FPS


def report_of(out: Path) -> dict[str, dict]:
    entries = [json.loads(line) for line in (out / "extraction.jsonl").read_text().splitlines()]
    assert len({entry["scene"] for entry in entries}) == len(entries)
    return {entry["scene"]: entry for entry in entries}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers_of(folder: Path) -> dict[int, int]:
    """The numbers that the frames of a scene show, by their timestamps."""
    return {int(path.stem): number_of(read_image(path)) for path in folder.glob("*.jpg")}


def nearest(path: Path, timestamps: Sequence[int]) -> dict[int, int | str]:
    found = nearest_frames(FrameStream(path), timestamps, (48, 96))
    return {timestamp: why if picture is None else number_of(picture) for timestamp, picture, why in found}


@pytest.fixture
def videos(tmp_path: Path, numbered_video: Path) -> Path:
    """A folder with the numbered video under the id of URL."""
    (tmp_path / "videos").mkdir()
    shutil.copy(numbered_video, tmp_path / "videos" / "abcdefghijk.mp4")
    return tmp_path / "videos"


@pytest.fixture
def extract(tmp_path: Path) -> Callable[..., Path]:
    """A function that runs the program on tmp_path/cameras and tmp_path/videos; gives the folder of the frames."""

    def run(*arguments: object, out: str = "frames") -> Path:
        folders = ["--root_dir", tmp_path / "cameras", "--video_dir", tmp_path / "videos", "--out_dir", tmp_path / out]
        main([str(word) for word in (*folders, "--img_wh", 96, 48, *arguments)])
        return tmp_path / out

    return run


def test_nearest_of_a_constant_rate(numbered_video: Path) -> None:
    rng = np.random.default_rng(0)
    timestamps = rng.integers(0, 99 * STEP, 200).tolist()
    assert nearest(numbered_video, timestamps) == {t: round(t / STEP) for t in sorted(set(timestamps))}


def test_nearest_at_the_edges_of_an_interval(numbered_video: Path) -> None:
    t = 40 * STEP
    expected = {
        t - STEP // 2 - 200: 39,
        t - STEP // 2 + 200: 40,
        t: 40,
        t + STEP // 2 - 200: 40,
        t + STEP // 2 + 200: 41,
    }
    assert nearest(numbered_video, [*expected, *expected]) == expected


def test_after_the_end(numbered_video: Path) -> None:
    """Up to three quarters of an interval after the last frame it is the nearest; then the video has ended."""
    last = 99 * STEP
    timestamps = {last: 99, last + 7 * STEP // 10: 99, last + 8 * STEP // 10: ENDED, 10 * last: ENDED}
    assert nearest(numbered_video, list(timestamps)) == timestamps


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_varying_rate(numbered_video: Path, tmp_path: Path, suffix: str) -> None:
    """Where frames were left out, a timestamp finds its neighbour only if that is near enough."""
    path = tmp_path / f"a{suffix}"
    kept = [n for n in range(100) if not 40 <= n <= 60 and (n < 70 or n % 2)]
    encode_frames(tmp_path / "a.mp4", map(numbered_frame, kept), ticks=[120 * n for n in kept])
    if suffix == ".mkv":
        copy_packets(tmp_path / "a.mp4", path)
    assert nearest(path, [k * STEP for k in (0, 12, 39, 40, 50, 60, 61, 69, 71, 73, 99)]) == {
        **{k * STEP: k for k in (0, 12, 39, 61, 69, 71, 73, 99)},
        **{k * STEP: NO_FRAME for k in (40, 50, 60)},
    }
    late, early = 81 * STEP + 2 * STEP // 3, 83 * STEP - 2 * STEP // 3
    assert nearest(path, [late, early]) == {late: 81, early: 83}


@pytest.mark.parametrize("rate", ["15", "12.5", "2"])
def test_a_lower_rate_serves_each_timestamp_with_the_nearest(numbered_video: Path, tmp_path: Path, rate: str) -> None:
    path = tmp_path / "a.mp4"
    ratio = FPS / float(rate)
    kept = [round(k * ratio) for k in range(int(100 / ratio))]
    encode_frames(path, map(numbered_frame, kept), Fraction(rate))
    frames = list(FrameStream(path).frames(lambda time: True))
    times = np.array([frame.time for frame in frames])
    shown = [number_of(frame.picture) for frame in frames]
    timestamps = np.arange(0, int(times[-1] * 1e6), 13007).tolist()
    expected = {t: shown[int(np.abs(times - t / 1e6).argmin())] for t in timestamps}
    assert nearest(path, timestamps) == expected


def test_damage_is_listed_and_shifts_nothing(numbered_video: Path, tmp_path: Path) -> None:
    data = bytearray(numbered_video.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 5000] = bytes(5000)
    (tmp_path / "a.mp4").write_bytes(data)
    found = nearest(tmp_path / "a.mp4", [k * STEP for k in range(100)])
    wrong = {t // STEP: value for t, value in found.items() if value != t // STEP}
    assert 0 < len(wrong) < 50
    assert set(wrong.values()) <= {NO_FRAME, DAMAGED}


def test_a_video_is_decoded_once_for_all_its_scenes(
    videos: Path, write_scene: Callable, extract: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene("late", URL, [k * STEP for k in range(60, 70)])
    write_scene("early", URL, [k * STEP for k in range(10, 20)])
    write_scene("across", "https://youtu.be/abcdefghijk", [k * STEP + 100 for k in range(15, 65, 7)] + [2_600_000])
    opened = []
    stream = program.FrameStream
    monkeypatch.setattr(program, "FrameStream", lambda *arguments: opened.append(arguments[0]) or stream(*arguments))
    out = extract()
    assert opened == [videos / "abcdefghijk.mp4"]
    assert numbers_of(out / "late") == {k * STEP: k for k in range(60, 70)}
    assert numbers_of(out / "early") == {k * STEP: k for k in range(10, 20)}
    assert numbers_of(out / "across") == {**{k * STEP + 100: k for k in range(15, 65, 7)}, 2_600_000: 65}
    for name in ("late", "early", "across"):
        written = read_scene_cameras(out / name / "cameras.txt")
        original = read_scene_cameras(out.parent / "cameras" / f"{name}.txt")
        np.testing.assert_array_equal(written.timestamps, original.timestamps)
        np.testing.assert_array_equal(written.T_cam_world, original.T_cam_world)
        assert written.url == original.url
        assert report_of(out)[name] == {
            "scene": name,
            "state": "done",
            "video": "abcdefghijk.mp4",
            "frames": len(original),
            "missing": [],
        }


def test_lines_of_missing_frames_are_dropped(videos: Path, write_scene: Callable, extract: Callable) -> None:
    original = write_scene("a", URL, [k * STEP for k in range(95, 105)])
    out = extract()
    written = read_scene_cameras(out / "a" / "cameras.txt")
    np.testing.assert_array_equal(written.T_cam_world, original.T_cam_world[:5])
    assert numbers_of(out / "a") == {k * STEP: k for k in range(95, 100)}
    entry = report_of(out)["a"]
    assert entry["frames"] == 5
    assert entry["missing"] == [{"timestamp": k * STEP, "why": ENDED} for k in range(100, 105)]


def test_size_and_quality(videos: Path, write_scene: Callable, extract: Callable) -> None:
    write_scene("a", URL, [5 * STEP])
    out = extract("--img_wh", 40, 30, "--quality", 95)
    fine = out / "a" / f"{5 * STEP}.jpg"
    assert read_image(fine).shape == (30, 40, 3)
    assert number_of(read_image(fine)) == 5
    coarse = extract("--img_wh", 40, 30, "--quality", 20, out="coarse") / "a" / f"{5 * STEP}.jpg"
    assert coarse.stat().st_size < 0.7 * fine.stat().st_size


def test_colours_are_those_of_the_video(made_realestate10k: MadeData, tmp_path: Path) -> None:
    """Each frame is the world as its camera saw it, and not as its neighbours did."""
    made = made_realestate10k
    main(
        [
            "--root_dir",
            str(made.cameras()),
            "--video_dir",
            str(made.videos),
            "--out_dir",
            str(tmp_path),
            "--img_wh",
            "96,64",
        ]
    )
    video = plan_video(made.options, 0)
    for name, frames in video.scenes:
        scene = read_scene_cameras(tmp_path / name / "cameras.txt")
        numbers = [frames.start, frames.start + 7, frames.stop - 1]
        for number in numbers:
            shown = read_image(tmp_path / name / f"{scene.timestamps[number - frames.start]}.jpg") / 255
            errors = []
            for k in (number - 2, number, number + 2):
                truth = video.world.render(video.world.camera(torch.from_numpy(video.T_cam_world[k : k + 1])))[0][0]
                errors.append(np.mean((truth.permute(1, 2, 0).numpy() - shown) ** 2))
            assert errors[1] < 1e-3
            assert errors[1] < 0.7 * min(errors[0], errors[2])


def test_what_fails_is_said_and_the_others_go_on(
    videos: Path, write_scene: Callable, extract: Callable, capsys
) -> None:
    urls = {name: f"https://example.org/{name}.mp4" for name in ("absent", "cut", "text", "short", "empty")}
    files = {name: videos / f"{video_stem(url)}.mp4" for name, url in urls.items()}
    data = (videos / "abcdefghijk.mp4").read_bytes()
    files["cut"].write_bytes(data[: len(data) * 2 // 3])
    files["text"].write_text("this is a page of text\n" * 50)
    files["empty"].touch()
    write_numbered_video(files["short"], 3)
    for name, url in urls.items():
        write_scene(name, url, [20 * STEP, 21 * STEP])
    write_scene("good", URL, [20 * STEP])
    broken = write_scene("broken", URL, [20 * STEP])
    path = videos.parent / "cameras" / "broken.txt"
    path.write_text(path.read_text().replace(" 0 0 ", " 0 ", 1))
    (videos.parent / "cameras" / "nowhere.txt").write_text("no address\n")
    out = extract()
    report = report_of(out)
    assert {name for name, entry in report.items() if entry["state"] == "done"} == {"good"}
    for name, why in (
        ("absent", r"absent-\w+\.mp4: no such video; see the report of download_data\.py"),
        ("cut", r"cut-\w+\.mp4: the video is cut short"),
        ("text", "cannot be opened as a video"),
        ("empty", "the video is empty"),
        ("short", ENDED),
        ("broken", r"broken\.txt, line 2: 19 numbers expected"),
        ("nowhere", r"nowhere\.txt, line 1: the address"),
    ):
        assert re.search(why, report[name]["why"]), report[name]
        assert not (out / name).exists()
    assert len(broken) == 1
    printed = capsys.readouterr().out
    assert "1 of 8 scenes, 0 from before; 1 frames written" in printed
    assert "7 scenes failed and 0 frames are missing" in printed

    # What was missing is there now: only that is done.
    before = (out / "good" / "cameras.txt").stat().st_mtime_ns
    shutil.copy(videos / "abcdefghijk.mp4", files["absent"])
    extract()
    assert report_of(out)["absent"]["state"] == "done"
    assert (out / "good" / "cameras.txt").stat().st_mtime_ns == before
    assert "2 of 8 scenes, 1 from before; 2 frames written" in capsys.readouterr().out


def test_again_changes_nothing(
    videos: Path, write_scene: Callable, extract: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene("a", URL, [k * STEP for k in range(98, 102)])
    write_scene("b", OTHER_URL)
    out = extract()
    before = contents(out)
    monkeypatch.setattr(program, "_write_frames", None)
    extract()
    assert contents(out) == before


def test_an_interrupted_scene_is_made_again(
    videos: Path, write_scene: Callable, extract: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene("a", URL, [k * STEP for k in range(0, 40)])
    whole = contents(extract(out="whole"))
    found = program.nearest_frames

    def interrupted(*arguments):
        for i, frame in enumerate(found(*arguments)):
            if i == 10:
                raise KeyboardInterrupt
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(program, "nearest_frames", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(out="parts")
    out = videos.parent / "parts"
    assert len(list((out / "a").glob("*.jpg"))) == 10
    assert not (out / "a" / "cameras.txt").exists()
    (out / "a" / "123.jpg").write_bytes(b"half a frame")
    (out / "a" / ".123.0123456789ab.jpg").write_bytes(b"what a killed run leaves")
    (out / "a" / "notes.md").write_text("mine")
    extract(out="parts")
    assert (out / "a" / "notes.md").read_text() == "mine"
    (out / "a" / "notes.md").unlink()
    assert contents(out) == whole


def test_limit_takes_the_first_scenes(videos: Path, write_scene: Callable, extract: Callable) -> None:
    for name in ("c", "a", "b"):
        write_scene(name, URL)
    out = extract("--limit", 2)
    assert set(report_of(out)) == {"a", "b"}
    extract("--limit", 2)
    assert set(report_of(out)) == {"a", "b"}
    extract()
    assert set(report_of(out)) == {"a", "b", "c"}


def test_one_size_a_folder(videos: Path, write_scene: Callable, extract: Callable) -> None:
    for name in ("a", "b"):
        write_scene(name, URL)
    out = extract()
    with pytest.raises(InputError, match="frames: holds frames of another size or quality than 40 x 30, 92; choose"):
        extract("--img_wh", 40, 30)
    extract("--img_wh", 40, 30, "--overwrite", "--limit", 1)
    assert {path.parent.name for path in out.glob("*/cameras.txt")} == {"a"}
    extract("--img_wh", 40, 30)
    assert {read_image(path).shape for path in out.glob("*/*.jpg")} == {(30, 40, 3)}
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/cameras.txt")}
    extract("--img_wh", 40, 30, "--overwrite", "--limit", 1)
    changed = {path.parent.name for path, before in times.items() if path.stat().st_mtime_ns != before}
    assert changed == {"a"}


def test_several_workers_make_the_same(made_realestate10k: MadeData, tmp_path: Path) -> None:
    cameras = tmp_path / "cameras"
    cameras.mkdir()
    for split in ("train", "test"):
        for path in list_scene_files(made_realestate10k.cameras(split)):
            shutil.copy(path, cameras)
    (cameras / "absent.txt").write_text(next(cameras.glob("*.txt")).read_text().replace("example0_", "absent"))
    for workers in (1, 2):
        folders = [
            "--root_dir",
            cameras,
            "--video_dir",
            made_realestate10k.videos,
            "--out_dir",
            tmp_path / f"by{workers}",
        ]
        main([str(word) for word in (*folders, "--workers", workers, "--img_wh", 96, 64)])
    assert contents(tmp_path / "by1") == contents(tmp_path / "by2")
    assert sum(entry["state"] == "done" for entry in report_of(tmp_path / "by2").values()) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_of_several_workers_can_be_stopped(
    repo_root: Path,
    numbered_video: Path,
    write_scene: Callable,
    extract: Callable,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """In the middle of a long video the program and its workers end at once; the next run completes what is there."""
    times = [*range(0, 4_000_000, STEP), 790_000_000]
    urls = [f"https://example.org/{i}.mp4" for i in range(2)]
    (tmp_path / "videos").mkdir()
    for i, url in enumerate(urls):
        copy_packets(numbered_video, tmp_path / f"videos/{video_stem(url)}.mp4", loops=200)
        write_scene(f"s{i}", url, times)
    command = [sys.executable, str(repo_root / "preprocessing/extract_frames.py"), "--root_dir", "cameras"]
    command += ["--video_dir", "videos", "--out_dir", "frames", "--workers", "2", "--img_wh", "96", "48"]
    started = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("frames/*/[0-9]*.jpg"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    listing = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    workers = listing.read_text().split() if listing.exists() else []
    started.send_signal(number)
    sent = time.monotonic()
    _, errors = started.communicate(timeout=30)  # also waits for the workers, which have the same pipes
    assert time.monotonic() - sent < 5
    assert not any(os.path.exists(f"/proc/{worker}/cwd") for worker in workers)
    assert "Traceback" not in errors
    if number == signal.SIGKILL:
        assert started.returncode == -signal.SIGKILL
    else:
        assert started.returncode == 130, errors
        assert errors.strip().splitlines()[-1].endswith("interrupted; run the same command again to continue")
    assert not list(tmp_path.glob("frames/*/cameras.txt"))
    out = extract("--workers", 2)
    for name in ("s0", "s1"):
        assert numbers_of(out / name) == {t: t // STEP % 100 for t in times}
        assert sorted(path.name for path in (out / name).iterdir()) == sorted(
            [*(f"{t}.jpg" for t in times), "cameras.txt"]
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers: 1 or more expected, got 0"),
        (["--limit", "0"], "--limit: 1 or more expected, got 0"),
        (["--quality", "101"], "--quality: 1 to 100 expected, got 101"),
        (["--img_wh", "0", "5"], "--img_wh: 1 or more expected, got 0"),
        (["--video_dir", "none"], "none: no such folder; name the one with the videos"),
        (["--root_dir", "none"], "none: no such folder"),
        (["--root_dir", "videos"], "videos: holds no text file"),
    ],
)
def test_bad_options(
    videos: Path, write_scene: Callable, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    write_scene("a", URL)
    monkeypatch.chdir(videos.parent)
    with pytest.raises(InputError, match=re.escape(message)):
        main(["--root_dir", "cameras", "--video_dir", "videos", "--out_dir", "frames", *arguments])
    assert not (videos.parent / "frames").exists()


def test_as_a_program(
    run_program: Callable, call_program: Callable, videos: Path, write_scene: Callable, tmp_path: Path
) -> None:
    write_scene("a", URL, [3 * STEP])
    folders = ["--root_dir", "cameras", "--video_dir", "videos", "--out_dir", "frames"]
    done = run_program("preprocessing/extract_frames.py", *folders, cwd=tmp_path)
    assert done.rc == 0, done.stderr
    assert "1 of 1 scenes" in done.stdout
    assert read_image(tmp_path / f"frames/a/{3 * STEP}.jpg").shape == (360, 640, 3)
    (videos / "abcdefghijk.mp4").unlink()
    done = call_program("preprocessing/extract_frames.py", *folders, "--overwrite", cwd=tmp_path)
    done.check_input_error("no frame of any of 1 scenes could be extracted", "abcdefghijk.mp4: no such video")
