"""Times of single operations beside the bytes that they move."""

from __future__ import annotations

import pytest
import torch

from benchmarks.cost.operations import (
    PLANE_TYPES,
    calls_in_a_row,
    device_times,
    measure_blend,
    measure_planes,
    mpi_of,
    path_of,
    with_floor,
)
from benchmarks.cost.sides import Setting, make_renderer
from maskvolume.mpi.model import MaskVolumeModel


def test_a_time_stands_beside_the_floor_of_its_bytes() -> None:
    entry = with_floor([2.0, 1.0, 4.0], moved=10**9, bandwidth=10.0**9)
    assert (entry["median"], entry["spread"]) == (2.0, 3.0)
    assert entry["floor"] == 1.0
    assert entry["of_copy"] == 0.5
    assert entry["gb_a_second"] == 0.5


def test_on_the_processor_each_call_is_timed(setting: Setting) -> None:
    calls = []
    assert calls_in_a_row(setting) == 1
    assert len(device_times(setting, 3, lambda: calls.append(1))) == 3
    assert len(calls) == 4  # the first one doesn't count


def test_a_path_has_so_many_cameras(setting: Setting) -> None:
    for count in (1, 4, 5):
        path = path_of(setting, count)
        assert path.T_cam_world.shape == (count, 4, 4)
        assert path.size == setting.size


def test_planes_of_fewer_bytes_move_fewer(setting: Setting, model: MaskVolumeModel) -> None:
    renderer = make_renderer(setting, model)
    result = measure_planes(setting, renderer, 1, 1e9)
    planes = mpi_of(renderer).rgba
    assert list(result) == list(PLANE_TYPES)
    wide, half, byte = (result[name]["bytes"] for name in PLANE_TYPES)
    assert wide - half == 2 * planes.numel()
    assert half - byte == planes.numel()


def test_blending_first_moves_the_planes_twice_more(setting: Setting, model: MaskVolumeModel) -> None:
    renderer = make_renderer(setting, model)
    result = measure_blend(setting, renderer, 1, 1e9)
    assert result is not None
    planes = mpi_of(renderer).rgba
    assert result["blend, then render"]["bytes"] - result["fused"]["bytes"] == 2 * 4 * planes.numel()
    medians = result["blend, then render"]["median"] / result["fused"]["median"]
    assert result["ratio"] == pytest.approx(medians, rel=0.02, abs=0.01)


def test_nothing_is_blended_by_a_model_of_stage_one(setting: Setting, model: MaskVolumeModel) -> None:
    from benchmarks.quality.methods import first_stage

    torch.manual_seed(0)
    assert measure_blend(setting, make_renderer(setting, first_stage(model)), 1, 1e9) is None
