"""From options to renderers: which cameras are taken, where backgrounds are, what decides the pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.mpi.options import MPIOptions
from maskvolume.mpi.renderer import RenderSettings
from maskvolume.mpi.session import Session
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.shots import path_shots
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.processes import ALONE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(make_rig, tmp_path_factory: pytest.TempPathFactory) -> RigClip:
    return RigClip.open(make_rig(tmp_path_factory.mktemp("rig") / "frames", tuple(f"cam{i:02d}" for i in range(7))))


def open_session(clip: RigClip, ckpt_path: Path, out: Path, **options: object) -> Session:
    settings = RenderSettings(num_planes=4)
    chosen = MPIOptions(
        root_dir=str(clip.root_dir), ckpt_path=str(ckpt_path), out_dir=str(out), precision="fp32", **options
    )
    return Session.open(chosen, clip, settings, RenderFolder(out), CPU)


def test_cameras_are_those_that_are_named_or_nearest(clip: RigClip, weights: Path, tmp_path: Path) -> None:
    targets = clip.cameras()[2:3]
    nearest = open_session(clip, weights, tmp_path).renderer(targets)
    assert nearest.indices[0] == 2
    assert len(nearest.indices) == 4
    assert len(nearest.background_indices) == 6
    named = open_session(clip, weights, tmp_path, indices=("cam05", "1")).renderer(targets)
    assert named.indices == named.background_indices == (5, 1)
    more = open_session(clip, weights, tmp_path, indices=("cam05", "1"), background_cameras=3).renderer(targets)
    assert more.background_indices == (5, 1, 2)
    with pytest.raises(InputError, match="--indices: different cameras are needed, got 1 cam01"):
        open_session(clip, weights, tmp_path, indices=("1", "cam01")).renderer(targets)


def test_a_session_knows_the_size_and_where_backgrounds_are(
    clip: RigClip, weights: Path, stage_one_weights: Path, tmp_path: Path
) -> None:
    session = open_session(clip, weights, tmp_path)
    assert session.settings == RenderSettings(size=clip.size, num_planes=4)
    assert session.makes_backgrounds
    assert session.clip.background_dir == tmp_path / "background"
    session.make_backgrounds((3, 4), keep=False)
    assert sorted(path.name for path in (tmp_path / "background").iterdir()) == ["cam03.png", "cam04.png"]
    other = open_session(clip, weights, tmp_path / "other", bg_dir=str(tmp_path / "background"))
    assert not other.makes_backgrounds
    assert not open_session(clip, stage_one_weights, tmp_path / "one").makes_backgrounds


def test_what_decides_the_pixels(clip: RigClip, weights: Path, tmp_path: Path) -> None:
    session, targets = open_session(clip, weights, tmp_path), clip.cameras()[:2]
    contents = session.pixels_made_of(session.renderer(targets), targets)
    assert contents == session.pixels_made_of(session.renderer(targets), targets)
    assert contents["references"] is None
    assert contents["img_wh"] == [64, 48]
    several = session.renderer(targets, references=2)
    assert session.pixels_made_of(several, targets)["references"][0] == 2
    lines = session.describe_sources(several)
    assert lines[-1].startswith("references (and their sources): cam0")
    narrow = replace(session, settings=replace(session.settings, margin=0))
    other = narrow.pixels_made_of(narrow.renderer(targets), targets)
    assert {name for name in contents if contents[name] != other[name]} == {"margin"}


def test_a_plan_is_made_for_the_shots(clip: RigClip, weights: Path, tmp_path: Path) -> None:
    shots = path_shots(clip.cameras(), "loop", 3)
    session = open_session(clip, weights, tmp_path, memory_gb=50.0)
    renderer = session.renderer(shots.targets)
    assert " of 50.0 GB: " in session.fit(renderer, shots, ALONE)
    assert renderer.renderers[0].tiling is None
    poor = open_session(clip, weights, tmp_path, memory_gb=0.2)
    with pytest.raises(InputError, match=r"memory: .* 0\.2 GB may be taken \(--memory_gb\)"):
        poor.fit(poor.renderer(shots.targets), shots, ALONE)
    with pytest.raises(InputError, match="lies between two frames"):
        session.fit(renderer, path_shots(clip.cameras(), "fix:0.5", 3), ALONE)
