"""The player's camera.js computes what the library does: both get the same random cameras."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_camera

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.homography import render_homographies, sweep_homographies
from maskvolume.geometry.paths import look_at
from maskvolume.io.llff import read_path

MODULE = Path(__file__).resolve().parents[2] / "render" / "viewer" / "camera.js"
NODE = shutil.which("node")
EXACT = 1e-12  # both compute in float64

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(body: str, argument: Any = None) -> Any:
    """The value of a function body of JavaScript, with camera.js as ``c`` and the argument as ``a``."""
    script = (
        f"import {{ readFileSync }} from 'node:fs';\n"
        f"const source = readFileSync({json.dumps(str(MODULE))}, 'utf8');\n"
        "const c = await import('data:text/javascript;base64,' + Buffer.from(source).toString('base64'));\n"
        "const a = JSON.parse(readFileSync(0, 'utf8'));\n"
        f"console.log(JSON.stringify((() => {{ {body} }})()));"
    )
    assert NODE is not None
    command = [NODE, "--input-type=module", "--eval", script]
    done = subprocess.run(command, input=json.dumps(argument), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def entry(camera: Camera) -> dict[str, list[float]]:
    return {"K": camera.K.flatten().tolist(), "T_cam_world": camera.T_cam_world.flatten().tolist()}


def close(found: Any, expected: Any, tolerance: float = EXACT) -> None:
    np.testing.assert_allclose(np.asarray(found).ravel(), np.asarray(expected).ravel(), rtol=tolerance, atol=tolerance)


def test_look_at_is_that_of_the_paths() -> None:
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(20, 3)) * 0.4
    down = rng.normal(size=3) * 0.1 + (0, 1, 0)
    found = run("return a.offsets.map((x) => c.lookAt(x, 3.5, a.down))", {"offsets": offsets.tolist(), "down": [*down]})
    close(found, look_at(torch.tensor(offsets), 3.5, torch.tensor(down)))


def test_inverses_are_inverses() -> None:
    camera = make_camera(3)
    T, K_inverse = run("return [c.invertRigid(a.T_cam_world), c.invertIntrinsics(a.K)]", entry(camera))
    close(T, invert_rigid(camera.T_cam_world))
    close(K_inverse, torch.linalg.inv(camera.K))


def test_intrinsics_are_scaled_per_axis() -> None:
    camera = make_camera(4, size=(36, 64))
    close(run("return c.scaleIntrinsics(a.K, 2.5, 1.5)", entry(camera)), camera.scaled((54, 160)).K)


@pytest.mark.parametrize("seed", range(4))
def test_homographies_are_those_of_the_renderer(seed: int) -> None:
    mpi, target = make_camera(seed), make_camera(seed + 10, size=(40, 50))
    depths = torch.tensor([9.0, 4.0, 1.5], dtype=torch.float64)
    data = {"mpi": entry(mpi), "target": entry(target), "depths": depths.tolist()}
    found = np.reshape(run("return a.depths.map((d) => c.planeHomography(a.mpi, a.target, d))", data), (3, 3, 3))
    close(found, sweep_homographies(target, mpi, depths), 1e-10)
    # The renderer samples the other way around; scales of homographies are free.
    back = np.linalg.inv(render_homographies(mpi, depths, target).numpy())
    close(found / found[:, 2:, 2:], back / back[:, 2:, 2:], 1e-9)


def test_pixels_become_clip_coordinates_with_the_top_row_first() -> None:
    C = np.reshape(run("return c.clipOfPixels(200, 100)"), (3, 3))
    corners = np.array([[0, 0, 1], [200, 0, 1], [200, 100, 1], [100, 50, 1]])
    close(corners @ C.T, [[-1, -1, 1], [1, -1, 1], [1, 1, 1], [0, 0, 1]])


def test_rotations_survive_quaternions_and_slerp_ends_at_its_ends() -> None:
    poses = [
        make_camera(seed, turn=turn).T_cam_world for seed, turn in ((0, 0.1), (1, 1.0), (2, 3.0), (5, 2.0), (7, 2.5))
    ]
    poses = [torch.block_diag(pose[:3, :3], torch.ones(1, 1, dtype=torch.float64)) for pose in poses]
    data = [pose.flatten().tolist() for pose in poses]
    close(run("return a.map((T) => c.rotationOf(c.quaternionOf(T)))", data), torch.stack(poses), 1e-10)
    body = "const [p, q] = a.map(c.quaternionOf); return [0, 0.5, 1].map((s) => c.rotationOf(c.slerp(p, q, s)))"
    first, middle, last = np.reshape(run(body, data[:2]), (3, 4, 4))
    close(first, poses[0], 1e-10)
    close(last, poses[1], 1e-10)
    close(poses[0].numpy().T @ middle, middle.T @ poses[1].numpy(), 1e-10)  # as far from either


def test_limits_are_an_ellipse_and_a_soft_border_goes_on_smoothly() -> None:
    limits = [0.4, 0.2, 0.3]
    directions = [[math.cos(t), 0.5 * math.sin(t)] for t in np.linspace(0, 6, 9)]
    data = {
        "limits": limits,
        "points": [[0.4 * x * r, 0.4 * y * r, 0.5 * r] for x, y in directions for r in (0.3, 1.2, 9)],
    }
    hard, soft = np.array(
        run("return [c.withinLimits, c.softLimits].map((f) => a.points.map((p) => f(p, a.limits)))", data)
    )
    reach = np.hypot(hard[:, 0] / 0.4, hard[:, 1] / 0.2)
    assert reach.max() <= 1 + EXACT
    assert np.abs(hard[:, 2]).max() <= 0.3 + EXACT
    close(hard[::3], np.array(data["points"])[::3])  # inside nothing changes
    close(soft[::3], hard[::3])
    beyond = np.hypot(soft[:, 0] / 0.4, soft[:, 1] / 0.2)
    assert (beyond[1::3] > 1).all()
    assert (beyond[2::3] > beyond[1::3]).all()
    assert beyond.max() < 1.13
    near = [[0.4 * r, 0, 0] for r in (1 - 1e-6, 1 + 1e-6)]
    below, above = run("return a.points.map((p) => c.softLimits(p, a.limits)[0])", {"limits": limits, "points": near})
    assert above - below == pytest.approx(0.8e-6, rel=1e-3)  # no corner at the border


def test_an_axis_without_room_stays_where_it_is() -> None:
    functions = "[c.withinLimits, c.softLimits, c.boundedPull]"
    for found in run(f"return {functions}.map((f) => f([0.3, 0.2, 0.1], [0, 0.4, 0]))"):
        assert found == [0, 0.2, 0]


def test_path_files_are_read_back(tmp_path: Path) -> None:
    cameras = [make_camera(seed, turn=0.5) for seed in range(5)]
    poses = [camera.T_cam_world.flatten().tolist() for camera in cameras]
    path = tmp_path / "path.txt"
    path.write_text(run("return c.pathText(a, 128, 72, 110.25)", poses), encoding="ascii")
    found = read_path(path)
    assert found.size == (72, 128)
    close(found.T_cam_world, torch.stack([camera.T_cam_world for camera in cameras]), 1e-10)
    close(found.K[2], [[110.25, 0, 64], [0, 110.25, 36], [0, 0, 1]])


def test_the_nearest_camera_is_the_nearest() -> None:
    rig = [make_camera(seed) for seed in range(6)]
    body = (
        "const p = a.rig.map((x) => c.placeOf(x.T_cam_world, a.center));"
        "return [p, c.nearestPlace(p[4], p), c.nearestPlace([0, 0, 0], [])]"
    )
    center = make_camera(9).T_cam_world
    places, nearest, none = run(body, {"rig": [entry(x) for x in rig], "center": center.flatten().tolist()})
    expected = torch.stack([center @ torch.cat([camera.center, torch.ones(1).double()]) for camera in rig])[:, :3]
    close(places, expected, 1e-10)
    assert (nearest, none) == (4, -1)
