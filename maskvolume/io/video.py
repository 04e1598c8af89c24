"""Videos in and out: frames by number, and H.264 files."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from maskvolume.io.files import atomic_path
from maskvolume.io.images import resize_image
from maskvolume.runtime.errors import InputError

# Decoding this many frames costs about as much as a seek, which goes back to a key frame.
_MAX_FORWARD_FRAMES = 48
_DECODER_THREADS = min(4, os.cpu_count() or 1)
_RECORD_AGAIN = "copy or record it again"
# Numbers of ITU-T H.273.
_BT709 = 1
_HDR_TRANSFERS = (16, 18)  # PQ and HLG
_SIMILAR_PRIMARIES = (1, 2, 4, 5, 6, 7)  # unspecified ones, and those so near to BT.709 that no player tells them apart
_QUARTER_TURN = 90
_ACCURATE_ROUNDING = 0x40000  # SWS_ACCURATE_RND, which Interpolation has since PyAV 18
_FINEST_RATE = 1_001_000  # denominator of a rate, as in ffmpeg


class VideoFrames:
    """The frames of one video by number, decoded when asked for; safe to share between threads.

    Frames are numbered in the order in which they are shown. Reading in order decodes each frame once; a jump seeks to
    the key frame before. Each decoded frame is known by its time stamp, so that a number always means the same frame,
    also with B frames or a varying frame rate.

    Attributes:
        path: the file.
        count: number of frames.
        size: (h, w) in pixels.
        fps: frames a second, on average.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._decoder: _Decoder | None = None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._position = -1
        self._held: av.VideoFrame | None = None
        self._picture: tuple[int, np.ndarray] | None = None
        self._to_rgb = _RgbConverter()
        self._index = _read_index(self.path)
        self.count = len(self._index.times)
        self.size, self.fps = self._index.size, self._index.fps
        if self.count < 1 or min(self.size) < 1:
            raise InputError(f"{path}: no frame can be decoded; {_RECORD_AGAIN}")

    def read(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8 ``[H, W, 3]`` RGB.

        Raises:
            InputError: there is no such frame, or it cannot be decoded.
        """
        if not 0 <= index < self.count:
            raise InputError(f"{self.path}: no frame {index}; choose one of 0 to {self.count - 1}")
        with self._lock:
            if self._picture is None or self._picture[0] != index:
                self._picture = (index, self._decode(index))
            return self._picture[1].copy()

    def close(self) -> None:
        """Free the decoder; a later read opens it again."""
        with self._lock:
            self._close()
            self._picture = None

    def _decode(self, index: int) -> np.ndarray:
        ahead = index - self._position
        if self._decoder is None and ahead <= _MAX_FORWARD_FRAMES:
            self._rewind()
        elif not 0 <= ahead <= _MAX_FORWARD_FRAMES:
            self._seek(index)
        while self._position < index:
            frame = next(self._frames, None)
            if frame is None or self._number(frame) != self._position + 1:
                raise self._undecodable(self._position + 1)
            self._held, self._position = frame, self._position + 1
        assert self._held is not None
        picture = self._to_rgb(self._held)
        if picture is None or picture.shape[:2] != self.size:
            raise self._undecodable(index)
        return picture

    def _seek(self, index: int) -> None:
        """Decode the first frame from the last key frame up to ``index`` on."""
        times, keys = self._index.times, self._index.keys
        for key in keys[: np.searchsorted(keys, times[index], "right")][:-3:-1].tolist():
            if self._decoder is None:
                self._decoder = _Decoder(self.path)
            self._frames = self._decoder.frames(key)
            frame = next(self._frames, None)
            number = None if frame is None else self._number(frame)
            if number is not None and number <= index:
                self._held, self._position = frame, number
                return
        self._rewind()

    def _rewind(self) -> None:
        """Open the file anew, before its first frame."""
        self._close()
        self._decoder = _Decoder(self.path)
        self._frames = self._decoder.frames()

    def _number(self, frame: av.VideoFrame) -> int | None:
        """The number of a frame by its time stamp; None when the index has no such time."""
        times, following = self._index.times, self._position + 1
        if following < self.count and times[following] == frame.pts:
            return following
        number = int(np.searchsorted(times, _stamp(frame)))
        return number if number < self.count and times[number] == frame.pts else None

    def _close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
        self._decoder, self._frames, self._held, self._position = None, iter(()), None, -1

    def _undecodable(self, index: int) -> InputError:
        self._close()
        return InputError(
            f"{self.path}: frame {index} of {self.count} cannot be decoded, the video is cut short or "
            f"damaged; {_RECORD_AGAIN}"
        )


@dataclass(frozen=True)
class TimedFrame:
    """A frame of a :class:`FrameStream`.

    Attributes:
        time: presentation time in seconds from the video's start.
        picture: uint8 ``[H, W, 3]`` RGB; None where it is not wanted or cannot be converted.
        intact: whether the picture is what was recorded, as far as can be told.
    """

    time: float
    picture: np.ndarray | None
    intact: bool


class FrameStream:
    """The frames of one video in one pass, in the order in which they are shown, with their times.

    A frame that is lost shifts no other, since each is known by its time; a varying frame rate is followed.
    Memory does not grow with the pictures.

    Args:
        path: the file.
        threads: of the decoder.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """

    def __init__(self, path: str | Path, threads: int = _DECODER_THREADS) -> None:
        self.path = Path(path)
        self._threads = threads
        self._index = _read_index(self.path)

    def frames(self, wanted: Callable[[float], bool], size: tuple[int, int] | None = None) -> Iterator[TimedFrame]:
        """Decode the video once; the pictures of the ``wanted`` times are resized to ``size`` (h, w) if given.

        Where a frame cannot be decoded, the decoder makes up those that build on it, up to the next key frame.
        They are not intact.
        """
        decoder, to_rgb, times = _Decoder(self.path, self._threads), _RgbConverter(), self._index.times
        held, number, intact, last = None, -1, True, -1.0
        try:
            for frame in decoder.frames():
                time = self._index.seconds(frame)
                if time <= last:
                    continue
                last = time
                expected, number = number + 1, int(np.searchsorted(times, _stamp(frame)))
                intact = frame.key_frame or (intact and number == expected)
                if held is not None:
                    # The last one before a lost frame may build on it too.
                    yield replace(held, intact=held.intact and number == expected)
                picture = to_rgb(frame) if wanted(time) else None
                if picture is not None and size is not None:
                    picture = resize_image(picture, size)
                held = TimedFrame(time, picture, intact)
        finally:
            decoder.close()
        if held is not None:
            yield replace(held, intact=held.intact and number == len(times) - 1)


@dataclass(frozen=True)
class _Index:
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
        return (_stamp(frame) - self.start) * self.tick


class _Decoder:
    """An open video."""

    def __init__(self, path: Path, threads: int = _DECODER_THREADS) -> None:
        self._container = _open_container(path)
        self.stream = _video_stream(self._container, path)
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
                    if key is None or _stamp(frame) >= key:
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


class _RgbConverter:
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
            source = self._graph.add_buffer(frame.width, frame.height, frame.format, frame.time_base)
            target = "out_primaries=bt709:out_range=pc:intent=perceptual:flags=bicubic"
            if frame.color_trc in _HDR_TRANSFERS:
                target += ":out_transfer=bt709"
            filters = [self._graph.add(name, text) for name, text in (("scale", target), ("format", "rgb24"))]
            self._graph.link_nodes(source, *filters, self._graph.add("buffersink")).configure()
        self._graph.vpush(frame)
        return self._graph.vpull()


def _read_index(path: Path) -> _Index:
    """Read the packets of a video, of which only the first frame is decoded where packets tell all.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """
    decoder = _Decoder(path)
    try:
        first = next(decoder.frames(), None)
    finally:
        decoder.close()
    if _is_cut_short(path):
        raise InputError(f"{path}: the video is cut short; {_RECORD_AGAIN}")
    with _open_container(path) as container:
        stream = _video_stream(container, path)
        # One packet is one frame in MP4 and QuickTime alone: others have packets of frames that are never shown.
        rows = _packet_rows(container, stream, path) if "mp4" in container.format.name else _frame_rows(path)
        table = np.array(list(rows), np.int64).reshape(-1, 3)
        size = (stream.height, stream.width)
        tick, start, rate = float(stream.time_base or 0), stream.start_time or 0, stream.average_rate or 0
    is_key, is_shown = table[:, 1] == 1, table[:, 2] == 1
    times, keys = np.sort(table[is_shown, 0]), np.sort(table[is_key, 0])
    is_upright = first is None or round(first.rotation / _QUARTER_TURN) % 2 == 0
    return _Index(times, keys, tick, start, size if is_upright else size[::-1], float(rate))


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
                raise InputError(f"{path}: the video is cut short; {_RECORD_AGAIN}")
            if packet.pts is not None:
                yield packet.pts, packet.is_keyframe, not packet.is_discard
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: the video is damaged ({error.strerror}); {_RECORD_AGAIN}") from error


def _frame_rows(path: Path) -> Iterator[tuple[int, bool, bool]]:
    """What ``_packet_rows`` gives, by decoding all frames."""
    decoder = _Decoder(path)
    try:
        for frame in decoder.frames():
            yield _stamp(frame), frame.key_frame, True
    finally:
        decoder.close()


def _stamp(frame: av.VideoFrame) -> int:
    """The time stamp of a frame; that of its packet where the container has no other."""
    stamp = frame.dts if frame.pts is None else frame.pts
    return 0 if stamp is None else stamp


def _open_container(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise InputError(f"{path}: no such video; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the video is empty; {_RECORD_AGAIN}")
    try:
        return av.open(f"file:{path}")  # or else a colon would end the name of a protocol
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be opened as a video: it is none, cut short or never finished; {_RECORD_AGAIN}"
        ) from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The stream that players show, which a cover picture is not."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise InputError(f"{path}: cannot be opened as a video: it has no pictures; {_RECORD_AGAIN}")
    return stream


def copy_to_mp4(source: str | Path, target: str | Path) -> None:
    """Put the pictures of a video of any container into an MP4 as they are, without the sound.

    Raises:
        InputError: the source is missing or no video, or MP4 cannot hold its codec.
    """
    source = Path(source)
    with _open_container(source) as reader, atomic_path(target) as temporary:
        stream = _video_stream(reader, source)
        try:
            with av.open(f"file:{temporary}", "w", format="mp4") as writer:
                copy = writer.add_stream_from_template(stream)
                for packet in reader.demux(stream):
                    if packet.dts is not None:  # the last one is empty
                        packet.stream = copy
                        writer.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise InputError(f"{source}: the pictures do not fit into an .mp4 ({error}); convert it") from error


class VideoWriter:
    """Writes RGB frames as an H.264 video that plays everywhere; a context manager.

    The file appears under its name when the block ends without an error, and not at all otherwise.
    yuv420p, tagged and converted as BT.709, index in front (faststart). An odd side gets one more
    row or column, a copy of the last one, since yuv420p needs even sizes.

    Args:
        path: file to write, ``.mp4``.
        size: (h, w) of the frames.
        fps: frames a second.
        crf: quality of libx264, 0 (no loss) to 51; 18 looks like the original.
        keyframe_every: at most so many frames from one that is coded by itself to the next, for quick jumps; None:
            as libx264 does.
        max_mbit: most megabits a second, over any second, whatever ``crf`` asks for; None: no limit.

    Raises:
        InputError: another suffix, or the video cannot be encoded.
        OSError: the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: float = 30,
        crf: int = 18,
        *,
        keyframe_every: int | None = None,
        max_mbit: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.size = (int(size[0]), int(size[1]))
        if min(self.size) < 1 or fps <= 0 or not 0 <= crf <= 51:
            raise ValueError(f"size, fps or crf: out of range, got {size}, {fps} and {crf}")
        if self.path.suffix.lower() != ".mp4":
            raise InputError(f"{path}: videos are written as .mp4; choose a name that ends so")
        self._rate = Fraction(fps).limit_denominator(_FINEST_RATE)
        # The output is the same, byte for byte, for the same frames.
        self._options = {"preset": "medium", "crf": str(crf), "flags": "+bitexact"}
        if keyframe_every is not None:
            self._options["g"] = str(keyframe_every)
        if max_mbit is not None:
            self._options |= {"maxrate": f"{max_mbit}M", "bufsize": f"{max_mbit}M"}
        self._target = atomic_path(self.path)
        self._reformatter = VideoReformatter()
        self._container: av.container.OutputContainer | None = None
        self._count = 0

    def __enter__(self) -> VideoWriter:
        temporary = self._target.__enter__()
        try:
            with self._failures():
                self._start(temporary)
        except BaseException as error:
            self._stop()
            self._target.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def append(self, frame: np.ndarray) -> None:
        """Add one frame, uint8 ``[H, W, 3]`` RGB of the writer's size."""
        if frame.dtype != np.uint8 or frame.shape != (*self.size, 3):
            raise ValueError(f"frame: uint8 {[*self.size, 3]} expected, got {frame.dtype} {list(frame.shape)}")
        if self._container is None:
            raise ValueError("append: the writer is not open; use it in a with block")
        h, w = self.size
        frame = np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        with self._failures():
            picture = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(frame, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.BICUBIC | _ACCURATE_ROUNDING,
            )
            picture.pts, picture.time_base = self._count, 1 / self._rate
            picture.color_primaries, picture.color_trc = _BT709, _BT709
            self._container.mux(self._stream.encode(picture))
        self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failure:
                self._stop()
                self._target.__exit__(type(failure), failure, failure.__traceback__)
                raise
        else:
            self._stop()
        self._target.__exit__(kind, error, traceback)

    def _start(self, temporary: Path) -> None:
        # Frames begin at time 0 as they are, and not by an edit list, which some browsers forget when they tell times.
        flags = {"movflags": "+faststart+negative_cts_offsets", "fflags": "+bitexact"}
        self._container = av.open(f"file:{temporary}", "w", format="mp4", container_options=flags)
        stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        h, w = self.size
        stream.height, stream.width, stream.pix_fmt = h + h % 2, w + w % 2, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self._rate
        # Browsers show a video as BT.601 if any of the three tags is missing.
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._stream = stream

    def _finish(self) -> None:
        if self._count == 0:
            raise InputError(f"{self.path}: no frame was given for this video; nothing to write")
        assert self._container is not None
        with self._failures():
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def _stop(self) -> None:
        if self._container is not None:
            with suppress(av.error.FFmpegError):
                self._container.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Name the video in errors of the encoder."""
        try:
            yield
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise OSError(error.errno, os.strerror(error.errno), str(self.path)) from error
            raise InputError(
                f"{self.path}: the video could not be written ({error.strerror}); choose another place"
            ) from error
