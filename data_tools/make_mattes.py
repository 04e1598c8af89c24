"""Compute the mattes of a clip: a grey picture for each frame of each camera that shows where something moves.

    python data_tools/make_mattes.py FRAMES                                     differences from the background
    python data_tools/make_mattes.py FRAMES --method segmentation               people, with a trained network
    python data_tools/make_mattes.py FRAMES --from_dir OTHER                    mattes from elsewhere

writes ``FRAMES/mattes/camNN/FRAME.png``, 255 where something moves. Poses are not needed. The first form needs the
backgrounds of make_backgrounds.py. Mattes that are up to date are kept, so that an interrupted run can continue.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from data_tools.clips.selection import choose_cameras, choose_frames
from data_tools.mattes.difference import BackgroundModel, DifferenceSettings, soften
from data_tools.mattes.other_layouts import OtherMattes
from data_tools.mattes.segmentation import Segmenter
from maskvolume.clips.backgrounds import evenly_spaced
from maskvolume.clips.layouts import (
    Layout,
    background_folder,
    find_background,
    open_layout,
)
from maskvolume.clips.mattes import MATTES_NAME, matte_file
from maskvolume.io.files import atomic_path, is_current, require_writable_folder
from maskvolume.io.images import read_image, write_image
from maskvolume.options import option, parse_options, positional
from maskvolume.runtime.devices import resolve_device
from maskvolume.runtime.errors import InputError, run_program

RECORD_NAME = ".made_of.json"
NOISE_SAMPLES = 30  # frames, evenly spaced over the clip, for the estimate of a camera's noise


@dataclass(frozen=True)
class MatteOptions:
    """Options of make_mattes."""

    frames: str = positional("folder of the clip, in any layout; no poses are needed")
    out_dir: str | None = option(None, "folder for the mattes; none: FRAMES/mattes")
    method: Literal["difference", "segmentation"] = option(
        "difference", "difference: from the camera's background; segmentation: with a trained network"
    )
    from_dir: str | None = option(
        None,
        "folder of mattes from elsewhere, in any clip layout and with the clip's names, to check and convert instead",
    )
    bg_dir: str | None = option(None, "folder of the backgrounds; none: that of the clip, FRAMES/background")
    exclude: tuple[str, ...] = option((), "cameras to leave out, by name")
    first: int | None = option(None, "number of the first frame; none: the clip's first")
    end: int | None = option(None, "number after the last frame's; none: the clip's end")
    threshold: float = option(
        4.0, "difference: threshold for motion, in standard deviations of the clip's noise", above=0
    )
    keep_shadows: bool = option(False, "difference: shadows count as moving")
    min_area: float = option(
        0.0005, "difference: smallest region, as a share of the picture; smaller holes are filled", low=0, below=1
    )
    feather: float = option(1.0, "difference: softness of the edge in pixels; 0: hard", low=0)
    model: Literal[
        "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", "maskrcnn_resnet50_fpn"
    ] = option("deeplabv3_resnet50", "segmentation: network of torchvision")
    weights: str | None = option(None, "segmentation: file of its weights; none: torchvision's cache or download")
    classes: tuple[str, ...] = option(("person",), "segmentation: names of the classes that count")
    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "segmentation: where the network runs")
    overwrite: bool = option(False, "replace existing mattes")


class MatteMethod(Protocol):
    """A method for computing mattes."""

    def sources(self, camera: int, frame: int) -> Sequence[Path]:
        """The source files of a matte."""
        ...

    def of_camera(self, camera: int) -> Callable[[int], np.ndarray]:
        """A function from a frame of this camera to its matte, uint8 ``[H, W]``."""
        ...


@dataclass(frozen=True)
class Difference:
    """Mattes of the differences from the background, by ``BackgroundModel``.

    Attributes:
        layout: the clip.
        backgrounds: file of each camera's background.
        settings: what counts as moving.
        feather: softness of the edge in pixels.
    """

    layout: Layout
    backgrounds: Mapping[int, Path]
    settings: DifferenceSettings
    feather: float

    def sources(self, camera: int, frame: int) -> Sequence[Path]:
        return [self.layout.source.file(camera, frame), self.backgrounds[camera]]

    def of_camera(self, camera: int) -> Callable[[int], np.ndarray]:
        read = partial(self.layout.source.read, camera)
        samples = evenly_spaced(len(self.layout.frame_names), NOISE_SAMPLES)
        background = read_image(self.backgrounds[camera], self.layout.size)
        model = BackgroundModel(background, lambda i: read(samples[i]), len(samples))
        return lambda frame: soften(model.moving(read(frame), self.settings), self.feather)


@dataclass(frozen=True)
class Segmentation:
    """Mattes of objects of some classes.

    Attributes:
        layout: the clip.
        segmenter: the network.
    """

    layout: Layout
    segmenter: Segmenter

    def sources(self, camera: int, frame: int) -> Sequence[Path]:
        return [self.layout.source.file(camera, frame)]

    def of_camera(self, camera: int) -> Callable[[int], np.ndarray]:
        return lambda frame: self.segmenter.matte(self.layout.source.read(camera, frame))


@dataclass(frozen=True)
class MatteJob:
    """The mattes to compute.

    Attributes:
        layout: the clip.
        cameras: positions of the cameras.
        frames: positions of the frames.
        folder: for the mattes.
    """

    layout: Layout
    cameras: tuple[int, ...]
    frames: tuple[int, ...]
    folder: Path

    def file(self, camera: int, frame: int) -> Path:
        return matte_file(self.folder, self.layout.names[camera], self.layout.frame_names[frame])


def make_mattes(job: MatteJob, method: MatteMethod, *, overwrite: bool = False) -> int:
    """Compute the mattes that are missing or older than their sources, camera by camera.

    Returns:
        The number of mattes written.

    Raises:
        InputError: a file can't be read.
    """
    num_written = 0
    total = len(job.cameras) * len(job.frames)
    with tqdm(total=total, desc="mattes", unit="matte", disable=None) as progress:
        for camera in job.cameras:
            missing = [
                frame
                for frame in job.frames
                if overwrite
                or not all(is_current(job.file(camera, frame), source) for source in method.sources(camera, frame))
            ]
            progress.update(len(job.frames) - len(missing))
            matte_of = method.of_camera(camera) if missing else None
            for frame in missing:
                assert matte_of is not None
                write_image(job.file(camera, frame), matte_of(frame))
                progress.update()
            num_written += len(missing)
            job.layout.source.release(camera)
    return num_written


def find_backgrounds(layout: Layout, cameras: Sequence[int], bg_dir: str | None) -> dict[int, Path]:
    """The background picture of each camera.

    Raises:
        InputError: the folder is missing, or a camera has no background.
    """
    folder = Path(bg_dir) if bg_dir else background_folder(layout)
    return {camera: find_background(layout, camera, folder, "data_tools/make_backgrounds.py") for camera in cameras}


def _settings(options: MatteOptions, folder: Path) -> dict[str, object]:
    """The options that the mattes in ``folder`` depend on."""
    if options.from_dir:
        return {"from_dir": Path(os.path.relpath(Path(options.from_dir).resolve(), folder.resolve())).as_posix()}
    if options.method == "segmentation":
        return {"model": options.model, "weights": options.weights, "classes": list(options.classes)}
    return {name: getattr(options, name) for name in ("threshold", "keep_shadows", "min_area", "feather")}


def _prepare_folder(job: MatteJob, settings: dict[str, object], overwrite: bool) -> None:
    """Check that all mattes in the folder were computed with these settings."""
    folder = require_writable_folder(job.folder)
    record = folder / RECORD_NAME
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        recorded = None
    if recorded == settings:
        return
    existing = [path for name in job.layout.names for path in (folder / name).glob("*.png")]
    if existing and not overwrite:
        raise InputError(
            f"{folder}: holds mattes made with other options; choose another --out_dir, or give --overwrite to "
            f"replace all of them"
        )
    record.unlink(missing_ok=True)
    for path in existing:
        path.unlink()
    with atomic_path(record) as partial_file:
        partial_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def choose_method(options: MatteOptions, layout: Layout, cameras: Sequence[int], frames: Sequence[int]) -> MatteMethod:
    """The method that the options select.

    Raises:
        InputError: its inputs are missing or do not fit the clip.
    """
    if options.from_dir:
        return OtherMattes.open(options.from_dir, layout, cameras, frames)
    if options.method == "segmentation":
        device = resolve_device(options.device)
        return Segmentation(layout, Segmenter.open(options.model, options.classes, device, options.weights))
    settings = DifferenceSettings(options.threshold, options.keep_shadows, options.min_area)
    return Difference(layout, find_backgrounds(layout, cameras, options.bg_dir), settings, options.feather)


def _check_options(options: MatteOptions) -> None:
    if not options.classes:
        raise InputError("--classes: name at least one class, such as person")


def main(argv: Sequence[str] | None = None) -> None:
    """Compute the mattes of one clip."""
    options = parse_options(
        MatteOptions,
        argv,
        prog="make_mattes.py",
        description="Compute the mattes of a clip: a grey picture per frame and camera, 255 where something moves.",
    )
    _check_options(options)
    layout = open_layout(options.frames)
    cameras = choose_cameras(layout, options.exclude)
    frames = tuple(choose_frames(layout, options.first, options.end).values())
    job = MatteJob(layout, cameras, frames, Path(options.out_dir) if options.out_dir else layout.root / MATTES_NAME)
    method = choose_method(options, layout, cameras, frames)
    _prepare_folder(job, _settings(options, job.folder), options.overwrite)
    num_written = make_mattes(job, method, overwrite=options.overwrite)
    total = len(cameras) * len(frames)
    print(f"{job.folder}: {total} mattes of {len(cameras)} cameras, {total - num_written} of them kept")


if __name__ == "__main__":
    run_program(main)
