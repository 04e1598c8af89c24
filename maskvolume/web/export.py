"""From a clip's multiplane images to the folder that a browser plays: see docs/viewer.md for what lies in it.

Each frame's MPI is made once, merged to layers and kept in a file, so that an interrupted export goes on; then what
stays the same is told from what moves, and both are written. The folder changes when all is done, and not before.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from PIL import Image

from maskvolume import metrics
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, invert_rigid
from maskvolume.geometry.paths import join_paths
from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoFrames, VideoWriter
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.ops import fill_unseen
from maskvolume.rendering.output_folder import digest
from maskvolume.rendering.pictures import to_uint8
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.prefetch import Writers, read_files, read_frames
from maskvolume.runtime.progress import progress
from maskvolume.web.layers import (
    LayerPlan,
    merge_planes,
    plan_layers,
    to_layer_bytes,
    visible_weights,
)
from maskvolume.web.offline import write_offline
from maskvolume.web.tiles import (
    Atlas,
    Changes,
    TileGrid,
    Tiles,
    assemble,
    straight_slots,
)
from maskvolume.web.viewpoints import Viewpoints
from maskvolume.web.visibility import Visibility

FORMAT, VERSION = "maskvolume-web", 1
MANIFEST, STATIC, DYNAMIC, POSTER, OFFLINE = "manifest.json", "static.webp", "dynamic.mp4", "poster.jpg", "offline.js"
CAMERAS, PLAYER, INDEX = "cameras", "player", "index.html"
LAYERS = 16  # that planes are merged to by default
WORK = ".work"  # in the folder, while it is made
ATLAS = 4096  # texels of an atlas, a side: what phones can do
VIDEO_SHARE = 9 / 16  # of it that a video's shorter side may have: with 4096, what H.264 decoders of level 5.2 can do
STATIC_QUALITY = 95  # of WebP
LARGEST_COPY = 300 << 20  # bytes that are copied for a double click at most; browsers take no longer scripts
LAYERS_AHEAD = 3  # frames whose layers are read ahead
CAMERA_CRF = 26  # of what the cameras saw
KEYFRAMES = 0.5  # seconds from one to the next, so that jumps in time are quick


Made = TypeVar("Made")


@dataclass(frozen=True)
class WebSettings:
    """How a clip is exported.

    Attributes:
        title: shown by the player.
        fps: frames a second.
        layers: that planes are merged to; None: ``LAYERS``, or as many as there are planes.
        tile: texels of a tile, a side.
        crf: quality of what moves, 0 (no loss) to 51.
        max_mbit: most megabits a second of what moves; None: what ``crf`` takes.
        atlas: texels of an atlas, a side, at most.
        cameras: whether to add what the rig's cameras saw.
        offline: whether to add a copy of everything for a double click, if it is not too large for a script.
    """

    title: str
    fps: float = 30.0
    layers: int | None = None
    tile: int = 28
    crf: int = 23
    max_mbit: float | None = None
    atlas: int = ATLAS
    cameras: bool = True
    offline: bool = True


@dataclass(frozen=True)
class WebReport:
    """What an export made.

    Attributes:
        root: the folder.
        sizes: bytes of each file that the player loads, by its name; of cameras when they are looked at.
        seconds: of the clip.
        tiles: how many there are of each kind: ``empty``, ``still``, ``moving``.
        fidelity: PSNR in dB of the exported layers against the renderer, ``center`` and ``edges``: the means.
    """

    root: Path
    sizes: Mapping[str, int]
    seconds: float
    tiles: Mapping[str, int]
    fidelity: Mapping[str, float]

    @property
    def mbit(self) -> float:
        """Megabits a second of what moves."""
        return self.sizes.get(DYNAMIC, 0) * 8e-6 / self.seconds

    def __str__(self) -> str:
        """Lines that tell what was made."""
        cameras = sum(size for name, size in self.sizes.items() if name.startswith(f"{CAMERAS}/"))
        offline = self.sizes.get(OFFLINE, 0)
        first, counts = sum(self.sizes.values()) - cameras - offline, self.tiles
        open_it = f"{self.root / INDEX} (double click), or: " if offline else ""
        return "\n".join(
            [
                f"tiles: {counts['still']} still, {counts['moving']} moving, {counts['empty']} empty and left out",
                f"what moves: {self.mbit:.2f} Mbit/s; to look around: {first / 1e6:.2f} MB for {self.seconds:.1f} s, "
                f"to compare with cameras {cameras / 1e6:.2f} MB, for a double click {offline / 1e6:.2f} MB",
                f"beside the renderer: {self.fidelity['center']:.1f} dB from the centre, "
                f"{self.fidelity['edges']:.1f} dB from the edges of the range",
                f"viewer: {open_it}python render/view.py {self.root}",
            ]
        )


class WebExport:
    """Exports one clip.

    Args:
        renderer: from one reference, with frames stored.
        clip: its clip.
        viewpoints: as far as the rig reaches; the frustum of ``renderer`` is as wide as these need.
        root: the folder to make.
        player: folder of the player's files.
        settings: how.
        made_of: what decides the pixels that the renderer makes, by name; two exports that agree in it and in the
            settings are the same.
    """

    def __init__(
        self,
        renderer: ClipRenderer,
        clip: RigClip,
        viewpoints: Viewpoints,
        root: Path,
        player: Path,
        settings: WebSettings,
        made_of: Mapping[str, object],
    ) -> None:
        planes = len(renderer.depths)
        self._layers_wanted = min(LAYERS, planes) if settings.layers is None else settings.layers
        if self._layers_wanted > planes:
            raise InputError(f"--layers: at most {planes} expected, the number of planes, got {settings.layers}")
        self.renderer, self.clip, self.viewpoints = renderer, clip, viewpoints
        self.root, self.player, self.settings = root, player, settings
        self.work = root / WORK
        self._frames_of = json.dumps({**made_of, "layers": self._layers_wanted}, sort_keys=True)
        self._digest = digest(self._frames_of.encode(), repr(settings).encode(), *sorted(player.glob("*.*")))
        self._looked_at = {0, clip.num_frames // 2}  # frames that the export is compared with the renderer at

    def finished(self) -> WebReport | None:
        """The report of an export that is there, whole, and would become the same; None where there is none."""
        try:
            manifest = json.loads((self.root / MANIFEST).read_text(encoding="utf-8"))
            made, sizes = manifest["made"], manifest["bytes"]
            whole = all((self.root / name).stat().st_size == size for name, size in sizes.items())
            sizes = {**sizes, **{name: (self.root / name).stat().st_size for name in made["copies"]}}
            if made["digest"] != self._digest or not whole or self.work.exists():
                return None
            return WebReport(self.root, sizes, made["seconds"], made["tiles"], made["fidelity"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def prepare(self, *, overwrite: bool = False) -> bool:
        """Make the folder ready; layers that an interrupted run of the same left are kept.

        Args:
            overwrite: make them anew. An export that is there stays until the new one is done.

        Returns:
            Whether this goes on with an earlier run.

        Raises:
            InputError: the folder has files that are no export, or can't be written.
        """
        is_empty = not self.root.is_dir() or all(path.name.startswith(".") for path in self.root.iterdir())
        if not (is_empty or self.work.is_dir() or _is_export(self.root)):
            raise InputError(f"{self.root}: there are files here that are no export; choose another folder")
        require_writable_folder(self.work)
        record = self.work / "made_of.json"
        if not overwrite and record.is_file() and record.read_text(encoding="utf-8") == self._frames_of:
            return True
        shutil.rmtree(self.work)
        with atomic_path(record) as temporary:
            temporary.write_text(self._frames_of, encoding="utf-8")
        return False

    def run(self) -> WebReport:
        """Make the folder, from layers of frames that are there already and those that are not.

        Raises:
            InputError: a picture of the clip can't be read, or what moves doesn't fit into a video.
            OSError: a file can't be written.
        """
        plan, scale = self.plan()
        viewpoints = self.viewpoints.scaled(scale)
        self._merge_frames()
        grid = TileGrid((len(plan), *self.renderer.camera.size), self.settings.tile)
        visibility = Visibility(self.renderer.camera, plan.depths, viewpoints.all_over())
        mean, tiles = self._find_tiles(grid, visibility)
        fresh = self.work / "export"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        static = self._write_static(fresh, grid, mean, tiles)
        dynamic = self._write_dynamic(fresh, grid, tiles) if len(tiles.moving) else None
        cameras = self._write_cameras(fresh)
        shown = MultiplaneImage(torch.empty(0), self.renderer.camera.to("cpu"), torch.tensor(plan.depths))
        write_image(fresh / POSTER, self._view(shown, self._layers(0), viewpoints.center()[0]))
        for path in sorted(self.player.iterdir()):
            if path.is_file() and path.name != INDEX:
                _copy(path, fresh / PLAYER / path.name)
        _copy(self.player / INDEX, fresh / INDEX)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "title": self.settings.title,
            "fps": self.settings.fps,
            "frames": self.clip.num_frames,
            "picture": {"width": viewpoints.size[1], "height": viewpoints.size[0]},
            "mpi": {**_camera_entry(shown.camera), "width": grid.shape[2], "height": grid.shape[1]},
            "layers": [{"depth": depth} for depth in plan.depths],
            "tile": {"size": grid.size, "gutter": grid.gutter},
            "static": _atlas_entry(STATIC, static, tiles.still),
            "dynamic": None if dynamic is None else _atlas_entry(DYNAMIC, dynamic, tiles.moving),
            "view": {
                "K": _numbers(viewpoints.K),
                "T_cam_world": _numbers(invert_rigid(viewpoints.T_world_center)),
                "focus": viewpoints.focus,
                "down": _numbers(viewpoints.down),
                "limits": dict(zip("xyz", viewpoints.limits, strict=True)),
                "scale": scale,
            },
            "cameras": cameras,
            "disparity": {"near": float(self.renderer.depths[-1]), "far": float(self.renderer.depths[0])},
            "poster": POSTER,
        }
        empty = math.prod(grid.counts) - len(tiles.still) - len(tiles.moving)
        made = {
            "digest": self._digest,
            "seconds": self.clip.num_frames / self.settings.fps,
            "tiles": {"empty": empty, "still": len(tiles.still), "moving": len(tiles.moving)},
            "fidelity": self._fidelity(shown, grid, tiles, static, dynamic, viewpoints),
        }
        sizes = {path.relative_to(fresh).as_posix(): path.stat().st_size for path in _files(fresh)}
        copies = [OFFLINE] if self.settings.offline and sum(sizes.values()) <= LARGEST_COPY else []
        _write_json(fresh / MANIFEST, {**manifest, "bytes": sizes, "made": {**made, "copies": copies}})
        if copies:
            write_offline(fresh, fresh / OFFLINE)
        self._put_in_place(fresh)
        finished = self.finished()
        assert finished is not None
        return finished

    def plan(self) -> tuple[LayerPlan, float]:
        """Which planes become which layer, and the share of the rig's reach that viewpoints have; kept in a file."""
        path = self.work / "plan.json"
        if path.is_file():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                return LayerPlan(tuple(kept["first"]), tuple(kept["depths"]), kept["num_planes"]), kept["scale"]
            except (ValueError, KeyError, TypeError):
                raise _damaged(path) from None
        renderer, count = self.renderer, self.clip.num_frames
        weights = [visible_weights(renderer.frame_mpi(frame).mpi) for frame in (0, count - 1, count // 2)]
        plan = plan_layers(np.sum(weights, axis=0), renderer.depths.tolist(), self._layers_wanted)
        mpi = renderer.frame_mpi(count // 2).mpi
        layers, device = merge_planes(mpi, plan), renderer.device
        scale = self.viewpoints.good_scale(
            lambda view: mpi.render(view.to(device)), lambda view: layers.render(view.to(device))
        )
        _write_json(path, {"first": plan.first, "depths": plan.depths, "num_planes": plan.num_planes, "scale": scale})
        return plan, scale

    def _file(self, frame: int) -> Path:
        return self.work / "layers" / f"{frame:05d}.png"

    def _truth(self, frame: int) -> list[Path]:
        """What the renderer shows of a frame: from the centre, then from the edges of the limits."""
        return [self.work / "truth" / f"{frame:05d}_{view}.png" for view in range(5)]

    def take(self, time: float, writers: Writers) -> None:
        """Keep the layers of a frame whose MPI the renderer has just made, if they are not there yet."""
        frame = int(time)
        if self._is_made(frame):
            return
        plan, scale = self.plan()
        renderer = self.renderer
        if frame in self._looked_at:
            for path, target in zip(self._truth(frame), _looks(self.viewpoints.scaled(scale)), strict=True):
                writers.submit(write_image, path, to_uint8(renderer.render(frame, target).color))
        layers = to_layer_bytes(merge_planes(renderer.frame_mpi(frame).mpi, plan))
        writers.submit(_write_layers, self._file(frame), layers)

    def _merge_frames(self) -> None:
        """Make the layers of each frame that has none yet."""
        renderer, count = self.renderer, self.clip.num_frames
        missing = [frame for frame in range(count) if not self._is_made(frame)]
        with (
            closing(read_frames(renderer.read_camera, renderer.indices, missing)) as reader,
            Writers() as writers,
            progress(count, "layers", len(missing)) as bar,
        ):
            for frame, pictures in zip(missing, reader, strict=True):
                renderer.frame_mpi(frame, pictures)
                self.take(frame, writers)
                bar.update()

    def _is_made(self, frame: int) -> bool:
        truth = self._truth(frame) if frame in self._looked_at else []
        return self._file(frame).is_file() and all(path.is_file() for path in truth)

    def _layers(self, frame: int) -> np.ndarray:
        """The layers of a frame, uint8 ``[L, H, W, 4]``."""
        return _read_layers(self._file(frame), self.renderer.camera.size[0])

    def _all_layers(self, what: str, make: Callable[[np.ndarray], Made]) -> Iterator[Made]:
        """What threads make of the layers of each frame, in order."""
        files = [self._file(frame) for frame in range(self.clip.num_frames)]
        height = self.renderer.camera.size[0]
        read = read_files(files, lambda path: make(_read_layers(path, height)), LAYERS_AHEAD)
        with closing(read) as loaded, progress(len(files), what) as bar:
            for made in loaded:
                yield made
                bar.update()

    def _find_tiles(self, grid: TileGrid, visibility: Visibility) -> tuple[np.ndarray, Tiles]:
        """The mean of all frames, and which tiles differ from it."""
        changes = Changes(grid)
        for layers in self._all_layers("mean", lambda layers: layers):
            changes.add(layers)
        mean = changes.mean
        for layers, seen in self._all_layers("changes", lambda layers: (layers, visibility.of(layers))):
            changes.compare(layers, mean, seen)
        return mean, changes.tiles()

    def _write_static(self, folder: Path, grid: TileGrid, mean: np.ndarray, tiles: Tiles) -> Atlas:
        atlas = Atlas.of(len(tiles.still), grid.slot, (self.settings.atlas, self.settings.atlas), "what stays")
        picture = atlas.draw(straight_slots(grid.slots(mean, tiles.still)))
        with atomic_path(folder / STATIC) as temporary:
            Image.fromarray(picture).save(temporary, "WEBP", quality=STATIC_QUALITY, method=4)
        return atlas

    def _write_dynamic(self, folder: Path, grid: TileGrid, tiles: Tiles) -> Atlas:
        settings = self.settings
        largest = settings.atlas, round(settings.atlas * VIDEO_SHARE)
        atlas = Atlas.of(len(tiles.moving), grid.slot, largest, "what moves")
        last: np.ndarray | None = None
        with VideoWriter(
            folder / DYNAMIC,
            atlas.size,
            settings.fps,
            settings.crf,
            keyframe_every=self._keyframes,
            max_mbit=settings.max_mbit,
        ) as writer:
            for slots in self._all_layers(
                "moving tiles", lambda layers: straight_slots(grid.slots(layers, tiles.moving))
            ):
                if last is not None:  # what shows nothing keeps its colour, which takes no bits
                    nothing = slots[..., 3].max(axis=(1, 2)) == 0
                    slots[nothing, ..., :3] = last[nothing, ..., :3]
                writer.append(atlas.draw(slots))
                last = slots
        return atlas

    @property
    def _keyframes(self) -> int:
        return max(1, round(KEYFRAMES * self.settings.fps))

    def _write_cameras(self, folder: Path) -> list[dict[str, Any]]:
        """What the rig's cameras saw, one video each, and the cameras' entries of the manifest."""
        h, w = self.viewpoints.size
        cameras, entries = self.clip.cameras((h, w)), []
        count = self.clip.num_frames
        for index, name in enumerate(self.clip.names):
            video = f"{CAMERAS}/{name}.mp4" if self.settings.cameras else None
            if video is not None:
                reader = read_frames(lambda i, frame: self.clip.read(i, frame, (h, w)), [index], range(count))
                writer = VideoWriter(
                    folder / video, (h, w), self.settings.fps, CAMERA_CRF, keyframe_every=self._keyframes
                )
                with closing(reader), writer, progress(count, name) as bar:
                    for (picture,) in reader:
                        writer.append(picture)
                        bar.update()
            entries.append({"name": name, **_camera_entry(cameras[index]), "video": video})
        return entries

    def _view(self, mpi: MultiplaneImage, layers: np.ndarray, target: Camera) -> np.ndarray:
        """What layers uint8 ``[L, H, W, 4]`` show from a target: uint8 ``[h, w, 3]``."""
        rgba = torch.from_numpy(layers).permute(0, 3, 1, 2).float() / 255
        shown = MultiplaneImage(rgba.contiguous(), mpi.camera, mpi.depths.to(rgba.dtype))
        return to_uint8(fill_unseen(shown.render(target.to(rgba.dtype))).color)

    def _fidelity(
        self,
        mpi: MultiplaneImage,
        grid: TileGrid,
        tiles: Tiles,
        static: Atlas,
        dynamic: Atlas | None,
        viewpoints: Viewpoints,
    ) -> dict[str, float]:
        """PSNR of what was written against the renderer, from the centre and from the edges."""
        fresh = self.work / "export"
        still = static.read(np.asarray(Image.open(fresh / STATIC).convert("RGB")))
        found: dict[str, list[float]] = {"center": [], "edges": []}
        for frame in sorted(self._looked_at):
            parts = [(tiles.still, still)]
            if dynamic is not None:
                video = VideoFrames(fresh / DYNAMIC)
                parts.append((tiles.moving, dynamic.read(video.read(frame))))
                video.close()
            layers = assemble(grid, parts)
            for number, (target, path) in enumerate(zip(_looks(viewpoints), self._truth(frame), strict=True)):
                made = self._view(mpi, layers, target)
                found["edges" if number else "center"].append(psnr(made, read_image(path)))
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _put_in_place(self, fresh: Path) -> None:
        """Move what was made to where it belongs, the manifest last, and let go of the rest."""
        (self.root / MANIFEST).unlink(missing_ok=True)
        for name in (CAMERAS, PLAYER):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in (DYNAMIC, OFFLINE):
            (self.root / name).unlink(missing_ok=True)
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == MANIFEST):
            path.replace(self.root / path.name)
        shutil.rmtree(self.work)


def _looks(viewpoints: Viewpoints) -> Camera:
    """Where the export is compared with the renderer from: the centre, then the edges."""
    return join_paths([viewpoints.center(), viewpoints.edges()])


def _is_export(root: Path) -> bool:
    """Whether the manifest of a folder is one of ours."""
    try:
        return json.loads((root / MANIFEST).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: damaged; export again with --overwrite")


def psnr(made: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in dB of pictures uint8 ``[H, W, 3]``; 99, which JSON can hold, where they are the same."""
    picture, true = (torch.from_numpy(np.array(x, order="C")).permute(2, 0, 1) / 255 for x in (made, truth))
    return min(99.0, float(metrics.psnr(picture, true)))


def _write_layers(path: Path, layers: np.ndarray) -> None:
    """Layers uint8 ``[L, H, W, 4]`` as one picture, one below the other."""
    ok, data = cv2.imencode(".png", layers.reshape(-1, *layers.shape[2:]), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise RuntimeError(f"{path}: layers of {layers.shape} can't be encoded")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _read_layers(path: Path, height: int) -> np.ndarray:
    data = np.fromfile(path, dtype=np.uint8)
    stacked = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if stacked is None:
        raise _damaged(path)
    return stacked.reshape(-1, height, *stacked.shape[1:])


def _camera_entry(camera: Camera) -> dict[str, Any]:
    return {"K": _numbers(camera.K), "T_cam_world": _numbers(camera.T_cam_world)}


def _atlas_entry(name: str, atlas: Atlas, tiles: np.ndarray) -> dict[str, Any]:
    h, w = atlas.size
    return {
        "file": name,
        "width": w,
        "height": h,
        "columns": atlas.columns,
        "tiles": tiles[:, [0, 2, 1]].ravel().tolist(),
    }


def _numbers(x: torch.Tensor) -> list[float]:
    return x.double().cpu().flatten().tolist()


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
