"""Exports a clip's multiplane images to a folder for the browser player; docs/viewer.md describes its files.

Each frame's MPI is computed once, merged into layers and stored in a file, so that an interrupted export can resume.
Then static tiles are separated from moving ones, and both are written. The folder only changes when all is done.
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
LAYERS = 16  # default number of layers
WORK = ".work"  # subfolder of an unfinished export
ATLAS = 4096  # side of an atlas in texels: the limit of phones
VIDEO_SHARE = 9 / 16  # limit of a video's shorter side, relative to the atlas: 4096 gives H.264's level 5.2
STATIC_QUALITY = 95  # of WebP
LARGEST_COPY = 300 << 20  # largest export in bytes with an offline copy; browsers refuse longer scripts
LAYERS_AHEAD = 3  # frames of layers to read ahead
CAMERA_CRF = 26  # quality of the cameras' videos
KEYFRAMES = 0.5  # seconds between keyframes; short, for fast seeking


Result = TypeVar("Result")


@dataclass(frozen=True)
class WebSettings:
    """The settings of an export.

    Attributes:
        title: the player's title.
        fps: frames a second.
        layers: number of layers; None: ``LAYERS``, or the number of planes if that is lower.
        tile: side of a tile in texels.
        crf: quality of the moving tiles, 0 (no loss) to 51.
        max_mbit: highest bit rate of the moving tiles in megabits per second; None: no limit.
        atlas: largest side of an atlas in texels.
        cameras: whether to add the videos of the rig's cameras.
        offline: whether to add a copy for opening by double click, if it is not too large for a script.
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
    """The outcome of an export.

    Attributes:
        root: the folder.
        sizes: bytes of each file that the player loads, by name; it loads cameras' videos only on demand.
        seconds: length of the clip.
        tiles: number of each kind: ``empty``, ``still``, ``moving``.
        fidelity: mean PSNR in dB of the exported layers against the renderer, ``center`` and ``edges``.
    """

    root: Path
    sizes: Mapping[str, int]
    seconds: float
    tiles: Mapping[str, int]
    fidelity: Mapping[str, float]

    @property
    def mbit(self) -> float:
        """Megabits per second of the moving tiles."""
        return self.sizes.get(DYNAMIC, 0) * 8e-6 / self.seconds

    def __str__(self) -> str:
        """A summary in several lines."""
        cameras = sum(size for name, size in self.sizes.items() if name.startswith(f"{CAMERAS}/"))
        offline = self.sizes.get(OFFLINE, 0)
        first, counts = sum(self.sizes.values()) - cameras - offline, self.tiles
        open_it = f"{self.root / INDEX} (double click), or: " if offline else ""
        return "\n".join(
            [
                f"tiles: {counts['still']} static, {counts['moving']} moving, {counts['empty']} empty and left out",
                f"moving content: {self.mbit:.2f} Mbit/s; initial load: {first / 1e6:.2f} MB for {self.seconds:.1f} s, "
                f"camera videos {cameras / 1e6:.2f} MB, offline copy {offline / 1e6:.2f} MB",
                f"against the renderer: {self.fidelity['center']:.1f} dB from the centre, "
                f"{self.fidelity['edges']:.1f} dB from the edges of the range",
                f"viewer: {open_it}python render/view.py {self.root}",
            ]
        )


class WebExport:
    """Exports one clip.

    Args:
        renderer: renders from one reference and stores frames.
        clip: the renderer's clip.
        viewpoints: with the rig's full reach, which the frustum of ``renderer`` must cover.
        root: the folder to write.
        player: folder with the player's files.
        settings: of the export.
        made_of: everything that determines the renderer's pixels, by name; exports with equal ``made_of`` and settings
            are the same.
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
        self._num_layers = min(LAYERS, planes) if settings.layers is None else settings.layers
        if self._num_layers > planes:
            raise InputError(f"--layers: at most {planes} expected, the number of planes, got {settings.layers}")
        self.renderer, self.clip, self.viewpoints = renderer, clip, viewpoints
        self.root, self.player, self.settings = root, player, settings
        self.work = root / WORK
        self._frames_of = json.dumps({**made_of, "layers": self._num_layers}, sort_keys=True)
        self._digest = digest(self._frames_of.encode(), repr(settings).encode(), *sorted(player.glob("*.*")))
        self._checked_frames = {0, clip.num_frames // 2}  # frames at which the export is compared with the renderer

    def finished(self) -> WebReport | None:
        """The report of a complete export with the same inputs and settings; None if there is none."""
        try:
            manifest = json.loads((self.root / MANIFEST).read_text(encoding="utf-8"))
            record, sizes = manifest["made"], manifest["bytes"]
            is_whole = all((self.root / name).stat().st_size == size for name, size in sizes.items())
            sizes = {**sizes, **{name: (self.root / name).stat().st_size for name in record["copies"]}}
            if record["digest"] != self._digest or not is_whole or self.work.exists():
                return None
            return WebReport(self.root, sizes, record["seconds"], record["tiles"], record["fidelity"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def prepare(self, *, overwrite: bool = False) -> bool:
        """Prepare the folder, keeping the layers of an interrupted run with the same inputs.

        Args:
            overwrite: discard those layers. A finished export stays until the new one is done.

        Returns:
            Whether this run resumes an earlier one.

        Raises:
            InputError: the folder contains files that are not an export, or can't be written.
        """
        is_empty = not self.root.is_dir() or all(path.name.startswith(".") for path in self.root.iterdir())
        if not (is_empty or self.work.is_dir() or _is_export(self.root)):
            raise InputError(f"{self.root}: contains files that are not an export; choose another folder")
        require_writable_folder(self.work)
        record = self.work / "made_of.json"
        if not overwrite and record.is_file() and record.read_text(encoding="utf-8") == self._frames_of:
            return True
        shutil.rmtree(self.work)
        with atomic_path(record) as temporary:
            temporary.write_text(self._frames_of, encoding="utf-8")
        return False

    def run(self) -> WebReport:
        """Compute the missing layers and write the folder.

        Raises:
            InputError: a picture of the clip can't be read, or the moving tiles don't fit into a video.
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
        template = MultiplaneImage(torch.empty(0), self.renderer.camera.to("cpu"), torch.tensor(plan.depths))
        write_image(fresh / POSTER, self._view(template, self._layers(0), viewpoints.center()[0]))
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
            "mpi": {**_camera_entry(template.camera), "width": grid.shape[2], "height": grid.shape[1]},
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
        record = {
            "digest": self._digest,
            "seconds": self.clip.num_frames / self.settings.fps,
            "tiles": {"empty": empty, "still": len(tiles.still), "moving": len(tiles.moving)},
            "fidelity": self._fidelity(template, grid, tiles, static, dynamic, viewpoints),
        }
        sizes = {path.relative_to(fresh).as_posix(): path.stat().st_size for path in _files(fresh)}
        copies = [OFFLINE] if self.settings.offline and sum(sizes.values()) <= LARGEST_COPY else []
        _write_json(fresh / MANIFEST, {**manifest, "bytes": sizes, "made": {**record, "copies": copies}})
        if copies:
            write_offline(fresh, fresh / OFFLINE)
        self._put_in_place(fresh)
        finished = self.finished()
        assert finished is not None
        return finished

    def plan(self) -> tuple[LayerPlan, float]:
        """The layer plan, and the viewpoints' share of the rig's reach; stored in a file."""
        path = self.work / "plan.json"
        if path.is_file():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                return LayerPlan(tuple(stored["first"]), tuple(stored["depths"]), stored["num_planes"]), stored["scale"]
            except (ValueError, KeyError, TypeError):
                raise _damaged(path) from None
        renderer, count = self.renderer, self.clip.num_frames
        weights = [visible_weights(renderer.frame_mpi(frame).mpi) for frame in (0, count - 1, count // 2)]
        plan = plan_layers(np.sum(weights, axis=0), renderer.depths.tolist(), self._num_layers)
        mpi = renderer.frame_mpi(count // 2).mpi
        layers, device = merge_planes(mpi, plan), renderer.device
        scale = self.viewpoints.good_scale(
            lambda view: mpi.render(view.to(device)), lambda view: layers.render(view.to(device))
        )
        _write_json(path, {"first": plan.first, "depths": plan.depths, "num_planes": plan.num_planes, "scale": scale})
        return plan, scale

    def _file(self, frame: int) -> Path:
        return self.work / "layers" / f"{frame:05d}.png"

    def _reference_files(self, frame: int) -> list[Path]:
        """Files of the renderer's views of a frame: from the centre, then from the edges of the limits."""
        return [self.work / "truth" / f"{frame:05d}_{view}.png" for view in range(5)]

    def take(self, time: float, writers: Writers) -> None:
        """Store the layers of a frame whose MPI the renderer has just computed, unless they are stored already."""
        frame = int(time)
        if self._is_stored(frame):
            return
        plan, scale = self.plan()
        renderer = self.renderer
        if frame in self._checked_frames:
            for path, target in zip(
                self._reference_files(frame), _checked_views(self.viewpoints.scaled(scale)), strict=True
            ):
                writers.submit(write_image, path, to_uint8(renderer.render(frame, target).color))
        layers = to_layer_bytes(merge_planes(renderer.frame_mpi(frame).mpi, plan))
        writers.submit(_write_layers, self._file(frame), layers)

    def _merge_frames(self) -> None:
        """Compute the layers of each frame that has none yet."""
        renderer, count = self.renderer, self.clip.num_frames
        missing = [frame for frame in range(count) if not self._is_stored(frame)]
        with (
            closing(read_frames(renderer.read_camera, renderer.indices, missing)) as reader,
            Writers() as writers,
            progress(count, "layers", len(missing)) as bar,
        ):
            for frame, pictures in zip(missing, reader, strict=True):
                renderer.frame_mpi(frame, pictures)
                self.take(frame, writers)
                bar.update()

    def _is_stored(self, frame: int) -> bool:
        references = self._reference_files(frame) if frame in self._checked_frames else []
        return self._file(frame).is_file() and all(path.is_file() for path in references)

    def _layers(self, frame: int) -> np.ndarray:
        """The layers of a frame, uint8 ``[L, H, W, 4]``."""
        return _read_layers(self._file(frame), self.renderer.camera.size[0])

    def _all_layers(self, what: str, compute: Callable[[np.ndarray], Result]) -> Iterator[Result]:
        """Yield ``compute`` of the layers of each frame, in order; threads compute ahead."""
        files = [self._file(frame) for frame in range(self.clip.num_frames)]
        height = self.renderer.camera.size[0]
        read = read_files(files, lambda path: compute(_read_layers(path, height)), LAYERS_AHEAD)
        with closing(read) as loaded, progress(len(files), what) as bar:
            for result in loaded:
                yield result
                bar.update()

    def _find_tiles(self, grid: TileGrid, visibility: Visibility) -> tuple[np.ndarray, Tiles]:
        """The mean of all frames, and the static and moving tiles."""
        changes = Changes(grid)
        for layers in self._all_layers("mean", lambda layers: layers):
            changes.add(layers)
        mean = changes.mean
        for layers, seen in self._all_layers("changes", lambda layers: (layers, visibility.of(layers))):
            changes.compare(layers, mean, seen)
        return mean, changes.tiles()

    def _write_static(self, folder: Path, grid: TileGrid, mean: np.ndarray, tiles: Tiles) -> Atlas:
        atlas = Atlas.of(len(tiles.still), grid.slot, (self.settings.atlas, self.settings.atlas), "static content")
        picture = atlas.draw(straight_slots(grid.slots(mean, tiles.still)))
        with atomic_path(folder / STATIC) as temporary:
            Image.fromarray(picture).save(temporary, "WEBP", quality=STATIC_QUALITY, method=4)
        return atlas

    def _write_dynamic(self, folder: Path, grid: TileGrid, tiles: Tiles) -> Atlas:
        settings = self.settings
        largest = settings.atlas, round(settings.atlas * VIDEO_SHARE)
        atlas = Atlas.of(len(tiles.moving), grid.slot, largest, "moving content")
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
                if last is not None:  # empty slots keep their colour, which costs no bits
                    is_empty = slots[..., 3].max(axis=(1, 2)) == 0
                    slots[is_empty, ..., :3] = last[is_empty, ..., :3]
                writer.append(atlas.draw(slots))
                last = slots
        return atlas

    @property
    def _keyframes(self) -> int:
        return max(1, round(KEYFRAMES * self.settings.fps))

    def _write_cameras(self, folder: Path) -> list[dict[str, Any]]:
        """Write a video of each camera and return the cameras' entries of the manifest."""
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
        """Render layers uint8 ``[L, H, W, 4]`` from a target: uint8 ``[h, w, 3]``."""
        rgba = torch.from_numpy(layers).permute(0, 3, 1, 2).float() / 255
        image = MultiplaneImage(rgba.contiguous(), mpi.camera, mpi.depths.to(rgba.dtype))
        return to_uint8(fill_unseen(image.render(target.to(rgba.dtype))).color)

    def _fidelity(
        self,
        mpi: MultiplaneImage,
        grid: TileGrid,
        tiles: Tiles,
        static: Atlas,
        dynamic: Atlas | None,
        viewpoints: Viewpoints,
    ) -> dict[str, float]:
        """Mean PSNR of the written files against the renderer, from the centre and from the edges."""
        fresh = self.work / "export"
        still = static.read(np.asarray(Image.open(fresh / STATIC).convert("RGB")))
        values: dict[str, list[float]] = {"center": [], "edges": []}
        for frame in sorted(self._checked_frames):
            parts = [(tiles.still, still)]
            if dynamic is not None:
                video = VideoFrames(fresh / DYNAMIC)
                parts.append((tiles.moving, dynamic.read(video.read(frame))))
                video.close()
            layers = assemble(grid, parts)
            for number, (target, path) in enumerate(
                zip(_checked_views(viewpoints), self._reference_files(frame), strict=True)
            ):
                view = self._view(mpi, layers, target)
                values["edges" if number else "center"].append(psnr(view, read_image(path)))
        return {name: float(np.mean(of_place)) for name, of_place in values.items()}

    def _put_in_place(self, fresh: Path) -> None:
        """Move the new files into the folder, the manifest last, and remove the working files."""
        (self.root / MANIFEST).unlink(missing_ok=True)
        for name in (CAMERAS, PLAYER):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in (DYNAMIC, OFFLINE):
            (self.root / name).unlink(missing_ok=True)
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == MANIFEST):
            path.replace(self.root / path.name)
        shutil.rmtree(self.work)


def _checked_views(viewpoints: Viewpoints) -> Camera:
    """The views in which the export is compared with the renderer: from the centre, then from the edges."""
    return join_paths([viewpoints.center(), viewpoints.edges()])


def _is_export(root: Path) -> bool:
    """Whether the manifest of a folder is that of an export."""
    try:
        return json.loads((root / MANIFEST).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: damaged; export again with --overwrite")


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """PSNR in dB of a picture uint8 ``[H, W, 3]``, at most 99, since JSON has no infinity for equal pictures."""
    first, second = (torch.from_numpy(np.array(x, order="C")).permute(2, 0, 1) / 255 for x in (picture, reference))
    return min(99.0, float(metrics.psnr(first, second)))


def _write_layers(path: Path, layers: np.ndarray) -> None:
    """Write layers uint8 ``[L, H, W, 4]`` as one picture, stacked vertically."""
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
