"""Progress bars."""

from __future__ import annotations

import pytest

from maskvolume.runtime.progress import progress


def test_a_bar_ends_at_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(4, "clip") as bar:
        for _ in range(4):
            bar.update()
    shown = capsys.readouterr().err
    assert "clip: 100%" in shown
    assert "4/4" in shown


def test_what_is_there_already_counts_as_done() -> None:
    with progress(10, "clip", remaining=3) as bar:
        assert bar.initial == 7
        assert bar.total == 10


def test_where_no_terminal_is_lines_are_rare(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with progress(2, "clip") as bar:
        assert bar.mininterval == 30
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress(2, "clip") as bar:
        assert bar.mininterval < 1


def test_a_quiet_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2, "clip", quiet=True) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""
