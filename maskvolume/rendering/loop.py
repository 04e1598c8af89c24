"""A clip rendered to pictures and videos: which pose looks at which frame, and the threads around it.

Poses are worked off by clip frame, so the MPI of a frame is made once however many poses look at it. The next frames
are decoded while one is computed, and pictures are encoded and written beside it. On a GPU the host enqueues one frame
after the other and waits only for its writers. Memory does not grow with the number of poses or frames.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskvolume.clips import backgrounds as background
from maskvolume.clips.backgrounds import evenly_spaced
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import stack_cameras
from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoWriter
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.pictures import color_map, read_disparity, to_bytes, to_steps
from maskvolume.rendering.renderer import View
from maskvolume.rendering.shots import Shots
from maskvolume.runtime.prefetch import (
    WRITERS,
    Writers,
    read_files,
    read_frames,
)
from maskvolume.runtime.processes import ALONE, Processes
from maskvolume.runtime.progress import progress
from maskvolume.runtime.transfers import Download, Downloader

WithFrame = Callable[[int, Writers], None]

BACKGROUND_FRAMES = 100  # of a clip, evenly spaced, that a background is the median of; as in collect_data


@dataclass(frozen=True)
class RenderReport:
    """What a rendering made.

    Attributes:
        folder: where it lies.
        indices: the source cameras, the reference first; of several references the one first that serves most.
        frames: which frame each pose shows.
        made: number of poses that were rendered now.
        kept: number of poses that were there already.
        seconds: for everything.
    """

    folder: RenderFolder
    indices: tuple[int, ...]
    frames: tuple[int, ...]
    made: int
    kept: int
    seconds: float


def background_folder(clip: RigClip, folder: RenderFolder) -> Path:
    """Where the backgrounds of a clip are: its own folder of them, or the output's, to be filled."""
    return clip.background_dir if clip.background_dir.is_dir() else folder.background


def make_backgrounds(clip: RigClip, cameras: Sequence[int], folder: Path, *, keep: bool) -> None:
    """Write the median over time of each of the cameras as ``camNN.png``.

    Args:
        folder: where to.
        keep: leave pictures that are there as they are.
    """
    frames = evenly_spaced(clip.num_frames, BACKGROUND_FRAMES)
    notice = f"{folder}: making backgrounds, the median over {len(frames)} frames, since the clip has none"
    background.make_backgrounds(clip.layout, cameras, folder, frames, overwrite=not keep, notice=notice)


def render_clip(
    renderer: ClipRenderer | BlendedRenderer,
    shots: Shots,
    folder: RenderFolder,
    *,
    fps: float,
    crf: int,
    processes: Processes = ALONE,
    with_frame: WithFrame | None = None,
) -> RenderReport:
    """Render what is missing in the folder, then encode the videos.

    Of several references each pose has those with a weight for its target. ``with_frame`` is called with the number of
    each frame whose MPI is made, and with threads that may write what it finds there.

    Pictures appear whole or not at all, so a run that was interrupted at any moment goes on where it stopped. Of
    several processes each renders a share of the frames, and the first encodes the videos when all are done.

    Raises:
        InputError: a picture of the clip can't be read; in all processes, where it happens in one.
        OSError: a file can't be written.
    """
    start = time.monotonic()
    renderer = renderer if isinstance(renderer, BlendedRenderer) else BlendedRenderer([renderer])
    missing = processes.first_does(lambda: _begin(renderer, shots, folder))
    share = share_of(shots.by_frame(missing), processes)
    quiet = not processes.is_first
    processes.all_do(lambda: render_shots(renderer, shots, folder, share, quiet=quiet, with_frame=with_frame))
    processes.first_does(lambda: _encode(renderer, shots, folder, fps, crf))
    made, seconds = len(missing), time.monotonic() - start
    return RenderReport(folder, renderer.indices, shots.frames, made, len(shots) - made, seconds)


def share_of(groups: Sequence[tuple[int, list[int]]], processes: Processes) -> list[int]:
    """The poses of this process: whole frames, one after the other, about as many as the other processes have."""
    total = sum(len(members) for _, members in groups)
    share, before = [], 0
    for _, members in groups:
        # A frame belongs to the process in whose part of the poses its middle lies.
        middle = before + len(members) / 2
        if processes.rank <= middle * processes.world / max(total, 1) < processes.rank + 1:
            share += members
        before += len(members)
    return sorted(share)


def _begin(renderer: BlendedRenderer, shots: Shots, folder: RenderFolder) -> list[int]:
    """The poses that are missing."""
    size = shots.targets.size
    with ThreadPoolExecutor(WRITERS) as pool:
        done = list(pool.map(lambda pose: folder.is_done(pose, size), range(len(shots))))
    if folder.with_disparity:
        folder.write_scale(*_depth_range(renderer.depths))
    return [pose for pose, there in enumerate(done) if not there]


def _encode(renderer: BlendedRenderer, shots: Shots, folder: RenderFolder, fps: float, crf: int) -> None:
    """The videos of the pictures."""
    frames = [folder.frame(pose) for pose in range(len(shots))]
    encode_video(frames, folder.video, fps=fps, crf=crf)
    if folder.with_disparity:
        nearest, farthest = _depth_range(renderer.depths)
        pictures = [folder.disparity(pose) for pose in range(len(shots))]
        encode_video(
            pictures,
            folder.disparity_video,
            fps=fps,
            crf=crf,
            read=lambda path: color_map(read_disparity(path), lowest=nearest / farthest),
        )


def render_shots(
    renderer: BlendedRenderer,
    shots: Shots,
    folder: RenderFolder,
    poses: Sequence[int],
    *,
    quiet: bool = False,
    with_frame: WithFrame | None = None,
) -> None:
    """Render some of the poses into the folder; see ``render_clip``."""
    if not poses:
        return
    groups = shots.by_frame(poses)
    nearest, _ = _depth_range(renderer.depths)
    weights = renderer.weights(shots.targets)
    needed = references_of_frames(weights, groups)
    if renderer.model.has_mask:
        renderer.background(sorted({number for references in needed.values() for number in references}))
    cameras = {frame: renderer.cameras_of(references) for frame, references in needed.items()}
    served_by = [tuple(row.nonzero()[:, 0].tolist()) for row in weights]
    targets, weights = shots.targets.to(renderer.device, renderer.depths.dtype), weights.to(renderer.device)
    at_once = renderer.views_at_once(shots.targets.size)
    download = Downloader(renderer.device)

    def read(camera: int, frame: int) -> np.ndarray | None:
        return renderer.read_camera(camera, frame) if camera in cameras[frame] else None

    with (
        closing(read_frames(read, renderer.indices, list(needed))) as reader,
        Writers() as writers,
        progress(len(shots), "render", len(poses), quiet=quiet) as bar,
    ):
        for (frame, members), pictures in zip(groups, reader, strict=True):
            given = zip(renderer.indices, pictures, strict=True)
            renderer.make(frame, needed[frame], {index: picture for index, picture in given if picture is not None})
            if with_frame is not None:
                with_frame(frame, writers)
            for some in _parts(members, at_once, served_by):
                # Of one view, or of several at once; int indices alone: lists of them would go to the device.
                alone = len(some) == 1
                wanted = targets[some[0]] if alone else stack_cameras([targets[pose] for pose in some])
                shares = weights[some[0]] if alone else torch.stack([weights[pose] for pose in some])
                view = renderer.render(frame, wanted, served_by[some[0]], shares, with_mask=folder.with_mask)
                files = [folder.files_of(pose) for pose in some]
                arriving = download(_to_pixels(view, folder, nearest))
                for number, paths in enumerate(files):
                    writers.submit(_write_pose, paths, arriving, number)
                    bar.update()


def references_of_frames(
    weights: Tensor,  # [N, R]
    groups: Iterable[tuple[int, Sequence[int]]],
) -> dict[int, list[int]]:
    """The references that have a weight for some pose at each frame; the poses of a frame as in ``Shots.by_frame``."""
    return {frame: (weights[list(members)] > 0).any(dim=0).nonzero()[:, 0].tolist() for frame, members in groups}


def _parts(members: Sequence[int], count: int, served_by: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """The poses of a frame, at most so many at once, that have the same references."""
    for _, alike in itertools.groupby(sorted(members, key=lambda pose: served_by[pose]), lambda pose: served_by[pose]):
        poses = list(alike)
        for start in range(0, len(poses), count):
            yield poses[start : start + count]


def encode_video(
    pictures: Sequence[Path],
    out: Path,
    *,
    fps: float,
    crf: int,
    read: Callable[[Path], np.ndarray] = read_image,
) -> None:
    """Encode picture files as a video, in order, a few in memory at a time.

    Args:
        read: a file to uint8 ``[H, W, 3]`` RGB.
    """
    with closing(read_files(pictures, read)) as loaded, progress(len(pictures), out.name) as bar:
        first = next(loaded)
        with VideoWriter(out, first.shape[:2], fps, crf) as writer:
            for picture in itertools.chain([first], loaded):
                writer.append(picture)
                bar.update()


def _to_pixels(view: View, folder: RenderFolder, nearest: float) -> list[Tensor]:
    """What the files of N poses hold, ``[N, ...]`` each, in the order of ``RenderFolder.files_of``; N is 1 for one."""
    pixels = [to_bytes(view.color)]
    if folder.with_disparity:
        pixels.append(to_steps(view.disparity, nearest))
    if folder.with_mask:
        assert view.mask is not None
        pixels.append(to_bytes(view.mask))
    return pixels if view.color.ndim == 4 else [each[None] for each in pixels]


def _write_pose(paths: Sequence[Path], arriving: Download, number: int) -> None:
    """Write the files of a pose, the picture last: where it is, the others are."""
    for path, array in reversed(list(zip(paths, arriving.arrays(), strict=True))):
        picture = array[number]
        write_image(path, picture.view(np.uint16) if picture.dtype == np.int16 else picture)


def _depth_range(depths: Tensor) -> tuple[float, float]:
    return float(depths.min()), float(depths.max())
