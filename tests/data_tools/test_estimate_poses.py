"""estimate_poses: true poses are found again, what is written, how sure it says it is, and bad input."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_tools.estimate_poses import main
from data_tools.poses.confidence import (
    differences,
)
from maskvolume.clips.rig import RigClip
from maskvolume.data.synthetic.options import WorldOptions
from maskvolume.data.synthetic.static import StaticWorld
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.lenses import (
    Lens,
    pinhole,
    project,
    undistort_maps,
)
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.calibrations import read_calibration, write_calibration
from maskvolume.io.images import write_image
from maskvolume.io.llff import read_poses_bounds, write_poses_bounds
from maskvolume.runtime.errors import InputError

SIZE = (240, 320)
NEAR, FAR = 1.0, 5.0
PLACES = ((0, 0), (0.1, 0.01), (0.2, 0), (0.01, 0.1), (0.1, 0.11), (0.21, 0.1))
NUM_FRAMES = 5
MOVER_DEPTH = 0.8


def true_poses() -> torch.Tensor:
    """``T_cam_world [6, 4, 4]``: two rows of three, turned a little."""
    rng = np.random.default_rng(3)
    T = np.tile(np.eye(4), (len(PLACES), 1, 1))
    for pose, place in zip(T, PLACES, strict=True):
        pose[:3, :3] = cv2.Rodrigues(np.radians(rng.uniform(-1, 1, 3)))[0]
        pose[:3, 3] = -pose[:3, :3] @ [place[0] - 0.1, place[1] - 0.05, rng.uniform(-0.01, 0.01)]
    return torch.from_numpy(T)


def paste_mover(picture: np.ndarray, camera: Camera, x: float, texture: np.ndarray) -> None:
    """Draw a textured square that stands at depth ``MOVER_DEPTH`` into a picture."""
    corners = np.array([[x, -0.1], [x + 0.16, -0.1], [x + 0.16, 0.06], [x, 0.06]])
    points = np.concatenate([corners, np.full((4, 1), MOVER_DEPTH), np.ones((4, 1))], axis=1)
    local = points @ camera.T_cam_world.numpy()[:3].T
    pixels = local @ camera.K.numpy().T
    side = texture.shape[0]
    source = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    H = cv2.getPerspectiveTransform(source, (pixels[:, :2] / pixels[:, 2:]).astype(np.float32))
    warped = cv2.warpPerspective(texture, H, picture.shape[1::-1])
    mask = cv2.warpPerspective(np.full((side, side), 255, np.uint8), H, picture.shape[1::-1]) > 127
    picture[mask] = warped[mask]


@pytest.fixture(scope="module")
def truth() -> RigPoses:
    """The poses of the recording."""
    K = torch.tensor([[280.0, 0, 160], [0, 280, 120], [0, 0, 1]], dtype=torch.float64)
    bounds = torch.tensor([[NEAR, FAR]], dtype=torch.float64).expand(len(PLACES), 2)
    return RigPoses(Camera(true_poses(), K.expand(len(PLACES), 3, 3), SIZE), bounds)


@pytest.fixture(scope="module")
def recording(tmp_path_factory, truth) -> Path:
    """Six cameras that stand still and see a square cross a random world; no poses beside it."""
    folder = tmp_path_factory.mktemp("recording")
    options = WorldOptions(
        size=SIZE, near=(NEAR, NEAR), far_ratio=(FAR, FAR), focal=(0.875, 0.875), num_things=(30, 30), noise=0.0
    )
    world = StaticWorld(options, seed=5)
    pictures = world.render(world.camera(truth.cameras.T_cam_world))[0]
    texture = cv2.resize(np.random.default_rng(1).integers(0, 256, (12, 12, 3), np.uint8), (96, 96))
    rng = np.random.default_rng(2)
    for camera, picture in enumerate((255 * pictures.permute(0, 2, 3, 1)).round().numpy()):
        for frame in range(NUM_FRAMES):
            noisy = (picture + rng.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)
            paste_mover(noisy, truth.cameras[camera], -0.4 + 0.16 * frame, texture)
            write_image(folder / f"cam{camera:02d}" / f"{frame:05d}.png", noisy)
    return folder


def estimate(recording: Path, out: Path, *options: object) -> RigPoses:
    main([str(recording), "--out", str(out), *map(str, options)])
    return read_poses_bounds(out)


def compare(found: RigPoses, truth: RigPoses) -> tuple[float, float]:
    """Largest differences: rotation in degrees, place in parts of the rig's width."""
    rotation, place = differences(list(found.cameras.T_cam_world.numpy()), list(truth.cameras.T_cam_world.numpy()))
    return float(rotation.max()), float(place.max())


@pytest.fixture(scope="module")
def known(recording, truth, tmp_path_factory) -> RigPoses:
    """The poses as they are found with the true focal length, in metres."""
    out = tmp_path_factory.mktemp("known") / "poses_bounds.npy"
    return estimate(recording, out, "--focal", 280, "--baseline", 0.1005, "--between", "cam00", "cam01")


@pytest.mark.slow
def test_known_focal_length(known, truth):
    rotation, place = compare(known, truth)
    assert rotation < 0.1
    assert place < 0.01
    assert torch.equal(known.cameras.K, truth.cameras.K)
    places = known.cameras.center
    assert float((places[1] - places[0]).norm()) == pytest.approx(0.1005)
    torch.testing.assert_close(known.cameras.T_cam_world[0], torch.eye(4, dtype=torch.float64))


def test_bounds_hold_what_stands_and_what_moves(known):
    near, far = known.bounds.T
    assert float(near.max()) < 1.05 * MOVER_DEPTH
    assert float(near.min()) > 0.8 * MOVER_DEPTH
    assert 0.7 * FAR < float(far.min()) <= float(far.max()) < 1.3 * FAR


@pytest.mark.slow
def test_unknown_focal_length_and_merged_instants(recording, truth, tmp_path, capsys):
    found = estimate(recording, tmp_path / "poses.npy", "--merge", "always", "--instants", 2)
    assert abs(float(found.cameras.K[0, 0, 0]) / 280 - 1) < 0.05
    rotation, place = compare(found, truth)
    assert rotation < 0.2
    assert place < 0.02
    out = capsys.readouterr().out
    assert "features of 2 instants are merged" in out
    assert "reprojection error: 0." in out
    assert "verdict: " in out
    assert not list(Path(tempfile.gettempdir()).glob("estimate_poses.*/database.db"))
    places = found.cameras.center
    distances = torch.cdist(places, places) + torch.diag(torch.full((len(places),), torch.inf, dtype=torch.float64))
    assert float(distances.min(dim=1).values.mean()) == pytest.approx(1.0)


@pytest.mark.slow
def test_the_same_again(recording, known, tmp_path):
    again = estimate(recording, tmp_path / "a.npy", "--focal", 280, "--baseline", 0.1005, "--between", "cam00", "cam01")
    assert torch.equal(again.cameras.T_cam_world, known.cameras.T_cam_world)
    assert torch.equal(again.bounds, known.bounds)


@pytest.mark.slow
def test_prior_is_refined_in_its_own_frame(recording, truth, tmp_path):
    rng = np.random.default_rng(0)
    wrong = truth.cameras.T_cam_world.clone().numpy()
    for pose in wrong:
        pose[:3, :3] = cv2.Rodrigues(np.radians(rng.uniform(-0.3, 0.3, 3)))[0] @ pose[:3, :3]
        pose[:3, 3] += rng.uniform(-0.005, 0.005, 3)
    prior = RigPoses(Camera(torch.from_numpy(wrong), truth.cameras.K, SIZE), truth.bounds)
    write_poses_bounds(tmp_path / "prior.npy", prior)
    found = estimate(recording, tmp_path / "poses.npy", "--prior", tmp_path / "prior.npy", "--focal", 280)
    before, after = compare(prior, truth), compare(found, truth)
    assert after[0] < 0.1 < before[0]
    assert after[1] < 0.01 < before[1]
    # In the frame and unit of the prior, up to what its errors leave open.
    assert float((found.cameras.center - truth.cameras.center).norm(dim=-1).max()) < 0.02


@pytest.mark.slow
def test_known_lenses_then_undistort(recording, truth, tmp_path, capsys):
    bent = tmp_path / "bent"
    lens = Lens(np.array([[280.0, 0, 163], [0, 281, 118], [0, 0, 1]]), np.array([-0.12, 0.03, 0, 0]), "pinhole", SIZE)
    write_calibration(tmp_path / "calibration" / "all.json", lens)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    # The position of each pixel of the distorted picture in the undistorted one.
    rays = cv2.undistortPoints(np.stack([x, y], -1).reshape(-1, 1, 2), lens.K, lens.distortion)[:, 0]
    pixels = (rays @ [[280.0, 0], [0, 280]] + [160, 120] - 0.5).astype(np.float32).reshape(*SIZE, 2)
    for path in sorted(recording.glob("cam*/*.png")):
        picture = cv2.imread(str(path))
        (bent / path.parent.name).mkdir(parents=True, exist_ok=True)
        new = cv2.remap(picture, pixels[..., 0], pixels[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        cv2.imwrite(str(bent / path.parent.name / path.name), new)
    main([str(bent), "--calibration", str(tmp_path / "calibration"), "--instants", "0"])
    found = read_poses_bounds(bent / "poses_bounds.npy")
    rotation, place = compare(found, truth)
    assert rotation < 0.1
    assert place < 0.01
    out = capsys.readouterr().out
    assert "warning: LLFF poses cannot represent distortion" in out
    assert f"undistort.py {bent} --calibration {tmp_path / 'calibration'} --out_dir {tmp_path / 'bent_straight'}" in out

    main([str(bent), "--distortion", "radial", "--instants", "0", "--overwrite"])
    made = read_calibration(bent / "calibration" / "cam00.json")
    corner = np.array([[0.5, 0.4]])
    assert float(np.linalg.norm(project(made, corner) - project(lens, corner))) < 8
    assert undistort_maps(made, pinhole(made.K, SIZE).K).seen.any()


def unlike_camera(recording: Path, folder: Path) -> Path:
    """The recording with a seventh camera that sees something else."""
    shutil.copytree(recording, folder)
    picture = np.random.default_rng(7).integers(0, 256, (30, 40, 3), np.uint8)
    for frame in range(NUM_FRAMES):
        write_image(folder / "cam06" / f"{frame:05d}.png", cv2.resize(picture, SIZE[::-1]))
    return folder


def test_camera_without_a_pose(recording, tmp_path, capsys):
    folder = unlike_camera(recording, tmp_path / "frames")
    with pytest.raises(InputError, match=r"no pose found for cam06 \(.*--exclude.*--allow_missing"):
        main([str(folder), "--focal", "280", "--instants", "0"])
    assert not (folder / "poses_bounds.npy").exists()
    main([str(folder), "--focal", "280", "--instants", "0", "--allow_missing"])
    assert len(read_poses_bounds(folder / "poses_bounds.npy")) == 6
    out = capsys.readouterr().out
    assert "warning: no pose for cam06: the file has no row for them" in out
    shutil.rmtree(folder / "cam06")
    assert RigClip.open(folder).names == tuple(f"cam{i:02d}" for i in range(6))


def test_existing_poses_are_kept(tiny_rig):
    before = (tiny_rig / "poses_bounds.npy").read_bytes()
    with pytest.raises(InputError, match="exists already; give --overwrite"):
        main([str(tiny_rig)])
    assert (tiny_rig / "poses_bounds.npy").read_bytes() == before


def test_bad_input_ends_with_one_line(tmp_path, tiny_rig, run_program):
    for frame in sorted(tiny_rig.glob("cam*/*.png")):
        write_image(frame, np.full((48, 64, 3), 128, np.uint8))
    out = tmp_path / "poses.npy"
    done = run_program("data_tools/estimate_poses.py", tiny_rig, "--out", out)
    done.check_input_error("in common", "--prior")
    assert len(done.stderr.strip().splitlines()[-1]) < 400
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--exclude", "cam01", "cam02"], "one camera"),
        (["--focal", "0"], "--focal: above 0 expected, got 0"),
        (["--between", "cam00", "cam01"], "--baseline"),
        (["--baseline", "0.1", "--between", "cam00", "cam00"], "--between cam00 cam00"),
        (["--focal", "60", "--calibration", "x"], "leave --focal"),
        (["--prior", "none.npy"], "none.npy: no such file"),
        (["--out", "poses.txt"], ".npy"),
        (["--count", "0"], "--count: 1 or more expected, got 0"),
    ],
)
def test_bad_options(tiny_rig, arguments, words):
    (tiny_rig / "poses_bounds.npy").unlink()
    with pytest.raises(InputError, match=words):
        main([str(tiny_rig), *arguments])


@pytest.mark.slow
def test_bundled_clip(repo_root, tmp_path):
    truth = read_poses_bounds(repo_root / "examples/rig/poses_bounds.npy")
    found = estimate(repo_root / "examples/rig", tmp_path / "poses.npy", "--instants", 0, "--features", 1500)
    rotation, place = compare(found, truth)
    assert rotation < 0.1
    assert place < 0.01
    assert abs(float(found.cameras.K[0, 0, 0]) / 520 - 1) < 0.05
