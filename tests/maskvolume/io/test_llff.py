"""LLFF poses and paths: axes, round trips, and every way in which a file can be wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.poses import RigPoses
from maskvolume.io.llff import (
    read_path,
    read_poses_bounds,
    write_path,
    write_poses_bounds,
)
from maskvolume.runtime.errors import InputError

PARITY = Path(__file__).parents[2] / "data" / "original_parity" / "frames" / "00000"


def random_poses(count: int = 5, seed: int = 0, size: tuple[int, int] = (48, 64)) -> RigPoses:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))[:, None, None]
    T_world_cam = np.tile(np.eye(4), (count, 1, 1))
    T_world_cam[:, :3, :3], T_world_cam[:, :3, 3] = rotation, rng.normal(size=(count, 3))
    K = np.zeros((count, 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = rng.uniform(30, 90, count)
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = size[1] / 2, size[0] / 2, 1
    near = rng.uniform(0.5, 2, count)
    bounds = np.stack([near, near + rng.uniform(1, 20, count)], axis=1)
    cameras = Camera(invert_rigid(torch.from_numpy(T_world_cam)), torch.from_numpy(K), size)
    return RigPoses(cameras, torch.from_numpy(bounds))


def assert_same_cameras(a: Camera, b: Camera) -> None:
    assert a.size == b.size
    torch.testing.assert_close(a.T_cam_world, b.T_cam_world, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(a.K, b.K, atol=1e-12, rtol=1e-12)


def project(camera: Camera, point: np.ndarray) -> np.ndarray:
    """Pixel (x, y) of a world point in one camera."""
    x = camera.T_cam_world.numpy() @ np.append(point, 1)
    u = camera.K.numpy() @ x[:3]
    return u[:2] / u[2]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_poses_bounds_round_trip(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("llff") / "poses_bounds.npy"
    poses = random_poses(count, seed)
    write_poses_bounds(path, poses)
    again = read_poses_bounds(path)
    assert_same_cameras(again.cameras, poses.cameras)
    assert torch.equal(again.bounds, poses.bounds)
    assert len(again) == count


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_path_text_and_array_say_the_same(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("llff")
    cameras = random_poses(count, seed).cameras
    write_path(folder / "path.txt", cameras)
    write_path(folder / "path.npy", cameras)
    assert_same_cameras(read_path(folder / "path.txt"), cameras)
    assert_same_cameras(read_path(folder / "path.npy"), cameras)


def test_files_of_the_original_survive_a_round_trip(tmp_path: Path) -> None:
    write_poses_bounds(tmp_path / "p.npy", read_poses_bounds(PARITY / "poses_bounds.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), np.load(PARITY / "poses_bounds.npy"), atol=1e-12)
    write_path(tmp_path / "p.txt", read_path(PARITY / "qual_path.txt"))
    expected, found = ((folder / name).read_text().split() for folder, name in
                       [(PARITY, "qual_path.txt"), (tmp_path, "p.txt")])  # fmt: skip
    np.testing.assert_allclose(np.array(found, float), np.array(expected, float), atol=1e-12)


def test_a_point_projects_as_the_file_says() -> None:
    """Along [right, down, forward] of the file's own columns, with f and the middle of the picture."""
    rows = np.load(PARITY / "poses_bounds.npy")
    cameras = read_poses_bounds(PARITY / "poses_bounds.npy").cameras
    rng = np.random.default_rng(0)
    for i, row in enumerate(rows):
        down, right, back, t, (h, w, f) = row[:15].reshape(3, 5).T
        x, y, z = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(1, 5)
        point = t + x * right + y * down - z * back
        expected = [w / 2 + f * x / z, h / 2 + f * y / z]
        np.testing.assert_allclose(project(cameras[i], point), expected, atol=1e-6)


def test_a_point_projects_as_the_path_text_says() -> None:
    lines = (PARITY / "qual_path.txt").read_text().splitlines()
    cameras = read_path(PARITY / "qual_path.txt", (72, 128))
    assert len(cameras) == int(lines[0])
    for i, line in enumerate(lines[1:]):
        right, up, back, t, (_, w, f) = np.array(line.split(), float).reshape(5, 3)
        point = t + 0.3 * right + 0.2 * up - 2.0 * back
        scale = 128 / w
        expected = [64 + scale * f * 0.3 / 2, 36 - scale * f * 0.2 / 2]
        np.testing.assert_allclose(project(cameras[i], point), expected, atol=1e-6)


def test_path_size_scales_each_axis(tmp_path: Path) -> None:
    cameras = random_poses(size=(48, 64)).cameras
    write_path(tmp_path / "path.npy", cameras)
    scaled = read_path(tmp_path / "path.npy", (24, 128))
    assert scaled.size == (24, 128)
    torch.testing.assert_close(scaled.K[:, 0], cameras.K[:, 0] * 2)
    torch.testing.assert_close(scaled.K[:, 1], cameras.K[:, 1] / 2)


def test_fractional_picture_size_is_rounded_and_K_follows(tmp_path: Path) -> None:
    rows = good_rows()
    rows[:, 4], rows[:, 9] = 48.4, 63.6
    np.save(tmp_path / "p.npy", rows)
    cameras = read_poses_bounds(tmp_path / "p.npy").cameras
    assert cameras.size == (48, 64)
    np.testing.assert_allclose(cameras.K[:, 0, 0], rows[:, 14] * 64 / 63.6)
    np.testing.assert_allclose(cameras.K[:, 1, 1], rows[:, 14] * 48 / 48.4)


def test_rounded_rotations_become_orthonormal(tmp_path: Path) -> None:
    rows = np.round(good_rows(), 4)
    np.save(tmp_path / "p.npy", rows.astype(np.float32))
    R = read_poses_bounds(tmp_path / "p.npy").cameras.T_cam_world[:, :3, :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=R.dtype).expand_as(R), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_two_focal_lengths_cannot_be_written(tmp_path: Path, suffix: str) -> None:
    poses = random_poses()
    squeezed = RigPoses(poses.cameras.scaled((48, 32)), poses.bounds)
    with pytest.raises(InputError, match=r"path\.\w+: .*one focal length.*; give cameras"):
        write_path(tmp_path / f"path{suffix}", squeezed.cameras)
    with pytest.raises(InputError, match="one focal length"):
        write_poses_bounds(tmp_path / "p.npy", squeezed)


def test_path_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"path\.csv: .*\.txt or a \.npy"):
        write_path(tmp_path / "path.csv", random_poses().cameras)


def test_bounds_must_fit_the_cameras() -> None:
    poses = random_poses(3)
    with pytest.raises(ValueError, match="bounds"):
        RigPoses(poses.cameras, poses.bounds[:2])


def good_rows() -> np.ndarray:
    poses = random_poses(4)
    c2w = invert_rigid(poses.cameras.T_cam_world).numpy()
    matrix = np.zeros((4, 3, 5))
    matrix[:, :, 0], matrix[:, :, 1], matrix[:, :, 2] = c2w[:, :3, 1], c2w[:, :3, 0], -c2w[:, :3, 2]
    matrix[:, :, 3] = c2w[:, :3, 3]
    matrix[:, 0, 4], matrix[:, 1, 4], matrix[:, 2, 4] = 48, 64, 50
    return np.concatenate([matrix.reshape(4, 15), poses.bounds.numpy()], axis=1)


def edited(*edits: tuple[int | slice, float]) -> np.ndarray:
    """Good rows with these columns of row 2 changed."""
    rows = good_rows()
    for column, value in edits:
        rows[2, column] = value
    return rows


ROTATION = [0, 1, 2, 5, 6, 7, 10, 11, 12]
BAD_ROWS: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "NaN": (lambda: edited((3, np.nan)), "row 2 holds NaN or infinity; estimate"),
    "infinity": (lambda: edited((16, np.inf)), "row 2 holds NaN or infinity; estimate"),
    "zero rotation": (lambda: edited(*[(i, 0) for i in ROTATION]), "row 2: the rotation is singular"),
    "equal columns": (lambda: edited(*[(i, 0.5) for i in ROTATION]), "row 2: the rotation is singular"),
    "scaled rotation": (lambda: edited(*[(i, 2.0) for i in (0, 6, 12)]), "row 2: the rotation is singular"),
    "mirrored": (
        lambda: edited(*[(i, -good_rows()[2, i]) for i in ROTATION]),
        "row 2: the rotation is mirrored.*check the order",
    ),
    "near of 0": (lambda: edited((15, 0.0)), "row 2: near 0 .*0 < near < far expected"),
    "negative near": (lambda: edited((15, -1.0)), "row 2: near -1 "),
    "far before near": (lambda: edited((15, 5.0), (16, 4.0)), "row 2: near 5 and far 4"),
    "far at near": (lambda: edited((15, 5.0), (16, 5.0)), "row 2: near 5 and far 5"),
    "no focal length": (lambda: edited((14, 0.0)), "row 2: .*focal length 0, numbers above 0"),
    "negative width": (lambda: edited((9, -64.0)), "row 2: .*width -64"),
    "another size": (lambda: edited((4, 96.0)), "row 2: picture size 64 x 96, but 64 x 48 in the first"),
    "16 columns": (lambda: good_rows()[:, :16], "shape 4 x 16, N x 17 expected"),
    "three axes": (lambda: good_rows()[None], "shape 1 x 4 x 17, N x 17 expected"),
    "one row": (lambda: good_rows()[0], "shape 17, N x 17 expected"),
    "no row": (lambda: good_rows()[:0], "shape 0 x 17, N x 17 expected"),
    "a number": (lambda: np.array(3.0), r"shape \(\), N x 17 expected"),
    "text": (lambda: np.array([["a"] * 17]), "not an array of real numbers; save it again"),
    "complex": (lambda: good_rows().astype(complex), "not an array of real numbers; save it again"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_poses_bounds(tmp_path: Path, name: str) -> None:
    make, message = BAD_ROWS[name]
    np.save(tmp_path / "poses_bounds.npy", make())
    with pytest.raises(InputError, match=rf"poses_bounds\.npy: {message}.*") as caught:
        read_poses_bounds(tmp_path / "poses_bounds.npy")
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_good_rows_are_good(tmp_path: Path) -> None:
    np.save(tmp_path / "poses_bounds.npy", good_rows())
    assert_same_cameras(
        read_poses_bounds(tmp_path / "poses_bounds.npy").cameras[:, None][:, 0],
        random_poses_with_focal(50.0),
    )


def random_poses_with_focal(focal: float) -> Camera:
    cameras = random_poses(4).cameras
    K = cameras.K.clone()
    K[:, 0, 0] = K[:, 1, 1] = focal
    return Camera(cameras.T_cam_world, K, cameras.size)


class Exploit:
    """Says whether it was run when it was read."""

    ran = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _mark_as_run, ()


def _mark_as_run() -> None:
    Exploit.ran = True


@pytest.mark.parametrize("read", [read_poses_bounds, read_path])
@pytest.mark.parametrize("bare", [False, True])
def test_pickled_objects_are_not_opened(tmp_path: Path, read: Callable[[Path], object], bare: bool) -> None:
    path = tmp_path / "poses.npy"
    if bare:
        path.write_bytes(pickle.dumps(Exploit()))
    else:
        np.save(path, np.array([Exploit()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"poses\.npy: holds pickled objects.*; save it again"):
        read(path)
    assert not Exploit.ran


@pytest.mark.parametrize("read", [read_poses_bounds, read_path])
def test_missing_and_damaged_arrays(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "poses.npy"
    with pytest.raises(InputError, match=r"poses\.npy: no such file; check"):
        read(path)
    np.save(path, good_rows())
    data = path.read_bytes()
    for content in (b"", data[:6], data[:100], data[:-8], b"PK\x03\x04" + data, b"\x93NUMPY\x09\x00"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"poses\.npy: .*; (make|save) it again|make or download"):
            read(path)


@pytest.mark.parametrize("shape", [(4, 3, 4), (4, 17), (3, 5), (0, 3, 5)])
def test_path_array_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "path.npy", np.ones(shape))
    with pytest.raises(InputError, match=r"path\.npy: shape .*N x 3 x 5 expected; make the path again"):
        read_path(tmp_path / "path.npy")


def good_lines() -> list[str]:
    rows = good_rows()[:, :15].reshape(-1, 3, 5)
    down, right, back = rows[:, :, 0], rows[:, :, 1], rows[:, :, 2]
    columns = np.stack([right, -down, back, rows[:, :, 3], rows[:, :, 4]], axis=1)
    return ["4", *(" ".join(map(repr, row)) for row in columns.reshape(4, 15).tolist())]


def broken_line(word: str) -> list[str]:
    lines = good_lines()
    lines[3] = " ".join([word, *lines[3].split()[1:]])
    return lines


BAD_LINES: dict[str, tuple[Callable[[], list[str]], str]] = {
    "count too large": (lambda: ["5", *good_lines()[1:]], "line 1 says 5 poses, but 4 follow; correct"),
    "count too small": (lambda: ["3", *good_lines()[1:]], "line 1 says 3 poses, but 4 follow; correct"),
    "no pose": (lambda: ["0"], "line 1 says 0 poses, but 0 follow"),
    "no count": (lambda: good_lines()[1:], "line 1: the number of poses expected; make"),
    "count in words": (lambda: ["four", *good_lines()[1:]], "line 1: the number of poses expected; make"),
    "empty": (lambda: [""], "line 1: the number of poses expected; make"),
    "short line": (lambda: [*good_lines()[:-1], "1 2 3"], "line 5: 3 numbers, 15 expected; make"),
    "not a number": (lambda: broken_line("a.5"), "line 4: .*'a.5'; make"),
    "NaN": (lambda: broken_line("nan"), "pose 2 holds NaN or infinity; estimate"),
    "singular": (lambda: broken_line("9"), "pose 2: the rotation is singular"),
    "no focal length": (
        lambda: ["1", " ".join([*good_lines()[1].split()[:14], "-2"])],
        "pose 0: .*focal length -2",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_path_text(tmp_path: Path, name: str) -> None:
    make, message = BAD_LINES[name]
    (tmp_path / "qual_path.txt").write_text("\n".join(make()))
    with pytest.raises(InputError, match=rf"qual_path\.txt: {message}"):
        read_path(tmp_path / "qual_path.txt")


def test_path_text_may_have_blank_lines_and_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "path.txt").write_bytes(("\r\n".join(good_lines()) + "\r\n\r\n").encode())
    assert_same_cameras(read_path(tmp_path / "path.txt"), random_poses_with_focal(50.0))


def test_path_that_is_missing_or_no_text(tmp_path: Path) -> None:
    path = tmp_path / "path.txt"
    with pytest.raises(InputError, match=r"path\.txt: no such file; make a path with"):
        read_path(path)
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"path\.txt: not a text file; give"):
        read_path(path)
