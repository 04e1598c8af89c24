"""render_llff_video: what lies where, what is kept, and every kind of input."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from render_helpers import Finished

from data_tools.collect_data import main as collect
from data_tools.convert import main as convert
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.paths import render_path
from maskvolume.io.images import read_image, read_image_size, write_image
from maskvolume.io.llff import read_poses_bounds, write_path
from maskvolume.io.video import VideoFrames, VideoWriter
from maskvolume.mpi.memory import (
    Job,
    Plan,
    make_plan,
    need,
)
from maskvolume.mpi.tiles import Tiling

SHORT = ("--path", "circle", "--num_frames", 5)
FORMS = {"colmap": "a COLMAP model", "nerfstudio": "a nerfstudio file"}


def contents(folder: Path) -> dict[str, bytes]:
    """All files that a rendering is made of, by name."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "options.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def test_everything_is_written_where_it_belongs(render, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = render(tiny_rig, out, *SHORT, "--save_disparity", "--save_mask", "--fps", 12).check()
    names = [f"{i:05d}.png" for i in range(5)]
    assert sorted(path.name for path in (out / "frames").iterdir()) == names
    assert sorted(path.name for path in (out / "mask").iterdir()) == names
    assert sorted(path.name for path in (out / "disparity").iterdir()) == [*names, "scale.json"]
    assert sorted(path.name for path in (out / "background").iterdir()) == ["cam00.png", "cam01.png", "cam02.png"]
    assert f"video: {out / 'video.mp4'}" in outcome.stdout
    assert "background" in outcome.stdout
    steps = cv2.imread(str(out / "disparity/00000.png"), cv2.IMREAD_UNCHANGED)
    scale = json.loads((out / "disparity/scale.json").read_text())
    depth = 1 / (steps * scale["disparity_per_step"])
    assert steps.dtype == np.uint16
    assert 0.99 * scale["nearest_plane"] < depth.min() <= depth.max() < 1.01 * scale["farthest_plane"]
    record = json.loads((out / "options.json").read_text())
    assert record["options"]["fps"] == 12
    assert record["made_of"]["indices"] == ["cam01", "cam00", "cam02"]


def test_the_videos_play_everywhere(render, tiny_rig: Path, tmp_path: Path) -> None:
    render(tiny_rig, tmp_path / "out", *SHORT, "--save_disparity", "--fps", 12, "--img_wh", 53, 39).check()
    for name in ("video.mp4", "disparity.mp4"):
        path = tmp_path / "out" / name
        video = VideoFrames(path)
        assert (video.count, video.size, video.fps) == (5, (40, 54), 12)
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        data = path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat"), "the index is not in front"


@pytest.mark.parametrize("size", [(53, 39), (64, 48), (97, 33)])
def test_pictures_have_the_size_that_is_asked_for(render, tiny_rig: Path, tmp_path: Path, size) -> None:
    render(tiny_rig, tmp_path / "out", *SHORT, "--img_wh", *size, "--num_frames", 1).check()
    assert read_image_size(tmp_path / "out/frames/00000.png") == (size[1], size[0])


def test_each_axis_is_scaled_by_itself(render, tiny_rig: Path, tmp_path: Path) -> None:
    """Twice the width of a camera's view is that view, twice as wide."""
    view = ("--view", "fix:cam01", "--time", "fix:0", "--indices", "cam01", "cam02")
    render(tiny_rig, tmp_path / "a", *view).check()
    render(tiny_rig, tmp_path / "b", *view, "--img_wh", 128, 48).check()
    narrow, wide = (read_image(tmp_path / name / "frames/00000.png").astype(float) for name in "ab")
    narrow = cv2.resize(narrow, (128, 48), interpolation=cv2.INTER_LINEAR)
    assert np.abs(narrow - wide)[4:-4, 8:-8].mean() < 3


def test_a_fixed_view_of_a_source_looks_like_its_frames(render, tiny_rig: Path, tmp_path: Path) -> None:
    render(tiny_rig, tmp_path / "out", "--view", "fix:cam01", "--indices", 1, 2).check()
    for frame in range(3):
        made = read_image(tmp_path / f"out/frames/{frame:05d}.png").astype(float)
        true = read_image(tiny_rig / f"cam01/{frame:05d}.png").astype(float)
        others = [read_image(tiny_rig / f"cam01/{i:05d}.png").astype(float) for i in range(3) if i != frame]
        error = np.abs(made - true).mean()
        assert error < 20
        assert error < min(np.abs(made - other).mean() for other in others)


def test_bullet_time_shows_one_instant(render, tiny_rig: Path, tmp_path: Path) -> None:
    render(tiny_rig, tmp_path / "out", *SHORT, "--time", "fix:2").check()
    assert len(list((tmp_path / "out/frames").iterdir())) == 5


def test_what_is_there_is_kept_and_the_rest_becomes_the_same(render, finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path / "out")
    whole = contents(out)
    kept = (out / "frames/00001.png").stat().st_mtime_ns
    for name in ("frames/00000.png", "disparity/00002.png", "mask/00004.png", "video.mp4"):
        (out / name).unlink()
    cut = out / "frames/00003.png"
    cut.write_bytes(cut.read_bytes()[:-20])  # as a crashed machine leaves it
    (out / "frames/.00000.0123456789ab.png").write_bytes(b"half")
    outcome = render(finished.rig, out, *finished.options).check()
    assert "4 pictures rendered, 1 kept" in outcome.stdout
    assert contents(out) == whole
    assert (out / "frames/00001.png").stat().st_mtime_ns == kept


def test_a_rendering_can_be_made_longer(render, tiny_rig: Path, tmp_path: Path) -> None:
    render(tiny_rig, tmp_path / "a", "--path", "circle", "--num_frames", 2).check()
    outcome = render(tiny_rig, tmp_path / "a", "--path", "circle", "--num_frames", 4).check()
    assert "2 pictures rendered, 2 kept" in outcome.stdout
    render(tiny_rig, tmp_path / "b", "--path", "circle", "--num_frames", 4).check()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_video_options_do_not_render_again(render, finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path / "out")
    outcome = render(finished.rig, out, *finished.options, "--fps", 5, "--crf", 40).check()
    assert "0 pictures rendered, 5 kept" in outcome.stdout
    assert VideoFrames(tmp_path / "out/video.mp4").fps == 5


def test_other_options_are_refused_unless_overwriting(render, finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path / "out")
    before = contents(out)
    other = (*finished.options, "--time", "fix:0", "--num_planes", 4)
    outcome = render(finished.rig, out, *other)
    outcome.check_input_error(str(out / "options.json"), "time", "num_planes", "--overwrite")
    assert contents(out) == before
    render(finished.rig, out, *other, "--num_frames", 3, "--overwrite").check()
    assert len(list((out / "frames").iterdir())) == 3
    render(finished.rig, tmp_path / "fresh", *other, "--num_frames", 3).check()
    assert contents(out) == contents(tmp_path / "fresh")


def test_pictures_of_unknown_origin_are_never_touched(render, tiny_rig: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_image(out / "frames/00000.png", np.zeros((48, 64, 3), np.uint8))
    before = contents(out)
    for options in ([], ["--overwrite"]):
        render(tiny_rig, out, *SHORT, *options).check_input_error(str(out), "options.json")
        assert contents(out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "options.json").write_text("{}")
    render(tiny_rig, other, *SHORT).check_input_error(str(other / "options.json"))
    assert (other / "options.json").read_text() == "{}"


def test_jpeg_frames(render, tiny_rig: Path, tmp_path: Path) -> None:
    render(tiny_rig, tmp_path / "out", *SHORT, "--frame_format", "jpg").check()
    assert len(list((tmp_path / "out/frames").glob("*.jpg"))) == 5
    assert VideoFrames(tmp_path / "out/video.mp4").count == 5


def test_a_collected_clip_renders_as_its_frame_folder(render, tiny_rig: Path, tmp_path: Path) -> None:
    collect([str(tiny_rig), "0", "3", "qual"])
    path = render_path(read_poses_bounds(tiny_rig / "poses_bounds.npy"), "circle", 3)
    write_path(tiny_rig / "qual/00000/qual_path.txt", path)
    render(tiny_rig / "qual", tmp_path / "a").check()
    assert not (tmp_path / "a/background").exists(), "the clip has backgrounds"
    write_path(tmp_path / "path.npy", path)
    render(tiny_rig, tmp_path / "b", "--path", tmp_path / "path.npy").check()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("form", FORMS)
def test_posed_pictures_render_as_their_frame_folder(render, finished: Finished, tmp_path: Path, form: str) -> None:
    """The cameras are the same but for the rounding of COLMAP's quaternions, so colours differ by a step at most."""
    convert([str(finished.rig), "--to", form, "--out_dir", str(tmp_path / form)])
    outcome = render(tmp_path / form, tmp_path / "out", *finished.options).check()
    assert f"{tmp_path / form}: {FORMS[form]}, 3 cameras, 3 frames" in outcome.stdout
    assert "straightened" not in outcome.stdout
    for want in (finished.out / "frames", finished.out / "mask", finished.rig / "background"):
        paths = sorted((tmp_path / "out" / want.name).iterdir())
        assert [path.name for path in paths] == sorted(path.name for path in want.iterdir())
        for path in paths:
            assert np.abs(read_image(path) - read_image(want / path.name).astype(int)).max() <= 1
    scales = [(out / "disparity/scale.json").read_text() for out in (tmp_path / "out", finished.out)]
    assert scales[0] == scales[1]


def test_the_clips_own_path_is_taken_where_it_has_one_and_the_program_tells(
    render, tiny_rig: Path, tmp_path: Path
) -> None:
    short = ("--num_frames", 1, "--num_planes", 2)
    outcome = render(tiny_rig, tmp_path / "a", *short, "--config", "render_video.txt").check()
    own = tiny_rig / "qual_path.txt"
    assert f"path: all, since there is no {own}" in outcome.stdout
    write_path(own, render_path(read_poses_bounds(tiny_rig / "poses_bounds.npy"), "circle", 3))
    outcome = render(tiny_rig, tmp_path / "b", *short, "--config", "render_video.txt").check()
    assert f"path: {own}, the clip's own" in outcome.stdout
    assert "path:" not in render(tiny_rig, tmp_path / "c", *short, "--path", own).check().stdout
    pictures = [read_image(tmp_path / name / "frames/00000.png") for name in "abc"]
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[1] == pictures[2]).all()


def test_videos_with_gaps_in_their_names(render, tiny_rig: Path, tmp_path: Path) -> None:
    clip = RigClip.open(tiny_rig)
    for number, name in enumerate(("cam01", "cam04", "cam20")):
        with VideoWriter(tmp_path / "videos" / f"{name}.mp4", clip.size, crf=10) as writer:
            for frame in range(3):
                writer.append(clip.read(number, frame))
    (tmp_path / "videos/poses_bounds.npy").write_bytes((tiny_rig / "poses_bounds.npy").read_bytes())
    out = tmp_path / "out"
    render(tmp_path / "videos", out, *SHORT, "--indices", "cam20", "cam04").check()
    assert json.loads((out / "options.json").read_text())["made_of"]["indices"] == ["cam20", "cam04"]
    assert sorted(path.name for path in (out / "background").iterdir()) == ["cam04.png", "cam20.png"]


def test_a_stage_one_checkpoint_renders_without_mask(
    render, tiny_rig: Path, tmp_path: Path, stage_one_weights: Path
) -> None:
    outcome = render(tiny_rig, tmp_path / "out", *SHORT, ckpt=stage_one_weights).check()
    assert "stage one" in outcome.stdout
    assert not (tmp_path / "out/background").exists()


def test_three_sources_and_a_margin(render, tiny_rig: Path, tmp_path: Path) -> None:
    options = ("--indices", 1, 0, 2, "--margin", 4, "--num_planes", 5, "--time", "pingpong")
    render(tiny_rig, tmp_path / "out", *SHORT, *options).check()
    assert json.loads((tmp_path / "out/options.json").read_text())["made_of"]["num_planes"] == 5


def test_the_background_is_made_from_more_cameras_than_a_frame(render, make_rig, tmp_path: Path) -> None:
    names = tuple(f"cam{i:02d}" for i in range(7))
    rig = make_rig(tmp_path / "rig", names)
    run = (*SHORT, "--num_frames", 1)
    outcome = render(rig, tmp_path / "out", *run).check()
    record = json.loads((tmp_path / "out/options.json").read_text())["made_of"]
    assert len(record["indices"]) == 4
    assert len(record["backgrounds"]) == 6
    assert record["backgrounds"][:4] == record["indices"]
    assert f"background also from {', '.join(record['backgrounds'][4:])}" in outcome.stdout
    assert {path.stem for path in (tmp_path / "out/background").iterdir()} == set(record["backgrounds"])
    render(rig, tmp_path / "fewer", *run, "--background_cameras", 4).check()
    assert contents(tmp_path / "fewer")["frames/00000.png"] != contents(tmp_path / "out")["frames/00000.png"]
    named = ("--indices", *record["indices"])
    render(rig, tmp_path / "named", *run, *named).check()  # those that are named, and no others
    assert contents(tmp_path / "named")["frames/00000.png"] == contents(tmp_path / "fewer")["frames/00000.png"]
    render(rig, tmp_path / "both", *run, *named, "--background_cameras", 6).check()
    assert contents(tmp_path / "both")["frames/00000.png"] == contents(tmp_path / "out")["frames/00000.png"]
    (tmp_path / "out/background").rename(rig / "background")  # one camera has none
    render(rig, tmp_path / "given", *run).check()
    assert contents(tmp_path / "given")["frames/00000.png"] == contents(tmp_path / "fewer")["frames/00000.png"]
    render(rig, tmp_path / "asked", *run, "--background_cameras", 7).check_input_error("no background picture")


@pytest.mark.slow
def test_tiles_that_fit_into_memory_make_the_same_pictures(
    render, make_rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(tmp_path / "rig", size=(72, 480))
    options = ("--path", "circle", "--num_frames", 2, "--save_mask", "--save_disparity", "--indices", 0, 1)
    outcome = render(rig, tmp_path / "whole", *options, "--memory_gb", 100).check()
    line = next(line for line in outcome.stdout.splitlines() if line.startswith("memory: "))
    assert " of 100.0 GB: " in line
    assert "in 1 tile, " in line

    def plan_for_less(job: Job, budget: int, *, why: str) -> Plan:
        return make_plan(job, need(job, Tiling.of(job.mpi_size, 1, 3, 8)).total, why=why)

    monkeypatch.setattr("maskvolume.mpi.session.make_plan", plan_for_less)
    outcome = render(rig, tmp_path / "tiles", *options).check()
    assert " tiles of " in outcome.stdout
    for name, steps in (("frames", 255), ("mask", 255), ("disparity", 65535)):
        for pose in range(2):
            file = f"{name}/{pose:05d}.png"
            whole, tiled = (cv2.imread(str(tmp_path / kind / file), -1).astype(float) for kind in ("whole", "tiles"))
            assert np.abs(whole - tiled).max() <= 1 + 1e-3 * steps
            assert whole.std() > 0


def test_too_little_memory_is_said_before_anything_is_made(render, tiny_rig: Path, tmp_path: Path) -> None:
    outcome = render(tiny_rig, tmp_path / "out", *SHORT, "--memory_gb", 0.2)
    outcome.check_input_error("memory", "need", "0.2 GB", "--memory_gb", "--num_planes")
    assert not (tmp_path / "out/frames").exists()
    render(tiny_rig, tmp_path / "out", *SHORT, "--memory_gb", 0).check_input_error("--memory_gb")
