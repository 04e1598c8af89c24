"""Extract the frames of RealEstate10K's scenes from their videos.

    python preprocessing/extract_frames.py --root_dir CAMERAS --video_dir VIDEOS --out_dir FRAMES

CAMERAS holds the text files of the scenes, VIDEOS the videos from download_data.py. It writes

    FRAMES/SCENE/TIMESTAMP.jpg     the frame nearest to each timestamp, in microseconds as in the text file
    FRAMES/SCENE/cameras.txt       the text file, with the lines of the extracted frames; written last
    FRAMES/extraction.jsonl        a line per scene: its frames, the missing ones with reasons, or why it failed

Each video is decoded once, for all its scenes. A scene with cameras.txt is complete and skipped.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from maskvolume.io.files import atomic_path, require_writable_folder
from maskvolume.io.realestate10k import (
    SceneCameras,
    list_scene_files,
    read_scene_cameras,
    read_video_url,
    video_stem,
    write_scene_cameras,
)
from maskvolume.io.video import FrameStream
from maskvolume.options import Size, check_ranges, option, parse_options, required
from maskvolume.runtime.errors import InputError, run_program
from preprocessing.report import Entry, Report
from preprocessing.workers import run_jobs

CAMERAS_NAME, REPORT_NAME, SETTINGS_NAME = "cameras.txt", "extraction.jsonl", "extraction.json"
# Files that may be removed from a scene's folder; names with a leading dot are those of atomic_path.
SCENE_CONTENTS = re.compile(r"\d+\.jpg|cameras\.txt|\.(\d+|cameras)\.[0-9a-f]{12}\.(jpg|txt)")
# At a constant frame rate no timestamp is more than half an interval from a frame; the other quarter is for rounded
# times. At a whole interval or more, the frame would be the neighbour of a lost one.
TOLERANCE = 0.75  # of the interval between frames
RECENT = 101  # frames for the median interval, since the rate may vary over a video
# Pictures are decoded from this many seconds before a timestamp: longer than any accepted distance.
AHEAD = 0.5

NO_FRAME = "the video has no frame near this time"
DAMAGED = "the frame cannot be decoded"
ENDED = "the video ends before this time"


@dataclass(frozen=True)
class ExtractOptions:
    """Options of extract_frames."""

    root_dir: str = required("folder with the scenes' text files, such as RealEstate10K/train")
    video_dir: str = required("folder with the videos ID.mp4, such as OUT/videos of download_data.py")
    out_dir: str = required("folder for the frames, created if missing")
    img_wh: Size = option(Size(360, 640), "width and height of the frames", low=1)
    quality: int = option(92, "JPEG quality, 1 to 100", low=1, high=100)
    workers: int = option(1, "parallel videos, each in its own process", low=1)
    limit: int | None = option(None, "extract only this many scenes, the first ones by name", low=1)
    overwrite: bool = option(False, "extract all scenes again, also complete ones")


@dataclass(frozen=True)
class VideoJob:
    """A video and the text files of its scenes to extract."""

    video: Path
    scene_files: tuple[Path, ...]


@dataclass(frozen=True)
class FrameForm:
    """How frames are written: output folder, size (h, w) and JPEG quality."""

    out_dir: Path
    size: tuple[int, int]
    quality: int


def nearest_frames(
    stream: FrameStream, timestamps: Sequence[int], size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray | None, str]]:
    """Yield the frame nearest to each timestamp in microseconds, in ascending order, in one pass over a video.

    Yields:
        The timestamp, the picture uint8 ``[h, w, 3]`` RGB or None, and in the latter case the reason.
    """
    pending = deque(sorted(set(timestamps)))
    intervals: deque[float] = deque(maxlen=RECENT)
    previous = None

    def choose(time: float, picture: np.ndarray | None, intact: bool) -> tuple[np.ndarray | None, str]:
        # Without an interval there is only one frame, whose time must match.
        reach = TOLERANCE * float(np.median(intervals)) if intervals else 1e-3
        if abs(pending[0] / 1e6 - time) > min(reach, AHEAD):
            return None, NO_FRAME
        return (picture, "") if intact and picture is not None else (None, DAMAGED)

    def is_needed(time: float) -> bool:
        return bool(pending) and pending[0] / 1e6 - time <= AHEAD

    for frame in stream.frames(is_needed, size):
        if previous is not None:
            intervals.append(frame.time - previous.time)
            while pending and pending[0] / 1e6 <= (previous.time + frame.time) / 2:
                yield pending[0], *choose(previous.time, previous.picture, previous.intact)
                pending.popleft()
        previous = frame
        if not pending:
            return
    while pending:
        picture, why = (None, DAMAGED) if previous is None else choose(previous.time, previous.picture, previous.intact)
        yield pending.popleft(), picture, ENDED if why == NO_FRAME else why


def extract_video(job: VideoJob, form: FrameForm, threads: int = 1) -> list[Entry]:
    """Extract all frames of a video's scenes; returns a report entry for each scene."""
    scenes, entries = [], []
    for path in job.scene_files:
        try:
            scenes.append(read_scene_cameras(path))
        except InputError as error:
            entries.append(_failed(path.stem, job.video, error))
    for scene in scenes:
        _clear(form.out_dir / scene.name)
    try:
        if not job.video.exists():
            raise InputError(f"{job.video}: no such video; see the report of download_data.py")
        missing = _write_frames(job.video, scenes, form, threads)
    except InputError as error:
        for scene in scenes:
            _clear(form.out_dir / scene.name)
        return entries + [_failed(scene.name, job.video, error) for scene in scenes]
    return entries + [_finish_scene(scene, missing, job.video, form) for scene in scenes]


def _clear(folder: Path) -> None:
    """Remove a scene's files, and its folder if nothing else is in it."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if SCENE_CONTENTS.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _write_frames(video: Path, scenes: Sequence[SceneCameras], form: FrameForm, threads: int) -> dict[int, str]:
    """Write the frames of all scenes; returns the reason for each timestamp without a frame."""
    users: dict[int, list[str]] = {}
    for scene in scenes:
        for timestamp in scene.timestamps.tolist():
            users.setdefault(timestamp, []).append(scene.name)
    missing = {}
    for timestamp, picture, why in nearest_frames(FrameStream(video, threads), list(users), form.size):
        if picture is None:
            missing[timestamp] = why
            continue
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, form.quality])[1].tobytes()
        for name in users[timestamp]:
            with atomic_path(form.out_dir / name / f"{timestamp}.jpg") as temporary:
                temporary.write_bytes(data)
    return missing


def _finish_scene(scene: SceneCameras, missing: dict[int, str], video: Path, form: FrameForm) -> Entry:
    is_written = np.array([timestamp not in missing for timestamp in scene.timestamps.tolist()])
    lost = [{"timestamp": t, "why": missing[t]} for t in scene.timestamps[~is_written].tolist()]
    if not is_written.any():
        return _failed(scene.name, video, InputError(f"{video}: none of the frames: {lost[0]['why']}"))
    write_scene_cameras(form.out_dir / scene.name / CAMERAS_NAME, scene.select(is_written))
    return {"scene": scene.name, "state": "done", "video": video.name, "frames": int(is_written.sum()), "missing": lost}


def _failed(scene: str, video: Path, error: InputError) -> Entry:
    return {"scene": scene, "state": "failed", "video": video.name, "why": " ".join(str(error).split())}


def plan_jobs(scene_files: Sequence[Path], video_dir: Path) -> tuple[list[VideoJob], list[Entry]]:
    """The videos with their scenes, and report entries for the text files that name no video."""
    by_stem: dict[str, list[Path]] = {}
    entries = []
    for path in scene_files:
        try:
            by_stem.setdefault(video_stem(read_video_url(path)), []).append(path)
        except InputError as error:
            entries.append(_failed(path.stem, Path(), error))
    return [VideoJob(video_dir / f"{stem}.mp4", tuple(paths)) for stem, paths in by_stem.items()], entries


def extract_frames(options: ExtractOptions) -> None:
    """Extract the frames of all scenes that are not complete, and print a summary.

    Raises:
        InputError: bad options or folders, or no frame of any scene could be extracted.
    """
    check_ranges(options)
    scene_files = list_scene_files(options.root_dir)[: options.limit]
    video_dir = Path(options.video_dir)
    if not video_dir.is_dir():
        raise InputError(f"{video_dir}: no such folder; name the one with the videos of download_data.py")
    out = require_writable_folder(options.out_dir)
    _prepare_folder(out, options, scene_files)
    report = Report(out / REPORT_NAME, "scene")
    missing = [path for path in scene_files if not (out / path.stem / CAMERAS_NAME).exists()]
    jobs, unusable = plan_jobs(missing, video_dir)
    form = FrameForm(out, options.img_wh, options.quality)
    workers = min(options.workers, max(1, len(jobs)))
    threads = max(1, (os.cpu_count() or 1) // workers)
    total = sum(len(job.scene_files) for job in jobs)
    with report.open_for_writing(), tqdm(total=total, desc="scenes", unit="scene", disable=None) as progress:
        for entry in unusable:
            report.add(entry)
        work = partial(extract_video, form=form, threads=threads)
        with nullcontext(map(work, jobs)) if workers == 1 else run_jobs(work, jobs, workers, in_order=False) as results:
            for entries in results:
                for entry in entries:
                    report.add(entry)
                progress.update(len(entries))
    _summarize([report.entries[path.stem] for path in missing], len(scene_files), report.path)


def _summarize(entries: Sequence[Entry], total: int, report: Path) -> None:
    """Print a summary of this run's scenes, out of ``total``."""
    failed = [entry for entry in entries if entry["state"] == "failed"]
    if len(failed) == total:
        raise InputError(f"{report}: no frame of any of {total} scenes could be extracted; first: {failed[0]['why']}")
    frames = sum(entry.get("frames", 0) for entry in entries)
    before = total - len(entries)
    print(f"{report.parent}: {total - len(failed)} of {total} scenes, {before} from before; {frames} frames written")
    lost = sum(len(entry.get("missing", ())) for entry in entries)
    if failed or lost:
        print(f"{len(failed)} scenes failed and {lost} frames are missing; {report} lists the reasons")


def _prepare_folder(out: Path, options: ExtractOptions, scene_files: Sequence[Path]) -> None:
    """Check that all frames in the folder have this size and quality."""
    record = out / SETTINGS_NAME
    settings = {"img_wh": list(options.img_wh.wh), "quality": options.quality}
    complete = [path / CAMERAS_NAME for path in out.iterdir() if (path / CAMERAS_NAME).exists()]
    try:
        is_same = json.loads(record.read_text(encoding="utf-8")) == settings
    except (FileNotFoundError, ValueError):
        is_same = not complete
    if not is_same and complete and not options.overwrite:
        raise InputError(
            f"{out}: holds frames of another size or quality than {options.img_wh.w} x {options.img_wh.h}, "
            f"{options.quality}; choose another --out_dir, or give --overwrite to replace them"
        )
    if options.overwrite:
        names = {path.stem for path in scene_files}
        for path in complete:
            if not is_same or path.parent.name in names:
                path.unlink()
    with atomic_path(record) as temporary:
        temporary.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Extract the frames."""
    extract_frames(
        parse_options(
            ExtractOptions,
            argv,
            prog="extract_frames.py",
            description="Extract the frames of RealEstate10K's scenes from their videos.",
        )
    )


if __name__ == "__main__":
    run_program(main)
