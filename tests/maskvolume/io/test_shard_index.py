"""The index of shards: what a scan of a shard finds, and what is written of it is read."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from realestate10k_helpers import make_cameras

from maskvolume.io.shard_index import (
    FRAME_ARRAYS,
    SCENE_ARRAYS,
    DataInfo,
    list_shards,
    load_part,
    open_index,
    picture_size,
    publish_index,
    save_part,
    scan_shard,
    shard_name,
)
from maskvolume.io.shards import ShardWriter, encode_jpeg
from maskvolume.runtime.errors import InputError

SIZE = (36, 64)


def write_shard(folder: Path, scenes: dict[str, int]) -> Path:
    """One shard with scenes of so many frames of noise."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder, SIZE, quality=90, shard_mb=1) as writer:
        for name, count in scenes.items():
            pictures = [encode_jpeg(rng.integers(0, 256, (*SIZE, 3), np.uint8), 90) for _ in range(count)]
            cameras = make_cameras(name, "https://a/b", [1000 + 33_366 * i for i in range(count)])
            writer.add_scene(cameras, pictures, (1.5, 40.0) if name.startswith("b") else None)
    return folder / shard_name(0)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_shard(tmp_path, {"a": 2, "b": 2, "c": 2})


def test_a_scan_finds_what_the_index_holds(shard: Path) -> None:
    found, index = scan_shard(shard, 0), open_index(shard.parent, DataInfo.read(shard.parent))
    assert set(found) == {*FRAME_ARRAYS, *SCENE_ARRAYS}
    for name, array in found.items():
        np.testing.assert_array_equal(array, index[name], err_msg=name)
    assert found["counts"].tolist() == [2, 2, 2]
    assert found["names"].tolist() == ["a", "b", "c"]
    assert picture_size(shard, found) == SIZE[::-1]


def test_a_scan_tells_how_far_it_is(shard: Path) -> None:
    steps: list[int] = []
    scan_shard(shard, 0, steps.append)
    assert sum(steps) == shard.stat().st_size
    assert min(steps) >= 0


def test_shards_are_listed_by_number(tmp_path: Path) -> None:
    for name in (shard_name(10), shard_name(2), "shard-x.tar", "other.tar"):
        (tmp_path / name).touch()
    assert list(list_shards(tmp_path)) == [2, 10]


def test_a_table_is_read_back_and_a_damaged_one_is_none(shard: Path) -> None:
    folder, table = shard.parent, scan_shard(shard, 0)
    save_part(folder, 7, table)
    read = load_part(folder, 7)
    assert read is not None
    for name, array in table.items():
        np.testing.assert_array_equal(read[name], array)
    assert load_part(folder, 8) is None
    path = next(folder.glob(".shard-*.npz"))
    path.write_bytes(path.read_bytes()[:200])
    assert load_part(folder, 7) is None


def test_a_new_index_replaces_the_old_one(shard: Path) -> None:
    folder, info = shard.parent, DataInfo.read(shard.parent)
    save_part(folder, 0, scan_shard(shard, 0))
    new = publish_index(folder, info, None, [0])
    assert new.index != info.index
    assert [path.name for path in folder.glob("index-*")] == [new.index]
    assert not list(folder.glob(".shard-*.npz"))
    assert DataInfo.read(folder) == new
    assert (new.scenes % info.scenes, new.shards) == (0, info.shards)


def test_no_damage_of_a_shard_passes_the_scan(shard: Path) -> None:
    """A flipped bit is found or is in bytes that are never read; a truncation is always found."""
    whole, truth = shard.read_bytes(), scan_shard(shard, 0)
    rng = np.random.default_rng(0)
    # Headers and cameras first: a member begins every 512 bytes.
    dense = [int(p) for p in rng.integers(len(whole), size=250)]
    headers = [at + int(o) for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"
               for o in rng.integers(160, size=10)]  # fmt: skip
    found = 0
    for position in (*dense, *headers):
        data = bytearray(whole)
        data[position] ^= 1 << int(rng.integers(8))
        shard.write_bytes(data)
        try:
            table = scan_shard(shard, 0)
        except InputError:
            found += 1
            continue
        for name, array in table.items():
            np.testing.assert_array_equal(array, truth[name], err_msg=f"{name}, byte {position}")
    assert found > 200
    for size in rng.integers(len(whole) - 2 * tarfile.RECORDSIZE, size=60):
        shard.write_bytes(whole[: int(size) // 512 * 512])
        with pytest.raises(InputError):
            scan_shard(shard, 0)
