"""The made data set: RealEstate10K's form, and cameras that are true."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from realestate10k_helpers import MadeData

from maskvolume.data.synthetic import StaticWorld, WorldOptions
from maskvolume.io.realestate10k import (
    SceneCameras,
    list_scene_files,
    read_bounds,
    read_scene_cameras,
    video_stem,
)
from maskvolume.io.video import VideoFrames
from maskvolume.options import Size
from maskvolume.runtime.errors import InputError
from preprocessing.make_example_data import (
    FAR_RATIO,
    FOCAL,
    ExampleOptions,
    ExampleVideo,
    draw_path,
    main,
    make_example_data,
    plan_video,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_scenes(made: MadeData) -> Iterator[tuple[ExampleVideo, range, SceneCameras]]:
    """The plan of a video, the frames of a clip of it, and what its text file says."""
    for index in range(made.options.num_videos):
        video = plan_video(made.options, index)
        for name, frames in video.scenes:
            yield video, frames, read_scene_cameras(made.cameras(video.split) / f"{name}.txt")


def render_depth(video: ExampleVideo, frames: range) -> np.ndarray:
    """True depth ``[N, H, W]`` of some frames, in the world's unit."""
    cameras = video.world.camera(torch.from_numpy(video.T_cam_world[frames.start : frames.stop : frames.step]))
    return video.world.render(cameras)[1][:, 0].numpy()


def test_form(made_realestate10k: MadeData) -> None:
    made = made_realestate10k
    stems, names = set(), set()
    for split in ("train", "test"):
        for path in list_scene_files(made.cameras(split)):
            assert re.fullmatch(r"[0-9a-f]{16}", path.stem)
            scene = read_scene_cameras(path)
            names.add(scene.name)
            assert len(scene) == made.options.frames_per_clip
            np.testing.assert_array_equal(
                np.round(scene.timestamps * 30 / 1e6), np.arange(16) + round(scene.timestamps[0] * 30e-6)
            )
            assert (scene.intrinsics[:, 2:] == 0.5).all()
            # Square pixels: the focal length is the same number of widths as of heights.
            np.testing.assert_allclose(scene.intrinsics[:, 0] * 96, scene.intrinsics[:, 1] * 64)
            stem = video_stem(scene.url)
            stems.add((split, stem))
            video = VideoFrames(made.videos / f"{stem}.mp4")
            assert video.size == (64, 96)
            assert scene.timestamps[-1] < video.count / 30 * 1e6
            served = made.folder / "served" / scene.url.rsplit("/", 1)[1]
            assert served.samefile(video.path)
    assert len(names) == 4
    assert len(stems) == 2
    assert set(read_bounds(made.folder / "bounds.txt")) == names


def test_clips_of_a_video_do_not_touch(made_realestate10k: MadeData) -> None:
    first, second = (read_scene_cameras(path) for path in list_scene_files(made_realestate10k.cameras()))
    if first.timestamps[0] > second.timestamps[0]:
        first, second = second, first
    assert first.url == second.url
    assert first.timestamps[0] > 0
    assert second.timestamps[0] - first.timestamps[-1] >= 3 / 30 * 1e6


def test_bounds_are_true(made_realestate10k: MadeData) -> None:
    bounds = read_bounds(made_realestate10k.folder / "bounds.txt")
    for video, frames, scene in all_scenes(made_realestate10k):
        near, far = bounds[scene.name]
        depth = render_depth(video, frames)
        moved = np.linalg.norm(scene.T_cam_world[0, :, 3]) / np.linalg.norm(video.T_cam_world[frames.start, :3, 3])
        np.testing.assert_allclose([near, far], [depth.min() * moved, depth.max() * moved], rtol=1e-5)
        assert 1 <= near < far <= 100


def warp(
    picture: np.ndarray, depth: np.ndarray, other_depth: np.ndarray, scene: SceneCameras, a: int, b: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frame b's picture as frame a sees it, and where both see the same; depths are in the unit of the poses."""
    h, w = depth.shape
    fx, fy, cx, cy = scene.intrinsics[a] * [w, h, w, h]
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    points = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1) * depth[..., None]
    T_a, T_b = scene.T_cam_world[a], scene.T_cam_world[b]
    points = (points - T_a[:, 3]) @ T_a[:, :3]  # to the world: the transpose of the rotation, from the right
    points = points @ T_b[:, :3].T + T_b[:, 3]
    u = (fx * points[..., 0] / points[..., 2] + cx - 0.5).astype(np.float32)
    v = (fy * points[..., 1] / points[..., 2] + cy - 0.5).astype(np.float32)
    seen = cv2.remap(other_depth.astype(np.float32), u, v, cv2.INTER_NEAREST, borderValue=0)
    same = (np.abs(seen - points[..., 2]) < 0.02 * seen) & (u > 1) & (v > 1) & (u < w - 2) & (v < h - 2)
    return cv2.remap(picture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), same


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def test_cameras_are_true(made_realestate10k: MadeData) -> None:
    """A frame, warped by true depth and the text file's cameras, is the other one, to less than half a pixel."""
    bounds = read_bounds(made_realestate10k.folder / "bounds.txt")
    a, b = 1, 14
    for video, frames, scene in all_scenes(made_realestate10k):
        decoder = VideoFrames(made_realestate10k.videos / f"{video_stem(scene.url)}.mp4")
        numbers = np.round(scene.timestamps * 30 / 1e6).astype(int)
        first, second = (decoder.read(int(numbers[i])).astype(np.float32) / 255 for i in (a, b))
        depth = render_depth(video, frames)
        depth *= bounds[scene.name][0] / depth.min()
        warped, same = warp(second, depth[a], depth[b], scene, a, b)
        moved = warp(
            np.stack(np.meshgrid(*map(np.arange, (96, 64))), -1).astype(np.float32), depth[a], depth[b], scene, a, b
        )[0]
        assert same.mean() > 0.6
        assert np.abs(moved - np.stack(np.meshgrid(*map(np.arange, (96, 64))), -1))[same].max() > 3
        quality = psnr(warped[same], first[same])
        assert quality > 28
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            assert psnr(np.roll(warped, shift, (0, 1))[same], first[same]) < quality - 1
        assert psnr(second[same], first[same]) < quality - 3


def test_worlds_are_closed_and_never_too_near() -> None:
    """From all along the path, in any world, something is seen everywhere, within the planes of training."""
    options = WorldOptions(size=(36, 64), far_ratio=FAR_RATIO, focal=FOCAL, num_textures=64, rays_per_side=1)
    seconds = np.arange(0, 30, 0.75)
    for seed in range(15):
        world = StaticWorld(options, seed)
        T = draw_path(np.random.default_rng(seed), seconds, world.near)
        pictures, depth = world.render(world.camera(torch.from_numpy(T)))
        assert depth.min() > 0.5 * world.near
        assert depth.max() < 75 * depth.min()
        assert pictures.std() > 0.02


def test_path_is_smooth_and_stays() -> None:
    seconds = np.arange(3000) / 30
    T = draw_path(np.random.default_rng(3), seconds, near=2.0)
    R, t = T[:, :3, :3], T[:, :3, 3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (3000, 1, 1)), atol=1e-12)
    centers = -(R.transpose(0, 2, 1) @ t[..., None])[..., 0]
    assert np.abs(centers).max() < 0.5 * 2
    assert np.ptp(centers[:, 0]) > 0.4 * 2
    assert np.linalg.norm(np.diff(centers, axis=0), axis=1).max() < 0.05 * 2
    turns = np.arccos(np.clip((np.trace(R[1:] @ R[:-1].transpose(0, 2, 1), axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert np.degrees(turns).max() < 0.6


def test_same_seed_same_bytes_and_another_seed_others(made_realestate10k: MadeData, tmp_path: Path) -> None:
    same = dataclasses.replace(made_realestate10k.options, out_dir=str(tmp_path / "same"), num_videos=1, test_videos=0)
    other = dataclasses.replace(same, out_dir=str(tmp_path / "other"), seed=1)
    make_example_data(same)
    make_example_data(other)
    before, again, others = (
        contents(Path(folder)) for folder in (made_realestate10k.folder, same.out_dir, other.out_dir)
    )
    for name, data in again.items():
        if name not in ("example.json", "bounds.txt"):
            assert before[name] == data, name
            assert name not in others


def small_options(folder: Path, **changes: object) -> ExampleOptions:
    return ExampleOptions(
        **{
            "out_dir": str(folder),
            "num_videos": 2,
            "clips_per_video": 1,
            "frames_per_clip": 4,
            "img_wh": Size(h=16, w=32),
            "device": "cpu",
            **changes,
        }
    )


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_example_data(small_options(tmp_path / "whole"))
    calls = 0
    render = StaticWorld.render

    def interrupted(self: StaticWorld, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise KeyboardInterrupt
        return render(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StaticWorld, "render", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_example_data(small_options(tmp_path / "parts"))
    there = contents(tmp_path / "parts")
    assert sum(name.startswith("videos") for name in there) == 1
    calls = -1000
    make_example_data(small_options(tmp_path / "parts"))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts" / "videos").iterdir()}
    make_example_data(small_options(tmp_path / "parts"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "parts" / "videos").iterdir()} == times


def test_other_options_need_another_folder(tmp_path: Path) -> None:
    make_example_data(small_options(tmp_path, num_videos=1))
    with pytest.raises(InputError, match="was made with other options; choose another --out_dir"):
        make_example_data(small_options(tmp_path, num_videos=1, seed=5))
    make_example_data(small_options(tmp_path, num_videos=1, test_videos=1, seed=5, overwrite=True))
    make_example_data(small_options(tmp_path / "new", num_videos=1, test_videos=1, seed=5))
    new = {name: data for name, data in contents(tmp_path).items() if not name.startswith("new")}
    assert new == contents(tmp_path / "new")
    assert all("test" in name for name in new if name.startswith("cameras"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_videos", "0"], "--num_videos: 1 or more expected, got 0"),
        (["--frames_per_clip", "0"], "--frames_per_clip: 1 or more expected, got 0"),
        (["--test_videos", "9"], "--test_videos 9: 0 to 4"),
        (["--img_wh", "63", "32"], "--img_wh 63 32: even numbers"),
        (["--fps", "0"], "--fps: above 0 and at most 240 expected, got 0"),
        (["--seed", "-1"], "--seed: 0 or more expected, got -1"),
        (["--url_prefix", "example"], "--url_prefix example"),
    ],
)
def test_bad_options(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        main(["--out_dir", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_as_a_program(run_program, tmp_path: Path) -> None:
    size = [
        "--num_videos",
        1,
        "--clips_per_video",
        1,
        "--frames_per_clip",
        2,
        "--img_wh",
        "[32, 16]",
        "--device",
        "cpu",
    ]
    done = run_program(
        "preprocessing/make_example_data.py", "--out_dir", "a", *size, "--url_prefix", "http://h/v/", cwd=tmp_path
    )
    assert done.rc == 0, done.stderr
    assert "1 videos, 1 scenes of 2 frames" in done.stdout
    (path,) = list_scene_files(tmp_path / "a/cameras/test")
    assert read_scene_cameras(path).url == "http://h/v/example0_0000.mp4"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/a: a part of this path is a file"):
        main(["--out_dir", str(tmp_path / "file/a")])
