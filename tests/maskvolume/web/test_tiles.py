from __future__ import annotations

import numpy as np
import pytest

from maskvolume.runtime.errors import InputError
from maskvolume.web.tiles import (
    STILL,
    Atlas,
    Changes,
    TileGrid,
    assemble,
    straight_slots,
)


def smooth_layers(layers: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    """Premultiplied uint8 ``[L, H, W, 4]`` with opaque, half transparent and empty parts."""
    y, x = np.mgrid[:h, :w]
    random = np.random.default_rng(seed)
    out = np.zeros((layers, h, w, 4), dtype=np.uint8)
    for layer in range(layers):
        phase = random.random(4) * 6
        alpha = (np.sin(x / 7 + phase[0]) * np.cos(y / 9 + phase[1]) * 1.4 + 0.5).clip(0, 1)
        color = np.stack([0.5 + 0.4 * np.sin(x / 11 + y / 13 + p) for p in phase[1:]], axis=-1)
        out[layer] = np.round(np.concatenate([color * alpha[..., None], alpha[..., None]], axis=-1) * 255)
    return out


@pytest.mark.parametrize("size", [(56, 84), (50, 75), (27, 29)])
def test_slots_hold_tiles_with_their_neighbours(size: tuple[int, int]) -> None:
    layers = smooth_layers(2, *size)
    grid = TileGrid(layers.shape[:3])
    everything = np.argwhere(np.ones(grid.counts, dtype=bool))
    slots = grid.slots(layers, everything)
    assert slots.shape == (len(everything), 32, 32, 4)
    wide = np.pad(layers, ((0, 0), (2, 40), (2, 40), (0, 0)))
    for (layer, row, column), slot in zip(everything, slots, strict=True):
        np.testing.assert_array_equal(slot, wide[layer, row * 28 :, column * 28 :][:32, :32])


def test_what_is_cut_drawn_and_read_again_is_the_same() -> None:
    layers = smooth_layers(3, 50, 75)
    grid = TileGrid(layers.shape[:3])
    everything = np.argwhere(np.ones(grid.counts, dtype=bool))
    slots = straight_slots(grid.slots(layers, everything))
    atlas = Atlas.of(len(slots), grid.slot, (4096, 4096), "tiles")
    picture = atlas.draw(slots)
    assert picture.shape == (*atlas.size, 3)
    assert not any(side % 2 for side in atlas.size)
    again = atlas.read(picture)
    np.testing.assert_array_equal(again, slots)
    found = assemble(grid, [(everything, again)])
    assert found.shape == layers.shape
    np.testing.assert_array_equal(found[..., 3], layers[..., 3])
    assert np.abs(found.astype(int) - layers).max() <= 1  # a colour is rounded once more


def test_colours_go_on_into_what_is_empty() -> None:
    slots = np.zeros((2, 32, 32, 4), dtype=np.uint8)
    slots[0, 8:20, 8:20] = [200, 40, 80, 255]
    straight = straight_slots(slots)
    np.testing.assert_array_equal(straight[0, :, :, :3].reshape(-1, 3), np.tile([200, 40, 80], (1024, 1)))
    np.testing.assert_array_equal(straight[..., 3], slots[..., 3])
    assert len(np.unique(straight[1, ..., :3])) == 1  # nothing is there: one grey


def test_straight_colours_are_those_of_half_transparent_texels() -> None:
    slots = np.zeros((1, 32, 32, 4), dtype=np.uint8)
    slots[0, :, :16] = [60, 30, 100, 120]
    slots[0, :, 16:] = [20, 90, 10, 240]
    straight = straight_slots(slots)[0, ..., :3].astype(int)
    assert np.abs(straight[:, :16] - [128, 64, 212]).max() <= 1
    assert np.abs(straight[:, 16:] - [21, 96, 11]).max() <= 1


def find(frames: list[np.ndarray], seen: np.ndarray | float = 1.0):
    grid = TileGrid(frames[0].shape[:3])
    changes = Changes(grid)
    for frame in frames:
        changes.add(frame)
    mean = changes.mean
    for frame in frames:
        changes.compare(frame, mean, np.broadcast_to(np.float32(seen), grid.shape))
    return changes.tiles(), mean


def listed(tiles: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, tile)) for tile in tiles]


def test_tiles_are_empty_still_or_moving() -> None:
    frames = [np.zeros((2, 56, 84, 4), dtype=np.uint8) for _ in range(4)]
    for number, frame in enumerate(frames):
        frame[0, 3:20, 3:20] = 180  # stays
        frame[1, 30:40, 5 + 5 * number : 15 + 5 * number] = 200  # moves from one tile to the next
        frame[0, 30:50, 60:80] = 100 + 2 * number  # flickers by less than what counts
        frame[1, :20, 60:80, 3] = 3  # as good as empty
    tiles, mean = find(frames)
    assert listed(tiles.still) == [(0, 0, 0), (0, 1, 2)]
    assert listed(tiles.moving) == [(1, 1, 0), (1, 1, 1)]
    assert mean[0, 40, 70, 0] == 103


def test_what_no_viewpoint_sees_is_left_out() -> None:
    frames = [np.zeros((1, 28, 56, 4), dtype=np.uint8) for _ in range(2)]
    frames[0][:, :, 28:] = 200
    frames[1][:, :, :] = 200
    seen = np.ones((1, 28, 56), dtype=np.float32)
    tiles, _ = find(frames, seen)
    assert listed(tiles.moving) == [(0, 0, 0)]
    assert listed(tiles.still) == [(0, 0, 1)]
    seen[..., :28] = 0
    tiles, _ = find(frames, seen)
    assert listed(tiles.moving) == []
    assert listed(tiles.still) == [(0, 0, 1)]


def test_noise_of_texels_is_no_motion_but_a_block_that_changes_is() -> None:
    random = np.random.default_rng(0)
    quiet = np.full((1, 28, 28, 4), 128, dtype=np.uint8)
    noisy = [quiet + random.integers(-8, 9, quiet.shape).astype(np.int8).view(np.uint8) for _ in range(6)]
    assert len(find(noisy)[0].moving) == 0
    change = int(2 * STILL + 4)  # from the mean of the two: half of it
    other = quiet.copy()
    other[0, 8:16, 8:16] += change
    assert len(find([quiet, other])[0].moving) == 1


def test_an_atlas_that_does_not_fit_is_refused() -> None:
    assert max(Atlas.of(8192, 32, (4096, 4096), "static content").size) <= 4096
    h, w = Atlas.of(4608, 32, (4096, 2304), "moving content").size
    assert w <= 2304 < h <= 4096
    for largest in ((4096, 2304), (4096, 4096)):
        with pytest.raises(InputError, match="moving content: 9000 tiles"):
            Atlas.of(9000, 32, largest, "moving content")
