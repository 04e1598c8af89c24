"""A small exported clip for tests of the player, written without networks, so that its layers are known exactly."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.paths import look_at
from maskvolume.io.video import VideoWriter
from maskvolume.ops import fill_unseen, render_mpi
from maskvolume.web.offline import write_offline

VIEWER = Path(__file__).resolve().parents[1] / "render" / "viewer"
FPS = 10
# The colour of the moving parts in each frame; distinct enough to tell neighbouring frames apart.
COLORS = np.array([(210, 40, 50), (40, 190, 70), (50, 80, 220), (220, 200, 40), (60, 200, 210), (190, 70, 200)])
LAYER_SIZE, PICTURE_SIZE = (96, 160), (72, 128)  # (h, w)
DEPTHS = (8.0, 4.0, 2.5)
TILE, GUTTER = 28, 2
SLOT = TILE + 2 * GUTTER
FOCUS, LIMITS = 4.0, (0.3, 0.2, 0.25)
DOWN = (0.02, 1.0, 0.01)
# Rotations (axis times angle) and positions of the centre view, the camera of the layers and the three rig cameras.
TURNS = ((0.1, -0.2, 0.05), (0.11, -0.19, 0.05), (0.12, -0.16, 0.05), (0.09, -0.22, 0.03), (0.13, -0.2, 0.05))
PLACES = ((1.0, 2, 3), (1.02, 2.01, 3), (0.75, 2, 3.05), (1.25, 2, 3), (1, 1.75, 3))
NAMES = ("left", "right", "above")
MOVING = ((1, 3, 1), (1, 3, 2), (1, 4, 1), (1, 4, 2), (2, 1, 2), (2, 2, 2))  # layer, column, row


@dataclass(frozen=True)
class FakeExport:
    """An exported folder and its contents.

    Attributes:
        folder: the exported folder.
        layers: float32 ``[frame, L, 4, H, W]``, premultiplied.
        camera: the camera of the layers.
        view: the centre view.
        cameras: ``[N]`` cameras of the rig.
        manifest: the content of manifest.json.
    """

    folder: Path
    layers: Tensor
    camera: Camera
    view: Camera
    cameras: Camera
    manifest: dict[str, Any]

    def render(self, frame: int, target: Camera) -> np.ndarray:
        """Render a frame for a target camera in Python: uint8 ``[h, w, 3]``."""
        depths = torch.tensor(DEPTHS)
        target = target.to(torch.float32)
        seen = fill_unseen(render_mpi(self.layers[frame], self.camera.to(torch.float32), depths, target))
        return (seen.color.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    def view_from(self, offset: tuple[float, float, float]) -> Camera:
        """Return the camera at an offset (x, y, z) from the centre view."""
        T_center_cam = look_at(torch.tensor([offset], dtype=torch.float64), FOCUS, torch.tensor(DOWN).double())[0]
        T_world_cam = invert_rigid(self.view.T_cam_world) @ T_center_cam
        return Camera(invert_rigid(T_world_cam), self.view.K, self.view.size)


def make_fake_export(folder: Path, *, moves: bool = True, offline: bool = False) -> FakeExport:
    """Write an exported clip of 3 layers of 160 x 96 texels and 6 frames, with the player."""
    (folder / "cameras").mkdir(parents=True)
    shutil.copytree(VIEWER, folder / "player", ignore=shutil.ignore_patterns("index.html"))
    shutil.copy(VIEWER / "index.html", folder)
    straight = _straight_layers()
    camera, view, cameras = _cameras()
    moving = [*MOVING] if moves else []
    rows, columns = (math.ceil(side / TILE) for side in LAYER_SIZE)
    shown = [(layer, x, y) for layer in range(len(DEPTHS)) for y in range(rows) for x in range(columns)]
    alphas = straight[0, ..., 3]
    still = [tile for tile in shown if tile not in moving and _slot(alphas[tile[0]], tile[1:]).max() > 0]
    atlas, across = _atlas(straight[0], still)
    cv2.imwrite(str(folder / "static.webp"), atlas[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    manifest: dict[str, Any] = {
        "format": "maskvolume-web",
        "version": 1,
        "title": "fake",
        "fps": FPS,
        "frames": len(COLORS),
        "picture": _size(PICTURE_SIZE),
        "mpi": {**_entry(camera), **_size(LAYER_SIZE)},
        "layers": [{"depth": depth} for depth in DEPTHS],
        "tile": {"size": TILE, "gutter": GUTTER},
        "static": _atlas_entry("static.webp", atlas, across, still),
        "dynamic": None,
        "view": {**_entry(view), "focus": FOCUS, "down": DOWN, "limits": dict(zip("xyz", LIMITS, strict=True))},
        "disparity": {"near": DEPTHS[-1], "far": DEPTHS[0]},
        "poster": "poster.jpg",
    }
    if moves:
        frames = [_atlas(layers, moving) for layers in straight]
        manifest["dynamic"] = _atlas_entry("dynamic.mp4", *frames[0], moving)
        _write_video(folder / "dynamic.mp4", [picture for picture, _ in frames])
    manifest["cameras"] = []
    for i, name in enumerate(NAMES):
        pictures = [np.broadcast_to(color // (i + 1), (*PICTURE_SIZE, 3)) for color in COLORS]
        _write_video(folder / "cameras" / f"{name}.mp4", pictures)
        manifest["cameras"].append({"name": name, **_entry(cameras[i]), "video": f"cameras/{name}.mp4"})
    layers = torch.from_numpy(straight).permute(0, 1, 4, 2, 3).float() / 255
    layers = torch.cat([layers[:, :, :3] * layers[:, :, 3:], layers[:, :, 3:]], dim=2)
    made = FakeExport(folder, layers if moves else layers[:1], camera, view, cameras, manifest)
    cv2.imwrite(str(folder / "poster.jpg"), made.render(0, made.view_from((0, 0, 0)))[..., ::-1])
    paths = [path for path in folder.rglob("*") if path.is_file()]
    manifest["bytes"] = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    if offline:
        write_offline(folder, folder / "offline.js")
    return made


def _straight_layers() -> np.ndarray:
    """Return uint8 ``[frame, L, H, W, 4]``: colours continue in transparent areas, so that interpolation is exact."""
    h, w = LAYER_SIZE
    y, x = np.mgrid[0:h, 0:w].astype(np.float64) + 0.5
    layers = np.zeros((len(COLORS), len(DEPTHS), h, w, 4))
    layers[:, 0, ..., 0] = 120 + 90 * np.sin(x / 11)
    layers[:, 0, ..., 1] = 120 + 90 * np.sin(y / 9)
    layers[:, 0, ..., 2] = 120 + 60 * np.cos((x + y) / 13)
    layers[:, 0, ..., 3] = 255
    layers[:, 0, :, :6, 3] = 0  # uncovered
    layers[:, 1, ..., :3] = (230, 225, 215)
    layers[:, 2, ..., :3] = (30, 35, 45)
    layers[:, 1, ..., 3] = _blob(x, y, (40, 40), 22)
    layers[:, 2, ..., 3] = _blob(x, y, (128, 30), 14)
    for layer, place, radius in ((1, (112, 57), 20), (2, (56, 70), 9)):
        columns, rows = ([tile[axis] for tile in MOVING if tile[0] == layer] for axis in (1, 2))
        inside = (x > min(columns) * TILE) & (x < (max(columns) + 1) * TILE)
        inside &= (y > min(rows) * TILE) & (y < (max(rows) + 1) * TILE)
        for frame, color in enumerate(COLORS):
            layers[frame, layer, ..., :3] = np.where(inside[..., None], color, layers[frame, layer, ..., :3])
            layers[frame, layer, ..., 3] = np.maximum(layers[frame, layer, ..., 3], _blob(x, y, place, radius))
    return layers.round().astype(np.uint8)


def _blob(x: np.ndarray, y: np.ndarray, place: tuple[float, float], radius: float) -> np.ndarray:
    """Return the opacity 0..255 of a disc with a soft border of 4 texels."""
    return 255 * np.clip((radius - np.hypot(x - place[0], y - place[1])) / 4, 0, 1)


def _cameras() -> tuple[Camera, Camera, Camera]:
    """Return the camera of the layers, the centre view and the rig cameras."""
    h, w = PICTURE_SIZE
    K = torch.tensor([[110.0, 0, w / 2], [0, 110.0, h / 2], [0, 0, 1]], dtype=torch.float64)
    wide = K.clone()
    wide[:2, 2] = torch.tensor(LAYER_SIZE[::-1], dtype=torch.float64) / 2
    turns = [torch.linalg.matrix_exp(_skew(angle)) for angle in torch.tensor(TURNS, dtype=torch.float64)]
    centers = torch.tensor(PLACES, dtype=torch.float64)
    T_cam_world = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    for i, (R, center) in enumerate(zip(turns, centers, strict=True)):
        T_cam_world[i, :3, :3], T_cam_world[i, :3, 3] = R, -R @ center
    rig = Camera(T_cam_world[2:], K.expand(3, 3, 3), PICTURE_SIZE)
    return Camera(T_cam_world[1], wide, LAYER_SIZE), Camera(T_cam_world[0], K, PICTURE_SIZE), rig


def _skew(v: Tensor) -> Tensor:
    x, y, z = v.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)


def _slot(picture: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """Return the texels ``[S, S, ...]`` of tile (column, row) with its gutter; opacity is 0 outside the layer."""
    h, w = LAYER_SIZE
    x = np.arange(SLOT) + place[0] * TILE - GUTTER
    y = np.arange(SLOT) + place[1] * TILE - GUTTER
    slot = picture[y.clip(0, h - 1)[:, None], x.clip(0, w - 1)].copy()
    outside = ((y < 0) | (y >= h))[:, None] | ((x < 0) | (x >= w))
    slot[..., -1 if picture.ndim == 3 else slice(None)][outside] = 0
    return slot


def _atlas(layers: np.ndarray, tiles: list[tuple[int, int, int]]) -> tuple[np.ndarray, int]:
    """Return the picture of tiles of straight layers ``[L, H, W, 4]``, and its number of columns."""
    columns = math.ceil(math.sqrt(2 * len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    halves = np.zeros((2, rows * SLOT, columns * SLOT, 3), dtype=np.uint8)
    for i, (layer, column, row) in enumerate(tiles):
        slot = _slot(layers[layer], (column, row))
        y, x = i // columns * SLOT, i % columns * SLOT
        halves[0, y : y + SLOT, x : x + SLOT] = slot[..., :3]
        halves[1, y : y + SLOT, x : x + SLOT] = slot[..., 3:]
    return halves.reshape(-1, *halves.shape[2:]), columns


def _write_video(path: Path, frames: list[np.ndarray]) -> None:
    with VideoWriter(path, frames[0].shape[:2], fps=FPS, crf=8) as writer:
        for frame in frames:
            writer.append(frame.astype(np.uint8))


def _atlas_entry(name: str, picture: np.ndarray, columns: int, tiles: list[tuple[int, int, int]]) -> dict[str, Any]:
    h, w = picture.shape[:2]
    flat = [number for tile in tiles for number in tile]
    return {"file": name, "width": w, "height": h, "columns": columns, "tiles": flat}


def _entry(camera: Camera) -> dict[str, Any]:
    return {"K": camera.K.flatten().tolist(), "T_cam_world": camera.T_cam_world.flatten().tolist()}


def _size(size: tuple[int, int]) -> dict[str, int]:
    return {"width": size[1], "height": size[0]}
