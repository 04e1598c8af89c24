"""Reports: the last line of an item counts, and an interruption loses none."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskvolume.runtime.errors import InputError
from preprocessing.report import Report


def test_the_last_entry_of_an_item_counts(tmp_path: Path) -> None:
    report = Report(tmp_path / "deeper" / "a.jsonl", "scene")
    with report.open_for_writing():
        for scene, state in (("b", "failed"), ("a", "done"), ("b", "done")):
            report.add({"scene": scene, "state": state})
            assert (tmp_path / "deeper" / "a.jsonl").read_text().endswith(f'"{scene}", "state": "{state}"}}\n')
    again = Report(report.path, "scene")
    assert again.entries == report.entries == {key: {"scene": key, "state": "done"} for key in "ab"}
    assert report.path.read_text().splitlines() == [f'{{"scene": "{key}", "state": "done"}}' for key in "ab"]
    with pytest.raises(ValueError, match="not open"):
        report.add({"scene": "c"})


def test_an_interruption_loses_no_entry(tmp_path: Path) -> None:
    report = Report(tmp_path / "a.jsonl", "scene")

    def interrupted() -> None:
        with report.open_for_writing():
            report.add({"scene": "b"})
            report.add({"scene": "a"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open(report.path, "a", encoding="utf-8") as file:
        file.write('{"scene": "c", "sta')  # a line that was not finished
    again = Report(report.path, "scene")
    assert set(again.entries) == {"a", "b"}
    with again.open_for_writing():
        again.add({"scene": "d"})
    assert report.path.read_text() == '{"scene": "a"}\n{"scene": "b"}\n{"scene": "d"}\n'


@pytest.mark.parametrize("line", ["no json", "[1]", '{"video": "a"}', "3", ""])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"scene": "a"}}\n{line}\n{{"scene": "b"}}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: not an entry.*; remove the line"):
        Report(tmp_path / "a.jsonl", "scene")
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"a\.jsonl: not a text file"):
        Report(tmp_path / "a.jsonl", "scene")
