"""Ways to make a novel view: which of them a checkpoint allows, and what they share."""

from __future__ import annotations

import torch

from benchmarks.cost.sides import Setting
from benchmarks.quality.methods import (
    BASELINES,
    BLENDED,
    FRAME_MPI,
    MASK_2D,
    MASK_VOLUME,
    METHODS,
    MORE,
    NEAREST,
    NovelView,
    Row,
    blend_pictures,
    choose_rows,
    first_stage,
)
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel


def test_rows_are_those_that_the_checkpoints_allow(model: MaskVolumeModel) -> None:
    mpi = first_stage(model)
    names = [row.name for row in choose_rows({"a": mpi}, METHODS)]
    assert names == [*BASELINES, FRAME_MPI]
    both = choose_rows({"a": model, "b": mpi}, [NEAREST, FRAME_MPI, MASK_VOLUME, MASK_2D])
    assert both[0] == Row(NEAREST, NEAREST)
    assert [row.name for row in both[1:]] == [
        *(f"{method} [a]" for method in (FRAME_MPI, MASK_2D, MASK_VOLUME)),
        f"{FRAME_MPI} [b]",
    ]
    allowed = {row.method for row in choose_rows({"a": model}, METHODS)}
    assert ({MORE, BLENDED} <= allowed) == (model.arch.max_views is None)
    original = MaskVolumeModel(CheckpointMeta("mask", "original", num_planes=8))
    assert original.arch.max_views is not None
    assert not {MORE, BLENDED} & {row.method for row in choose_rows({"a": original}, METHODS)}


def test_the_first_stage_shares_its_weights(model: MaskVolumeModel) -> None:
    alone = first_stage(model)
    assert not alone.has_mask
    assert alone.mpi_net is model.mpi_net
    assert model.has_mask


def test_a_blend_of_equal_pictures_is_that_picture() -> None:
    frame = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blend_pictures(frame, frame), frame)
    background = frame.clone()
    background[:, 4:8, 4:8] = 1 - frame[:, 4:8, 4:8].round()  # something else stands there
    blend = blend_pictures(frame, background)
    torch.testing.assert_close(blend[:, :, 10:], frame[:, :, 10:])
    inside = (slice(None), slice(5, 7), slice(5, 7))
    assert (blend - frame)[inside].abs().mean() < 0.5 * (background - frame)[inside].abs().mean()


def test_the_nearest_camera_is_shown_as_it_is(setting: Setting, model: MaskVolumeModel) -> None:
    models = {"a": model}
    rows = choose_rows(models, [NEAREST, FRAME_MPI])
    view = NovelView(setting.clip, models, rows, (1, 2, 0, 3), setting.target, setting.size)
    with torch.no_grad():
        pictures = view.pictures(0)
    assert list(pictures) == [NEAREST, FRAME_MPI]
    torch.testing.assert_close(pictures[NEAREST], setting.picture(1, 0))
    assert pictures[FRAME_MPI].shape == pictures[NEAREST].shape
