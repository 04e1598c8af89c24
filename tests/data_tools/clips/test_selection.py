"""Which cameras and frames of a clip are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.clips.selection import FrameChoice, choose_cameras, choose_frames
from maskvolume.clips.layouts import open_layout
from maskvolume.clips.rig import RigClip
from maskvolume.runtime.errors import InputError


@pytest.fixture
def recording(tmp_path, make_rig) -> Path:
    """Three cameras whose numbers have gaps, six frames of JPEG."""
    return make_rig(tmp_path / "frames", cameras=["cam01", "cam03", "cam10"], num_frames=6, suffix=".jpg")


def rename_frames(recording: Path, names: list[str]) -> None:
    for camera in ("cam01", "cam03", "cam10"):
        for path, name in reversed(list(zip(sorted((recording / camera).iterdir()), names, strict=True))):
            path.rename(path.with_stem(name))


def test_frame_numbers_are_those_of_the_names(recording):
    rename_frames(recording, ["00100", "00102", "00104", "00106", "00108", "00110"])
    clip = RigClip.open(recording).layout
    assert choose_frames(clip, 100, 105) == {100: 0, 102: 1, 104: 2}
    with pytest.raises(InputError, match="frames 100 to 110"):
        choose_frames(clip, 0, 5)
    with pytest.raises(InputError, match="none has a number in between"):
        choose_frames(clip, 103, 104)


def test_names_without_numbers_are_counted(recording):
    rename_frames(recording, [f"take_{letter}" for letter in "abcdef"])
    assert choose_frames(RigClip.open(recording).layout, 1, 3) == {1: 1, 2: 2}


def test_cameras_by_name(recording):
    clip = RigClip.open(recording).layout
    assert choose_cameras(clip) == (0, 1, 2)
    assert choose_cameras(clip, ["cam10", "cam01"]) == (1,)
    with pytest.raises(InputError, match="at least one"):
        choose_cameras(clip, clip.names)


def test_a_hundred_frames_by_default_but_all_that_are_listed(recording):
    layout = open_layout(recording)
    many = type(layout)(
        layout.kind, layout.root, layout.names, tuple(map(str, range(500))), layout.size, recording, layout.source
    )
    chosen = FrameChoice().positions(many)
    assert (len(chosen), chosen[0], chosen[-1]) == (100, 0, 499)
    assert len(FrameChoice(every=2).positions(many)) == 250
    assert len(FrameChoice(listed=tuple(range(150))).positions(many)) == 150
    assert len(FrameChoice(every=2, count=20).positions(many)) == 20
