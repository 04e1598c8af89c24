"""What moves, found as a difference to the background."""

from __future__ import annotations

import numpy as np
import pytest
from matte_helpers import SIZE, Scene, make_scene

from data_tools.mattes.difference import BackgroundModel, DifferenceSettings, soften
from maskvolume.clips.backgrounds import temporal_median


def overlap(scene: Scene, settings: DifferenceSettings | None = None) -> float:
    """Intersection over union of all frames."""
    model = scene.model()
    found = [model.moving(frame, settings or DifferenceSettings()) for frame in scene.frames]
    both = sum(int((a & b).sum()) for a, b in zip(found, scene.discs, strict=True))
    return both / sum(int((a | b).sum()) for a, b in zip(found, scene.discs, strict=True))


@pytest.mark.parametrize(
    "spoilt",
    [{}, {"noise": 3}, {"noise": 8}, {"flicker": 0.08}, {"quality": 60}, {"noise": 4, "flicker": 0.05, "quality": 80}],
)
def test_what_moves_is_found_under_noise_flicker_and_compression(spoilt):
    assert overlap(make_scene(**spoilt)) > 0.85


def test_shadows_are_dropped_or_kept():
    scene = make_scene(noise=1)
    model = scene.model()
    for frame, shadow in zip(scene.frames[2:7], scene.shadows[2:7], strict=True):
        assert model.moving(frame, DifferenceSettings())[shadow].mean() < 0.1
        assert model.moving(frame, DifferenceSettings(keep_shadows=True))[shadow].mean() > 0.8


def test_a_thing_that_looks_like_a_shadow_inside_is_filled():
    scene = make_scene(noise=1)
    flat = make_scene(noise=1, paint=lambda wall: np.full_like(wall, 40))
    assert overlap(scene) > 0.9
    assert overlap(flat) > 0.85


def test_the_exposure_of_one_frame_is_no_motion():
    scene = make_scene(noise=1)
    model = scene.model()
    brighter = (scene.frames[4] * 1.15).clip(0, 255).astype(np.uint8)
    both = model.moving(brighter, DifferenceSettings()), model.moving(scene.frames[4], DifferenceSettings())
    assert (both[0] & both[1]).sum() > 0.9 * (both[0] | both[1]).sum()


def test_nothing_moves():
    rng = np.random.default_rng(0)
    wall = rng.integers(60, 200, (*SIZE, 3))
    frames = [(wall + rng.normal(0, 4, wall.shape)).clip(0, 255).astype(np.uint8) for _ in range(5)]
    model = BackgroundModel(temporal_median(frames.__getitem__, 5), frames.__getitem__, 5)
    assert not any(model.moving(frame, DifferenceSettings()).any() for frame in frames)


def test_small_regions_are_dropped_and_the_edge_is_soft():
    scene = make_scene()
    model = scene.model()
    speck = scene.frames[2].copy()
    speck[20:24, 250:254] = 255
    area = 16 / (SIZE[0] * SIZE[1])
    assert not model.moving(speck, DifferenceSettings(min_area=4 * area))[15:30, 240:260].any()
    assert model.moving(speck, DifferenceSettings(min_area=0))[15:30, 240:260].any()
    mask = model.moving(scene.frames[4], DifferenceSettings())
    assert set(np.unique(soften(mask, 0))) == {0, 255}
    soft = soften(mask, 2)
    assert len(np.unique(soft)) > 50
    assert abs(int((soft >= 128).sum()) - int(mask.sum())) < 0.02 * mask.sum()
