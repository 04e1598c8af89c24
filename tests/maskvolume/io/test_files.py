"""Output files appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maskvolume.io.files import (
    atomic_path,
    is_current,
    link_or_copy,
    require_writable_folder,
)
from maskvolume.runtime.errors import InputError


def test_atomic_path_renames_on_success(tmp_path: Path) -> None:
    target = tmp_path / "new" / "frame.mp4"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".mp4"
        assert temporary.name.startswith(".")
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["frame.mp4"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_path_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "frame.png"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("ha")
            raise error

    with pytest.raises(error):
        interrupted()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["frame.png"]


def test_atomic_path_names_the_target_when_the_disk_is_full(tmp_path: Path) -> None:
    def fill_the_disk() -> None:
        with atomic_path(tmp_path / "a.png") as temporary:
            temporary.write_text("ha")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space") as caught:
        fill_the_disk()
    assert caught.value.filename == str(tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


def test_atomic_path_leaves_errors_of_other_files_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a.png"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


def test_atomic_path_names_the_target_when_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a.png"):
        pass
    assert caught.value.filename == str(tmp_path / "a.png")


def test_link_or_copy_links(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "folder" / "b.jpg"
    source.write_bytes(b"picture")
    link_or_copy(source, target)
    assert target.samefile(source)
    link_or_copy(source, target)
    assert os.listdir(target.parent) == ["b.jpg"]


def test_link_or_copy_follows_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    link_or_copy(tmp_path / "link.jpg", tmp_path / "folder" / "b.jpg")
    assert not (tmp_path / "folder" / "b.jpg").is_symlink()
    assert (tmp_path / "folder" / "b.jpg").read_bytes() == b"picture"


def test_link_or_copy_copies_where_links_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    source.write_bytes(b"picture")
    target.write_bytes(b"older")
    link_or_copy(source, target)
    assert target.read_bytes() == b"picture"
    assert not target.samefile(source)
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "b.jpg"]


def test_link_or_copy_needs_a_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jpg: no such file; check the path"):
        link_or_copy(tmp_path / "gone.jpg", tmp_path / "b.jpg")


def test_is_current_looks_at_times_and_links(tmp_path: Path) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    source.write_text("whole")
    assert not is_current(made, source)
    made.write_text("small")
    os.utime(source, ns=(0, 10))
    os.utime(made, ns=(0, 10))
    assert is_current(made, source)
    assert is_current(made, source, linked=True)
    made.write_text("of another size")
    os.utime(made, ns=(0, 10))
    assert is_current(made, source)
    assert not is_current(made, source, linked=True)
    os.utime(made, ns=(0, 9))
    assert not is_current(made, source)
    link_or_copy(source, made)
    assert is_current(made, source, linked=True)
    source.unlink()
    assert not is_current(made, source)


def test_require_writable_folder_creates_it(tmp_path: Path) -> None:
    folder = require_writable_folder(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    assert os.listdir(folder) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_require_writable_folder_refuses_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; choose another folder"):
        require_writable_folder(tmp_path / "file" / below)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EBADF])
def test_require_writable_folder_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(InputError, match=r"out: .*; (choose|free)"):
        require_writable_folder(tmp_path / "out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_require_writable_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="permission denied; choose"):
            require_writable_folder(tmp_path)
    finally:
        tmp_path.chmod(0o700)
