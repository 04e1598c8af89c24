"""The bundled clip with the shipped weights in the browser: what the player shows is what the renderer shows."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.paths import join_paths
from maskvolume.io.images import read_image
from maskvolume.io.llff import write_path
from maskvolume.runtime.processes import ALONE
from maskvolume.web.export import picture_psnr
from maskvolume.web.viewpoints import SCALES, Viewpoints
from render.render_llff_video import RenderOptions, render

pytestmark = pytest.mark.slow

FRAMES, LOOKED_AT = (0, 10), 1
CENTER, EDGES = 35.0, 30.0  # dB that the player's picture has at least beside the renderer's


@pytest.fixture(scope="module")
def bundled(chromium: Any, repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """The export of two frames, and what the renderer shows of one from the places of ``looks``."""
    folder = tmp_path_factory.mktemp("bundled")
    bundled, rig = repo_root / "examples/rig", folder / "rig"
    for camera in RigClip.open(bundled).names:
        (rig / camera).mkdir(parents=True)
        for number, frame in enumerate(FRAMES):
            shutil.copy(bundled / camera / f"{frame:05d}.jpg", rig / camera / f"{number:05d}.jpg")
    shutil.copy(bundled / "poses_bounds.npy", rig)
    clip = RigClip.open(rig)
    seen_from = looks(Viewpoints.of(clip.poses, clip.size))
    write_path(folder / "looks.txt", seen_from)
    report, web = render(
        RenderOptions(
            root_dir=str(rig),
            ckpt_path=str(repo_root / "checkpoints/mask_volume.safetensors"),
            out_dir=str(folder / "out"),
            path=str(folder / "looks.txt"),
            time=f"fix:{LOOKED_AT}",
            viewer=True,
        ),
        ALONE,
        torch.device("cpu"),
    )
    assert web is not None
    return web.root, [read_image(report.folder.frame(pose)) for pose in range(len(seen_from))]


def looks(viewpoints: Viewpoints) -> Camera:
    """From the centre; left, right, above, below, for each of the scales that limits may have."""
    return join_paths([viewpoints.center(), *(viewpoints.scaled(scale).edges() for scale in SCALES)])


def picture_of(page: Any) -> np.ndarray:
    data = page.run("() => player.render(640, 360)")
    encoded = np.frombuffer(base64.b64decode(data.partition(",")[2]), dtype=np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_the_player_shows_what_the_renderer_shows(
    bundled: tuple[Path, list[np.ndarray]], open_page: Callable[..., Any]
) -> None:
    root, wanted = bundled
    view = json.loads((root / "manifest.json").read_text())["view"]
    limits, scale = view["limits"], view["scale"]
    edges = 1 + 4 * SCALES.index(scale)
    assert scale >= 0.7  # most of the way to the outer cameras
    page = open_page(root, viewport={"width": 640, "height": 480}).goto()
    page.run("() => window.playerReady")
    page.run("(frame) => player.seek(frame)", LOOKED_AT)
    x, y = limits["x"], limits["y"]
    offsets = [(0, 0, 0), (-x, 0, 0), (x, 0, 0), (0, -y, 0), (0, y, 0)]
    found = []
    for offset, picture in zip(offsets, [wanted[0], *wanted[edges : edges + 4]], strict=True):
        page.run("(offset) => player.setOffset(...offset)", list(offset))
        found.append(picture_psnr(picture_of(page), picture))
    assert found[0] >= CENTER, found
    assert min(found[1:]) >= EDGES, found
    page.check()


def test_it_plays_scrubs_and_moves(bundled: tuple[Path, list[np.ndarray]], open_page: Callable[..., Any]) -> None:
    root, _ = bundled
    page = open_page(root, viewport={"width": 640, "height": 480}).goto()
    page.run("() => window.playerReady")
    still = []
    for frame in (0, 1, 0):
        page.run("(frame) => player.seek(frame)", frame)
        assert page.run("() => player.state.frame") == frame
        still.append(picture_of(page))
    assert picture_psnr(still[0], still[2]) > 50
    assert picture_psnr(still[0], still[1]) < 40  # someone walks
    page.run("() => player.play()")
    page.page.wait_for_function("() => player.state.frame > 0")
    page.run("() => player.pause()")
    before = page.run("() => player.state.offset")
    box = page.page.locator("canvas").first.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + box["height"] / 2, steps=4)
    page.page.mouse.up()
    page.page.wait_for_function("(x) => Math.abs(player.state.offset[0] - x) > 1e-3", arg=before[0])
    page.check()


def test_a_double_click_shows_the_same(bundled: tuple[Path, list[np.ndarray]], open_page: Callable[..., Any]) -> None:
    root, wanted = bundled
    page = open_page(root, served=False, viewport={"width": 640, "height": 480}).goto()
    page.run("() => window.playerReady")
    page.run("(frame) => player.seek(frame)", LOOKED_AT)
    assert picture_psnr(picture_of(page), wanted[0]) >= CENTER
    page.check()
