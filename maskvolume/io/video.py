"""Reads videos frame by frame and writes H.264 videos."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from maskvolume.io.decoding import (
    DECODER_THREADS,
    RECORD_AGAIN,
    Decoder,
    RgbConverter,
    open_container,
    read_index,
    time_stamp,
    video_stream,
)
from maskvolume.io.files import atomic_path
from maskvolume.io.images import resize_image
from maskvolume.runtime.errors import InputError

# Decoding this many frames costs about as much as a seek, which starts at a key frame.
_MAX_FORWARD_FRAMES = 48
_BT709 = 1  # in ITU-T H.273
_ACCURATE_ROUNDING = 0x40000  # SWS_ACCURATE_RND, a member of Interpolation since PyAV 18
_AVX512 = 13  # CV_CPU_AVX_512F of OpenCV
_FINEST_RATE = 1_001_000  # largest denominator of a frame rate, as in ffmpeg


class VideoFrames:
    """The frames of one video by number, decoded on demand; thread-safe.

    Frames are numbered in presentation order. Sequential reading decodes each frame once; a jump seeks to the preceding
    key frame. Decoded frames are identified by their time stamps, so a number always refers to the same frame, even
    with B-frames or a variable frame rate.

    Args:
        path: the file.

    Attributes:
        path: the file.
        count: number of frames.
        size: (h, w) in pixels.
        fps: average frames per second.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._decoder: Decoder | None = None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._position = -1
        self._held: av.VideoFrame | None = None
        self._picture: tuple[int, np.ndarray] | None = None
        self._to_rgb = RgbConverter()
        self._index = read_index(self.path)
        self.count = len(self._index.times)
        self.size, self.fps = self._index.size, self._index.fps
        if self.count < 1 or min(self.size) < 1:
            raise InputError(f"{path}: no frame can be decoded; {RECORD_AGAIN}")

    def read(self, index: int) -> np.ndarray:
        """Read frame ``index`` as uint8 ``[H, W, 3]`` RGB.

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
        """Free the decoder; the next read opens it again."""
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
        """Seek to the last key frame at or before ``index``, and decode its first frame."""
        times, keys = self._index.times, self._index.keys
        for key in keys[: np.searchsorted(keys, times[index], "right")][:-3:-1].tolist():
            if self._decoder is None:
                self._decoder = Decoder(self.path)
            self._frames = self._decoder.frames(key)
            frame = next(self._frames, None)
            number = None if frame is None else self._number(frame)
            if number is not None and number <= index:
                self._held, self._position = frame, number
                return
        self._rewind()

    def _rewind(self) -> None:
        """Reopen the file before its first frame."""
        self._close()
        self._decoder = Decoder(self.path)
        self._frames = self._decoder.frames()

    def _number(self, frame: av.VideoFrame) -> int | None:
        """The number of a frame, from its time stamp; None if the index has no such time stamp."""
        times, following = self._index.times, self._position + 1
        if following < self.count and times[following] == frame.pts:
            return following
        number = int(np.searchsorted(times, time_stamp(frame)))
        return number if number < self.count and times[number] == frame.pts else None

    def _close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
        self._decoder, self._frames, self._held, self._position = None, iter(()), None, -1

    def _undecodable(self, index: int) -> InputError:
        self._close()
        return InputError(
            f"{self.path}: frame {index} of {self.count} cannot be decoded, the video is cut short or "
            f"damaged; {RECORD_AGAIN}"
        )


@dataclass(frozen=True)
class TimedFrame:
    """A frame of a :class:`FrameStream`.

    Attributes:
        time: presentation time in seconds from the video's start.
        picture: uint8 ``[H, W, 3]`` RGB; None if it is not wanted or cannot be converted.
        intact: whether the picture is as recorded, as far as can be detected.
    """

    time: float
    picture: np.ndarray | None
    intact: bool


class FrameStream:
    """The frames of one video in a single pass, in presentation order, with their times.

    Frames are identified by their times, so a lost frame does not shift the others, and the frame rate may vary.
    Memory does not grow with the number of frames.

    Args:
        path: the file.
        threads: number of decoder threads.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """

    def __init__(self, path: str | Path, threads: int = DECODER_THREADS) -> None:
        self.path = Path(path)
        self._threads = threads
        self._index = read_index(self.path)

    def frames(self, wanted: Callable[[float], bool], size: tuple[int, int] | None = None) -> Iterator[TimedFrame]:
        """Decode the video once.

        If a frame cannot be decoded, the decoder conceals the errors in the frames that depend on it, up to the next
        key frame. These frames are not intact.

        Args:
            wanted: whether the picture at a time, in seconds, is needed; other pictures are None.
            size: (h, w) to resize pictures to; None: the video's size.

        Yields:
            The frames, with ascending times.
        """
        decoder, to_rgb, times = Decoder(self.path, self._threads), RgbConverter(), self._index.times
        held, number, intact, last = None, -1, True, -1.0
        try:
            for frame in decoder.frames():
                time = self._index.seconds(frame)
                if time <= last:
                    continue
                last = time
                expected, number = number + 1, int(np.searchsorted(times, time_stamp(frame)))
                intact = frame.key_frame or (intact and number == expected)
                if held is not None:
                    # The last frame before a lost one may depend on it too.
                    yield replace(held, intact=held.intact and number == expected)
                picture = to_rgb(frame) if wanted(time) else None
                if picture is not None and size is not None:
                    picture = resize_image(picture, size)
                held = TimedFrame(time, picture, intact)
        finally:
            decoder.close()
        if held is not None:
            yield replace(held, intact=held.intact and number == len(times) - 1)


def copy_to_mp4(source: str | Path, target: str | Path) -> None:
    """Copy the video stream of any container into an MP4 without re-encoding, and without sound.

    Args:
        source: the video to copy.
        target: the MP4 to write.

    Raises:
        InputError: the source is missing or not a video, or MP4 does not support its codec.
        OSError: the target cannot be written.
    """
    source = Path(source)
    with open_container(source) as reader, atomic_path(target) as temporary:
        stream = video_stream(reader, source)
        try:
            with av.open(f"file:{temporary}", "w", format="mp4") as writer:
                copy = writer.add_stream_from_template(stream)
                for packet in _with_decoding_times(reader.demux(stream), stream):
                    packet.stream = copy
                    writer.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise InputError(f"{source}: the pictures do not fit into an .mp4 ({error}); convert it") from error


def _with_decoding_times(packets: Iterable[av.Packet], stream: av.VideoStream) -> Iterator[av.Packet]:
    """Add the missing decoding times to packets: the first ones in Matroska have none, but MP4 requires them."""
    assert stream.time_base is not None
    interval = round(1 / ((stream.average_rate or 25) * stream.time_base))
    waiting: list[av.Packet] = []
    for packet in packets:
        if packet.size == 0:  # the flush packet at the end
            continue
        waiting.append(packet)
        if packet.dts is None:
            continue
        for steps, earlier in enumerate(reversed(waiting)):
            earlier.dts = packet.dts - steps * interval
        yield from waiting
        waiting.clear()
    yield from waiting


class VideoWriter:
    """Writes RGB frames as an H.264 video that plays everywhere; a context manager.

    The file appears under its name only if the block ends without an error. Videos are yuv420p, converted to and tagged
    as BT.709, with the index at the front (faststart). Odd sizes are padded by repeating the last row or column, since
    yuv420p requires even sizes.

    Args:
        path: the file to write, ``.mp4``.
        size: (h, w) of the frames.
        fps: frames per second.
        crf: quality of libx264, 0 (lossless) to 51 (worst); 18 is visually lossless.
        keyframe_every: maximum distance between key frames, for fast seeking; None: libx264's default.
        max_mbit: maximum megabits per second, over any second, which takes precedence over ``crf``; None: no limit.

    Raises:
        InputError: the suffix is not ``.mp4``, or the video cannot be encoded.
        ValueError: ``size``, ``fps`` or ``crf`` is out of range.
        OSError: the file cannot be written.
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
        # Bit-exact: equal frames give equal files.
        self._options = {"preset": "medium", "crf": str(crf), "flags": "+bitexact", **_exact_instructions()}
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
        """Add one frame, uint8 ``[H, W, 3]`` RGB of the writer's size.

        Raises:
            ValueError: the frame has another type or shape, or the writer is not open.
            InputError: the frame cannot be encoded.
        """
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
        # Time stamps start at 0 without an edit list, which some browsers ignore when they report times.
        flags = {"movflags": "+faststart+negative_cts_offsets", "fflags": "+bitexact"}
        self._container = av.open(f"file:{temporary}", "w", format="mp4", container_options=flags)
        stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        h, w = self.size
        stream.height, stream.width, stream.pix_fmt = h + h % 2, w + w % 2, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self._rate
        context.thread_type = "FRAME"  # PyAV's default cuts each picture into one slice per thread, which costs bits
        # Browsers treat a video as BT.601 if any of the three tags is missing.
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
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise InputError(
                f"{self.path}: the video could not be written ({error.strerror}); choose another place"
            ) from error


def _exact_instructions() -> dict[str, str]:
    """Options that keep libx264 from AVX-512.

    With it, the macroblock tree of x264 core 165 reads memory that nobody wrote, so equal frames give other files.
    """
    if not cv2.checkHardwareSupport(_AVX512):
        return {}
    return {"x264-params": "asm=AVX2,FMA3,BMI2,LZCNT"}
