"""Recorded rigs: which views are drawn and what they show."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from rig_scene_helpers import write_scene
from torch import Tensor

from maskvolume.data.draws import BatchPlan
from maskvolume.data.recorded import RecordedSource
from maskvolume.data.samples import MovingBatch
from maskvolume.geometry.cameras import relative_pose
from maskvolume.io.rig_h5 import open_rig_scenes
from maskvolume.runtime.errors import InputError
from train_mask.rigs import RigDrawing, choose_validation, middle_window, open_rigs

DRAWING = RigDrawing((40, 48), scale=(0.8, 1.5))


def source(
    folder: Path,
    drawing: RigDrawing = DRAWING,
    workers: int = 0,
    seed: int = 0,
    num_sources: tuple[int, int] = (2, 2),
) -> RecordedSource:
    root = str(folder)
    return open_rigs(
        root, root, drawing, seed=seed, num_sources=num_sources, val_samples=5, device=torch.device("cpu"),
        num_workers=workers,
    )  # fmt: skip


def batches(of: RecordedSource, plan: BatchPlan, first: int, count: int) -> list[MovingBatch]:
    stream = of.batches(plan.draws(first))
    found = list(islice(stream, count))
    stream.close()
    return found


def code(picture: Tensor, channel: int, step: int) -> int:
    """The number that a channel tells; JPEG rounds a little."""
    return round(float(picture[channel].mean()) * 255 / step)


def test_views_are_of_one_frame_and_different_cameras(data: Path) -> None:
    seen = set()
    for batch in batches(source(data, num_sources=(2, 3)), BatchPlan(1), 0, 40):
        pictures = [batch.target_image[0], *batch.images[0]]
        cameras = [code(picture, 0, 20) for picture in pictures]
        assert len(set(cameras)) == len(cameras) in (3, 4)
        frames = {round((float(picture[2].mean()) * 255 - 5) / 10) for picture in pictures}
        assert len(frames) == 1
        assert [code(picture, 0, 20) for picture in batch.backgrounds[0]] == cameras[1:]
        assert all(float(picture[2].mean()) * 255 == pytest.approx(245, abs=2) for picture in batch.backgrounds[0])
        matte = float(batch.matte.mean()) * 255
        assert matte == pytest.approx(10 * cameras[0] + frames.pop(), abs=0.6)
        assert (float(batch.near), float(batch.far)) == (pytest.approx(0.9 * 2), pytest.approx(2 * 9))
        seen.add(tuple(cameras[:2]))
    assert len(seen) > 15


def test_crops_have_the_intrinsics_of_what_they_show(data: Path) -> None:
    """Green tells the column of the whole picture."""
    for batch in batches(source(data), BatchPlan(2), 0, 6):
        h, w = batch.target_image.shape[-2:]
        assert (h, w) == DRAWING.size == batch.sources.size
        x = torch.arange(w) + 0.5
        for picture, K in zip(batch.target_image, batch.target.K, strict=True):
            column = (x - K[0, 2]) / K[0, 0] * 60 + 40
            shown = picture[1].mean(dim=0) * 255 / 3 + 0.5
            torch.testing.assert_close(shown[2:-2], column[2:-2], atol=0.7, rtol=0)


def test_poses_are_those_of_the_scene_up_to_a_common_motion(data: Path) -> None:
    rig = open_rig_scenes(data)[0].poses.cameras  # the other scene has the first of the same cameras
    for batch in batches(source(data), BatchPlan(1), 0, 8):
        cameras = [code(picture, 0, 20) for picture in (batch.target_image[0], *batch.images[0])]
        found = relative_pose(batch.sources[0, 0], batch.target[0]).double()
        expected = relative_pose(rig[cameras[1]], rig[cameras[0]])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_samples_depend_on_seed_and_number_alone(data: Path) -> None:
    whole = batches(source(data), BatchPlan(2), 0, 3)
    for other in (
        batches(source(data, workers=2), BatchPlan(2), 0, 3),
        [*batches(source(data), BatchPlan(2), 0, 1), *batches(source(data, workers=1), BatchPlan(2), 1, 2)],
    ):
        for a, b in zip(whole, other, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.target.T_cam_world, b.target.T_cam_world)
    assert not torch.equal(batches(source(data, seed=1), BatchPlan(2), 0, 1)[0].images, whole[0].images)


def test_an_epoch_takes_every_frame_once(data: Path) -> None:
    samples = source(data).samples
    assert len(samples) == 5 + 3
    for epoch in range(3):
        found = [samples.frame_of(epoch * 8 + i) for i in range(8)]
        assert {(scene.name, frame) for scene, frame in found} == {
            *(("a/scene000", i) for i in range(5)), *(("b/c/scene001", i) for i in range(3)),
        }  # fmt: skip


def test_pairs_are_frames_one_after_the_other(data: Path) -> None:
    of = source(data, replace(DRAWING, instants=2))
    assert len(of.samples) == 4 + 2
    for batch in batches(of, BatchPlan(1), 0, 8):
        assert batch.later_images is not None
        assert batch.later_target_images is not None
        assert batch.later_mattes is not None
        first, second = (float(picture[:, 2].mean()) * 255 for picture in (batch.images[0], batch.later_images[0, 0]))
        assert second - first == pytest.approx(10, abs=0.6)
        assert code(batch.later_target_images[0, 0], 0, 20) == code(batch.target_image[0], 0, 20)
        assert float((batch.later_mattes[0, 0] - batch.matte[0]).mean()) * 255 == pytest.approx(1, abs=0.1)


def test_colours_of_all_pictures_of_a_sample_change_alike(data: Path) -> None:
    plain = batches(source(data), BatchPlan(1), 0, 12)
    changed = batches(source(data, replace(DRAWING, jitter=0.4)), BatchPlan(1), 0, 12)
    ratios = []
    for a, b in zip(plain, changed, strict=True):
        assert torch.equal(a.matte, b.matte)
        if not torch.equal(a.target_image, b.target_image):
            ratios.append(
                [float(y.mean() / x.mean()) for x, y in ((a.images, b.images), (a.backgrounds, b.backgrounds))]
            )
    assert len(ratios) >= 5


def test_validation_is_the_same_each_time_and_goes_round_the_rig(data: Path) -> None:
    scenes = open_rig_scenes(data)
    choices = choose_validation(scenes, 8, 2, 1)
    again = choose_validation(open_rig_scenes(data), 8, 2, 1)
    assert [(c.scene.name, c.frame, c.cameras) for c in choices] == [(c.scene.name, c.frame, c.cameras) for c in again]
    for scene in scenes:
        mine = [choice for choice in choices if choice.scene is scene]
        assert len(mine) == 4
        assert len({choice.frame for choice in mine}) >= 3
        assert len({choice.cameras[0] for choice in mine}) >= 3
        assert all(choice.cameras[0] not in choice.cameras[1:] for choice in mine)
    sample = source(data).validation()[1]
    assert sample.target_image.shape == (1, 3, 40, 48)
    assert code(sample.target_image[0], 0, 20) == choose_validation(scenes, 5, 2, 1)[1].cameras[0]


@pytest.mark.parametrize(("picture", "crop"), [((48, 80), (40, 48)), ((40, 48), (80, 96)), ((7, 90), (3, 3))])
def test_the_middle_of_a_picture_has_the_shape_of_the_crop(picture: tuple[int, int], crop: tuple[int, int]) -> None:
    top, left, (h, w) = middle_window(picture, crop)
    assert top >= 0
    assert left >= 0
    assert h == picture[0] or w == picture[1]
    assert h <= picture[0]
    assert w <= picture[1]
    assert h / w == pytest.approx(crop[0] / crop[1], rel=0.02)
    assert abs(2 * top + h - picture[0]) <= 1
    assert abs(2 * left + w - picture[1]) <= 1


def test_scenes_that_do_not_suffice_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scene001\.h5: has 4 cameras, but a target and 4 sources"):
        open_rigs(str(data), str(data), DRAWING, seed=0, num_sources=(2, 4), val_samples=1,
                  device=torch.device("cpu"), num_workers=0)  # fmt: skip
    write_scene(tmp_path / "scene.h5", 4, 1)
    with pytest.raises(InputError, match=r"scene\.h5: has a single frame"):
        source(tmp_path, replace(DRAWING, instants=2))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_data_is_one_error_from_workers_too(tmp_path: Path, workers: int) -> None:
    write_scene(tmp_path / "scene.h5", 4, 6, compact=True)
    of = source(tmp_path, workers=workers)
    content = bytearray((tmp_path / "scene.h5").read_bytes())
    for place in range(3000, len(content), 97):
        content[place] ^= 0xFF
    (tmp_path / "scene.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"scene\.h5"):
        batches(of, BatchPlan(4), 0, 3)
