"""The reading benchmark runs on a few frames, and what it writes is complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from realestate10k_helpers import make_cameras

from benchmarks.data_reading import (
    ORIGINAL,
    ORIGINAL_AT_ONCE,
    OURS,
    DataReadingOptions,
    main,
    measure,
)
from maskvolume.io.realestate10k import write_scene_cameras
from maskvolume.io.shards import encode_jpeg
from maskvolume.runtime.errors import InputError

SIZE = (90, 160)


def write_frames(root: Path, scenes: int, count: int) -> Path:
    """Noisy ramps, which lzf packs as little as photos."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(30, 220, SIZE[1])[None, :, None]
    for scene in range(scenes):
        folder = root / f"scene{scene}"
        folder.mkdir(parents=True)
        cameras = make_cameras("cameras", "https://a/b", range(count))
        for timestamp in cameras.timestamps.tolist():
            picture = (ramp + rng.normal(0, 4, (*SIZE, 3))).astype(np.uint8)
            (folder / f"{timestamp}.jpg").write_bytes(encode_jpeg(picture, 90))
        write_scene_cameras(folder / "cameras.txt", cameras)
    return root


def test_data_reading_compares_all_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data_reading.json"
    root = write_frames(tmp_path / "frames", 2, 30)
    arguments = ["--root_dir", root, "--triplets", 3, "--repeats", 2, "--out", out]
    monkeypatch.setattr("sys.argv", ["benchmarks/data_reading.py", *map(str, arguments)])
    main()
    result = json.loads(out.read_text())
    assert {"commit", "machine", "command", "size_wh", "bytes"} <= set(result)
    assert (result["scenes"], result["frames"], result["size_wh"]) == (2, 60, [160, 90])
    forms = set(result["ms_a_triplet"])
    assert {ORIGINAL, ORIGINAL_AT_ONCE, OURS, "HDF5, JPEG bytes", "JPEG files"} <= forms
    assert set(result["rate_against_original"]) == set(result["bytes_read_a_triplet"]) == forms
    assert result["bytes"]["raw"] == 60 * 160 * 90 * 3
    assert result["size_against_original"] == round(result["bytes"][OURS] / result["bytes"][ORIGINAL], 4) < 0.5
    assert max(result["rate_against_original"][name] for name in (ORIGINAL, ORIGINAL_AT_ONCE)) == 1
    shown = capsys.readouterr().out
    assert all(form in shown for form in forms)


def test_a_folder_without_frames_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frames"):
        measure(tmp_path, tmp_path, DataReadingOptions())
