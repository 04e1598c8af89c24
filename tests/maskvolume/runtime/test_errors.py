"""How a program ends: exit status, one line, never a traceback for what its user can mend."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from maskvolume.runtime.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, describe_os_error

HEAD = """
import errno, os, sys, time
from maskvolume.runtime.errors import InputError, run_program

def main():
"""


@pytest.fixture
def start(tmp_path: Path, repo_root: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a program ``prog.py`` whose main has the given lines."""

    def run(*lines: str, stdout: int | object = subprocess.PIPE) -> subprocess.Popen[str]:
        program = tmp_path / "prog.py"
        body = "".join(f"    {line}\n" for line in lines)
        program.write_text(f"{HEAD}{body}\nrun_program(main)\n", encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, str(program)],
            env={**os.environ, "PYTHONPATH": str(repo_root)},
            stdout=stdout,  # type: ignore[arg-type]
            stderr=subprocess.PIPE,
            text=True,
            # A test runner in the background passes on that interruptions are ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return run


def test_success_is_silent(start):
    program = start("pass")
    assert program.communicate(timeout=60) == ("", "")
    assert program.returncode == 0


@pytest.mark.parametrize("place", ["top", "below an import error"])
def test_bad_input_is_one_line(start, place):
    lines = ["raise InputError('a.npy: has no\\n  rows; create it again')"]
    if place != "top":
        lines = ["try: import nowhere", "except ImportError as error:", f"    {lines[0][:-1]}) from error"]
    program = start(*lines)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == EXIT_BAD_INPUT
    assert stderr == "prog.py: error: a.npy: has no rows; create it again\n"


def test_an_error_of_ours_keeps_its_traceback(start):
    program = start("1 / 0")
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 1
    assert "Traceback" in stderr
    assert "ZeroDivisionError" in stderr


def test_missing_file_is_one_line(start):
    program = start("open('no/such/file')")
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == EXIT_BAD_INPUT
    assert stderr == "prog.py: error: no/such/file: no such file or folder; check the path\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("where", ["file", "stdout"])
def test_full_disk_is_one_line(start, where):
    if where == "file":
        program = start("with open('/dev/full', 'w') as file: file.write('x')")
        _, stderr = program.communicate(timeout=60)
    else:
        with open("/dev/full", "w") as full:
            program = start("print('x' * 100)", stdout=full)
            _, stderr = program.communicate(timeout=60)
    assert program.returncode == EXIT_BAD_INPUT
    assert "the disk is full" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_interruption_is_one_line_and_cleans_up(start, tmp_path, signum):
    program = start(
        "try:",
        "    print('ready', flush=True)",
        "    time.sleep(60)",
        "finally:",
        f"    open({str(tmp_path / 'cleaned')!r}, 'w').close()",
    )
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signum)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == EXIT_INTERRUPTED
    assert stderr.strip() == "prog.py: interrupted; run the same command again to continue"
    assert (tmp_path / "cleaned").exists()


def test_an_interruption_in_a_clean_up_is_one(start):
    """As zipfile does, whose close fails while an interrupted entry is open."""
    program = start("try: raise KeyboardInterrupt", "finally: raise ValueError('still open')")
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == EXIT_INTERRUPTED
    assert "Traceback" not in stderr
    assert "prog.py: interrupted; " in stderr


def test_closed_pipe_ends_quietly(start):
    program = start("for i in range(100000): print(i)")
    program.stdout.readline()
    program.stdout.close()
    assert program.stderr.read() == ""
    assert program.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR])
def test_os_errors_name_the_file_and_an_advice(number):
    line = describe_os_error(OSError(number, "words of the system", "out/a.png"))
    assert line is not None
    assert line.startswith("out/a.png: ")
    assert ";" in line
    assert "\n" not in line


def test_other_os_errors_are_not_described():
    assert describe_os_error(OSError(errno.EBADF, "bad file descriptor")) is None
