"""The size of the training data and the reading speed of random triplets of views, compared with the original's format.

All formats hold the same frames: those of --root_dir, from extract_frames.py, or synthetic ones that were encoded in a
video like those of RealEstate10K. They are read alternately in one process: three random frames of a random scene, as
uint8 RGB. The files are in the page cache; the bytes read per triplet show the load on a disk or a network.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import (
    RESULTS_FOLDER,
    markdown_table,
    run_record,
    write_result,
)
from maskvolume.io.images import read_image_size
from maskvolume.io.realestate10k import SceneCameras
from maskvolume.io.shards import SceneShards
from maskvolume.options import Size, check_ranges, option, parse_options
from maskvolume.runtime.errors import InputError, run_program
from preprocessing.compress_data import CompressOptions, compress_data
from preprocessing.extract_frames import ExtractOptions, extract_frames
from preprocessing.make_example_data import ExampleOptions, make_example_data

ORIGINAL = "original (HDF5, lzf)"
ORIGINAL_AT_ONCE = "original, three frames a call"
OURS = "ours (tar and index)"
VIEWS = 3
SEED = 0
Triplet = tuple[str, tuple[int, ...]]  # a scene and frames of it


@dataclass(frozen=True)
class DataReadingOptions:
    """The options of this program."""

    root_dir: str | None = option(None, "folder of frames from extract_frames.py; none: synthetic ones")
    num_scenes: int = option(3, "scenes to make, or to use from root_dir", low=1)
    num_frames: int = option(90, "frames of each synthetic scene", low=VIEWS)
    triplets: int = option(20, "triplets per turn", low=1)
    repeats: int = option(7, "measured turns, after an uncounted one", low=1)
    threads: int = option(1, "processor threads of the JPEG decoder", low=1)
    out: str = option(str(RESULTS_FOLDER / "data_reading.json"), "file for the figures")


class Form(ABC):
    """A storage format for scenes, opened for reading."""

    @abstractmethod
    def read(self, scene: str, frames: Sequence[int]) -> list[np.ndarray]:
        """Frames of a scene, uint8 ``[H, W, 3]`` RGB."""


class OriginalForm(Form):
    """Raw pictures, compressed with lzf in h5py's default chunks."""

    def __init__(self, path: Path, names: Sequence[str], at_once: bool) -> None:
        self.file, self.at_once = h5py.File(path, "r"), at_once
        self.keys = {name: str(key) for key, name in enumerate(names)}

    def read(self, scene: str, frames: Sequence[int]) -> list[np.ndarray]:
        pictures = self.file[self.keys[scene]]
        if not self.at_once:
            return [pictures[frame] for frame in frames]
        order = sorted(frames)
        sorted_pictures = pictures[order]
        return [sorted_pictures[order.index(frame)] for frame in frames]


class JpegInHdf5(Form):
    """JPEG bytes as rows of variable length, one dataset per scene."""

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path, "r")

    def read(self, scene: str, frames: Sequence[int]) -> list[np.ndarray]:
        rows = self.file[scene]
        return [_decode(rows[frame]) for frame in frames]


class JpegFiles(Form):
    """A file for each frame, as written by extract_frames.py."""

    def __init__(self, root: Path) -> None:
        self.files = {folder.name: sorted(folder.glob("*.jpg")) for folder in root.iterdir()}

    def read(self, scene: str, frames: Sequence[int]) -> list[np.ndarray]:
        return [_decode(np.fromfile(self.files[scene][frame], np.uint8)) for frame in frames]


class Shards(Form):
    """The shards of compress_data.py; each read is compared with its checksum."""

    def __init__(self, folder: Path) -> None:
        self.shards = SceneShards(folder)
        self.numbers = {name: number for number, name in enumerate(self.shards.names)}

    def read(self, scene: str, frames: Sequence[int]) -> list[np.ndarray]:
        return [self.shards.picture(self.numbers[scene], frame) for frame in frames]


class WholeScenes(Form):
    """The same shards, reading all pictures of a scene for each triplet, like a stream of the tar."""

    def __init__(self, folder: Path) -> None:
        self.shards = SceneShards(folder)
        self.numbers = {name: number for number, name in enumerate(self.shards.names)}

    def read(self, scene: str, frames: Sequence[int]) -> list[np.ndarray]:
        number = self.numbers[scene]
        jpegs = [self.shards.jpeg(number, frame) for frame in range(self.shards.count(number))]
        return [_decode(np.frombuffer(jpegs[frame], np.uint8)) for frame in frames]


def write_original(folder: Path, scenes: Sequence[tuple[SceneCameras, np.ndarray]]) -> Path:
    """Write scenes in the original's format: pictures with lzf, matrices as pickled object arrays.

    Args:
        folder: for ``640x360.h5`` (or another size), ``int.npy`` and ``ext.npy``.
        scenes: cameras and pictures ``[N, H, W, 3]``.

    Returns:
        The HDF5 file.
    """
    h, w = scenes[0][1].shape[1:3]
    path = folder / f"{w}x{h}.h5"
    folder.mkdir(parents=True, exist_ok=True)
    intrinsics, extrinsics = np.empty(len(scenes), object), np.empty(len(scenes), object)
    with h5py.File(path, "w") as file:
        for number, (cameras, pictures) in enumerate(scenes):
            file.create_dataset(str(number), data=pictures, compression="lzf")
            K = np.tile(np.eye(3), (len(cameras), 1, 1))
            K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = cameras.intrinsics.T
            intrinsics[number] = K
            extrinsics[number] = np.concatenate(
                [cameras.T_cam_world, np.tile([[[0.0, 0, 0, 1]]], (len(cameras), 1, 1))], axis=1
            )
    np.save(folder / "int.npy", intrinsics, allow_pickle=True)
    np.save(folder / "ext.npy", extrinsics, allow_pickle=True)
    return path


def main() -> None:
    """Write all formats, measure, print the tables, write the figures."""
    options = parse_options(DataReadingOptions, prog="data_reading.py", description=__doc__ or "")
    check_ranges(options)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        root = Path(options.root_dir) if options.root_dir else make_frames(work, options)
        result = {**run_record(), "frames_of": Path(root).name if options.root_dir else "made videos"}
        result |= measure(root, work, options)
    write_result(Path(options.out), result)
    _print_result(result)
    print(f"\n{options.out}")


def make_frames(work: Path, options: DataReadingOptions) -> Path:
    """Make frames of synthetic videos, one video per scene, 640 x 360."""
    example = ExampleOptions(
        out_dir=str(work / "made"),
        num_videos=options.num_scenes,
        test_videos=0,
        clips_per_video=1,
        frames_per_clip=options.num_frames,
    )
    data = make_example_data(example)
    frames = work / "frames"
    extract_frames(
        ExtractOptions(root_dir=str(data / "cameras/train"), video_dir=str(data / "videos"), out_dir=str(frames))
    )
    return frames


def measure(root: Path, work: Path, options: DataReadingOptions) -> dict[str, Any]:
    """Sizes and rates of all formats for the scenes in ``root``; the formats are written to ``work``."""
    data, lzf, jpegs, files = work / "shards", work / "original", work / "jpegs.h5", work / "files"
    first = next(root.glob("*/*.jpg"), None)
    if first is None:
        raise InputError(f"{root}: holds no frames (SCENE/TIMESTAMP.jpg); name the folder that extract_frames.py wrote")
    size = read_image_size(first)
    packing = CompressOptions(limit=options.num_scenes, img_wh=Size(*size), min_frames=VIEWS)
    compress_data(root, data, packing)
    shards = SceneShards(data)
    names = list(shards.names)
    write_original(lzf, [_decoded_scene(shards, scene) for scene in range(len(shards))])
    _write_jpegs(shards, jpegs, files)
    pictures = lzf / f"{size[1]}x{size[0]}.h5"
    forms: dict[str, Form] = {
        ORIGINAL: OriginalForm(pictures, names, at_once=False),
        ORIGINAL_AT_ONCE: OriginalForm(pictures, names, at_once=True),
        "HDF5, JPEG bytes": JpegInHdf5(jpegs),
        "JPEG files": JpegFiles(files),
        "whole scenes of the tar": WholeScenes(data),
        OURS: Shards(data),
    }
    seconds, read = time_forms(forms, shards, options)
    raw = shards.num_frames * size[0] * size[1] * 3
    sizes = {"raw": raw, ORIGINAL: _bytes(lzf), "HDF5, JPEG bytes": _bytes(jpegs), "JPEG files": _bytes(files)}
    sizes[OURS] = _bytes(data)
    fastest = min(statistics.median(seconds[name]) for name in (ORIGINAL, ORIGINAL_AT_ONCE))
    return {
        "size_wh": [size[1], size[0]],
        "scenes": len(shards),
        "frames": shards.num_frames,
        "decoder_threads": options.threads,
        "repeats": options.repeats,
        "triplets_a_turn": options.triplets,
        "bytes": sizes,
        "size_against_original": round(sizes[OURS] / sizes[ORIGINAL], 4),
        "ms_a_triplet": {name: _summary(times) for name, times in seconds.items()},
        "bytes_read_a_triplet": read,
        # Relative to the faster of the two ways to read the original's format.
        "rate_against_original": {name: round(fastest / statistics.median(seconds[name]), 2) for name in seconds},
    }


def time_forms(
    forms: dict[str, Form], shards: SceneShards, options: DataReadingOptions
) -> tuple[dict[str, list[float]], dict[str, int | None]]:
    """For each format, the seconds per triplet by turn, and the bytes read per triplet."""
    rng = np.random.default_rng(SEED)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    read: dict[str, int | None] = {}
    for turn in tqdm(range(options.repeats + 1), unit="turn", disable=None):
        triplets = [_draw(rng, shards) for _ in range(options.triplets)]
        _require_same(forms, triplets[0])
        for name, form in forms.items():
            before, start = _bytes_read(), time.perf_counter()
            for scene, frames in triplets:
                form.read(scene, frames)
            elapsed, after = time.perf_counter() - start, _bytes_read()
            if turn:
                seconds[name].append(elapsed / len(triplets))
            read[name] = None if before is None or after is None else round((after - before) / len(triplets))
    return seconds, read


def _draw(rng: np.random.Generator, shards: SceneShards) -> Triplet:
    scene = int(rng.integers(len(shards)))
    frames = rng.choice(shards.count(scene), VIEWS, replace=False)
    return shards.names[scene], tuple(frames.tolist())


def _require_same(forms: dict[str, Form], triplet: Triplet) -> None:
    """Check that all formats return the same pixels: the original's holds the decoded JPEGs."""
    truth = forms[OURS].read(*triplet)
    for name, form in forms.items():
        if not np.array_equal(truth, form.read(*triplet)):
            raise AssertionError(f"{name}: different pixels from {OURS}")


def _decoded_scene(shards: SceneShards, scene: int) -> tuple[SceneCameras, np.ndarray]:
    cameras = SceneCameras(
        shards.names[scene], "", shards.timestamps(scene), shards.intrinsics(scene), shards.T_cam_world(scene)
    )
    return cameras, np.stack([shards.picture(scene, frame) for frame in range(len(cameras))])


def _write_jpegs(shards: SceneShards, path: Path, folder: Path) -> None:
    """Write the JPEGs of the shards to an HDF5 file, and as single files."""
    with h5py.File(path, "w") as file:
        for scene, name in enumerate(shards.names):
            jpegs = [shards.jpeg(scene, frame) for frame in range(shards.count(scene))]
            rows = file.create_dataset(name, (len(jpegs),), h5py.vlen_dtype(np.uint8))
            (folder / name).mkdir(parents=True)
            for frame, data in enumerate(jpegs):
                rows[frame] = np.frombuffer(data, np.uint8)
                (folder / name / f"{frame:06d}.jpg").write_bytes(data)


def _decode(data: np.ndarray) -> np.ndarray:
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise AssertionError("a picture cannot be decoded")
    return picture


def _bytes(path: Path) -> int:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _bytes_read() -> int | None:
    """Bytes that this process has read from files, cached or not; None if the system does not report them."""
    counters = Path("/proc/self/io")
    return int(counters.read_text().split()[1]) if counters.exists() else None


def _summary(times: Sequence[float]) -> dict[str, float]:
    """Median and spread (slowest minus fastest) in milliseconds."""
    return {"median": round(1e3 * statistics.median(times), 3), "spread": round(1e3 * (max(times) - min(times)), 3)}


def _print_result(result: dict[str, Any]) -> None:
    width, height = result["size_wh"]
    print(f"\n{result['frames']} frames of {width} x {height} in {result['scenes']} scenes:\n")
    sizes = result["bytes"]
    rows = [
        [name, f"{size / result['frames'] / 1e3:.1f}", f"{sizes[ORIGINAL] / size:.2f}"] for name, size in sizes.items()
    ]
    print(markdown_table(["format", "KB per frame", "times smaller than the original's"], rows))
    print("\nA random triplet:\n")
    rows = []
    for name, time_ in result["ms_a_triplet"].items():
        read, ratio = result["bytes_read_a_triplet"][name], result["rate_against_original"][name]
        megabytes = "-" if read is None else f"{read / 1e6:.2f}"
        rows.append([name, f"{time_['median']:.1f} +{time_['spread']:.1f}", megabytes, f"{ratio:.1f}"])
    print(markdown_table(["format", "ms (median, spread)", "MB read", "times as fast as the original's"], rows))


if __name__ == "__main__":
    run_program(main)
