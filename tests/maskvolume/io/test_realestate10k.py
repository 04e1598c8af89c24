"""RealEstate10K's text files: what is read is what is there, and what is wrong is named by its line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskvolume.io.realestate10k import (
    SceneCameras,
    list_scene_files,
    read_bounds,
    read_scene_cameras,
    read_video_url,
    video_stem,
    write_bounds,
    write_scene_cameras,
)
from maskvolume.runtime.errors import InputError

URL = "https://www.youtube.com/watch?v=abcdefghi-_"
POSE = "0.8 0.6 0 1.5 -0.6 0.8 0 -2.5 0 0 1 3.5"
LINES = (URL, f"1000 0.5 0.9 0.49 0.51 0 0 {POSE}", f"41000 0.5 0.9 0.49 0.51 0 0 {POSE}")


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


def random_cameras(count: int, seed: int = 0) -> SceneCameras:
    rng = np.random.default_rng(seed)
    R = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    R *= np.sign(np.linalg.det(R))[:, None, None]
    T = np.concatenate([R, rng.normal(size=(count, 3, 1)) * 10], 2)
    timestamps = np.cumsum(rng.integers(1, 10**7, count))
    return SceneCameras("scene", URL, timestamps, rng.uniform(0.1, 2, (count, 4)), T)


def test_columns_mean_what_they_should(tmp_path: Path) -> None:
    scene = read_scene_cameras(write(tmp_path / "0123.txt", *LINES))
    assert (scene.name, scene.url, len(scene)) == ("0123", URL, 2)
    assert scene.timestamps.tolist() == [1000, 41000]
    assert scene.timestamps.dtype == np.int64
    np.testing.assert_array_equal(scene.intrinsics, [[0.5, 0.9, 0.49, 0.51]] * 2)
    np.testing.assert_array_equal(scene.T_cam_world[0], [[0.8, 0.6, 0, 1.5], [-0.6, 0.8, 0, -2.5], [0, 0, 1, 3.5]])
    assert read_video_url(tmp_path / "0123.txt") == URL


@pytest.mark.parametrize("count", [1, 50])
def test_written_is_read_again(tmp_path: Path, count: int) -> None:
    cameras = random_cameras(count)
    write_scene_cameras(tmp_path / "deeper" / "scene.txt", cameras)
    again = read_scene_cameras(tmp_path / "deeper" / "scene.txt")
    assert (again.name, again.url) == (cameras.name, cameras.url)
    for field in ("timestamps", "intrinsics", "T_cam_world"):
        np.testing.assert_array_equal(getattr(again, field), getattr(cameras, field))
    assert {len(line.split()) for line in (tmp_path / "deeper" / "scene.txt").read_text().splitlines()[1:]} == {19}


def test_other_line_ends_and_empty_lines(tmp_path: Path) -> None:
    plain = read_scene_cameras(write(tmp_path / "a.txt", *LINES))
    for text in ("\r\n".join(LINES), "\ufeff" + "\n".join(LINES) + "\n\n", " \n".join(LINES).replace(" 0 ", "\t 0 ")):
        (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
        other = read_scene_cameras(tmp_path / "a.txt")
        assert other.url == plain.url
        np.testing.assert_array_equal(other.T_cam_world, plain.T_cam_world)


def test_select_by_numbers_and_by_booleans() -> None:
    cameras = random_cameras(6)
    by_number, by_boolean = cameras.select(np.array([1, 4])), cameras.select(np.arange(6) % 3 == 1)
    for part in (by_number, by_boolean):
        assert (part.name, part.url, len(part)) == ("scene", URL, 2)
        np.testing.assert_array_equal(part.timestamps, cameras.timestamps[[1, 4]])
        np.testing.assert_array_equal(part.intrinsics, cameras.intrinsics[[1, 4]])
        np.testing.assert_array_equal(part.T_cam_world, cameras.T_cam_world[[1, 4]])
    with pytest.raises(ValueError, match="intrinsics: "):
        SceneCameras("a", URL, np.arange(3), np.zeros((2, 4)), np.zeros((3, 3, 4)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"81000 0.5 0.9 0.49 0.51 0 {POSE}", "19 numbers expected, got 18"),
        (f"81000 0.5 0.9 0.49 0.51 0 0 0 {POSE}", "19 numbers expected, got 20"),
        (f"81000.5 0.5 0.9 0.49 0.51 0 0 {POSE}", "whole microseconds expected, got `81000.5`"),
        (f"-81000 0.5 0.9 0.49 0.51 0 0 {POSE}", "whole microseconds"),
        (f"{2**63} 0.5 0.9 0.49 0.51 0 0 {POSE}", "whole microseconds"),
        (f"81000 0.5 0,9 0.49 0.51 0 0 {POSE}", "'0,9'"),
        (f"81000 0.5 nan 0.49 0.51 0 0 {POSE}", "not finite"),
        (f"81000 0.5 0.9 0.49 0.51 0 0 {POSE.replace('1.5', 'inf')}", "not finite"),
        (f"41000 0.5 0.9 0.49 0.51 0 0 {POSE}", "not later than the one before"),
        (f"2000 0.5 0.9 0.49 0.51 0 0 {POSE}", "not later than the one before"),
        (f"81000 0.5 0 0.49 0.51 0 0 {POSE}", "focal lengths are not above 0"),
        (f"81000 0.5 0.9 0.49 0.51 0 0 {POSE.replace('0.8', '0.9')}", "not a rotation"),
        (f"81000 0.5 0.9 0.49 0.51 0 0 {POSE.replace('0 0 1 3.5', '0 0 -1 3.5')}", "not a rotation"),
        (f"81000 0.5 0.9 0.49 0.51 0 0 {POSE.replace('0.8', '1e300')}", "not a rotation"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.txt", *LINES, "", line, LINES[-1].replace("41000", "91000"))
    with pytest.raises(InputError, match=re.escape(f"{path}, line 5: ") + f".*{re.escape(message)}.*; download"):
        read_scene_cameras(path)


@pytest.mark.parametrize(
    "first", ["", "1000 0.5", "youtube.com/watch?v=abcdefghi-_", "ftp://a.b/c", "http://[a/b", "https://a b"]
)
def test_a_bad_address_is_named(tmp_path: Path, first: str) -> None:
    path = write(tmp_path / "a.txt", first, *LINES[1:])
    for read in (read_scene_cameras, read_video_url):
        with pytest.raises(InputError, match=r"a\.txt, line 1: the address of a video"):
            read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "line 1"),
        (f"{URL}\n\n".encode(), "no line of a camera"),
        (b"\xff\xfe\x00", "not a text"),
    ],
)
def test_no_such_form(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.txt.*{message}"):
        read_scene_cameras(path)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match=r"folder\.txt: no such file"):
        read_video_url(tmp_path / "folder.txt")


def test_nothing_is_written_that_could_not_be_read(tmp_path: Path) -> None:
    good = random_cameras(3)
    bad_url = SceneCameras("a", "no address", good.timestamps, good.intrinsics, good.T_cam_world)
    for bad in (good.select(np.array([2, 0])), good.select(np.zeros(3, bool)), bad_url):
        with pytest.raises(ValueError, match=r"row 1|at least one|url"):
            write_scene_cameras(tmp_path / "a.txt", bad)
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".a.txt", "readme.md"):
        (tmp_path / name).touch()
    assert [path.name for path in list_scene_files(tmp_path)] == ["a.txt", "b.txt"]
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "empty", "no text file"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InputError, match=message):
            list_scene_files(folder)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://youtube.com/watch?feature=share&v=abcdefghi-_&t=10s",
        "https://m.youtube.com/watch?v=abcdefghi-_#x",
        "https://youtu.be/abcdefghi-_?si=1",
        "https://www.youtube.com/embed/abcdefghi-_",
        "https://www.youtube-nocookie.com/embed/abcdefghi-_",
        "https://www.youtube.com/shorts/abcdefghi-_",
    ],
)
def test_all_addresses_of_a_youtube_video_have_its_id(url: str) -> None:
    assert video_stem(url) == "abcdefghi-_"


def test_other_addresses_have_names_of_their_own() -> None:
    urls = [
        "http://a.org/clip.mp4",
        "http://b.org/clip.mp4",
        "http://a.org/x/clip.mp4",
        "http://a.org/clip.webm",
        "http://a.org/clip.mp4?v=abcdefghi-_",
        "http://notyoutube.com/watch?v=abcdefghi-_",
        "https://www.youtube.com/watch?v=short",
        "https://www.youtube.com/watch?v=../../../a",
        "http://a.org",
        "http://a.org/%2e%2e%2f%2fetc",
        f"http://a.org/{'x' * 300}.mp4",
    ]
    stems = [video_stem(url) for url in urls]
    assert len(set(stems)) == len(urls)
    assert stems[0].startswith("clip-")
    # Fixed for good: the names of files that users have.
    assert stems[0] == "clip-4894476f47"


@given(st.text(max_size=80))
def test_stems_are_safe_names_of_files(text: str) -> None:
    try:
        stem = video_stem(f"https://example.org/{text}")
    except ValueError:
        return  # no address; the readers refuse it
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{10,60}", stem)


def test_bounds_are_read_again(tmp_path: Path) -> None:
    bounds = {"b": (1.1, 50.3), "a": (0.25, 1e3)}
    write_bounds(tmp_path / "bounds.txt", bounds)
    assert read_bounds(tmp_path / "bounds.txt") == bounds


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c 1", "`SCENE NEAR FAR` expected, got `c 1`"),
        ("c 1 2 3", "`SCENE NEAR FAR` expected"),
        ("c 1 far", "`SCENE NEAR FAR` expected"),
        ("c 2 1", "0 < NEAR < FAR expected, got 2 and 1"),
        ("c 0 1", "0 < NEAR < FAR"),
        ("c 1 nan", "0 < NEAR < FAR"),
        ("a 1 2", "a is given again"),
    ],
)
def test_a_bad_line_of_bounds_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "bounds.txt", "# comment", "a 1 2", line)
    with pytest.raises(InputError, match=rf"bounds\.txt, line 3: {re.escape(message)}"):
        read_bounds(path)
    with pytest.raises(InputError, match="no such file"):
        read_bounds(tmp_path / "none.txt")
