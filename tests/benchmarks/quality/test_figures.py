"""Figures of pictures beside the truth, and their means."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.quality.figures import (
    MEASURES,
    Moment,
    mean_of,
    means,
    measure,
)
from maskvolume.metrics import ms_ssim, psnr, ssim


def test_figures_are_those_of_the_metrics() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 176, 180, generator=generator)
    picture = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    dynamic = torch.zeros(1, 176, 180, dtype=torch.bool)
    dynamic[:, 20:60, 30:90] = True
    moments = [Moment(truth, dynamic, None, {"ours": picture})] * 2
    kept, table = measure(moments, 1, lambda a, b: float((a - b).abs().mean()))
    figures = {name: values[0] for name, values in table["ours"].items()}
    assert kept is moments[1]
    assert list(figures) == list(MEASURES)
    expected = {
        "psnr": psnr(picture, truth), "ssim": ssim(picture, truth), "ms_ssim": ms_ssim(picture, truth),
        "lpips": (picture - truth).abs().mean(), "psnr_dynamic": psnr(picture, truth, dynamic),
        "ssim_dynamic": ssim(picture, truth, dynamic),
    }  # fmt: skip
    for name, value in expected.items():
        assert figures[name] == pytest.approx(float(value), abs=1e-3), name
    assert figures["psnr_disoccluded"] is figures["flicker"] is None
    assert table["ours"]["flicker"] == [None, 0.0]
    with pytest.raises(ValueError, match="keep"):
        measure(moments, 2)


def test_equal_pictures_do_not_count_in_means() -> None:
    """Their PSNR is infinite, which no file of figures can hold."""
    truth = torch.rand(3, 48, 64)
    moments = [Moment(truth, None, None, {"ours": picture}) for picture in (truth, (truth + 0.1).clamp(0, 1))]
    _, table = measure(moments, 0)
    assert table["ours"]["psnr"][0] is None
    found = means(table)["ours"]
    assert found["psnr"] == table["ours"]["psnr"][1]
    assert found["flicker"] is None
    other = {"ours": {"psnr": 10.0, "flicker": 1.0}}
    both = mean_of([{"ours": {"psnr": 20.0, "flicker": None}}, other, {"theirs": {"psnr": None, "flicker": 2.0}}])
    assert both == {"ours": {"psnr": 15.0, "flicker": 1.0}, "theirs": {"psnr": None, "flicker": 2.0}}
    assert not math.isinf(found["ssim"] or 0)
