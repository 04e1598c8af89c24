"""The program that makes the bundled clip: its cameras, its files, and the clip itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.quality.holdout import Targets
from maskvolume.io.llff import read_poses_bounds
from maskvolume.runtime.errors import InputError
from scenes import make_example_rig as rig

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scenes" / "make_example_rig.py"
CLIP = ROOT / "examples" / "rig"
BOUNDS = np.tile([1.5, 9.7], (13, 1))
HAS_BPY = importlib.util.find_spec("bpy") is not None


def still_picture(folder: Path) -> np.ndarray:
    return np.median([cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"))], axis=0).astype(np.float32)


needs_clip = pytest.mark.skipif(not (CLIP / "poses_bounds.npy").exists(), reason="examples/rig is not there")


def test_base_rotation_looks_ahead_and_keeps_the_horizon() -> None:
    R = rig.base_rotation(-6.0)
    np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    right, down, forward = R.T
    assert right[2] == 0.0
    assert down[2] < -0.99  # z is up
    assert forward[2] == pytest.approx(np.sin(np.deg2rad(-6.0)))


def test_cameras_stand_in_two_rows_and_targets_where_they_should() -> None:
    views = rig.rig_views()
    names = [view.name for view in views]
    assert names == [f"cam{k:02d}" for k in range(10)] + ["target0", "target1", "target2"]
    assert [view.held_out for view in views] == [False] * 10 + [True] * 3
    place = {view.name: view.c2w[:, 3] for view in views}
    for k in range(4):
        for row in (0, 5):
            step = place[f"cam{row + k + 1:02d}"] - place[f"cam{row + k:02d}"]
            np.testing.assert_allclose(step, [0.1, 0, 0], atol=0.03)
    for k in range(5):
        np.testing.assert_allclose(place[f"cam{k:02d}"] - place[f"cam{k + 5:02d}"], [0, 0, 0.1], atol=0.03)
    np.testing.assert_allclose(place["target0"], (place["cam02"] + place["cam03"]) / 2, atol=0.02)
    middle = sum(place[f"cam{k:02d}"] for k in (1, 2, 6, 7)) / 4
    np.testing.assert_allclose(place["target1"], middle, atol=0.02)
    assert place["target2"][0] > place["cam04"][0] + 0.03
    assert place["target2"][1] > place["cam04"][1] + 0.01


def test_views_are_the_same_every_time() -> None:
    for a, b in zip(rig.rig_views(), rig.rig_views(), strict=True):
        np.testing.assert_array_equal(a.c2w, b.c2w)


def test_rows_read_back_as_the_cameras_they_were_made_from(tmp_path: Path) -> None:
    views = rig.rig_views()
    np.save(tmp_path / "poses_bounds.npy", rig.llff_rows(views, (360, 640), BOUNDS))
    poses = read_poses_bounds(tmp_path / "poses_bounds.npy")
    assert poses.cameras.size == (360, 640)
    for k, view in enumerate(views):
        T = poses.cameras.T_cam_world[k]
        c2w = torch.linalg.inv(T)[:3].numpy()
        np.testing.assert_allclose(c2w, view.c2w, atol=1e-9)
        K = [[520.0, 0, 320], [0, 520, 180], [0, 0, 1]]
        np.testing.assert_allclose(poses.cameras.K[k].numpy(), K, atol=1e-9)
    np.testing.assert_array_equal(poses.bounds.numpy(), BOUNDS)


def test_jobs_cover_every_picture_once_with_the_masks_last() -> None:
    jobs = rig.list_jobs(rig.rig_views(), 3)
    assert len({job.path for job in jobs}) == len({job.master for job in jobs}) == len(jobs) == 3 * (13 + 13)
    kinds = [job.is_mask for job in jobs]
    assert kinds == sorted(kinds)
    assert {job.frame for job in jobs[:13]} == {0}
    paths = {job.path for job in jobs}
    assert {"cam00/00000.jpg", "targets/target2/00002.jpg"} <= paths
    assert {"targets/masks/target1/00001.png", "targets/masks/cam09/00002.png"} <= paths


def test_mask_is_white_where_anything_moving_is_seen() -> None:
    picture = np.zeros((4, 6, 4), np.uint8)
    picture[1, 2, 3], picture[2, 3, 3] = 255, 40
    mask = cv2.imdecode(np.frombuffer(rig.encode_mask(picture), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (4, 6)
    assert sorted(zip(*np.nonzero(mask), strict=True)) == [(1, 2), (2, 3)]
    assert set(np.unique(mask)) == {0, 255}


def test_depth_is_read_back_as_the_benchmarks_do(tmp_path: Path) -> None:
    depth = np.geomspace(2.0, 9.0, 12 * 16).reshape(12, 16)
    depth[3, 4], depth[5, 6] = np.nan, 1.0  # nothing there; nearer than near
    path = rig.depth_path(tmp_path, rig.rig_views()[-1])
    path.parent.mkdir(parents=True)
    path.write_bytes(rig.encode_depth(depth, 1.5))
    (tmp_path / "targets" / "target2").mkdir()
    np.save(
        tmp_path / "targets" / "poses_bounds.npy", rig.llff_rows(rig.rig_views()[-1:], (12, 16), np.array([[1.5, 9]]))
    )
    targets = Targets.open(tmp_path / "targets", (12, 16))
    back = targets.still_depth(0)[0].double().numpy()
    assert targets.has_depth
    assert back[3, 4] > 1e5
    assert back[5, 6] == pytest.approx(1.5)
    there = ~np.isnan(depth) & (depth > 1.5)
    np.testing.assert_allclose(back[there], depth[there], rtol=1e-4)  # half a step of 65535 at near / far


def test_a_picture_is_made_from_its_lossless_frame(tmp_path: Path) -> None:
    job = rig.list_jobs(rig.rig_views()[:1], 1)[0]
    picture = np.full((16, 24, 3), (30, 120, 200), np.uint8)
    master = tmp_path / "masters" / job.master
    master.parent.mkdir(parents=True)
    cv2.imwrite(str(master), picture)
    rig.finish(job, tmp_path / "clip", tmp_path / "masters", 95)
    back = cv2.imread(str(tmp_path / "clip" / job.path))
    assert np.abs(back.astype(int) - picture).max() <= 3


def test_unreadable_lossless_frame_is_named(tmp_path: Path) -> None:
    job = rig.list_jobs(rig.rig_views()[:1], 1)[0]
    (tmp_path / job.master).parent.mkdir()
    (tmp_path / job.master).write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"00000\.png: cannot be read"):
        rig.finish(job, tmp_path / "clip", tmp_path, 90)


def test_frames_of_two_settings_are_not_mixed(tmp_path: Path) -> None:
    rig.check_settings(tmp_path, (640, 360), 16, 20)
    rig.check_settings(tmp_path, (640, 360), 16, 20)
    with pytest.raises(InputError, match=r"settings\.json"):
        rig.check_settings(tmp_path, (640, 360), 32, 20)


@pytest.mark.parametrize("bad", [["--frames", "0"], ["--quality", "101"], ["--size", "640", "-1"]])
def test_numbers_out_of_range_are_refused(bad: list[str]) -> None:
    with pytest.raises(InputError):
        rig.parse(bad)


def test_preview_does_not_write_into_the_clip() -> None:
    assert rig.parse([]).out == CLIP
    preview = rig.parse(["--preview"])
    assert CLIP not in (preview.out, *preview.out.parents)
    assert preview.size == (160, 90)
    assert preview.masters != rig.parse([]).masters


@pytest.mark.skipif(HAS_BPY, reason="bpy is installed: there is nothing missing to report")
def test_missing_blender_is_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--out", str(tmp_path / "clip"), "--preview"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "bpy" in result.stderr
    assert "install" in result.stderr
    assert not (tmp_path / "clip").exists()


@pytest.mark.skipif(not HAS_BPY, reason="bpy, Blender's Python module, is not installed")
def test_tiny_clip_is_whole_and_a_second_run_keeps_it(tmp_path: Path) -> None:
    out = tmp_path / "clip"
    command = [sys.executable, str(PROGRAM), "--out", str(out), "--masters", str(tmp_path / "masters")]
    command += ["--size", "32", "18", "--samples", "1", "--frames", "1"]
    subprocess.run(command, check=True, capture_output=True)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert {str(path.relative_to(out)) for path in times} == {
        *(job.path for job in rig.list_jobs(rig.rig_views(), 1)),
        *(str(rig.depth_path(out, view).relative_to(out)) for view in rig.rig_views() if view.held_out),
        "poses_bounds.npy",
        "targets/poses_bounds.npy",
    }
    subprocess.run(command, check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == times


@needs_clip
def test_bundled_clip_has_the_cameras_of_the_program() -> None:
    views = rig.rig_views()
    for path, held_out in ((CLIP / "poses_bounds.npy", False), (CLIP / "targets" / "poses_bounds.npy", True)):
        rows = np.load(path)
        wanted = rig.llff_rows([v for v in views if v.held_out == held_out], (360, 640), rows[:, 15:])
        np.testing.assert_allclose(rows, wanted, atol=1e-9)
        assert (rows[:, 15] > 1.0).all()
        assert (rows[:, 16] < 11.0).all()


@needs_clip
def test_bundled_clip_is_complete_and_small() -> None:
    files = [path for path in CLIP.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15e6
    views = rig.rig_views()
    paths = [CLIP / job.path for job in rig.list_jobs(views, 20)]
    paths += [rig.depth_path(CLIP, view) for view in views if view.held_out]
    assert not [path for path in paths if not path.exists()]


@needs_clip
def test_bundled_masks_cover_what_moves() -> None:
    for camera in ("cam00", "cam09"):
        frames = np.stack([cv2.imread(str(CLIP / camera / f"{t:05d}.jpg")) for t in range(20)]).astype(int)
        differs = np.abs(frames[7] - np.median(frames, axis=0)).max(axis=-1) > 60
        mask = cv2.imread(str(CLIP / "targets" / "masks" / camera / "00007.png"), cv2.IMREAD_UNCHANGED) == 255
        assert 0.05 < mask.mean() < 0.12
        assert differs[mask].mean() > 0.5
        assert differs[~mask].mean() < 0.01  # shadows


@needs_clip
def test_bundled_depths_carry_a_rig_camera_into_the_target() -> None:
    """A still pixel of a target has the colour that it has in the neighbouring camera, and a wrong depth tells."""
    targets, poses = Targets.open(CLIP / "targets", (360, 640)), read_poses_bounds(CLIP / "poses_bounds.npy")
    still = [still_picture(CLIP / name) for name in ("targets/target1", "cam02")]
    depth = targets.still_depth(1)[0].double().numpy()
    x, y = np.meshgrid(np.arange(640) + 0.5, np.arange(360) + 0.5)
    rays = np.linalg.inv(targets.poses.cameras.K[1].numpy()) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    T_cam_target = (poses.cameras.T_cam_world[2] @ torch.linalg.inv(targets.poses.cameras.T_cam_world[1])).numpy()
    errors = []
    for factor in (1.0, 1.1, 0.9):
        points = T_cam_target[:3, :3] @ (rays * depth.ravel() * factor) + T_cam_target[:3, 3:]
        seen = (poses.cameras.K[2].numpy() @ points).reshape(3, 360, 640)
        u, v = ((seen[k] / seen[2] - 0.5).astype(np.float32) for k in (0, 1))
        warped = cv2.remap(still[1], u, v, cv2.INTER_LINEAR)
        inside = (u > 0) & (u < 639) & (v > 0) & (v < 359)
        errors.append(float(np.median(np.abs(warped - still[0]).max(axis=-1)[inside])))
    assert errors[0] < 0.7 * min(errors[1:])
