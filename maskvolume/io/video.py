"""Videos in and out: frames by number, and H.264 files."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import cv2
import imageio_ffmpeg
import numpy as np

from maskvolume.io.files import atomic_path
from maskvolume.io.images import resize_image
from maskvolume.io.mp4 import read_frame_times
from maskvolume.runtime.errors import InputError

# A damaged file is reported by one error, not by the decoder's own lines as well.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

# Decoding this many frames costs about as much as a seek, which goes back to a key frame.
_MAX_FORWARD_GRABS = 48
_SEEK_MARGINS = (0, 32, 128)
# A packet that cannot be decoded fails one grab; so do all after the end, at once.
_MAX_FAILED_GRABS = 1000
_DECODER_THREADS = min(4, os.cpu_count() or 1)
_RECORD_AGAIN = "copy or record it again"


class VideoFrames:
    """The frames of one video by number, decoded when asked for; safe to share between threads.

    Frames are numbered in the order in which they are shown. Reading in order decodes each frame
    once; a jump seeks, and the time stamp of the frame it lands on is checked against the index, so
    that a number always means the same frame, also with B frames or a varying frame rate.

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
        self._capture: cv2.VideoCapture | None = None
        self._grabbed = -1
        self._origin_ms = 0.0
        self._frame: tuple[int, np.ndarray] | None = None
        _require_file(self.path)
        times = read_frame_times(self.path)
        capture = self._new_capture()
        self.size = _size_of(capture)
        self.fps = float(capture.get(cv2.CAP_PROP_FPS))
        self._times = _times_by_decoding(capture) if times is None else times
        capture.release()
        self.count = len(self._times)
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
            if self._frame is None or self._frame[0] != index:
                self._frame = (index, self._decode(index))
            return self._frame[1].copy()

    def close(self) -> None:
        """Free the decoder; a later read opens it again."""
        with self._lock:
            if self._capture is not None:
                self._capture.release()
            self._capture, self._grabbed, self._frame = None, -1, None

    def _decode(self, index: int) -> np.ndarray:
        if self._capture is None:
            self._rewind()
        if not 0 <= index - self._grabbed <= _MAX_FORWARD_GRABS:
            self._seek(index)
        assert self._capture is not None
        while self._grabbed < index:
            if not self._capture.grab():
                raise self._undecodable(self._grabbed + 1)
            self._grabbed += 1
        ok, picture = self._capture.retrieve()
        if not ok or picture is None or picture.ndim != 3 or picture.shape[:2] != self.size:
            raise self._undecodable(index)
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def _seek(self, index: int) -> None:
        """Grab frame ``index`` or one not far before it."""
        capture = self._capture
        for margin in _SEEK_MARGINS:
            if capture is None or index - margin <= 1:
                break
            capture.set(cv2.CAP_PROP_POS_FRAMES, index - margin)
            landed = self._index_at(capture) if capture.grab() else None
            if landed is not None and landed <= index:
                self._grabbed = landed
                return
        self._rewind()

    def _index_at(self, capture: cv2.VideoCapture) -> int | None:
        """The number of the grabbed frame by its time stamp; None when the index has no such time."""
        time = (capture.get(cv2.CAP_PROP_POS_MSEC) - self._origin_ms) / 1000
        after = int(np.searchsorted(self._times, time))
        near = [i for i in (after - 1, after) if 0 <= i < self.count]
        best = min(near, key=lambda i: abs(float(self._times[i]) - time))
        gaps = np.diff(self._times[max(0, best - 1) : best + 2])
        return best if abs(float(self._times[best]) - time) <= 0.25 * gaps.min(initial=1.0) else None

    def _rewind(self) -> None:
        """Open the file anew and grab frame 0."""
        if self._capture is not None:
            self._capture.release()
        self._capture = self._new_capture()
        if not self._capture.grab():
            raise self._undecodable(0)
        self._grabbed = 0
        self._origin_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)

    def _new_capture(self) -> cv2.VideoCapture:
        return _open_capture(self.path)

    def _undecodable(self, index: int) -> InputError:
        if self._capture is not None:
            self._capture.release()
        self._capture, self._grabbed = None, -1
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
    Memory does not grow with the video.

    Args:
        path: the file.
        threads: of the decoder.

    Raises:
        InputError: the file is missing, cut short or not a video.
    """

    def __init__(self, path: str | Path, threads: int = _DECODER_THREADS) -> None:
        self.path = Path(path)
        _require_file(self.path)
        self._times = read_frame_times(self.path)
        self._threads = threads
        _open_capture(self.path, threads).release()

    def frames(self, wanted: Callable[[float], bool], size: tuple[int, int] | None = None) -> Iterator[TimedFrame]:
        """Decode the video once; the pictures of the ``wanted`` times are resized to ``size`` (h, w) if given.

        Where a frame cannot be decoded, the decoder makes up those that build on it, up to the next key frame.
        They are not intact. An index of all frames, which most .mp4 have, is needed to tell that one is lost.
        """
        capture = _open_capture(self.path, self._threads)
        held, number, intact = None, -1, True
        for time in _grab_all(capture):
            expected, number = number + 1, self._number_at(time, number + 1)
            is_key = int(capture.get(cv2.CAP_PROP_FRAME_TYPE)) == ord("I")
            intact = is_key or (intact and number == expected)
            if held is not None:
                # The last one before a lost frame may build on it too.
                yield replace(held, intact=held.intact and number == expected)
            picture = _retrieve(capture, size) if wanted(time) else None
            held = TimedFrame(time, picture, intact)
        capture.release()
        if held is not None:
            ends_well = self._times is None or number == len(self._times) - 1
            yield replace(held, intact=held.intact and ends_well)

    def _number_at(self, time: float, expected: int) -> int:
        """The number of the frame at a time by the index; the expected one where there is no index."""
        times = self._times
        if times is None:
            return expected
        after = int(np.searchsorted(times, time))
        near = [i for i in (after - 1, after) if 0 <= i < len(times)]
        return min(near, key=lambda i: abs(float(times[i]) - time))


def _grab_all(capture: cv2.VideoCapture) -> Iterator[float]:
    """Grab frame after frame: the time of each in seconds, ascending."""
    last, failed = -1.0, 0
    while failed < _MAX_FAILED_GRABS:
        if not capture.grab():
            failed += 1
            continue
        failed = 0
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if time > last:
            yield time
            last = time


def _retrieve(capture: cv2.VideoCapture, size: tuple[int, int] | None) -> np.ndarray | None:
    ok, picture = capture.retrieve()
    if not ok or picture is None or picture.ndim != 3:
        return None
    return cv2.cvtColor(picture if size is None else resize_image(picture, size), cv2.COLOR_BGR2RGB)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such video; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the video is empty; {_RECORD_AGAIN}")


def _open_capture(path: Path, threads: int = _DECODER_THREADS) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    if not capture.isOpened():
        raise InputError(f"{path}: cannot be opened as a video; {_RECORD_AGAIN}")
    return capture


def _size_of(capture: cv2.VideoCapture) -> tuple[int, int]:
    return int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))


def _times_by_decoding(capture: cv2.VideoCapture) -> np.ndarray:
    """Frame times in seconds from one pass over the video, for files whose index does not say."""
    times = []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return np.array(times) - times[0] if times else np.zeros(0)


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
        InputError: another suffix, or ffmpeg fails.
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
        self._fps, self._crf = fps, crf
        self._more = [] if keyframe_every is None else ["-g", str(keyframe_every)]
        if max_mbit is not None:
            self._more += ["-maxrate", f"{max_mbit}M", "-bufsize", f"{max_mbit}M"]
        self._target = atomic_path(self.path)
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: deque[str] = deque(maxlen=20)
        self._count = 0

    def __enter__(self) -> VideoWriter:
        temporary = self._target.__enter__()
        try:
            self._start(temporary)
        except BaseException as error:
            self._target.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def append(self, frame: np.ndarray) -> None:
        """Add one frame, uint8 ``[H, W, 3]`` RGB of the writer's size."""
        if frame.dtype != np.uint8 or frame.shape != (*self.size, 3):
            raise ValueError(f"frame: uint8 {[*self.size, 3]} expected, got {frame.dtype} {list(frame.shape)}")
        if self._process is None or self._process.stdin is None:
            raise ValueError("append: the writer is not open; use it in a with block")
        h, w = self.size
        frame = np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except (BrokenPipeError, OSError) as error:
            self._process.wait()
            raise self._failure() from error
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
        h, w = (n + n % 2 for n in self.size)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-framerate", str(self._fps)]
        command += ["-i", "pipe:0", "-an", "-c:v", "libx264", "-preset", "medium", "-crf", str(self._crf)]
        command += self._more
        # Raw frames have no primaries, and newer ffmpeg prefers what frames say to the options below. Browsers show
        # a video as BT.601 if any of the three tags is missing.
        tags = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
        command += ["-vf", f"scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd,{tags}"]
        for tag in ("-colorspace", "-color_primaries", "-color_trc"):
            command += [tag, "bt709"]
        # Frames begin at time 0 as they are, and not by an edit list, which some browsers forget when they tell times.
        flags = "+faststart+negative_cts_offsets"
        command += ["-color_range", "tv", "-pix_fmt", "yuv420p", "-movflags", flags]
        # The output is the same, byte for byte, for the same frames.
        command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", str(temporary)]
        try:
            # A session of its own: an interruption at the keyboard is ours to handle.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(f"{self.path}: ffmpeg cannot be started ({error}); install it again") from error
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                self._messages.append(line.decode("utf-8", "replace").strip())

    def _finish(self) -> None:
        if self._count == 0:
            raise InputError(f"{self.path}: no frame was given for this video; nothing to write")
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError as error:
            self._process.wait()
            raise self._failure() from error
        if self._process.wait() != 0:
            raise self._failure()
        self._listener.join()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._listener.join()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def _failure(self) -> Exception:
        self._listener.join()
        text = " ".join(self._messages)
        if os.strerror(errno.ENOSPC).lower() in text.lower():
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        reason = self._messages[-1] if self._messages else "no reason given"
        return InputError(f"{self.path}: ffmpeg could not write the video ({reason}); choose another place")
