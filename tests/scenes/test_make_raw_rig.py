"""The program that renders raw videos: its cameras, its lens, its files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskvolume.io.video import VideoFrames
from maskvolume.runtime.errors import InputError
from scenes import make_raw_rig as raw
from scenes.livingroom import prints
from scenes.make_example_rig import View

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scenes" / "make_raw_rig.py"
SIZE = (360, 640)
HAS_BPY = importlib.util.find_spec("bpy") is not None


def blob(size: tuple[int, int], x: float, y: float) -> np.ndarray:
    """A picture that is black but for a soft spot; x and y are OpenCV's, pixel centres at whole numbers."""
    v, u = np.mgrid[: size[0], : size[1]]
    spot = 220 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 2.0**2))
    return np.repeat(spot[..., None], 3, axis=2).round().astype(np.uint8)


def place_of_spot(picture: np.ndarray) -> np.ndarray:
    weight = picture[..., 0].astype(float)
    v, u = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()


def opencv_place(view: View, point: np.ndarray) -> np.ndarray:
    """Where OpenCV's lens shows a point of the world, pixel centres at whole numbers."""
    h, w = SIZE
    K = np.array([[view.focal * w, 0, w / 2 - 0.5], [0, view.focal * w, h / 2 - 0.5], [0, 0, 1]])
    in_camera = view.c2w[:, :3].T @ (point - view.c2w[:, 3])
    lens = np.array([*raw.distortion(view), 0, 0])
    return cv2.projectPoints(in_camera[None, None], np.zeros(3), np.zeros(3), K, lens)[0].ravel()


@pytest.mark.parametrize("number", [0, 3, 6, 7])
@pytest.mark.parametrize("point", [(0.1, 2.0, 0.9), (-1.0, 2.6, 1.5), (0.9, 2.3, 0.6)])
def test_a_point_is_seen_where_the_lens_of_opencv_shows_it(
    tmp_path: Path, number: int, point: tuple[float, float, float]
) -> None:
    view = raw.raw_views()[number]
    at = np.array(point)
    wide = raw.wide_view(view, SIZE)
    wide_h, wide_w = raw.wide_size(SIZE)
    x, y, z = wide.c2w[:, :3].T @ (at - wide.c2w[:, 3])
    f = wide.focal * wide_w
    picture = blob((wide_h, wide_w), f * x / z + wide_w / 2 - 0.5, f * y / z + wide_h / 2 - 0.5)
    job = next(job for job in raw.list_jobs([view], 4))
    (tmp_path / job.master).parent.mkdir()
    cv2.imwrite(str(tmp_path / job.master), picture)
    seen = raw.take_picture(job, tmp_path, SIZE)
    np.testing.assert_allclose(place_of_spot(seen), opencv_place(view, at), atol=0.05)


def test_the_distortion_can_be_seen() -> None:
    """Near a corner the lens shows a point several pixels nearer to the middle than an ideal one would."""
    view = raw.raw_views()[3]
    ideal = replace(view, held_out=True)
    corner = view.c2w[:, :3] @ np.array([0.6, 0.33, 1.0]) * 3 + view.c2w[:, 3]
    middle = np.array([319.5, 179.5])
    distances = [np.linalg.norm(opencv_place(v, corner) - middle) for v in (view, ideal)]
    assert distances[1] - distances[0] > 10


def test_wide_pictures_show_all_that_the_lenses_see() -> None:
    wide_h, wide_w = raw.wide_size(SIZE)
    for view in raw.raw_views():
        x, y = raw.lens_tables(view, SIZE)
        assert x.min() >= 4
        assert y.min() >= 4  # Lanczos looks four pixels around
        assert x.max() <= wide_w - 5
        assert y.max() <= wide_h - 5


def test_held_out_picture_is_the_middle_of_the_wide_one(tmp_path: Path) -> None:
    view = raw.raw_views()[-1]
    picture = np.random.default_rng(0).integers(0, 256, (*raw.wide_size(SIZE), 3), np.uint8)
    job = raw.list_jobs([view], 4)[0]
    (tmp_path / job.master).parent.mkdir()
    cv2.imwrite(str(tmp_path / job.master), picture)
    middle = picture[24:-24, 37:-37, ::-1]
    np.testing.assert_array_equal(raw.take_picture(job, tmp_path, SIZE), middle)


def test_cameras_stand_on_an_arc_and_converge_a_little() -> None:
    views = raw.raw_views()
    assert [view.name for view in views] == [*(f"cam{k:02d}" for k in range(7)), "held_out"]
    places = np.array([view.c2w[:, 3] for view in views[:7]])
    np.testing.assert_allclose(np.diff(places[:, 0]), 0.16, atol=0.05)
    assert places[[0, 6], 1].min() > places[3, 1]
    headings = [np.degrees(np.arctan2(view.c2w[0, 2], view.c2w[1, 2])) for view in views[:7]]
    assert headings[0] - headings[6] > 4
    for view in views:
        np.testing.assert_allclose(view.c2w[:, :3].T @ view.c2w[:, :3], np.eye(3), atol=1e-12)
        assert abs(view.focal / raw.FOCAL - 1) <= raw.FOCAL_SPREAD + 1e-9 or view.held_out
    assert views[0].c2w.tolist() == raw.raw_views()[0].c2w.tolist()


def test_jobs_cover_every_frame_and_a_few_of_the_held_out_camera() -> None:
    jobs = raw.list_jobs(raw.raw_views(), 20)
    assert len({job.master for job in jobs}) == len(jobs) == 7 * 20 + 4
    assert [job.frame for job in jobs if job.view.held_out] == [0, 5, 10, 15]
    assert sorted({job.path for job in jobs if not job.view.held_out}) == [f"cam{k:02d}.mp4" for k in range(7)]
    assert raw.held_out_frames(2) == [0, 1]


def test_a_recording_is_made_of_the_lossless_frames(tmp_path: Path) -> None:
    """Without Blender, where all is rendered; a second run keeps what is there."""
    out, masters, size = tmp_path / "clip", tmp_path / "masters", (36, 64)
    views = raw.raw_views()
    for job in raw.list_jobs(views, 3):
        (masters / job.master).parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((*raw.wide_size(size), 3), 60 * job.frame + 40, np.uint8)
        cv2.imwrite(str(masters / job.master), picture)
    out.mkdir()
    raw.write_true_cameras(out / raw.TRUE_CAMERAS, views, size, np.tile([1.0, 5.0], (8, 1)))
    arguments = ["--out", str(out), "--masters", str(masters), "--img_wh", "64", "36", "--frames", "3"]
    raw.main(arguments)
    for k in range(7):
        video = VideoFrames(out / f"cam{k:02d}.mp4")
        assert (video.count, video.size, video.fps) == (3, size, 10.0)
        assert [abs(int(video.read(t).mean()) - 60 * t - 40) <= 2 for t in range(3)] == [True] * 3
    assert len(list((out / "held_out").iterdir())) == 3
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    raw.main(arguments)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == times
    with pytest.raises(InputError, match=r"settings\.json"):
        raw.main([*arguments[:-1], "2"])


def test_true_cameras_are_those_of_the_program(tmp_path: Path) -> None:
    views = raw.raw_views()
    raw.write_true_cameras(tmp_path / "cameras.json", views, SIZE, np.tile([1.2, 4.6], (8, 1)))
    text = json.loads((tmp_path / "cameras.json").read_text(encoding="utf-8"))
    assert (text["image_width"], text["image_height"]) == (640, 360)
    assert list(text["cameras"]) == [view.name for view in views]
    camera = text["cameras"]["cam02"]
    np.testing.assert_array_equal(camera["c2w"], views[2].c2w)
    f = views[2].focal * 640
    assert camera["K"] == [[f, 0, 320], [0, f, 180], [0, 0, 1]]
    assert camera["distortion"] == [-0.12, 0.03, 0, 0]
    assert text["cameras"]["held_out"]["distortion"] == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", [["--frames", "0"], ["--img_wh", "0", "36"], ["--fps", "0"]])
def test_numbers_out_of_range_are_refused(tmp_path: Path, bad: list[str]) -> None:
    with pytest.raises(InputError):
        raw.main(["--out", str(tmp_path / "clip"), *bad])
    assert not (tmp_path / "clip").exists()


def test_unreadable_lossless_frame_is_named(tmp_path: Path) -> None:
    job = raw.list_jobs(raw.raw_views(), 1)[0]
    (tmp_path / job.master).parent.mkdir()
    (tmp_path / job.master).write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"00000\.png: cannot be read"):
        raw.take_picture(job, tmp_path, SIZE)


@pytest.mark.skipif(HAS_BPY, reason="bpy is installed: there is nothing missing to report")
def test_missing_blender_is_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--out", str(tmp_path / "clip"), "--img_wh", "64", "36", "--frames", "1"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "bpy" in result.stderr


@pytest.mark.skipif(not HAS_BPY, reason="bpy, Blender's Python module, is not installed")
def test_tiny_recording_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--out", str(tmp_path / "clip"), "--img_wh", "64", "36"]
    subprocess.run([*command, "--samples", "1", "--frames", "1"], check=True, capture_output=True)
    names = {str(path.relative_to(tmp_path / "clip")) for path in (tmp_path / "clip").rglob("*.*")}
    assert names == {*(f"cam{k:02d}.mp4" for k in range(7)), "held_out/00000.png", raw.TRUE_CAMERAS}


SMALL = (60, 90)
PRINTS = {
    "wallpaper": lambda seed: prints.wallpaper(SMALL, seed, "e4d9c2", ["7a9068", "b5605a", "c9954a", "f2d27a"]),
    "boards": lambda seed: prints.boards(SMALL, seed, ["4f3119", "8f6035", "c2905a"]),
    "carpet": lambda seed: prints.carpet((160, 240), seed, ["7a1f2b", "e0cfa0", "1f3f5f", "c9803a", "2f5a3a"]),
    "landscape": lambda seed: prints.landscape(SMALL, seed, ["3f74ad", "c4d9e8"], ["7f95a0", "5f8050"]),
    "abstract": lambda seed: prints.abstract(SMALL, seed, ["f1e4c8", "d9a35a", "7fa3a8", "c8322f"]),
    "poster": lambda seed: prints.poster((160, 120), seed, ["A LINE"], ["f4ead2", "20304a", "d9472f", "e9b93f"]),
    "stripes": lambda seed: prints.stripes(SMALL, seed, ["2f5f8f", "f1e9d6", "c9503a"]),
    "blotches": lambda seed: prints.blotches(SMALL, seed, ["8a4327", "c4683f", "e0a070"]),
    "spines": lambda seed: prints.spines(SMALL, seed),
    "meadow": lambda seed: prints.meadow((200, 300), seed),
    "dots": lambda seed: prints.dots(SMALL, seed, "c8322f", ["f7ead0", "f2c14e"]),
    "facade": lambda seed: prints.facade(seed, "e8d9b0"),
}


@pytest.mark.parametrize("name", PRINTS)
def test_prints_have_texture_everywhere_and_are_the_same_every_time(name: str) -> None:
    picture = PRINTS[name](1)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    h, w = (n - n % 20 for n in picture.shape[:2])
    tiles = picture[:h, :w].mean(axis=2).reshape(h // 20, 20, w // 20, 20).swapaxes(1, 2)
    assert tiles.std(axis=(2, 3)).min() > 1.5
    np.testing.assert_array_equal(picture, PRINTS[name](1))
    assert not np.array_equal(picture, PRINTS[name](2))
