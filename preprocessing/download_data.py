"""Download the videos of RealEstate10K, or of MannequinChallenge, whose text files have the same format.

    python preprocessing/download_data.py --root_dir RealEstate10K/train --out_dir OUT

reads the addresses in the text files and writes

    OUT/videos/ID.mp4       each video once, even if several scenes are clips of it; ID is YouTube's for its videos
    OUT/downloads.jsonl     a line per video: done, gone, private, or failed with a reason

Run it again to continue: it only requests videos that are missing or failed, not those that are gone or private.
"""

from __future__ import annotations

import errno
import os
import queue
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from maskvolume.io.files import require_writable_folder
from maskvolume.io.realestate10k import list_scene_files, read_video_url, video_stem
from maskvolume.io.video import FrameStream, copy_to_mp4
from maskvolume.options import option, parse_options, required
from maskvolume.runtime.errors import InputError, run_program
from preprocessing.report import Entry, Report

VIDEOS, PARTIAL, REPORT_NAME = "videos", ".download", "downloads.jsonl"
GB = 1e9
LONGEST_WAIT = 60.0  # seconds between two attempts

# H.264 is preferred and AV1 excluded, which takes longest to decode. Video-only formats come first, so that nothing
# has to be merged. Direct links have no known height.
FORMATS = (
    "bestvideo[ext=mp4][vcodec^=avc1][height<={0}]/best[ext=mp4][vcodec^=avc1][height<={0}]/"
    "bestvideo[vcodec!^=?av01][height<=?{0}]/best[vcodec!^=?av01][height<=?{0}]"
)

State = Literal["done", "gone", "private", "failed"]
# 403 and 429 are not listed: servers also use them against too many requests.
STATUS_STATES: Mapping[int, State] = {404: "gone", 410: "gone", 401: "private"}
# Patterns of sites' error messages; the first match counts.
WORDS: tuple[tuple[str, State], ...] = (
    (r"not a bot|try again later|too many requests|rate.?limit|in your country|your location", "failed"),
    (r"private|members.only|join this channel|confirm your age|log ?in|sign in", "private"),
    (r"video (is )?(unavailable|no longer available|not available)|isn.t available anymore|does not exist", "gone"),
    (r"(been|was) (removed|deleted|terminated)|account .*(terminated|closed)|removed by", "gone"),
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class DownloadOptions:
    """Options of download_data."""

    root_dir: str = required("folder with the scenes' text files, such as RealEstate10K/train")
    out_dir: str = required("folder for the videos and the report, created if missing")
    height: int = option(360, "largest height of a video, in pixels")
    workers: int = option(2, "parallel downloads")
    limit: int | None = option(None, "download only this many videos, the first ones by the names of their scenes")
    retries: int = option(3, "retries after a failure, each after a longer wait")
    backoff: float = option(5.0, "seconds before the first retry; doubled for each further one")
    timeout: float = option(30.0, "seconds that a server may be silent")
    min_free_gb: float = option(5.0, "disk space to keep free, in gigabytes")
    again: tuple[Literal["gone", "private"], ...] = option((), "request videos again that were gone or private")
    cookies: str | None = option(None, "cookie file in Netscape format, for a site that requires a login")


class _Stopped(Exception):
    """The program is ending: no more attempts."""


class _Refused(Exception):
    """A failed download: the video's state, the reason, and whether another attempt is pointless."""

    def __init__(self, state: State, why: str, is_final: bool) -> None:
        super().__init__(why)
        self.state, self.why, self.is_final = state, why, is_final


def plan_downloads(scene_files: Sequence[Path]) -> tuple[dict[str, str], list[InputError]]:
    """The videos' addresses by file stem, each once, and the errors of unusable text files."""
    urls: dict[str, str] = {}
    errors = []
    for path in scene_files:
        try:
            url = read_video_url(path)
            urls.setdefault(video_stem(url), url)
        except InputError as error:
            errors.append(error)
    return urls, errors


class Downloader:
    """Downloads videos into a folder; threads may share it.

    Args:
        folder: for the videos; unfinished downloads are in a hidden subfolder.
        options: of the program.
    """

    def __init__(self, folder: Path, options: DownloadOptions) -> None:
        self.folder, self.options = folder, options
        self._stop = threading.Event()
        try:
            import yt_dlp
        except ImportError:
            raise InputError("yt-dlp: is not installed; install it with `pip install yt-dlp`") from None
        self._yt_dlp = yt_dlp

    def stop(self) -> None:
        """Abort running downloads soon."""
        self._stop.set()

    def fetch(self, stem: str, url: str) -> Entry:
        """Download one video, with retries; returns its entry for the report.

        Raises:
            InputError: the disk is full.
        """
        wait = self.options.backoff
        for attempt in range(self.options.retries + 1):
            if attempt:
                self._stop.wait(min(wait, LONGEST_WAIT))
                wait *= 2
            if self._stop.is_set():
                raise _Stopped
            require_free_space(self.folder, self.options.min_free_gb)
            try:
                size = self._fetch_once(stem, url)
                return {"video": stem, "url": url, "state": "done", "bytes": size}
            except _Refused as error:
                refused = error
            if refused.is_final:
                break
        return {"video": stem, "url": url, "state": refused.state, "why": refused.why}

    def _fetch_once(self, stem: str, url: str) -> int:
        """Download one video and return its size in bytes; it gets its final name once it is checked."""
        partial = self.folder / PARTIAL
        errors = self._yt_dlp.utils
        try:
            with self._yt_dlp.YoutubeDL(self._settings(stem, partial)) as session:
                info = session.extract_info(url, download=True) or {}
        except errors.DownloadCancelled:
            raise _Stopped from None
        except Exception as error:  # after a change of a site yt-dlp can raise anything
            raise self._explain(error) from error
        # A page with several videos lists them as entries.
        entries = [info, *filter(None, info.get("entries") or ())]
        paths = [Path(item["filepath"]) for entry in entries for item in entry.get("requested_downloads") or ()]
        if not paths:
            raise _Refused("failed", "there is no video at this address", is_final=True)
        try:
            if paths[0].suffix.lower() != ".mp4":
                paths.insert(0, paths[0].with_suffix(".mp4"))
                copy_to_mp4(paths[1], paths[0])
            check_video(paths[0])
            size = paths[0].stat().st_size
            os.replace(paths[0], self.folder / f"{stem}.mp4")
        except InputError as error:
            why = str(error).removeprefix(f"{paths[0]}: ").split(";")[0]
            raise _Refused("failed", f"the download is not a complete video: {why}", is_final=False) from error
        finally:
            for path in paths:
                path.unlink(missing_ok=True)
        return size

    def _settings(self, stem: str, partial: Path) -> dict[str, Any]:
        options = self.options
        return {
            "format": FORMATS.format(options.height),
            "paths": {"home": str(partial)},
            "outtmpl": {"default": f"{stem}.%(ext)s"},
            "cachedir": str(partial / "cache"),
            "cookiefile": options.cookies,
            "progress_hooks": [self._watch],
            "noplaylist": True,
            "playlist_items": "1",
            "skip_unavailable_fragments": False,
            # This program counts the attempts itself.
            "retries": 0,
            "extractor_retries": 0,
            "fragment_retries": options.retries,
            "socket_timeout": options.timeout,
            "updatetime": False,
            "logger": _SilentLogger(),
            "noprogress": True,
            "quiet": True,
        }

    def _watch(self, progress: Mapping[str, Any]) -> None:
        """Progress callback of a running download."""
        if self._stop.is_set():
            raise self._yt_dlp.utils.DownloadCancelled
        require_free_space(self.folder, self.options.min_free_gb)

    def _explain(self, error: BaseException) -> _Refused:
        """Translate an error of yt-dlp into the state of a video."""
        chain = list(_causes(error))
        for cause in chain:
            if isinstance(cause, InputError | _Stopped):
                raise cause
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(cause.errno, os.strerror(cause.errno), str(self.folder)) from None
        why = _first_sentence(str(error))
        status = next((s for cause in chain if isinstance(s := getattr(cause, "status", None), int)), None)
        if status is not None and status in STATUS_STATES:
            return _Refused(STATUS_STATES[status], why, is_final=True)
        if any(isinstance(cause, self._yt_dlp.utils.UnsupportedError) for cause in chain):
            return _Refused("failed", "there is no video at this address", is_final=True)
        if status is None:
            for pattern, state in WORDS:
                if re.search(pattern, why, re.IGNORECASE):
                    return _Refused(state, why, is_final=True)
        return _Refused("failed", why, is_final="format is not available" in why)


class _SilentLogger:
    """Discards yt-dlp's messages, since the report has them."""

    def debug(self, message: str) -> None:
        pass

    def warning(self, message: str) -> None:
        pass

    def error(self, message: str) -> None:
        pass


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error of yt-dlp and all errors that caused it."""
    pending, seen = [error], set()
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            wrapped = getattr(cause, "exc_info", None) or (None, None)
            pending += [wrapped[1], getattr(cause, "cause", None), cause.__cause__, cause.__context__]


def _first_sentence(message: str) -> str:
    """An error message of yt-dlp without colours, its name for the video and its advice."""
    text = " ".join(COLOURS.sub("", message).removeprefix("ERROR:").split())
    text = re.sub(r"^(\[[\w:]+\] (\S+: )?|Got error: )", "", text)
    text = re.sub(r"\s*(\(caused by|; please report this|Use --cookies|See https?:).*$", "", text)
    return text if len(text) <= 300 else text[:297] + "..."


def check_video(path: Path) -> None:
    """Check that a file is a complete video whose first frame can be decoded.

    Raises:
        InputError: it is not.
    """
    first = next(FrameStream(path).frames(lambda time: True), None)
    if first is None or first.picture is None:
        raise InputError(f"{path}: no frame can be decoded; download it again")


def require_free_space(folder: Path, gigabytes: float) -> None:
    """Check that the disk has at least this much free space.

    Raises:
        InputError: it has less free space.
    """
    free = shutil.disk_usage(folder).free / GB
    if free < gigabytes:
        raise InputError(
            f"{folder}: {free:.1f} GB of this disk are free, --min_free_gb requires {gigabytes:g}; "
            f"free some space, then run the same command again to continue"
        )


def run_in_threads(jobs: Sequence[tuple[str, str]], work: Callable[[str, str], Entry], count: int) -> Iterator[Entry]:
    """Yield the results of ``work`` for ``jobs`` as they finish; raises the first error of a job."""
    pending: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    results: queue.SimpleQueue[Entry | BaseException] = queue.SimpleQueue()
    for job in jobs:
        pending.put(job)

    def run() -> None:
        while True:
            try:
                results.put(work(*pending.get_nowait()))
            except queue.Empty:
                return
            except BaseException as error:
                results.put(error)
                return

    for _ in range(min(count, len(jobs))):
        # The threads are not joined, since a server may be silent for long.
        threading.Thread(target=run, daemon=True).start()
    for _ in jobs:
        result = results.get()
        if isinstance(result, BaseException):
            raise result
        yield result


def download_data(options: DownloadOptions) -> None:
    """Download the missing videos, and print a summary.

    Raises:
        InputError: bad options or folders, a full disk, or no video could be downloaded.
    """
    _check_options(options)
    urls, errors = plan_downloads(list_scene_files(options.root_dir))
    urls = dict(list(urls.items())[: options.limit])
    out = require_writable_folder(options.out_dir)
    folder = require_writable_folder(out / VIDEOS)
    report = Report(out / REPORT_NAME, "video")
    with report.open_for_writing():
        missing = _choose(urls, folder, report, options.again)
        if missing:
            downloader = Downloader(folder, options)
            require_free_space(folder, options.min_free_gb)
            try:
                with tqdm(total=len(missing), desc="videos", unit="video", disable=None) as progress:
                    for entry in run_in_threads(missing, downloader.fetch, options.workers):
                        report.add(entry)
                        progress.update()
            finally:
                downloader.stop()
            with suppress(OSError):  # raised if it is not empty
                (folder / PARTIAL).rmdir()
    _summarize(report, list(urls), errors)


def _choose(urls: Mapping[str, str], folder: Path, report: Report, again: Sequence[str]) -> list[tuple[str, str]]:
    """The stems and addresses of the videos to request; existing ones are entered into the report."""
    missing = []
    for stem, url in urls.items():
        state = report.entries.get(stem, {}).get("state")
        path = folder / f"{stem}.mp4"
        if path.is_file():
            if state == "done":
                continue
            try:
                check_video(path)
                report.add({"video": stem, "url": url, "state": "done", "bytes": path.stat().st_size})
                continue
            except InputError:
                state = None
        if state not in ("gone", "private") or state in again:
            missing.append((stem, url))
    return missing


def _summarize(report: Report, stems: Sequence[str], errors: Sequence[InputError]) -> None:
    entries = [report.entries[stem] for stem in stems]
    by_state = {state: [entry for entry in entries if entry["state"] == state] for state in get_args(State)}
    if errors:
        print(f"{len(errors)} text files name no video; the first: {errors[0]}")
    if not by_state["done"]:
        why = f"the first: {entries[0]['url']}: {entries[0]['why']}" if entries else str(errors[0])
        raise InputError(f"{report.path}: none of {len(entries)} videos could be downloaded; {why}")
    counts = ", ".join(f"{len(group)} {state}" for state, group in by_state.items() if group or state == "done")
    print(f"{report.path.parent / VIDEOS}: {len(entries)} videos: {counts}")
    if len(by_state["done"]) < len(entries):
        print(f"{report.path} lists the reasons; run the same command again to retry those that failed")


def _check_options(options: DownloadOptions) -> None:
    for name, least in (
        ("height", 1),
        ("workers", 1),
        ("limit", 1),
        ("retries", 0),
        ("backoff", 0),
        ("min_free_gb", 0),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value:g}: at least {least} expected")
    if options.timeout <= 0:
        raise InputError(f"--timeout {options.timeout:g}: a number above 0 expected")
    if options.cookies is not None and not Path(options.cookies).is_file():
        raise InputError(f"{options.cookies}: no such file; --cookies takes a cookie file in Netscape format")


def main(argv: Sequence[str] | None = None) -> None:
    """Download the videos."""
    download_data(
        parse_options(
            DownloadOptions,
            argv,
            prog="download_data.py",
            description="Download the videos of RealEstate10K, each once, and report which are gone.",
        )
    )


if __name__ == "__main__":
    run_program(main)
