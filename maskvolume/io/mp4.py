"""The frame index of an MP4 or QuickTime file, read from its boxes without decoding anything."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from maskvolume.runtime.errors import InputError

# A day at 100 frames a second; more is a damaged table.
_MAX_FRAMES = 24 * 3600 * 100
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def read_frame_times(path: str | Path) -> np.ndarray | None:
    """Times of the shown frames in seconds, ``[N]`` float64, ascending, the first at 0.

    None when the boxes do not say it plainly: another container, a fragmented file, or an edit list
    that hides frames. Only the box headers and the index are read.

    Raises:
        InputError: the file ends before its own boxes do, or has no index.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if file.read(8)[4:] not in _FIRST_BOXES:
            return None
        moov = _read_moov(file, path.stat().st_size, path)
    try:
        return _times_of_video_track(moov)
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise InputError(f"{path}: the video's index is damaged; copy or record it again") from error


def _read_moov(file: BinaryIO, end: int, path: Path) -> bytes:
    moov, position = None, 0
    while position + 8 <= end:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = int.from_bytes(file.read(8), "big"), 16
        elif size == 0:
            size = end - position
        if size < header:
            break
        if position + size > end and kind in (b"mdat", b"moov", b"moof"):
            raise InputError(f"{path}: the video is cut short; copy or record it again")
        if kind == b"moov":
            moov = file.read(size - header)
        position += size
    if moov is None:
        raise InputError(
            f"{path}: the video has no index, since it is cut short or was never finished; copy or record it again"
        )
    return moov


def _times_of_video_track(moov: bytes) -> np.ndarray | None:
    boxes = dict(_boxes(moov))
    if b"mvex" in boxes:
        return None
    for kind, trak in _boxes(moov):
        track = dict(_boxes(trak)) if kind == b"trak" else {}
        media = dict(_boxes(track.get(b"mdia", b"")))
        if media.get(b"hdlr", b"")[8:12] != b"vide":
            continue
        information = dict(_boxes(media[b"minf"])) if b"minf" in media else {}
        table = dict(_boxes(information.get(b"stbl", b"")))
        ticks, timescale = _sample_times(table), _timescale(media[b"mdhd"])
        if ticks is None or not _shows_all(ticks, track, boxes, timescale):
            return None
        times = np.sort(ticks) / timescale
        return times - times[0]
    return None


def _sample_times(table: dict[bytes, bytes]) -> np.ndarray | None:
    """Presentation times in ticks, in file order, ``[N]`` int64."""
    sizes = table.get(b"stsz") or table.get(b"stz2")
    if sizes is None or b"stts" not in table:
        return None
    (count,) = struct.unpack_from(">I", sizes, 8)
    durations = _expand(table[b"stts"], count)
    offsets = _expand(table[b"ctts"], count) if b"ctts" in table else np.zeros(count, np.int64)
    if durations is None or offsets is None:
        return None
    return np.cumsum(durations) - durations + offsets


def _shows_all(ticks: np.ndarray, track: dict[bytes, bytes], movie: dict[bytes, bytes], timescale: int) -> bool:
    """Whether the edit list, if there is one, shows every sample once."""
    edits = dict(_boxes(track.get(b"edts", b""))).get(b"elst")
    if edits is None:
        return True
    version, count = edits[0], struct.unpack_from(">I", edits, 4)[0]
    entry = ">Qq4x" if version == 1 else ">Ii4x"
    parts = [struct.unpack_from(entry, edits, 8 + i * struct.calcsize(entry)) for i in range(count)]
    parts = [(duration, start) for duration, start in parts if start >= 0]
    if len(parts) != 1:
        return not parts
    duration, start = parts[0]
    end = start + duration * timescale / _timescale(movie[b"mvhd"])
    return bool(ticks.min() >= start and (duration == 0 or ticks.max() < end))


def _timescale(header: bytes) -> int:
    """Ticks a second of a media or movie header."""
    (timescale,) = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)
    if timescale < 1:
        raise ValueError("timescale of 0")
    return timescale


def _expand(box: bytes, count: int) -> np.ndarray | None:
    """The values of a table of (repetitions, value) runs; None when they are not ``count``."""
    (num_runs,) = struct.unpack_from(">I", box, 4)
    runs = np.frombuffer(box, ">i4", 2 * num_runs, 8).reshape(-1, 2).astype(np.int64)
    if not len(runs) or runs[:, 0].min() < 0 or not 0 < count == runs[:, 0].sum() <= _MAX_FRAMES:
        return None
    return np.repeat(runs[:, 1], runs[:, 0])


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (kind, content) of the boxes in ``data``, in their order."""
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        elif size == 0:
            size = len(data) - position
        if size < header:
            return
        yield kind, data[position + header : position + size]
        position += size
