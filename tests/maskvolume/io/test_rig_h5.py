"""Training data of a rig: what is written is read in both variants, and every damage is one clear line."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from rig_h5_helpers import FORMS, SIZE, Source, check, make_poses, write
from torch.utils.data import DataLoader, Dataset

from maskvolume.io.llff import write_poses_bounds
from maskvolume.io.rig_h5 import RigScene, open_rig_scenes, poses_file
from maskvolume.runtime.errors import InputError


@pytest.fixture(params=list(FORMS))
def made(request, tmp_path) -> Path:
    """A scene in either variant."""
    return write(tmp_path / "data/scene000.h5", FORMS[request.param])


def test_what_is_written_is_read(made):
    (scene,) = open_rig_scenes(made.parent)
    assert scene.name == "scene000"
    assert scene.camera_names == ("cam00", "cam01", "cam02")
    check(scene)
    expected = make_poses(3)
    assert torch.allclose(scene.poses.cameras.T_cam_world, expected.cameras.T_cam_world, atol=1e-9)
    assert torch.allclose(scene.poses.cameras.K, expected.cameras.K)
    assert torch.equal(scene.poses.bounds, expected.bounds)
    with pytest.raises(IndexError):
        scene.picture(0, 4)
    with pytest.raises(IndexError):
        scene.matte(3, 0)
    assert sorted(path.name for path in made.parent.iterdir()) == ["scene000.h5", "scene000_pb.npy"]


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"chunks": (2, 3, 7, 11, 2)}, {"chunks": True}])
@pytest.mark.parametrize("num_cameras", [1, 12])
def test_files_of_others_with_any_packing(tmp_path, options, num_cameras):
    source = Source(num_cameras)
    V, T = source.num_cameras, source.num_frames
    if options.get("chunks", True) is not True:
        options = {"chunks": (1, *options["chunks"][1:])}
    with h5py.File(tmp_path / "scene007.h5", "w") as file:
        rgb = np.stack([[source.picture(v, t) for t in range(T)] for v in range(V)])
        mattes = np.stack([[source.matte(v, t) for t in range(T)] for v in range(V)])
        file.create_dataset("rgb", data=rgb, **options)
        file.create_dataset("fg_rgb", data=np.concatenate([rgb * 0, mattes[..., None]], -1), **options)
        file["bg_rgb"] = np.stack([source.background(v) for v in range(V)])
        file["something_else"] = np.zeros(3)
        file.create_group("more")
    write_poses_bounds(tmp_path / "scene007_pb.npy", make_poses(V))
    (scene,) = open_rig_scenes(tmp_path)
    check(scene, source)


def test_K_follows_the_pictures_per_axis(made):
    write_poses_bounds(poses_file(made), make_poses(3, (96, 80)))  # 4 times the height, twice the width
    (scene,) = open_rig_scenes(made.parent)
    K = scene.poses.cameras.K
    assert scene.poses.cameras.size == SIZE
    np.testing.assert_allclose(K[0], [[25, 0, 20], [0, 12.5, 12], [0, 0, 1]])


def test_scenes_one_and_two_folders_down(tmp_path):
    write(tmp_path / "source/scene000.h5")
    for place in ("scene002.h5", "a/scene010.h5", "a/scene002.h5", "train/b/mine.h5"):
        target = tmp_path / "data" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "source/scene000.h5", target)
        shutil.copy(tmp_path / "source/scene000_pb.npy", poses_file(target))
    for other in ("a/b/c/scene000.h5", ".scene.h5", ".a/scene000.h5", "640x360.h5"):
        target = tmp_path / "data" / other
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"not looked at")
    scenes = open_rig_scenes(tmp_path / "data")
    assert [scene.name for scene in scenes] == ["a/scene002", "a/scene010", "scene002", "train/b/mine"]
    check(scenes[3])


def fingerprint(scene: RigScene) -> int:
    return sum(int(scene.picture(v, t).sum()) + int(scene.matte(v, t).sum()) for v in range(3) for t in range(4))


@pytest.mark.parametrize(("start", "form"), [("fork", "original"), ("fork", "compact"), ("spawn", "compact")])
def test_processes_share_a_scene_that_is_open(tmp_path, start, form):
    scene = RigScene(write(tmp_path / "scene000.h5", FORMS[form]))
    expected = fingerprint(scene)
    with ProcessPoolExecutor(1 if start == "spawn" else 2, multiprocessing.get_context(start)) as pool:
        jobs = [pool.submit(fingerprint, scene) for _ in range(4)]
        assert fingerprint(scene) == expected
        assert [job.result() for job in jobs] == [expected] * 4
    assert fingerprint(scene) == expected


class Pictures(Dataset):
    def __init__(self, scene: RigScene) -> None:
        self.scene = scene

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        return int(self.scene.picture(index % 3, index // 3).sum())


def test_workers_of_a_loader(made):
    scene = RigScene(made)
    expected = [int(scene.picture(i % 3, i // 3).sum()) for i in range(12)]  # open before the workers fork
    loader = DataLoader(Pictures(scene), batch_size=None, num_workers=2)
    assert [int(value) for value in loader] == expected


def test_threads_and_pickles(made):
    scene = RigScene(made)
    expected = fingerprint(scene)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fingerprint, [RigScene(made)] * 8)) == [expected] * 8
    assert len(pickle.dumps(scene)) < 10_000
    assert fingerprint(pickle.loads(pickle.dumps(scene))) == expected
    scene.close()
    scene.close()
    assert fingerprint(scene) == expected


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_memory_does_not_grow_with_the_scene(tmp_path, form):
    def peaks(num_frames: int) -> tuple[int, int]:
        source = Source(1, num_frames, (120, 160))
        tracemalloc.start()
        try:
            path = write(tmp_path / f"{num_frames}.h5", form, source)
            writing = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            scene = RigScene(path)
            for frame in range(num_frames):
                scene.picture(0, frame)
                scene.matte(0, frame)
            return writing, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peaks(1)  # what is imported and cached once
    for short, long in zip(peaks(5), peaks(60), strict=True):
        assert long < short + 120 * 160 * 3


def test_poses_of_another_rig(made):
    write_poses_bounds(poses_file(made), make_poses(2))
    with pytest.raises(InputError, match=r"scene000_pb\.npy: 2 poses for the 3 cameras of scene000\.h5"):
        open_rig_scenes(made.parent)
    poses_file(made).unlink()
    with pytest.raises(InputError, match=r"scene000_pb\.npy: no such file"):
        open_rig_scenes(made.parent)
    poses_file(made).write_bytes(b"no array")
    with pytest.raises(InputError, match=r"scene000_pb\.npy: damaged"):
        open_rig_scenes(made.parent)


def test_no_scene(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_rig_scenes(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no rig training data"):
        open_rig_scenes(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        open_rig_scenes(tmp_path / "file")
    with pytest.raises(InputError, match="no such file"):
        RigScene(tmp_path / "scene000.h5")


@pytest.mark.parametrize("length", [0, 30, 700, 0.5, 0.99])
def test_a_file_cut_short(made, length):
    size = made.stat().st_size
    made.write_bytes(made.read_bytes()[: round(length * size) if isinstance(length, float) else length])
    with pytest.raises(InputError, match=r"scene000\.h5: damaged or not an HDF5 file.*copy or make it again"):
        open_rig_scenes(made.parent)


def test_every_damaged_byte_is_noticed_or_harmless(made):
    """A file with a byte changed gives one clear line, or what was written."""
    whole = made.read_bytes()
    places = np.flatnonzero(np.frombuffer(whole, np.uint8))  # most zeros belong to nothing
    messages = []
    for place in np.random.default_rng(0).choice(places, 60, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        made.write_bytes(damaged)
        try:
            check(RigScene(made))
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 40
    for message in messages:
        assert message.startswith(str(made))
        assert re.search("again|check|newer", message)


def edit(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace(key: str, value: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        if value is not None:
            file[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace("rgb", None), "no data set 'rgb'"),
        (replace("fg_rgb", None), "no data set 'fg_rgb'"),
        (replace("bg_rgb", None), "no data set 'bg_rgb'"),
        (replace("rgb", np.zeros((3, 4, *SIZE, 3), np.float32)), "rgb: float32"),
        (replace("fg_rgb", np.zeros((3, 4, *SIZE, 3), np.uint8)), "fg_rgb: uint8"),
        (replace("fg_rgb", np.zeros((3, 5, *SIZE, 4), np.uint8)), "cameras, frames and sizes must agree"),
        (replace("bg_rgb", np.zeros((3, 20, 40, 3), np.uint8)), "bg_rgb.*must agree"),
        (replace("bg_rgb", np.zeros((3, 4, *SIZE, 3), np.uint8)), "bg_rgb: uint8.*4 axes"),
        (lambda file: file.attrs.update({"cameras": ["a"]}), "names 1 cameras, but holds 3"),
        (lambda file: file.attrs.update({"format": "other"}), "format 'other'"),
    ],
)
def test_other_data_than_expected(tmp_path, change, words):
    path = write(tmp_path / "scene000.h5")
    edit(path, change)
    with pytest.raises(InputError, match=rf"scene000\.h5.*{words}"):
        open_rig_scenes(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace("matte", None), "no data set 'matte'"),
        (replace("bg_index", np.zeros((2, 3), np.int64)), "differ in number"),
        (replace("rgb_index", np.zeros((3, 4), np.int64)), "have unexpected shapes"),
        (lambda file: file.attrs.update({"version": 2}), "version 2, this program knows up to 1.*newer version"),
        (lambda file: file.attrs.__delitem__("size"), "damaged"),
    ],
)
def test_compact_data_of_another_form(tmp_path, change, words):
    path = write(tmp_path / "scene000.h5", FORMS["compact"])
    edit(path, change)
    with pytest.raises(InputError, match=rf"scene000\.h5.*{words}"):
        open_rig_scenes(tmp_path)


def test_a_damaged_picture_is_named(tmp_path):
    path = write(tmp_path / "scene000.h5", FORMS["compact"])
    for change in ((0, 1, 7), (-1, 1, 7), (10**9, 50, 7), (0, 0, 7)):
        edit(path, lambda file, change=change: file["matte_index"].__setitem__((2, 1), change))
        scene = RigScene(path)
        with pytest.raises(InputError, match=r"scene000\.h5: matte of camera 2, frame 1 is damaged; copy or make"):
            scene.matte(2, 1)
        scene.close()
    raw = write(tmp_path / "raw/scene000.h5")
    with h5py.File(raw) as file:
        chunk = file["bg_rgb"].id.get_chunk_info(1)
    data = bytearray(raw.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    raw.write_bytes(data)
    scene = RigScene(raw)
    scene.background(0)
    with pytest.raises(InputError, match=r"scene000\.h5: bg_rgb of camera 1 can't be read.*copy or make it again"):
        scene.background(1)
