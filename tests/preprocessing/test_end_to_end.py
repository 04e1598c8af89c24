"""From text files and addresses to a trained network, each step by its command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from realestate10k_helpers import MadeData, Reply, VideoServer, make_cameras
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maskvolume.io.realestate10k import (
    list_scene_files,
    read_bounds,
    read_scene_cameras,
    video_stem,
    write_scene_cameras,
)
from maskvolume.io.shards import SceneShards
from maskvolume.io.triplets import read_triplets, write_triplets
from maskvolume.mpi.checkpoints import load_model

WIDTH, HEIGHT = 96, 64
GONE = "vanished"
TINY = ("--img_hw", 48, 64, "--num_planes", 4, "--margin", 4, "--device", "cpu", "--precision", "fp32")


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def cameras(made_realestate10k: MadeData, server: VideoServer, tmp_path: Path) -> Path:
    """The made text files with addresses of the server, and one scene for training whose video is gone."""
    for path in (made_realestate10k.folder / "served").iterdir():
        server.add(path.name, Reply(path.read_bytes()))
    for split in ("train", "test"):
        for path in list_scene_files(made_realestate10k.cameras(split)):
            scene = read_scene_cameras(path)
            served = replace(scene, url=f"{server.address}/{Path(scene.url).name}")
            write_scene_cameras(tmp_path / "cameras" / split / path.name, served)
    lost = make_cameras(GONE, f"{server.address}/{GONE}.mp4", range(0, 600_000, 40_000))
    write_scene_cameras(tmp_path / "cameras/train" / f"{GONE}.txt", lost)
    return tmp_path / "cameras"


def check_shards(data: Path, cameras: Path, bounds: Path) -> None:
    """Shards hold each scene whose video is there, with the cameras of the text file and the given bounds."""
    files = [path for path in list_scene_files(cameras) if path.stem != GONE]
    shards, known = SceneShards(data), read_bounds(bounds)
    assert list(shards.names) == [path.stem for path in files]
    assert shards.size == (HEIGHT, WIDTH)
    for number, path in enumerate(files):
        true = read_scene_cameras(path)
        np.testing.assert_array_equal(shards.timestamps(number), true.timestamps)
        np.testing.assert_array_equal(shards.intrinsics(number), true.intrinsics.astype(np.float32))
        np.testing.assert_array_equal(shards.T_cam_world(number), true.T_cam_world.astype(np.float32))
        np.testing.assert_allclose(shards.bounds(number), known[path.stem], rtol=1e-6)
    assert [entry["state"] for entry in entries(data / "compression.jsonl")] == ["done"] * len(files)


def test_from_text_files_to_weights(
    call_program: Callable, made_realestate10k: MadeData, cameras: Path, tmp_path: Path
) -> None:
    def run(program: str, *arguments: object) -> str:
        done = call_program(program, *arguments, cwd=tmp_path)
        assert done.rc == 0, done.stderr
        return done.stdout

    bounds = made_realestate10k.folder / "bounds.txt"
    for split in ("train", "test"):
        texts, videos, frames, data = cameras / split, tmp_path / "got" / split, tmp_path / "frames" / split, split
        found = [path for path in list_scene_files(texts) if path.stem != GONE]
        lines = {path.stem: len(path.read_text().splitlines()) - 1 for path in found}

        quick = ("--backoff", 0.01, "--min_free_gb", 0)
        run("preprocessing/download_data.py", "--root_dir", texts, "--out_dir", videos, *quick)
        states = {entry["url"].rsplit("/", 1)[1]: entry["state"] for entry in entries(videos / "downloads.jsonl")}
        assert states.pop(f"{GONE}.mp4", "gone") == "gone"
        assert list(states.values()) == ["done"]

        size = ("--img_wh", WIDTH, HEIGHT)
        folders = ("--root_dir", texts, "--video_dir", videos / "videos", "--out_dir", frames)
        run("preprocessing/extract_frames.py", *folders, *size, "--workers", 2)
        assert {path.name: len(list(path.glob("*.jpg"))) for path in frames.iterdir() if path.is_dir()} == lines
        said = {entry["scene"]: entry for entry in entries(frames / "extraction.jsonl")}
        assert {name: entry.get("frames") for name, entry in said.items() if name != GONE} == lines
        if split == "train":
            assert said[GONE]["state"] == "failed"
            lost = video_stem(read_scene_cameras(texts / f"{GONE}.txt").url)
            assert f"{lost}.mp4: no such video" in said[GONE]["why"]

        arguments = ("--root_dir", frames, "--out_dir", data, "--bounds", bounds, "--num_triplets", 5)
        printed = run("preprocessing/compress_data.py", *arguments, *size)
        assert f"{len(lines)} scenes, {len(lines)} of them new, {sum(lines.values())} frames" in printed
        check_shards(tmp_path / data, texts, bounds)

    # The last of the choices first, so that it is the list that is gone by.
    choices = read_triplets(tmp_path / "test/triplets.txt")[::-1]
    write_triplets(tmp_path / "test/triplets.txt", choices)
    folders = ("--root_dir", "train", "--val_dir", "test", "--log_dir", "logs", "--ckpt_dir", "weights")
    run("train_mpi/train.py", "--config", "train_realestate10k.txt", *folders, "--debug", *TINY)
    for name in ("model", "best"):
        assert load_model(tmp_path / f"weights/debug/{name}.safetensors").meta.stage == "mpi"
    assert (
        shown_targets(tmp_path / "logs/debug", SceneShards(tmp_path / "test"))
        == [(choices[0].scene, choices[0].target)] * 2
    )


def shown_targets(log: Path, shards: SceneShards) -> list[tuple[str, int]]:
    """Scene and timestamp of the truth in each validation's picture: truth, prediction and disparity in a row."""
    events = EventAccumulator(str(log))
    events.Reload()
    found = []
    for event in events.Images("val/sample0/views"):
        data = np.frombuffer(event.encoded_image_string, np.uint8)
        row = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        assert row is not None
        assert row.shape == (HEIGHT, 3 * WIDTH, 3)
        errors = {
            (name, timestamp): np.abs(row[:, :WIDTH].astype(int) - shards.picture(scene, frame)).max()
            for scene, name in enumerate(shards.names)
            for frame, timestamp in enumerate(shards.timestamps(scene).tolist())
        }
        nearest = min(errors, key=lambda key: errors[key])
        assert errors[nearest] <= 1
        found.append(nearest)
    return found
