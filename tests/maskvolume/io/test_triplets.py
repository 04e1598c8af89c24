"""Validation choices: read as written, drawn the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from realestate10k_helpers import make_cameras

from maskvolume.io.shards import SceneShards, ShardWriter, encode_jpeg
from maskvolume.io.triplets import (
    ViewChoice,
    draw_triplets,
    read_triplets,
    write_triplets,
)
from maskvolume.runtime.errors import InputError

COUNTS = {"two": 2, "three": 3, "short": 6, "long": 30}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> SceneShards:
    """Scenes of 2 to 30 frames, a frame every 100 microseconds."""
    folder = tmp_path_factory.mktemp("data")
    jpeg = encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)
    with ShardWriter(folder, (8, 8)) as writer:
        for name, count in COUNTS.items():
            writer.add_scene(make_cameras(name, "https://a/b", range(0, 100 * count, 100)), [jpeg] * count)
    return SceneShards(folder)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    choices = [ViewChoice("a", 5, (1, 9)), ViewChoice("b-2", 0, (10, 20, 30))]
    path = tmp_path / "triplets.txt"
    write_triplets(path, choices)
    assert read_triplets(path) == choices
    path.write_text("# heading\n\na 5 1 9   # comment\nb-2 0 10 20 30\n")
    assert read_triplets(path) == choices


@pytest.mark.parametrize("line", ["a", "a 1 2", "a 1 2 x", "a 1 2 3.5", "1 2 3"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "triplets.txt"
    path.write_text(f"a 1 2 3\n{line}\n")
    with pytest.raises(InputError, match=r"triplets\.txt: line 2: `SCENE TARGET SOURCE SOURCE`"):
        read_triplets(path)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_triplets(tmp_path / "no.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="no choice"):
        read_triplets(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_triplets(tmp_path / "binary.txt")


def test_choices_are_the_same_for_the_same_seed(shards: SceneShards) -> None:
    assert draw_triplets(shards, 20, 3) == draw_triplets(SceneShards(shards.folder), 20, 3)
    assert draw_triplets(shards, 20, 3) != draw_triplets(shards, 20, 4)
    assert draw_triplets(shards, 20, 3)[:7] == draw_triplets(shards, 7, 3)


def test_choices_are_views_of_the_scenes(shards: SceneShards) -> None:
    choices = draw_triplets(shards, 300, 0, strides=(3, 10))
    assert {choice.scene for choice in choices[:3]} == {"three", "short", "long"}  # all before one comes again
    between, strides = [], set()
    for choice in choices:
        first, second = (stamp // 100 for stamp in choice.sources)
        target = choice.target // 100
        assert min(first, target) >= 0
        assert max(second, target) < COUNTS[choice.scene]
        assert target not in (first, second)
        stride = second - first
        assert first - stride <= target <= second + stride
        if choice.scene == "long":
            assert 3 <= stride <= 10
            strides.add(stride)
            between.append(first < target < second)
    assert strides == set(range(3, 11))
    assert 0.5 < np.mean(between) < 0.8


def test_scenes_that_are_too_short(tmp_path: Path) -> None:
    jpeg = encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)
    with ShardWriter(tmp_path, (8, 8)) as writer:
        writer.add_scene(make_cameras("two", "https://a/b", [1, 2]), [jpeg] * 2)
    with pytest.raises(InputError, match="no scene has three frames"):
        draw_triplets(SceneShards(tmp_path), 1)
