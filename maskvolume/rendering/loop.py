"""Renders a clip to pictures and videos with any renderer: orders the shots and runs the reader and writer threads.

Shots are processed by time, so that work shared by the shots of a moment is done once. Threads decode the pictures of
the next moments and encode finished pictures while a moment is rendered. On a GPU, the host enqueues one moment after
another and waits for its writers only. Memory does not grow with the number of shots or frames.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoWriter
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.pictures import color_map, read_disparity, to_bytes, to_steps
from maskvolume.rendering.renderer import AnyMoment, Renderer, View
from maskvolume.rendering.shots import Shots
from maskvolume.runtime.prefetch import WRITERS, Writers, read_ahead, read_files
from maskvolume.runtime.processes import ALONE, Processes
from maskvolume.runtime.progress import progress
from maskvolume.runtime.transfers import Download, Downloader

WithMoment = Callable[[float, Writers], None]


@dataclass(frozen=True)
class RenderReport:
    """The result of a rendering.

    Attributes:
        folder: the output folder.
        indices: source cameras, the most important first.
        times: time of each shot, in frames.
        made: number of shots rendered by this run.
        kept: number of shots kept from an earlier run.
        seconds: duration of the rendering.
    """

    folder: RenderFolder
    indices: tuple[int, ...]
    times: tuple[float, ...]
    made: int
    kept: int
    seconds: float


def render_clip(
    renderer: Renderer[AnyMoment],
    shots: Shots,
    folder: RenderFolder,
    *,
    fps: float,
    crf: int,
    processes: Processes = ALONE,
    with_moment: WithMoment | None = None,
) -> RenderReport:
    """Render the shots that are missing in the folder, then encode the videos.

    Pictures are written atomically, so an interrupted run continues where it stopped. Each process renders a share of
    the moments; the first one encodes the videos when all are done.

    Args:
        renderer: the renderer of the clip.
        shots: all shots of the rendering.
        folder: the output, prepared by ``RenderFolder.prepare``.
        fps: frames per second of the videos.
        crf: quality of the videos, 0 (lossless) to 51 (worst).
        processes: the processes that share the shots; all of them see the same folder.
        with_moment: called once each moment is prepared, with its time and the writer threads, which the callback may
            use for its own output.

    Returns:
        A report of the rendering.

    Raises:
        InputError: a picture of the clip can't be read, or the renderer can't show a time; raised in all processes if
            it occurs in one.
        OSError: a file can't be written.
    """
    start = time.monotonic()
    missing = processes.first_does(lambda: _begin(renderer, shots, folder))
    share = share_of(shots.by_time(missing), processes)
    quiet = not processes.is_first
    processes.all_do(lambda: render_shots(renderer, shots, folder, share, quiet=quiet, with_moment=with_moment))
    processes.first_does(lambda: _encode(renderer, shots, folder, fps, crf))
    made, seconds = len(missing), time.monotonic() - start
    return RenderReport(folder, renderer.indices, shots.times, made, len(shots) - made, seconds)


def share_of(groups: Sequence[tuple[float, list[int]]], processes: Processes) -> list[int]:
    """The shots of this process: consecutive whole moments, with about as many shots as each other process.

    Args:
        groups: the shots of each time, as returned by ``Shots.by_time``.
        processes: the processes that share the shots.

    Returns:
        Numbers of the shots, ascending.
    """
    total = sum(len(members) for _, members in groups)
    share, before = [], 0
    for _, members in groups:
        # A moment belongs to the process whose part of the shots contains its middle.
        middle = before + len(members) / 2
        if processes.rank <= middle * processes.world / max(total, 1) < processes.rank + 1:
            share += members
        before += len(members)
    return sorted(share)


def _begin(renderer: Renderer[AnyMoment], shots: Shots, folder: RenderFolder) -> list[int]:
    """The numbers of the missing shots; also writes the disparity scale."""
    size = shots.targets.size
    with ThreadPoolExecutor(WRITERS) as pool:
        done = list(pool.map(lambda number: folder.is_done(number, size), range(len(shots))))
    if folder.with_disparity:
        folder.write_scale(*renderer.depth_range)
    return [number for number, is_done in enumerate(done) if not is_done]


def _encode(renderer: Renderer[AnyMoment], shots: Shots, folder: RenderFolder, fps: float, crf: int) -> None:
    """Encode the videos of the pictures."""
    frames = [folder.frame(number) for number in range(len(shots))]
    encode_video(frames, folder.video, fps=fps, crf=crf)
    if folder.with_disparity:
        nearest, farthest = renderer.depth_range
        pictures = [folder.disparity(number) for number in range(len(shots))]
        encode_video(
            pictures,
            folder.disparity_video,
            fps=fps,
            crf=crf,
            read=lambda path: color_map(read_disparity(path), lowest=nearest / farthest),
        )


def render_shots(
    renderer: Renderer[AnyMoment],
    shots: Shots,
    folder: RenderFolder,
    numbers: Sequence[int],
    *,
    quiet: bool = False,
    with_moment: WithMoment | None = None,
) -> None:
    """Render the shots with these numbers into the folder; see ``render_clip``.

    Raises:
        ValueError: the folder wants masks, and the renderer has none.
    """
    if not numbers:
        return
    if folder.with_mask and not renderer.has_masks:
        raise ValueError("folder: no masks expected, the renderer has none")
    nearest, _ = renderer.depth_range
    moments = renderer.begin(shots, numbers)
    at_once = renderer.views_at_once(shots.targets.size)
    download = Downloader(renderer.device)
    with (
        closing(read_ahead(renderer.read, [moment.sources for moment in moments])) as reader,
        Writers() as writers,
        progress(len(shots), "render", len(numbers), quiet=quiet) as bar,
    ):
        for moment, pictures in zip(moments, reader, strict=True):
            renderer.prepare(moment, pictures)
            if with_moment is not None:
                with_moment(moment.time, writers)
            for part in _parts(moment.batches, at_once):
                view = renderer.render(moment, part, with_mask=folder.with_mask)
                arriving = download(_to_pixels(view, folder, nearest))
                for position, number in enumerate(part):
                    writers.submit(_write_shot, folder.files_of(number), arriving, position)
                    bar.update()


def _parts(batches: Sequence[Sequence[int]], count: int) -> Iterator[Sequence[int]]:
    """Split the batches into parts of at most ``count`` shots."""
    for batch in batches:
        for start in range(0, len(batch), count):
            yield batch[start : start + count]


def encode_video(
    pictures: Sequence[Path],
    out: Path,
    *,
    fps: float,
    crf: int,
    read: Callable[[Path], np.ndarray] = read_image,
) -> None:
    """Encode picture files as a video, in order, holding a few in memory at a time.

    Args:
        pictures: the picture files, at least one, all of the same size.
        out: the video to write.
        fps: frames per second.
        crf: quality, 0 (lossless) to 51 (worst).
        read: reads a file as uint8 ``[H, W, 3]`` RGB.
    """
    with closing(read_files(pictures, read)) as loaded, progress(len(pictures), out.name) as bar:
        first = next(loaded)
        with VideoWriter(out, first.shape[:2], fps, crf) as writer:
            for picture in itertools.chain([first], loaded):
                writer.append(picture)
                bar.update()


def _to_pixels(view: View, folder: RenderFolder, nearest: float) -> list[Tensor]:
    """The pixels of the files of N shots, each ``[N, ...]``, in the order of ``RenderFolder.files_of``."""
    pixels = [to_bytes(view.color)]
    if folder.with_disparity:
        pixels.append(to_steps(view.disparity, nearest))
    if folder.with_mask:
        assert view.mask is not None
        pixels.append(to_bytes(view.mask))
    return pixels if view.color.ndim == 4 else [each[None] for each in pixels]


def _write_shot(paths: Sequence[Path], arriving: Download, position: int) -> None:
    """Write the files of a shot, the picture last: if it exists, so do the others."""
    for path, array in reversed(list(zip(paths, arriving.arrays(), strict=True))):
        picture = array[position]
        write_image(path, picture.view(np.uint16) if picture.dtype == np.int16 else picture)
