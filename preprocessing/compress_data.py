"""Pack scenes into shards, the compact format for training stage one.

    python preprocessing/compress_data.py --root_dir FRAMES --out_dir DATA

FRAMES is the output of extract_frames.py, or a folder in the original's format (640x360.h5, int.npy, ext.npy). Output:

    DATA/shard-00000.tar ...    pictures and cameras, scene by scene; WebDataset takes a scene as one sample
    DATA/index-00001/*.npy      position of each picture, timestamps, intrinsics, poses: plain arrays
    DATA/data.json              version, size, counts
    DATA/triplets.txt           fixed validation views
    DATA/compression.jsonl      a line per scene: its frames, and the dropped ones with reasons

Every picture is decoded once. JPEGs of the right size are copied, others are resized and encoded. Finished shards
survive an interruption; the same command continues. Scenes that are packed already are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from maskvolume.io.files import require_writable_folder
from maskvolume.io.images import read_image, resize_image
from maskvolume.io.original_h5 import OriginalData, OriginalScene, find_original
from maskvolume.io.realestate10k import SceneCameras, read_bounds, read_scene_cameras
from maskvolume.io.shard_index import DATA_NAME, list_shards
from maskvolume.io.shards import (
    MB,
    SceneShards,
    ShardWriter,
    check_scene_name,
    encode_jpeg,
    rebuild_index,
)
from maskvolume.io.triplets import draw_triplets, write_triplets
from maskvolume.options import Size, option, parse_options
from maskvolume.runtime.errors import InputError, run_program
from preprocessing.report import Entry, Report
from preprocessing.workers import run_jobs

CAMERAS_NAME, REPORT_NAME, TRIPLETS_NAME = "cameras.txt", "compression.jsonl", "triplets.txt"
JPEG_START = b"\xff\xd8"
# libjpeg fills undecodable parts with grey and only prints a warning.
COMPLAINT = re.compile(rb"Corrupt JPEG data|Premature end of JPEG")


@dataclass(frozen=True)
class CompressOptions:
    """Options of compress_data."""

    root_dir: str | None = option(None, "folder of frames from extract_frames.py, or of the original's 640x360.h5")
    out_dir: str | None = option(None, "folder for the shards, created if missing; always required")
    bounds: str | None = option(None, "file of lines `SCENE NEAR FAR`, depths in the unit of the poses")
    img_wh: Size = option(Size(360, 640), "width and height of the pictures", low=1)
    quality: int = option(92, "JPEG quality of pictures that are resized or converted, 1 to 100", low=1, high=100)
    min_frames: int = option(10, "scenes with fewer good frames are dropped", low=3)
    shard_mb: int = option(256, "megabytes after which a shard is closed", low=1)
    num_triplets: int = option(100, "validation views to draw if there is no triplets.txt yet", low=0)
    seed: int = option(0, "seed for drawing these views")
    workers: int = option(1, "processes that verify pictures", low=1)
    limit: int | None = option(None, "pack only this many scenes, the first ones by name", low=1)
    allow_pickle: bool = option(False, "load the original's int.npy and ext.npy, which can run code")
    overwrite: bool = option(False, "remove existing shards and pack all scenes again")
    rebuild_index: bool = option(False, "only rebuild index and data.json from the shards, checking every picture")


@dataclass(frozen=True)
class FramesScene:
    """A scene in a folder of frames."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name


Scene = FramesScene | OriginalScene


@dataclass(frozen=True)
class PictureForm:
    """How scenes are packed: picture size (h, w), quality of encoded pictures, and the fewest frames of a scene."""

    size: tuple[int, int]
    quality: int
    min_frames: int


@dataclass(frozen=True)
class PackedScene:
    """The outcome of packing a scene: good pictures with their cameras, or the reason for dropping it.

    Attributes:
        name: of the scene.
        cameras: of the good pictures; None if the scene is dropped.
        jpegs: the good pictures.
        lost: reasons for dropping the other pictures, by timestamp.
        why: reason for dropping the scene.
    """

    name: str
    cameras: SceneCameras | None = None
    jpegs: Sequence[bytes] = ()
    lost: Mapping[int, str] = field(default_factory=dict)
    why: str = ""

    def entry(self) -> Entry:
        """The scene's entry in the report."""
        lost = [{"timestamp": timestamp, "why": why} for timestamp, why in self.lost.items()]
        if self.cameras is None:
            return {"scene": self.name, "state": "dropped", "why": self.why, "dropped": lost}
        return {"scene": self.name, "state": "done", "frames": len(self.cameras), "dropped": lost}


def pack_scene(scene: Scene, form: PictureForm) -> PackedScene:
    """Read a scene and verify its pictures; runs in a worker."""
    try:
        if isinstance(scene, FramesScene):
            cameras = replace(_read_cameras(scene.folder), name=scene.name)
            _require_frames(len(cameras), form)
            pictures = _verified_files(scene.folder, cameras.timestamps.tolist(), form)
        else:
            cameras = scene.cameras()
            _require_frames(len(cameras), form)
            pictures = _encoded(scene, form)
        jpegs, lost = [], {}
        for timestamp, (jpeg, why) in zip(cameras.timestamps.tolist(), pictures, strict=True):
            if jpeg is None:
                lost[timestamp] = why
            else:
                jpegs.append(jpeg)
    except InputError as error:
        return PackedScene(scene.name, why=_one_line(error))
    try:
        _require_frames(len(jpegs), form)
    except InputError as error:
        return PackedScene(scene.name, lost=lost, why=_one_line(error))
    is_good = np.array([timestamp not in lost for timestamp in cameras.timestamps.tolist()])
    return PackedScene(scene.name, cameras.select(is_good), jpegs, lost)


def _read_cameras(folder: Path) -> SceneCameras:
    path = folder / CAMERAS_NAME
    if not path.exists():
        raise InputError(f"{path}: no such file: this scene's frames are not complete; run extract_frames.py again")
    return read_scene_cameras(path)


def _require_frames(count: int, form: PictureForm) -> None:
    if count < form.min_frames:
        raise InputError(f"{count} good frames, --min_frames {form.min_frames} expected")


def _verified_files(folder: Path, timestamps: Sequence[int], form: PictureForm) -> Iterator[tuple[bytes | None, str]]:
    """Yield the JPEG of each timestamp, or None and the reason for dropping it."""
    with decoder_complaints() as has_complained:
        for timestamp in timestamps:
            path = folder / f"{timestamp}.jpg"
            try:
                picture = read_image(path)
                if has_complained():
                    raise InputError(f"{path}: the picture is damaged; make or download this file again")
            except InputError as error:
                yield None, _one_line(error)
                continue
            data = path.read_bytes()
            if picture.shape[:2] != form.size or not data.startswith(JPEG_START):
                data = encode_jpeg(resize_image(picture, form.size), form.quality)
            yield data, ""


def _encoded(scene: OriginalScene, form: PictureForm) -> Iterator[tuple[bytes | None, str]]:
    for picture in scene.pictures():
        if picture is None:
            yield None, f"{scene.path}: this picture cannot be decompressed; copy or make the file again"
        else:
            yield encode_jpeg(resize_image(picture, form.size), form.quality), ""


@contextmanager
def decoder_complaints() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether the decoder has reported a damaged picture since its last call.

    The decoder only reports this on standard error, so the block redirects that of the whole process to a file.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)

        def has_complained() -> bool:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            message = file.read(size)
            file.seek(0)
            file.truncate()
            return COMPLAINT.search(message) is not None

        try:
            yield has_complained
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def list_scenes(root: Path, allow_pickle: bool) -> tuple[list[str], Callable[[str], Scene]]:
    """Names of the scenes in a folder of either format, and a function that returns a scene by name.

    Raises:
        InputError: there is no scene, the files are damaged, or a name is invalid.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name the one that extract_frames.py wrote (--root_dir)")
    if find_original(root):
        data = OriginalData(root, allow_pickle=allow_pickle)
        return data.names, data.scene
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not any((root / name / CAMERAS_NAME).exists() for name in names):
        raise InputError(
            f"{root}: neither frames from extract_frames.py (SCENE/{CAMERAS_NAME}) nor the original's 640x360.h5; "
            f"check --root_dir"
        )
    for name in names:
        check_scene_name(name)
    return names, lambda name: FramesScene(root / name)


def compress_data(root: Path, out: Path, options: CompressOptions) -> None:
    """Pack all scenes that are not packed yet, and print a summary.

    Raises:
        InputError: a folder is unusable, or no scene is good.
    """
    if root.resolve() == out.resolve():
        raise InputError(f"{out}: --out_dir is --root_dir; choose a separate folder for the shards")
    names, open_scene = list_scenes(root, options.allow_pickle)
    names = names[: options.limit]
    bounds = read_bounds(options.bounds) if options.bounds else {}
    require_writable_folder(out)
    if options.overwrite:
        remove_data(out)
    report = Report(out / REPORT_NAME, "scene")
    form = PictureForm(options.img_wh, options.quality, options.min_frames)
    with ShardWriter(out, form.size, quality=form.quality, shard_mb=options.shard_mb) as writer:
        missing = [name for name in names if name not in writer]
        if missing:
            with report.open_for_writing(), tqdm(total=len(missing), unit="scene", disable=None) as progress:
                work, workers = partial(pack_scene, form=form), min(options.workers, len(missing))
                with run_jobs(work, map(open_scene, missing), workers, in_order=True) as results:
                    for packed in results:
                        # The report comes first, so that every scene in a finished shard has its line.
                        report.add(packed.entry())
                        if packed.cameras is not None:
                            writer.add_scene(packed.cameras, packed.jpegs, bounds.get(packed.name))
                        progress.update()
        if not len(writer):
            reason = report.entries[names[0]]["why"]
            raise InputError(f"{root}: none of {len(names)} scenes is good; the first: {reason}")
    shards = SceneShards(out)
    _write_triplets(shards, options)
    added = [report.entries[name] for name in missing if report.entries[name]["state"] == "done"]
    _summarize(shards, report, names, len(added))


def _write_triplets(shards: SceneShards, options: CompressOptions) -> None:
    path = shards.folder / TRIPLETS_NAME
    if options.num_triplets and not path.exists():
        write_triplets(path, draw_triplets(shards, options.num_triplets, options.seed))


def _summarize(shards: SceneShards, report: Report, names: Sequence[str], num_added: int) -> None:
    folder = shards.folder
    files = list_shards(folder).values()
    size = sum(path.stat().st_size for path in files)
    print(
        f"{folder}: {len(shards)} scenes, {num_added} of them new, {shards.num_frames} frames; "
        f"{len(files)} shards of {size / MB:.1f} MB in all"
    )
    entries = [report.entries[name] for name in names if name in report.entries]
    dropped = sum(entry["state"] == "dropped" for entry in entries)
    lost = sum(len(entry["dropped"]) for entry in entries if entry["state"] == "done")
    if dropped or lost:
        print(f"{dropped} scenes and {lost} frames of other scenes were dropped; {report.path} says why")


def remove_data(folder: Path) -> None:
    """Remove this program's files from a folder, and nothing else."""
    for name in (DATA_NAME, REPORT_NAME, TRIPLETS_NAME):  # data.json first, so that it never names missing shards
        (folder / name).unlink(missing_ok=True)
    for path in (*list_shards(folder).values(), *folder.glob(".shard-*.npz")):
        path.unlink()
    for path in folder.glob("index-[0-9]*"):
        shutil.rmtree(path)


def _rebuild(out: Path) -> None:
    total = sum(path.stat().st_size for path in list_shards(out).values()) if out.is_dir() else 0
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as progress:
        info = rebuild_index(out, progress.update)
    print(f"{out}: {info.scenes} scenes, {info.frames} frames, {len(info.shards)} shards; all pictures are whole")


def _one_line(error: InputError) -> str:
    return " ".join(str(error).split())


def _check_options(options: CompressOptions) -> None:
    if options.out_dir is None:
        raise InputError("--out_dir: this option is required; name the folder for the shards")
    if options.root_dir is None and not options.rebuild_index:
        raise InputError("--root_dir: this option is required; name the folder that extract_frames.py wrote")


def main(argv: Sequence[str] | None = None) -> None:
    """Pack scenes, or rebuild an index."""
    options = parse_options(
        CompressOptions,
        argv,
        prog="compress_data.py",
        description="Pack scenes into shards, the compact format for training stage one.",
    )
    _check_options(options)
    if options.rebuild_index:
        _rebuild(Path(options.out_dir or ""))
    else:
        compress_data(Path(options.root_dir or ""), Path(options.out_dir or ""), options)


if __name__ == "__main__":
    run_program(main)
