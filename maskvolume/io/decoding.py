"""Opened videos: their frames and time stamps in order, and the colours of frames."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from maskvolume.runtime.errors import InputError

DECODER_THREADS = min(4, os.cpu_count() or 1)
RECORD_AGAIN = "copy or record it again"
# Numbers of ITU-T H.273.
_HDR_TRANSFERS = (16, 18)  # PQ and HLG
_SIMILAR_PRIMARIES = (1, 2, 4, 5, 6, 7)  # unspecified ones, and those so near to BT.709 that no player tells them apart
_QUARTER_TURN = 90


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video.

    Attributes:
        times: time stamps of the shown frames, ``[N]`` int64, ascending.
        keys: those of the frames that are coded by themselves, shown or not, ascending.
        tick: seconds of a step of the time stamps.
        start: the time stamp of second 0.
        size: (h, w) of the frames.
        fps: frames a second, on average.
    """

    times: np.ndarray
    keys: np.ndarray
    tick: float
    start: int
    size: tuple[int, int]
    fps: float

    def seconds(self, frame: av.VideoFrame) -> float:
        """The time of a frame."""
        return (time_stamp(frame) - self.start) * self.tick


class Decoder:
    """An open video."""

    def __init__(self, path: Path, threads: int = DECODER_THREADS) -> None:
        self._container = open_container(path)
        self.stream = video_stream(self._container, path)
        self.stream.codec_context.thread_count = threads
        self.stream.thread_type = "AUTO"

    def frames(self, key: int | None = None) -> Iterator[av.VideoFrame]:
        """The frames from the key frame with a time stamp on, or from where the file is; none when a seek goes past.

        What cannot be decoded is left out.
        """
        try:
            if key is not None:
                self._container.seek(key, stream=self.stream)
            for number, packet in enumerate(self._container.demux(self.stream)):
                if key is not None and number == 0 and (packet.pts is None or packet.pts > key):
                    return
                for frame in self._decode(packet):
                    # Those before the key frame may need others from before the seek.
                    if key is None or time_stamp(frame) >= key:
                        yield frame
        except av.error.FFmpegError:
            return  # the file ends too soon

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return self.stream.decode(packet)
        except av.error.FFmpegError:
            return []

    def close(self) -> None:
        """Free the decoder and the file."""
        self._container.close()


class RgbConverter:
    """Frames of any colour space to RGB as they are shown: turned upright, HDR and wide gamuts brought to BT.709."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray | None:
        """A frame as uint8 ``[H, W, 3]`` RGB; None where it cannot be converted."""
        try:
            if frame.color_trc in _HDR_TRANSFERS or frame.color_primaries not in _SIMILAR_PRIMARIES:
                picture = self._map(frame)
            else:
                picture = self._reformatter.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC)
        except av.error.FFmpegError:
            return None
        turns = round(frame.rotation / _QUARTER_TURN)
        return np.ascontiguousarray(np.rot90(picture.to_ndarray(), turns))

    def _map(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Convert transfer and primaries too, by a filter: before PyAV 18 a reformatter changes only their tags."""
        if self._graph is None:
            self._graph = av.filter.Graph()
            source = self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            target = "out_primaries=bt709:out_range=pc:flags=bicubic"
            if frame.color_trc in _HDR_TRANSFERS:
                target += ":out_transfer=bt709"
            filters = [self._graph.add(name, text) for name, text in (("scale", target), ("format", "rgb24"))]
            self._graph.link_nodes(source, *filters, self._graph.add("buffersink")).configure()
        self._graph.vpush(frame)
        return self._graph.vpull()


def read_index(path: Path) -> VideoIndex:
    """Read the packets of a video, of which only the first frame is decoded where packets tell all.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """
    decoder = Decoder(path)
    try:
        first = next(decoder.frames(), None)
    finally:
        decoder.close()
    if _is_cut_short(path):
        raise InputError(f"{path}: the video is cut short; {RECORD_AGAIN}")
    with open_container(path) as container:
        stream = video_stream(container, path)
        # One packet is one frame in MP4 and QuickTime alone: others have packets of frames that are never shown.
        rows = _packet_rows(container, stream, path) if "mp4" in container.format.name else _frame_rows(path)
        table = np.array(list(rows), np.int64).reshape(-1, 3)
        size = (stream.height, stream.width)
        tick, start, rate = float(stream.time_base or 0), stream.start_time or 0, stream.average_rate or 0
    is_key, is_shown = table[:, 1] == 1, table[:, 2] == 1
    times, keys = np.sort(table[is_shown, 0]), np.sort(table[is_key, 0])
    is_upright = first is None or round(first.rotation / _QUARTER_TURN) % 2 == 0
    return VideoIndex(times, keys, tick, start, size if is_upright else size[::-1], float(rate))


def _is_cut_short(path: Path) -> bool:
    """Whether an MP4 ends before its last box does, which FFmpeg tolerates, and then guesses at what is missing."""
    end, position = path.stat().st_size, 0
    with open(path, "rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return False
        while position + 8 <= end:
            file.seek(position)
            size, kind = struct.unpack(">I4s", file.read(8))
            size = int.from_bytes(file.read(8), "big") if size == 1 else size
            if position + size > end and kind in (b"mdat", b"moov", b"moof"):
                return True
            if size < 8:
                return False
            position += size
    return False


def _packet_rows(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path
) -> Iterator[tuple[int, bool, bool]]:
    """Time stamp of each packet, whether it is a key frame, and whether it is shown: edit lists hide some."""
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise InputError(f"{path}: the video is cut short; {RECORD_AGAIN}")
            if packet.pts is not None:
                yield packet.pts, packet.is_keyframe, not packet.is_discard
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: the video is damaged ({error.strerror}); {RECORD_AGAIN}") from error


def _frame_rows(path: Path) -> Iterator[tuple[int, bool, bool]]:
    """What ``_packet_rows`` gives, by decoding all frames."""
    decoder = Decoder(path)
    try:
        for frame in decoder.frames():
            yield time_stamp(frame), frame.key_frame, True
    finally:
        decoder.close()


def time_stamp(frame: av.VideoFrame) -> int:
    """The time stamp of a frame; that of its packet where the container has no other."""
    stamp = frame.dts if frame.pts is None else frame.pts
    return 0 if stamp is None else stamp


def open_container(path: Path) -> av.container.InputContainer:
    """Open a video file.

    Raises:
        InputError: the file is missing, empty or not a video.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such video; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the video is empty; {RECORD_AGAIN}")
    try:
        return av.open(f"file:{path}")  # or else a colon would end the name of a protocol
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be opened as a video: it is none, cut short or never finished; {RECORD_AGAIN}"
        ) from error


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The stream that players show, which a cover picture is not."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise InputError(f"{path}: cannot be opened as a video: it has no pictures; {RECORD_AGAIN}")
    return stream
