"""Decodes videos: an index of their frames, the frames in order, and conversion to RGB."""

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
# Code points of ITU-T H.273.
_HDR_TRANSFERS = (16, 18)  # PQ and HLG
_SIMILAR_PRIMARIES = (1, 2, 4, 5, 6, 7)  # unspecified, or so close to BT.709 that players treat them alike
_QUARTER_TURN = 90
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # of MP4 and QuickTime files


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video.

    Attributes:
        times: ``[N]`` int64, time stamps of the shown frames, ascending.
        keys: ``[K]`` int64, time stamps of the key frames, shown or not, ascending.
        tick: seconds per step of the time stamps.
        start: time stamp of second 0.
        size: (h, w) of the frames as shown.
        fps: average frames per second.
    """

    times: np.ndarray
    keys: np.ndarray
    tick: float
    start: int
    size: tuple[int, int]
    fps: float

    def seconds(self, frame: av.VideoFrame) -> float:
        """The presentation time of a frame in seconds."""
        return (time_stamp(frame) - self.start) * self.tick


class Decoder:
    """An open video.

    Attributes:
        container: the file.
        stream: its video stream.
        turned: whether the frames decoded so far are displayed with a quarter-turn rotation.
    """

    def __init__(self, path: Path, threads: int = DECODER_THREADS) -> None:
        self._path = path
        self.container = open_container(path)
        self.stream = video_stream(self.container, path)
        self.turned = False
        self.stream.codec_context.thread_count = threads
        self.stream.thread_type = "AUTO"

    def frames(self, key: int | None = None) -> Iterator[av.VideoFrame]:
        """Decode frames in presentation order, skipping those that cannot be decoded.

        Args:
            key: time stamp of the key frame to start at; None: the current position.

        Yields:
            The frames; none if the seek lands after the key frame.
        """
        try:
            if key is not None:
                self.container.seek(key, stream=self.stream)
            for number, packet in enumerate(self.container.demux(self.stream)):
                if key is not None and number == 0 and (packet.pts is None or packet.pts > key):
                    return
                for frame in self._decode(packet):
                    # Frames before the key frame may depend on frames before the seek.
                    if key is None or time_stamp(frame) >= key:
                        yield frame
        except av.error.FFmpegError:
            return  # the file is cut short

    def packet_rows(self) -> Iterator[tuple[int, bool, bool]]:
        """Yield for each packet its time stamp, whether it is a key frame, and whether it is shown.

        Edit lists hide some packets. Only the first frame is decoded.

        Raises:
            InputError: the file ends within a packet.
        """
        self.stream.codec_context.thread_count = 1  # without the delay of threaded decoding
        first: list[av.VideoFrame] = []
        for packet in self.container.demux(self.stream):
            if packet.is_corrupt:
                raise InputError(f"{self._path}: the video is cut short; {RECORD_AGAIN}")
            if packet.pts is None:
                continue
            yield packet.pts, packet.is_keyframe, not packet.is_discard
            if not first:
                first = self._decode(packet)
                self.turned = any(_quarter_turns(frame) % 2 == 1 for frame in first)

    def frame_rows(self) -> Iterator[tuple[int, bool, bool]]:
        """Yield the rows of ``packet_rows`` by decoding all frames."""
        for frame in self.frames():
            self.turned = _quarter_turns(frame) % 2 == 1
            yield time_stamp(frame), frame.key_frame, True

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return self.stream.decode(packet)
        except av.error.FFmpegError:
            return []

    def close(self) -> None:
        """Free the decoder and the file."""
        self.container.close()


class RgbConverter:
    """Converts frames of any colour space to upright RGB; HDR and wide-gamut frames are converted to BT.709."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray | None:
        """Convert a frame to uint8 ``[H, W, 3]`` RGB; None if it cannot be converted."""
        try:
            if frame.color_trc in _HDR_TRANSFERS or frame.color_primaries not in _SIMILAR_PRIMARIES:
                picture = self._map(frame)
            else:
                picture = self._reformatter.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC)
        except av.error.FFmpegError:
            return None
        return np.ascontiguousarray(np.rot90(picture.to_ndarray(), _quarter_turns(frame)))

    def _map(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Convert transfer and primaries with a filter: before PyAV 18, a reformatter only changes their tags."""
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
    """Read the index of a video from its packets; decodes all frames only if the container requires it.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """
    decoder = Decoder(path)
    try:
        if _is_cut_short(path):
            raise InputError(f"{path}: the video is cut short; {RECORD_AGAIN}")
        # Only in MP4 and QuickTime is each packet one frame; other containers have packets that are never shown.
        rows = list(decoder.packet_rows() if "mp4" in decoder.container.format.name else decoder.frame_rows())
        stream, turned = decoder.stream, decoder.turned
        size = (stream.width, stream.height) if turned else (stream.height, stream.width)
        tick, start, rate = float(stream.time_base or 0), stream.start_time or 0, float(stream.average_rate or 0)
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: the video is damaged ({error.strerror}); {RECORD_AGAIN}") from error
    finally:
        decoder.close()
    table = np.array(rows, np.int64).reshape(-1, 3)
    is_key, is_shown = table[:, 1] == 1, table[:, 2] == 1
    return VideoIndex(np.sort(table[is_shown, 0]), np.sort(table[is_key, 0]), tick, start, size, rate)


def _is_cut_short(path: Path) -> bool:
    """Whether an MP4 ends within a box; FFmpeg tolerates this and guesses the missing data."""
    end, position = path.stat().st_size, 0
    with open(path, "rb") as file:
        if file.read(8)[4:] not in _FIRST_BOXES:
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


def _quarter_turns(frame: av.VideoFrame) -> int:
    """The number of counterclockwise quarter turns that bring a stored frame upright."""
    return round(frame.rotation / _QUARTER_TURN)


def time_stamp(frame: av.VideoFrame) -> int:
    """The presentation time stamp of a frame; its packet's decoding time stamp if it has none, otherwise 0."""
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
        return av.open(f"file:{path}")  # without "file:", a colon would end a protocol name
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be opened as a video: it is none, cut short or never finished; {RECORD_AGAIN}"
        ) from error


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The video stream that players show, which is not a cover picture.

    Raises:
        InputError: the file has no video stream.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise InputError(f"{path}: cannot be opened as a video: it has no pictures; {RECORD_AGAIN}")
    return stream
