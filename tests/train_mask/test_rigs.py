"""Stage two on recorded rigs: which views are drawn, what they show, and the whole program on both forms of data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import make_camera
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from maskvolume.data.draws import BatchPlan
from maskvolume.data.recorded import RecordedSource
from maskvolume.data.samples import MovingBatch
from maskvolume.geometry.cameras import relative_pose, stack_cameras
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.rig_h5 import open_rig_scenes
from maskvolume.io.rig_h5_writer import SceneForm, write_rig_scene
from maskvolume.losses import masked_l1_loss
from maskvolume.mpi.checkpoints import load_model, save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.runtime.errors import InputError
from train_mask.rigs import RigDrawing, choose_validation, middle_window, open_rigs

SIZE = (48, 80)
DRAWING = RigDrawing((40, 48), scale=(0.8, 1.5))
SMALL = ("--img_hw", 32, 48, "--num_planes", 8, "--margin", 8, "--device", "cpu", "--precision", "fp32")


class Source:
    """Red says which camera, blue which frame, green grows to the right; backgrounds have no frame."""

    def __init__(self, cameras: int, frames: int) -> None:
        self.num_cameras, self.num_frames, self.size = cameras, frames, SIZE

    def picture(self, camera: int, frame: int) -> np.ndarray:
        picture = np.empty((*SIZE, 3), np.uint8)
        picture[..., 0], picture[..., 2] = 20 * camera, 10 * frame + 5
        picture[..., 1] = np.arange(SIZE[1]) * 3
        return picture

    def jpeg(self, camera: int, frame: int) -> bytes | None:
        return None

    def background(self, camera: int) -> np.ndarray:
        return self.picture(camera, 24)

    def matte(self, camera: int, frame: int) -> np.ndarray:
        return np.full(SIZE, 10 * camera + frame, np.uint8)


def write_scene(path: Path, cameras: int, frames: int, *, compact: bool = False) -> None:
    rig = stack_cameras([make_camera(seed, SIZE) for seed in range(cameras)])
    K = torch.tensor([[60.0, 0, 40], [0, 60, 24], [0, 0, 1]], dtype=torch.float64)
    bounds = torch.tensor([[2.0 + c, 9.0] for c in range(cameras)], dtype=torch.float64)
    poses = RigPoses(type(rig)(rig.T_cam_world, K.expand(cameras, 3, 3), SIZE), bounds)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rig_scene(path, Source(cameras, frames), poses, SceneForm(compact=compact, quality=100), attributes={})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes: the original's form one folder down, the compact one two folders down."""
    folder = tmp_path_factory.mktemp("rigs")
    write_scene(folder / "a/scene000.h5", 6, 5)
    write_scene(folder / "b/c/scene001.h5", 4, 3, compact=True)
    return folder


def source(folder: Path, drawing: RigDrawing = DRAWING, workers: int = 0, seed: int = 0) -> RecordedSource:
    return open_rigs(
        str(folder), str(folder), drawing, seed=seed, num_sources=(2, 3), val_samples=5, device=torch.device("cpu"),
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
    for batch in batches(source(data), BatchPlan(1, num_sources=(2, 3)), 0, 40):
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


@pytest.fixture
def first_stage(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, MaskVolumeModel(CheckpointMeta("mpi", "semiglobal", num_planes=8)))
    return path


def test_the_config_trains_on_recorded_rigs(
    run_program: Callable[..., Any], data: Path, first_stage: Path, tmp_path: Path
) -> None:
    words = (*SMALL, "--mpi_model", first_stage, "--root_dir", data, "--val_dir", data, "--num_cams", 4)
    run = run_program(
        "train_mask/train.py", "--config", "train_mask.txt", *words, "--temporal_weight", 1, "--debug", cwd=tmp_path
    )
    assert run.rc == 0, run.stderr
    model = load_model(tmp_path / "runs/checkpoints/debug/model.safetensors")
    assert model.meta.stage == "mask"
    kept = load_model(first_stage).mpi_net.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in model.mpi_net.state_dict().items())
    events = EventAccumulator(str(tmp_path / "runs/logs/debug"))
    events.Reload()
    shapes = {tag.rsplit("/", 1)[1]: events.Images(tag)[0] for tag in events.Tags()["images"]}
    # Truth, prediction, dynamic and background rendering, disparity; mask beside matte; planes of the mask volume.
    assert {name: (event.height, event.width) for name, event in shapes.items()} == {
        "views": (32, 5 * 48), "mask_and_matte": (32, 2 * 48), "mask_slices": (48, 8 * 64),
    }  # fmt: skip


def test_the_first_stage_learns_along_where_asked(
    run_program: Callable[..., Any], data: Path, first_stage: Path, tmp_path: Path
) -> None:
    kept = load_model(first_stage).mpi_net.state_dict()
    words = (*SMALL, "--mpi_model", first_stage, "--dataset_name", "mixed", "--root_dir", data, "--val_dir", data)
    words = (*words, "--num_steps", 2, "--val_samples", 1, "--optimizer", "sgd", "--lr", 1e-3, "--weight_decay", 0)
    moved = {}
    for rate in (1e-3, 1e-5):
        run = run_program(
            "train_mask/train.py", *words, "--finetune_mpi", "--mpi_lr", rate, "--exp_name", f"r{rate}", cwd=tmp_path
        )
        assert run.rc == 0, run.stderr
        model = load_model(tmp_path / f"runs/checkpoints/r{rate}/model.safetensors")
        moved[rate] = sum(float((value - kept[key]).abs().sum()) for key, value in model.mpi_net.state_dict().items())
    assert moved[1e-3] > 10 * moved[1e-5] > 0


@pytest.mark.parametrize("loss_type", ["full_loss", "no_mask", "image", "masked_l1", "l1", "mse"])
def test_every_loss_is_the_sum_of_its_terms(loss_type: str) -> None:
    from train_mask.train import MASK_WEIGHT, SPARSITY_WEIGHT, MaskTask, MaskTrainOptions

    torch.manual_seed(0)
    model = MaskVolumeModel(CheckpointMeta("mask", "semiglobal", num_planes=8))
    options = MaskTrainOptions(
        mpi_model="",
        img_hw=(32, 48),
        num_planes=8,
        margin=8,
        loss_type=loss_type,
        temporal_weight=0.5,
        moving_weight=2.0,
    )
    task = MaskTask(options, torch.device("cpu"))
    batch = next(task.source.batches(BatchPlan(1).draws(3)))
    with torch.no_grad():
        loss, scalars = task.loss(model, batch)
    expected = scalars["image_loss"] + 0.5 * scalars["temporal_loss"]
    assert ("mask_loss" in scalars) == (loss_type == "full_loss")
    assert ("mask_mean" in scalars) == (loss_type in ("full_loss", "no_mask"))
    expected = expected + MASK_WEIGHT * scalars.get("mask_loss", 0) + SPARSITY_WEIGHT * scalars.get("mask_mean", 0)
    torch.testing.assert_close(loss, expected)
    background = task._background(model, batch)
    with torch.no_grad():
        rendering = task._frame(model, batch, batch.images, background).mpi.render(batch.target)
    near = F.max_pool2d(batch.matte, 5, stride=1, padding=2)  # within a twentieth of the width of 48
    weight = rendering.opacity * (1 + 2.0 * (2 * batch.matte + near) / 3)
    error = (rendering.color - batch.target_image).abs()
    if loss_type == "l1":
        torch.testing.assert_close(
            scalars["image_loss"], (error * weight).sum() / weight.sum() / 3, rtol=1e-4, atol=1e-6
        )
    if loss_type == "mse":
        torch.testing.assert_close(
            scalars["image_loss"], (error**2 * weight).sum() / weight.sum() / 3, rtol=1e-4, atol=1e-6
        )
    if loss_type == "masked_l1":
        found = masked_l1_loss(rendering.color, batch.target_image, weight, batch.matte)
        torch.testing.assert_close(scalars["image_loss"], found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--num_cams", 2), ("--num_cams", "3 or more")),
        (("--scale", 2, 1), ("--scale",)),
        (("--temporal_weight", -1), ("--temporal_weight",)),
        (("--dataset_name", "rig", "--root_dir", ".", "--val_dir", "."), ("rig training data", "compress_rig.py")),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(
    run_program: Callable[..., Any],
    first_stage: Path,
    tmp_path: Path,
    arguments: tuple[Any, ...],
    words: tuple[str, ...],
) -> None:
    run = run_program("train_mask/train.py", "--mpi_model", first_stage, *arguments, cwd=tmp_path)
    run.check_input_error(*words)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.pt"))
