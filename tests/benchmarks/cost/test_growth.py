"""How time grows with planes, pixels and views, and how it is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.cost import growth
from benchmarks.cost.growth import SCALES, SMALLEST, VIEWS, measure_growth, print_growth, print_pipeline
from benchmarks.cost.sides import Setting
from maskvolume.mpi.model import MaskVolumeModel


def test_each_axis_grows_alone(setting: Setting, model: MaskVolumeModel, capsys: pytest.CaptureFixture[str]) -> None:
    large = replace(setting, size=(96, 128), target=setting.target.scaled((96, 128)))
    result = measure_growth(large, model, 1, planes=(4, 8))
    assert result["size_wh"] == [32, 24]  # a quarter, on the processor
    assert [row["num_planes"] for row in result["planes"]] == [4, 8]
    assert {tuple(row["size_wh"]) for row in result["planes"]} == {(32, 24)}
    assert [row["value"] for row in result["pixels"]] == [scale**2 for scale in SCALES]
    assert {row["num_planes"] for row in result["pixels"]} == {setting.num_planes}
    assert [row["value"] for row in result["views"]] == list(VIEWS)
    for row in result["views"]:
        assert row["a_view"] == pytest.approx(row["launch"]["median"] / row["value"], rel=1e-3, abs=2e-8)
    print_growth(result)
    shown = capsys.readouterr().out
    assert "from 32 x 24 and 8 planes" in shown
    assert len([line for line in shown.splitlines() if line.startswith("| planes")]) == 2
    assert len([line for line in shown.splitlines() if line.startswith("| pixels")]) == len(SCALES)


def test_no_side_is_smaller_than_the_networks_allow(setting: Setting) -> None:
    small = growth._resized(setting, 0.01)
    assert small.size == (SMALLEST, SMALLEST)
    assert small.target.size == (SMALLEST, SMALLEST)
    assert torch.equal(growth._resized(setting, 1.0).target.K, setting.target.K)


def test_the_pace_is_shown_as_it_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    pace = growth._pace(ours=0.02, theirs=0.5)
    assert pace == {"original": 0.5, "ours": 0.02, "frames_a_second": 50.0, "ratio": 25.0}
    print_pipeline({"frames": 3, "from memory": pace, "from files to files": pace})
    shown = capsys.readouterr().out
    assert "over 3 frames" in shown
    assert shown.count("0.5000 |") == 2
    assert shown.count("25.0 |") == 2
