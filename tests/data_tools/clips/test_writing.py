"""Clips that are written: links where nothing changes, other lenses where they do, and what an earlier run left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_tools.clips.writing import OutputCamera, OutputClip, prepare_output, write_clip
from maskvolume.clips.layouts import COLLECTED_NAME, open_layout
from maskvolume.geometry.lenses import pinhole
from maskvolume.io.images import read_image
from maskvolume.runtime.errors import InputError

K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])


@pytest.fixture
def clip(tiny_rig, tmp_path) -> OutputClip:
    """Two of three cameras and two of three frames, under new names, as they are."""
    lens = pinhole(K, (48, 64))
    cameras = (OutputCamera("left", 0, lens, lens), OutputCamera("right", 2, lens, lens))
    source = open_layout(tiny_rig).source
    return OutputClip(source, cameras, {"a": 0, "b": 2}, tmp_path / "out", "frames", takes_all=False)


def test_pictures_that_stay_as_they_are_are_links(clip, tiny_rig):
    write_clip(clip)
    assert clip.entries() == ["left", "right"]
    assert clip.picture(1, "b").samefile(tiny_rig / "cam02/00002.png")
    assert sorted(path.name for path in (clip.folder / "left").iterdir()) == ["a.png", "b.png"]


def test_a_longer_focal_length_is_a_cut_that_is_magnified(clip, tiny_rig):
    """With twice the focal length a pixel (x, y) shows what was at half its distance from the principal point."""
    longer = pinhole(K * [[2, 1, 1], [1, 2, 1], [1, 1, 1]], (48, 64))
    cameras = (replace(clip.cameras[0], target=longer),)
    write_clip(replace(clip, cameras=cameras))
    source = read_image(tiny_rig / "cam00/00000.png").astype(float)
    # The middle of four pixels of the new picture is a pixel centre of the old one.
    blocks = read_image(clip.picture(0, "a")).astype(float).reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(blocks - source[12:36, 16:48]).mean() < 4
    assert not clip.picture(0, "a").samefile(tiny_rig / "cam00/00000.png")


def test_collected_frames_are_numbered_and_keep_their_names_in_a_list(clip):
    write_clip(replace(clip, form="collected"))
    assert (clip.folder / "b/images/001.png").is_file()
    assert '"left"' in (clip.folder / COLLECTED_NAME).read_text()


def test_a_picture_of_another_size_is_named(clip):
    small = pinhole(K, (40, 64))
    longer = pinhole(K * 2, (40, 64))
    with pytest.raises(InputError, match=r"cam00/00000\.png: 64 x 48 pixels, but its camera has 64 x 40"):
        write_clip(replace(clip, cameras=(OutputCamera("left", 0, small, longer),)))


def test_an_output_of_other_settings_is_replaced_only_when_asked(clip, tmp_path):
    out = tmp_path / "out"
    prepare_output(out, clip.settings(out), clip.entries(), overwrite=False)
    write_clip(clip)
    prepare_output(out, clip.settings(out), clip.entries(), overwrite=False)  # the same again
    assert clip.picture(0, "a").is_file()
    other = replace(clip, frames={"a": 1})
    with pytest.raises(InputError, match="other cameras, frames or settings"):
        prepare_output(out, other.settings(out), other.entries(), overwrite=False)
    (out / "notes.txt").write_text("mine")
    prepare_output(out, other.settings(out), other.entries(), overwrite=True)
    assert not (out / "left").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_folder_of_others_and_a_damaged_record_are_refused(clip, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which this program did not write"):
        prepare_output(out, {}, [], overwrite=True)
    (out / ".made_of.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        prepare_output(out, {}, [], overwrite=True)
