"""Pieces of an export: kept layers, the figures that are compared, and what tells our folders from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from maskvolume.runtime.errors import InputError
from maskvolume.web import export
from maskvolume.web.export import DYNAMIC, FORMAT, MANIFEST, OFFLINE, WebReport, psnr


def test_psnr_is_that_of_the_formula_and_can_always_be_written() -> None:
    picture = np.full((6, 8, 3), 100, np.uint8)
    assert psnr(picture, picture) == 99.0
    assert psnr(picture, picture + np.uint8(10)) == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    noise = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    assert psnr(*noise) == pytest.approx(psnr(*noise[::-1]))


def test_layers_that_are_kept_are_the_same_again(tmp_path: Path) -> None:
    layers = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 4), np.uint8)
    export._write_layers(tmp_path / "0.png", layers)
    np.testing.assert_array_equal(export._read_layers(tmp_path / "0.png", 5), layers)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_damaged_layers_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.png").write_bytes(content)
    with pytest.raises(InputError, match=r"0\.png: damaged; export again with --overwrite"):
        export._read_layers(tmp_path / "0.png", 5)


def test_numbers_of_cameras_are_read_back() -> None:
    K = torch.tensor([[50.1, 0, 32], [0, 49.9, 24], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(torch.tensor(export._numbers(K), dtype=torch.float64).reshape(3, 3), K)


@pytest.mark.parametrize(
    ("content", "is_ours"),
    [(f'{{"format": "{FORMAT}"}}', True), ('{"format": "other"}', False), ("{}", False), ("[]", False), ("{", False)],
)
def test_a_folder_is_ours_by_its_manifest(tmp_path: Path, content: str, is_ours: bool) -> None:
    assert not export._is_export(tmp_path)
    (tmp_path / MANIFEST).write_text(content)
    assert export._is_export(tmp_path) == is_ours


def test_a_report_tells_how_large_what_moves_is() -> None:
    sizes = {DYNAMIC: 2_000_000, OFFLINE: 5_000_000, "cameras/cam00.mp4": 1_000_000}
    tiles = {"empty": 1, "still": 2, "moving": 3}
    report = WebReport(Path("out"), sizes, 4.0, tiles, {"center": 40.0, "edges": 35.0})
    assert report.mbit == pytest.approx(4.0)
    assert "4.0" in str(report)
    still = WebReport(Path("out"), {}, 4.0, tiles, {"center": 40.0, "edges": 35.0})
    assert still.mbit == 0
