"""The program that plays an exported clip."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from maskvolume.web.server import FolderServer
from render import view


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """What makes a folder an exported clip."""
    folder = tmp_path / "out"
    (folder / "player").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>clip</title>", encoding="utf-8")
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def server(export: Path) -> Iterator[FolderServer]:
    with FolderServer(export) as running:
        yield running


def start(repo_root: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(repo_root / "render/view.py"), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_program_serves_until_it_is_interrupted(repo_root: Path, export: Path, signum: signal.Signals) -> None:
    process = start(repo_root, export, "--port", 0, "--no-open")
    assert process.stdout is not None
    line = process.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert url, line
    with urlopen(url[0], timeout=10) as answer:
        assert b"<title>clip</title>" in answer.read()
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    assert stdout.split() == ["stopped"]
    assert stderr == ""


def test_program_says_that_others_can_see_the_clip(repo_root: Path, export: Path) -> None:
    process = start(repo_root, export, "--port", 0, "--host", "0.0.0.0", "--no-open")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert "http://127.0.0.1:" in lines[0]
    assert "others in the network can see it" in lines[1]


class Browser:
    def __init__(self, opens: bool) -> None:
        self.opens, self.opened = opens, []

    def open(self, url: str) -> bool:
        self.opened.append(url)
        return self.opens


@pytest.mark.parametrize("opens", [True, False])
def test_browser_is_opened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], opens: bool) -> None:
    browser = Browser(opens)
    monkeypatch.setattr("webbrowser.get", lambda: browser)
    view.open_browser("http://127.0.0.1:8000/")
    assert browser.opened == ["http://127.0.0.1:8000/"]
    assert ("no browser was found" in capsys.readouterr().out) == (not opens)


def test_browsers_in_the_terminal_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    browser = view.webbrowser.GenericBrowser("lynx")
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setattr("webbrowser.get", lambda: browser)
    monkeypatch.setattr(browser, "open", lambda url: pytest.fail("opened"))
    view.open_browser("http://127.0.0.1:8000/")
    assert "no browser was found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: folder / "missing", ["missing", "no such folder", "export_web.py"]),
        (lambda folder: folder / "index.html", ["index.html", "is a file where a folder is expected"]),
        (lambda folder: folder / "player", ["player", "manifest.json is missing", "export_web.py"]),
        (lambda folder: (folder / "index.html").unlink() or folder, ["index.html is missing"]),
    ],
)
def test_folder_that_is_no_export(call_program, export: Path, spoil, words: list[str]) -> None:
    call_program("render/view.py", spoil(export), "--no-open").check_input_error(*words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", 65536], ["--port 65536", "0 to 65535"]),
        (["--port", -1], ["--port -1", "0 to 65535"]),
        (["--port", "http"], ["--port", "http"]),
        (["--host", "192.0.2.1"], ["--host 192.0.2.1", "can't be served on", "127.0.0.1"]),
        (["--host", "no such name"], ["--host 'no such name'", "no address has this name"]),
        (["--host", "x" * 300], ["--host", "no address has this name"]),
        (["--host="], ["--host ''", "no address has this name"]),
        (["more"], ["more", "belongs to no option"]),
    ],
)
def test_bad_options(call_program, export: Path, arguments: list[object], words: list[str]) -> None:
    call_program("render/view.py", export, *arguments, "--no-open").check_input_error(*words)


def test_no_folder(call_program) -> None:
    call_program("render/view.py").check_input_error("FOLDER", "missing")


def test_port_that_is_taken(call_program, export: Path, server: FolderServer) -> None:
    arguments = [export, "--port", server.port, "--no-open"]
    call_program("render/view.py", *arguments).check_input_error(f"--port {server.port}", "taken")
