"""What an interrupted run keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.finished_units import FinishedUnits, UnitResult
from maskvolume.runtime.errors import InputError

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def refuse() -> UnitResult:
    raise AssertionError("made again")


def test_a_finished_unit_is_not_made_again(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    FinishedUnits(out, "key", resume=True).take("target 0", lambda: ({"psnr": 30.5}, PICTURE))
    FinishedUnits(out, "key", resume=True).take("world", lambda: ({"psnr": 20.0}, None))
    units = FinishedUnits(out, "key", resume=True)
    assert "target 0" in units
    assert "other" not in units
    figures, picture = units.take("target 0", refuse)
    assert figures == {"psnr": 30.5}
    np.testing.assert_array_equal(picture, PICTURE)
    assert units.take("world", refuse) == ({"psnr": 20.0}, None)


def test_a_lost_picture_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    FinishedUnits(out, "key", resume=True).take("a", lambda: ({"psnr": 1.0}, PICTURE))
    next(tmp_path.glob("*.png")).unlink()
    assert FinishedUnits(out, "key", resume=True).take("a", lambda: ({"psnr": 2.0}, PICTURE))[0] == {"psnr": 2.0}


@pytest.mark.parametrize(("key", "resume"), [("other", True), ("key", False)])
def test_units_of_another_run_do_not_count(tmp_path: Path, key: str, resume: bool) -> None:
    out = tmp_path / "result.json"
    FinishedUnits(out, "key", resume=True).take("a", lambda: ({"psnr": 1.0}, None))
    assert "a" not in FinishedUnits(out, key, resume=resume)


def test_nothing_is_left_when_the_result_is_written(tmp_path: Path) -> None:
    units = FinishedUnits(tmp_path / "result.json", "key", resume=True)
    units.take("a", lambda: ({}, PICTURE))
    assert list(tmp_path.iterdir())
    units.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": "key", "units": 3}'])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.partial.json").write_text(content)
    with pytest.raises(InputError, match=r"result\.partial\.json: not the file of an interrupted run; .*--no-resume"):
        FinishedUnits(tmp_path / "result.json", "key", resume=True)
