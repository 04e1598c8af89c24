"""Training shards: what is written is read, also after interruptions; every damage is one clear line."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import pickle
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from realestate10k_helpers import make_cameras

from maskvolume.io.shard_index import FRAME_ARRAYS, part_path
from maskvolume.io.shards import (
    SceneShards,
    ShardWriter,
    encode_jpeg,
    rebuild_index,
)
from maskvolume.runtime.errors import InputError

SIZE = (36, 64)
STEP = 33_366
SMALL = 0.02  # megabytes: a shard or two scenes


@dataclass(frozen=True)
class Made:
    """Scenes that were written."""

    folder: Path
    jpegs: dict[str, list[bytes]]


def jpegs_of(name: str, count: int) -> list[bytes]:
    rng = np.random.default_rng([ord(c) for c in name])
    return [encode_jpeg(rng.integers(0, 256, (*SIZE, 3), np.uint8), 90) for _ in range(count)]


def stamps(count: int) -> list[int]:
    return [1000 + STEP * i for i in range(count)]


def write(
    folder: Path, scenes: dict[str, int], shard_mb: float = SMALL, interruption: BaseException | None = None
) -> Made:
    """Write scenes of so many frames; those that are there are passed over. Ends with the interruption, if any."""
    jpegs = {name: jpegs_of(name, count) for name, count in scenes.items()}
    with ShardWriter(folder, SIZE, quality=90, shard_mb=shard_mb) as writer:
        for name, pictures in jpegs.items():
            if name not in writer:
                bounds = (1.5, 40.0) if name.startswith("b") else None
                writer.add_scene(make_cameras(name, "https://a/b", stamps(len(pictures))), pictures, bounds)
        if interruption:
            raise interruption
    return Made(folder, jpegs)


SCENES = {"a": 4, "b": 7, "longer-name": 3, "b2": 5, "ü": 4}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Five scenes in several shards."""
    return write(tmp_path / "data", SCENES)


def check(made: Made) -> None:
    """Assert that all that was written is read."""
    shards = SceneShards(made.folder)
    assert sorted(shards.names) == sorted(made.jpegs)
    assert shards.size == SIZE
    assert shards.num_frames == sum(len(jpegs) for jpegs in made.jpegs.values())
    for name, jpegs in made.jpegs.items():
        scene = shards.index(name)
        cameras = make_cameras(name, "https://a/b", stamps(len(jpegs)))
        assert shards.names[scene] == name
        assert shards.count(scene) == len(jpegs)
        assert shards.bounds(scene) == ((1.5, 40.0) if name.startswith("b") else None)
        np.testing.assert_array_equal(shards.timestamps(scene), cameras.timestamps)
        np.testing.assert_array_equal(shards.intrinsics(scene), cameras.intrinsics.astype(np.float32))
        np.testing.assert_array_equal(shards.T_cam_world(scene), cameras.T_cam_world.astype(np.float32))
        assert [shards.jpeg(scene, frame) for frame in range(len(jpegs))] == jpegs


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.tar"))}


def test_what_is_written_is_read(made: Made) -> None:
    assert len(shard_bytes(made.folder)) > 2
    check(made)


def test_pictures_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((*SIZE, 3), np.uint8)
    red[..., 0] = 200
    with ShardWriter(tmp_path, SIZE) as writer:
        writer.add_scene(make_cameras("red", "https://a/b", [5]), [encode_jpeg(red, 95)])
    picture = SceneShards(tmp_path).picture(0, 0)
    assert picture.shape == (*SIZE, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - red).max() < 8


def test_index_is_memory_mapped(made: Made) -> None:
    shards = SceneShards(made.folder)
    for name in FRAME_ARRAYS:
        assert isinstance(shards._table[name], np.memmap)


def test_numbers_out_of_range(made: Made) -> None:
    shards = SceneShards(made.folder)
    for scene, frame in ((0, 4), (5, 0), (-6, 0)):
        with pytest.raises(IndexError):
            shards.picture(scene, frame)
    with pytest.raises(InputError, match="no scene 'x'"):
        shards.index("x")
    np.testing.assert_array_equal(shards.timestamps(-1), shards.timestamps(4))
    assert list(shards.names[1:3]) == ["b", "longer-name"]


def test_a_shard_is_a_tar_of_whole_scenes_cameras_first(made: Made) -> None:
    seen: list[str] = []
    for path in sorted(made.folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            for key in dict.fromkeys(name.split(".")[0] for name in names):
                # One sample of WebDataset: neighbours with the same text before the first dot.
                own = [f"{key}.cameras.npz", *(f"{key}.{stamp}.jpg" for stamp in stamps(SCENES[key]))]
                first = names.index(own[0])
                assert names[first : first + len(own)] == own
                seen.append(key)
                stream = tar.extractfile(own[0])
                assert stream is not None
                with np.load(io.BytesIO(stream.read()), allow_pickle=False) as arrays:
                    assert str(arrays["url"]) == "https://a/b"
                    assert arrays["T_cam_world"].dtype == np.float64
    assert seen == list(SCENES)


def test_same_scenes_same_bytes(made: Made, tmp_path: Path) -> None:
    assert shard_bytes(write(tmp_path / "again", SCENES).folder) == shard_bytes(made.folder)


def test_threads_and_processes_share_a_reader(made: Made) -> None:
    shards = SceneShards(made.folder)
    places = [(scene, frame) for scene in range(5) for frame in range(3)] * 5
    truth = [shards.picture(*place) for place in places]
    with ThreadPoolExecutor(4) as threads:
        for picture, expected in zip(threads.map(shards.picture, *zip(*places, strict=True)), truth, strict=True):
            np.testing.assert_array_equal(picture, expected)
    assert len(pickle.dumps(shards)) < 1000
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as processes:
            np.testing.assert_array_equal(processes.submit(shards.picture, 1, 2).result(), shards.picture(1, 2))


def test_scenes_that_come_later_go_into_new_shards(made: Made) -> None:
    before = shard_bytes(made.folder)
    reader = SceneShards(made.folder)
    more = write(made.folder, SCENES | {"b-a-very-much-longer-name": 6})
    after = shard_bytes(made.folder)
    assert set(after) - set(before) == {f"shard-{len(before):05d}.tar"}
    assert all(after[name] == data for name, data in before.items())
    check(more)
    assert len(list(made.folder.glob("index-*"))) == 1
    # A reader that was opened before continues to work.
    assert reader.jpeg(4, 3) == made.jpegs["ü"][3]


def test_a_second_writer_without_new_scenes_changes_nothing(made: Made) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    write(made.folder, SCENES)
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before


def interrupt(folder: Path, after: int) -> None:
    """Write so many of the scenes; the interruption comes before the writer is done."""
    with pytest.raises(KeyboardInterrupt):
        write(folder, dict(list(SCENES.items())[:after]), interruption=KeyboardInterrupt())


@pytest.mark.parametrize("after", range(6))
def test_an_interrupted_writer_is_gone_on_with(made: Made, tmp_path: Path, after: int) -> None:
    folder = tmp_path / "interrupted"
    interrupt(folder, after)
    assert not list(folder.glob(".shard-*.tar"))
    with pytest.raises(InputError, match=r"run preprocessing/compress_data\.py again"):
        SceneShards(folder)
    check(write(folder, SCENES))
    assert shard_bytes(folder) == shard_bytes(made.folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_killed_writer_is_gone_on_with(made: Made, tmp_path: Path) -> None:
    """What a kill leaves: a shard under its temporary name, one without its table, a table without its shard."""
    folder = tmp_path / "killed"
    interrupt(folder, 4)
    part_path(folder, 0).unlink()
    part_path(folder, 1).write_bytes(b"PK")
    part_path(folder, 7).write_bytes(b"")
    (folder / ".shard-00002.0123456789ab.tar").write_bytes(b"half")
    check(write(folder, SCENES))
    assert shard_bytes(folder) == shard_bytes(made.folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_disk_full(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = shard_bytes(made.folder)
    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(made.folder, {"new": 2})
    assert caught.value.filename == str(made.folder / f"shard-{len(before):05d}.tar")
    assert shard_bytes(made.folder) == before
    check(made)


def test_what_a_writer_refuses(made: Made) -> None:
    cameras, jpegs = make_cameras("new", "https://a/b", [1, 2]), jpegs_of("new", 2)
    with pytest.raises(InputError, match=r"64 x 36, not 64 x 48"), ShardWriter(made.folder, (48, 64)):
        pass
    with pytest.raises(InputError, match="quality 90, not 80"), ShardWriter(made.folder, SIZE, quality=80):
        pass
    with ShardWriter(made.folder, SIZE) as writer:
        with pytest.raises(ValueError, match="one for each of 2 cameras"):
            writer.add_scene(cameras, jpegs[:1])
        with pytest.raises(InputError, match="scene b exists already"):
            writer.add_scene(make_cameras("b", "https://a/b", [1, 2]), jpegs)
        for name in ("a b", "a.b", "a/b", ""):
            with pytest.raises(InputError, match="without space, dot and slash"):
                writer.add_scene(make_cameras(name, "https://a/b", [1, 2]), jpegs)
    check(made)


def test_index_is_made_anew_from_the_shards(made: Made) -> None:
    seen: list[int] = []
    for spoil in (lambda: (made.folder / "data.json").unlink(), lambda: None):
        spoil()
        rebuild_index(made.folder, seen.append)
        check(made)
    assert json.loads((made.folder / "data.json").read_text())["quality"] is None  # was lost with data.json
    assert sum(seen) == 2 * sum(len(data) for data in shard_bytes(made.folder).values())


def test_a_shard_less_goes_on_without_its_scenes(made: Made) -> None:
    (made.folder / "shard-00001.tar").unlink()
    info = rebuild_index(made.folder)
    left = {name: jpegs for name, jpegs in made.jpegs.items() if name in SceneShards(made.folder).names}
    assert 0 < info.scenes == len(left) < len(SCENES)
    check(Made(made.folder, left))
    check(write(made.folder, SCENES))


def test_rebuilding_refuses_what_does_not_belong_together(made: Made, tmp_path: Path) -> None:
    (made.folder / "shard-00009.tar").write_bytes((made.folder / "shard-00000.tar").read_bytes())
    with pytest.raises(InputError, match=r"shard-00009\.tar: scene a is in shard-00000\.tar too"):
        rebuild_index(made.folder)
    with pytest.raises(InputError, match="holds no shards"):
        rebuild_index(tmp_path / "none")


def test_rebuilding_leaves_data_of_a_newer_version_alone(made: Made) -> None:
    path = made.folder / "data.json"
    newer = json.dumps(json.loads(path.read_text()) | {"version": 99})
    path.write_text(newer)
    with pytest.raises(InputError, match="version 99 of the format"):
        rebuild_index(made.folder)
    assert path.read_text() == newer


def flip(path: Path, positions: Sequence[int]) -> None:
    data = bytearray(path.read_bytes())
    for position in positions:
        data[position] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def picture_place(folder: Path, scene: int, frame: int) -> tuple[Path, int]:
    shards = SceneShards(folder)
    row = shards._row(scene, frame)
    return folder / f"shard-{int(shards._table['shards'][scene]):05d}.tar", int(shards._table["offsets"][row]) + 700


def index_file(folder: Path, name: str) -> Path:
    return next(folder.glob(f"index-*/{name}.npy"))


def save_object_array(path: Path) -> None:
    np.save(path, np.array([{}, {}], object), allow_pickle=True)


def replace_version(folder: Path, **values: object) -> None:
    path = folder / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


REBUILD = "--rebuild_index"
DAMAGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "shard cut short": (lambda f: cut(f / "shard-00001.tar", 9000), ("shard-00001.tar", "9000 bytes", "copy it again")),
    "shard missing": (lambda f: (f / "shard-00001.tar").unlink(), ("shard-00001.tar", "missing", REBUILD)),
    "index missing": (lambda f: index_file(f, "sizes").parent.rename(f / "gone"), ("index-", "missing", REBUILD)),
    "array missing": (lambda f: index_file(f, "sizes").unlink(), ("sizes.npy", "missing", REBUILD)),
    "array cut short": (lambda f: cut(index_file(f, "T_cam_world"), 300), ("T_cam_world.npy", "damaged", REBUILD)),
    "array empty": (lambda f: cut(index_file(f, "names"), 0), ("names.npy", "damaged", REBUILD)),
    "array pickled": (lambda f: save_object_array(index_file(f, "names")), ("names.npy", "damaged", REBUILD)),
    "array of another length": (
        lambda f: np.save(index_file(f, "offsets"), np.zeros(3, np.int64)),
        ("offsets.npy", "does not belong to data.json", REBUILD),
    ),
    "array of another type": (
        lambda f: np.save(index_file(f, "counts"), np.ones(5, np.float64)),
        ("counts.npy", "does not belong to data.json", REBUILD),
    ),
    "other counts": (
        lambda f: np.save(index_file(f, "counts"), np.ones(5, np.int32)),
        ("index-", "do not agree", REBUILD),
    ),
    "data.json missing": (lambda f: (f / "data.json").unlink(), ("data.json", "missing", REBUILD)),
    "data.json cut short": (lambda f: cut(f / "data.json", 60), ("data.json", "damaged", REBUILD)),
    "data.json binary": (lambda f: (f / "data.json").write_bytes(b"\xff\x00"), ("data.json", "damaged", REBUILD)),
    "data.json a list": (lambda f: (f / "data.json").write_text("[]"), ("data.json", "damaged", REBUILD)),
    "data.json lacks counts": (lambda f: replace_version(f, frames="many"), ("data.json", "damaged", REBUILD)),
    "newer version": (lambda f: replace_version(f, version=2), ("version 2", "reads 1", "update")),
    "another kind of data": (lambda f: replace_version(f, format="x"), ("data.json", "another kind of data")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_when_the_data_is_opened(made: Made, damage: str) -> None:
    spoil, words = DAMAGES[damage]
    spoil(made.folder)
    with pytest.raises(InputError) as caught:
        SceneShards(made.folder)
    assert str(made.folder) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_folders_that_hold_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder .*compress_data\.py"):
        SceneShards(tmp_path / "no")
    with pytest.raises(InputError, match=r"holds no training data .*compress_data\.py"):
        SceneShards(tmp_path)


def test_damaged_pictures_are_found_when_they_are_read(made: Made) -> None:
    path, place = picture_place(made.folder, 1, 2)
    flip(path, [place])
    shards = SceneShards(made.folder)
    with pytest.raises(InputError, match=rf"{path.name}: scene b: the picture at {stamps(3)[2]} is damaged"):
        shards.picture(1, 2)
    assert shards.picture(1, 1).shape == (*SIZE, 3)  # its neighbours are whole
    with pytest.raises(InputError, match=rf"{path.name}: scene b: picture {stamps(3)[2]}\.jpg is damaged"):
        rebuild_index(made.folder)


def test_a_shard_that_goes_missing_later(made: Made) -> None:
    shards = SceneShards(made.folder)
    (made.folder / "shard-00000.tar").unlink()
    with pytest.raises(InputError, match=r"shard-00000\.tar: this shard is missing"):
        shards.picture(0, 0)


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    small = encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)
    with ShardWriter(tmp_path, SIZE) as writer:
        writer.add_scene(make_cameras("a", "https://a/b", [1]), [small])
    with pytest.raises(InputError, match="scene a: the picture at 1 is damaged"):
        SceneShards(tmp_path).picture(0, 0)
