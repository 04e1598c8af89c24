"""The output folder: what belongs to a shot, when it is sound to continue, what is cleared, what is never touched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from maskvolume.io.images import write_image
from maskvolume.rendering.output_folder import RenderFolder, digest
from maskvolume.runtime.errors import InputError


@dataclass(frozen=True)
class Options:
    fps: float = 30.0


def write_shot(folder: RenderFolder, number: int, size: tuple[int, int] = (4, 6)) -> None:
    for path in folder.files_of(number):
        write_image(path, np.zeros((*size, 3), np.uint8))


def test_a_shot_is_done_when_all_its_files_are_whole_and_of_the_size(tmp_path: Path) -> None:
    folder = RenderFolder(tmp_path, "jpg", with_disparity=True, with_mask=True)
    names = [path.relative_to(tmp_path).as_posix() for path in folder.files_of(12)]
    assert names == ["frames/00012.jpg", "disparity/00012.png", "mask/00012.png"]
    assert not folder.is_done(12, (4, 6))
    write_shot(folder, 12)
    assert folder.is_done(12, (4, 6))
    assert not folder.is_done(12, (6, 4))
    folder.mask(12).write_bytes(folder.mask(12).read_bytes()[:-9])
    assert not folder.is_done(12, (4, 6))


def test_continuing_needs_the_same_pixels(tmp_path: Path) -> None:
    folder = RenderFolder(tmp_path / "out")
    assert folder.prepare({"size": (4, 6), "path": "a"}, Options()) is False
    write_shot(folder, 0)
    assert folder.prepare({"size": (4, 6), "path": "a"}, Options(fps=5)) is True
    assert json.loads((folder.root / "options.json").read_text())["options"] == {"fps": 5}
    with pytest.raises(InputError, match=r"options\.json: .*other options \(path\); give --overwrite"):
        folder.prepare({"size": (4, 6), "path": "b"}, Options())
    assert folder.frame(0).is_file()
    assert folder.prepare({"size": (4, 6), "path": "b"}, Options(), overwrite=True) is False
    assert not folder.frame(0).exists()


def test_foreign_pictures_are_never_touched_and_leftovers_are_removed(tmp_path: Path) -> None:
    folder = RenderFolder(tmp_path / "out")
    write_shot(folder, 3)
    with pytest.raises(InputError, match="no options"):
        folder.prepare({}, Options(), overwrite=True)
    assert folder.frame(3).is_file()
    other = RenderFolder(tmp_path / "other")
    other.prepare({}, Options())
    leftover, notes = other.root / "frames/.00000.0123456789ab.png", other.root / "frames/notes.txt"
    for path in (leftover, notes):
        path.write_text("")
    other.prepare({}, Options(), overwrite=True)
    assert notes.is_file()
    assert not leftover.exists()


def test_the_scale_tells_what_a_step_of_disparity_is_worth(tmp_path: Path) -> None:
    folder = RenderFolder(tmp_path, with_disparity=True)
    folder.prepare({}, Options())
    folder.write_scale(1.25, 40.0)
    scale = json.loads(folder.scale.read_text())
    assert scale["disparity_per_step"] * 65535 == pytest.approx(1 / 1.25)
    assert (scale["nearest_plane"], scale["farthest_plane"]) == (1.25, 40.0)


def test_a_digest_tells_contents_apart(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    assert digest(file) == digest(b"abc") != digest(b"abd")
    assert digest(torch.ones(2)) == digest(torch.ones(2, dtype=torch.float64)) != digest(torch.zeros(2))
