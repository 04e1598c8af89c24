"""Videos: a frame number always means the same frame, and damage is an error, not a hang."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from maskvolume.io import video as video_module
from maskvolume.io.images import resize_image
from maskvolume.io.mp4 import read_frame_times
from maskvolume.io.video import FrameStream, VideoFrames, VideoWriter
from maskvolume.runtime.errors import InputError

SIZE = (32, 64)
BITS = 8
COUNT = 150
B_FRAMES = ["-c:v", "libx264", "-bf", "3", "-g", "30", "-crf", "20", "-x264-params", "b-adapt=0:open-gop=1"]


def numbered_frame(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture with its number in it: black and white bars, one per bit."""
    frame = np.full((*size, 3), (40, 120, 60), np.uint8)
    width = size[1] // BITS
    for bit in range(BITS):
        frame[: size[0] // 2, bit * width : (bit + 1) * width] = 255 * ((number >> bit) & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    h, width = frame.shape[0], frame.shape[1] // BITS
    bars = [frame[2 : h // 2 - 2, b * width + 2 : (b + 1) * width - 2].mean() for b in range(BITS)]
    return sum((bar > 127) << bit for bit, bar in enumerate(bars))


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True).stdout


def encode(path: Path, count: int, *arguments: str) -> Path:
    raw = b"".join(numbered_frame(i).tobytes() for i in range(count))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE[1]}x{SIZE[0]}", "-framerate", "30"]
    ffmpeg(*source, "-i", "pipe:0", *arguments, "-pix_fmt", "yuv420p", path, stdin=raw)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos of numbered frames: B frames and open groups, varying rate, hidden frames, fragments."""
    folder = tmp_path_factory.mktemp("videos")
    front = encode(folder / "front.mp4", COUNT, *B_FRAMES, "-movflags", "+faststart")
    copies: dict[str, list[str]] = {
        "back.mp4": [],
        "quicktime.mov": [],
        "fragments.mp4": ["-movflags", "+frag_keyframe+empty_moov"],
        "other.mkv": [],
    }
    for name, arguments in copies.items():
        ffmpeg("-i", front, "-c", "copy", *arguments, folder / name)
    ffmpeg("-ss", "2.1", "-i", front, "-c", "copy", folder / "hidden.mp4")
    drop = "select='not(eq(mod(n,7),3))*not(between(n,40,60))'"
    vary = ["-vf", drop, "-fps_mode", "vfr", "-enc_time_base", "1/3000"]
    ffmpeg("-i", front, *vary, *B_FRAMES, folder / "varying.mp4")
    return {path.name: path for path in sorted(folder.iterdir())}


CLIPS = ("front.mp4", "back.mp4", "quicktime.mov", "fragments.mp4", "other.mkv", "hidden.mp4", "varying.mp4")
FULL_CLIPS = CLIPS[:5]


@pytest.mark.parametrize("name", CLIPS)
def test_random_access_equals_in_order(clips: dict[str, Path], name: str) -> None:
    video = VideoFrames(clips[name])
    assert video.size == SIZE
    in_order = [video.read(i) for i in range(video.count)]
    numbers = [number_of(frame) for frame in in_order]
    assert numbers == sorted(set(numbers))
    if name in FULL_CLIPS:
        assert numbers == list(range(COUNT))
    rng = np.random.default_rng(0)
    for i in rng.choice(video.count, min(40, video.count), replace=False).tolist():
        np.testing.assert_array_equal(video.read(i), in_order[i])
    for i in (video.count - 1, 0, 1, video.count // 2):
        np.testing.assert_array_equal(VideoFrames(clips[name]).read(i), in_order[i])


def test_varying_rate_keeps_every_frame(clips: dict[str, Path]) -> None:
    video = VideoFrames(clips["varying.mp4"])
    expected = [i for i in range(COUNT) if i % 7 != 3 and not 40 <= i <= 60]
    assert [number_of(video.read(i)) for i in range(video.count)] == expected


def test_frames_are_those_of_another_decoder(clips: dict[str, Path]) -> None:
    raw = ffmpeg("-i", clips["front.mp4"], "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
    expected = np.frombuffer(raw, np.uint8).reshape(-1, *SIZE, 3)
    video = VideoFrames(clips["front.mp4"])
    for i in range(0, COUNT, 17):
        assert np.abs(video.read(i).astype(int) - expected[i]).max() <= 8


def test_reading_in_order_never_seeks(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    video = VideoFrames(clips["front.mp4"])

    def refuse(index: int) -> None:
        raise AssertionError(f"seek to {index}")

    monkeypatch.setattr(video, "_seek", refuse)
    for i in [0, 1, 2, 3, 3, 4, 8, 20]:
        assert number_of(video.read(i)) == i


@pytest.mark.parametrize("lands", [-5, 7, 1000])
def test_a_seek_that_lands_elsewhere_is_noticed(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, lands: int
) -> None:
    video = VideoFrames(clips["front.mp4"])
    video.read(0)

    class Inexact:
        """A decoder whose seeks are off by some frames."""

        def __init__(self, capture: cv2.VideoCapture) -> None:
            self.capture = capture

        def set(self, what: int, value: float) -> bool:
            return self.capture.set(what, value + lands)

        def __getattr__(self, name: str) -> object:
            return getattr(self.capture, name)

    new_capture = video._new_capture
    monkeypatch.setattr(video, "_new_capture", lambda: Inexact(new_capture()))
    video.close()
    for i in (100, 30, 140, 2, 80):
        assert number_of(video.read(i)) == i


def test_header_says_count_and_rate(clips: dict[str, Path]) -> None:
    times = read_frame_times(clips["front.mp4"])
    assert times is not None
    np.testing.assert_allclose(times, np.arange(COUNT) / 30, atol=1e-9)
    assert VideoFrames(clips["front.mp4"]).fps == pytest.approx(30)
    for name in ("fragments.mp4", "other.mkv", "hidden.mp4"):
        assert read_frame_times(clips[name]) is None


def test_threads_share_a_video(clips: dict[str, Path]) -> None:
    video = VideoFrames(clips["front.mp4"])
    numbers = np.random.default_rng(0).integers(0, COUNT, 60).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert [number_of(frame) for frame in pool.map(video.read, numbers)] == numbers


def test_frames_belong_to_the_caller(clips: dict[str, Path]) -> None:
    video = VideoFrames(clips["front.mp4"])
    video.read(5)[:] = 0
    assert number_of(video.read(5)) == 5
    video.close()
    assert number_of(video.read(5)) == 5


@pytest.mark.parametrize("index", [-1, COUNT])
def test_no_such_frame(clips: dict[str, Path], index: int) -> None:
    with pytest.raises(InputError, match=rf"front\.mp4: no frame {index}; choose one of 0 to {COUNT - 1}"):
        VideoFrames(clips["front.mp4"]).read(index)


def read_all(path: Path) -> None:
    video = VideoFrames(path)
    for i in range(video.count):
        video.read(i)


@pytest.mark.parametrize("name", ["front.mp4", "back.mp4"])
@pytest.mark.parametrize("part", [0.001, 0.2, 0.5, 0.9, 0.99])
def test_truncated_video(clips: dict[str, Path], tmp_path: Path, name: str, part: float) -> None:
    data = clips[name].read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=rf"{re.escape(name)}: .*; copy or record it again"):
        VideoFrames(path)


def test_fewer_frames_than_the_index_says(clips: dict[str, Path], tmp_path: Path) -> None:
    """The boxes are whole, but the pictures of the last part are not there."""
    data = bytearray(clips["front.mp4"].read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.mp4: frame \d+ of {COUNT} cannot be decoded.*; copy or"):
        read_all(path)
    with pytest.raises(InputError, match=rf"a\.mp4: frame \d+ of {COUNT} cannot be decoded"):
        VideoFrames(path).read(COUNT - 1)


def test_damaged_index(clips: dict[str, Path], tmp_path: Path) -> None:
    """Whatever is wrong in the index: an InputError, or a video that reads."""
    data = clips["front.mp4"].read_bytes()
    start, end = data.index(b"moov"), data.index(b"mdat")
    rng = np.random.default_rng(0)
    path = tmp_path / "a.mp4"
    for position in rng.integers(start, end, 25).tolist():
        path.write_bytes(data[:position] + bytes(rng.integers(0, 256, 4, np.uint8)) + data[position + 4 :])
        with suppress(InputError):
            VideoFrames(path).read(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such video; check the path"),
        (b"", "the video is empty; copy or record"),
        (b"no video at all, but text of some length", "cannot be opened as a video; copy or record"),
        (b"\0\0\0\x10ftypisom\0\0\0\0", "the video has no index.*; copy or record"),
    ],
)
def test_not_a_video(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "cam00.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"cam00\.mp4: {message}"):
        VideoFrames(path)


def test_decoder_keeps_quiet(clips: dict[str, Path], tmp_path: Path) -> None:
    """Only the error is said, without the decoder's own lines."""
    path = tmp_path / "a.mp4"
    data = bytearray(clips["front.mp4"].read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    code = (
        "import sys\nfrom maskvolume.io.video import VideoFrames\n"
        "try:\n    VideoFrames(sys.argv[1]).read(140)\nexcept Exception as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be decoded" in done.stdout
    assert done.stderr == ""
    path.write_text("no video")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be opened as a video" in done.stdout
    assert done.stderr == ""


def moving_frames(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 256, (6, 9, 3), np.uint8), (size[1] + count, size[0]))
    return [np.ascontiguousarray(wall[:, i : i + size[1]]) for i in range(count)]


@pytest.mark.parametrize("size", [(36, 64), (35, 63), (1, 1)])
def test_written_video_reads_back(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = moving_frames(7, size)
    with VideoWriter(tmp_path / "a.mp4", size, 24, 4) as writer:
        for frame in frames:
            writer.append(frame)
        assert not (tmp_path / "a.mp4").exists()
    video = VideoFrames(tmp_path / "a.mp4")
    h, w = size
    assert (video.count, video.size) == (7, (h + h % 2, w + w % 2))
    assert video.fps == pytest.approx(24)
    luma = np.array([0.2126, 0.7152, 0.0722])
    for i, frame in enumerate(frames):
        assert np.abs((video.read(i)[:h, :w].astype(float) - frame) @ luma).mean() < 3
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_colours_survive(tmp_path: Path) -> None:
    """Strong colours tell the matrix of BT.709 from that of BT.601, which is up to 27 levels off."""
    colors = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (128, 128, 128)], np.uint8)
    frame = np.ascontiguousarray(np.broadcast_to(colors.repeat(16, axis=0), (32, 80, 3)))
    with VideoWriter(tmp_path / "a.mp4", (32, 80), 30, 2) as writer:
        for _ in range(3):
            writer.append(frame)
    read = VideoFrames(tmp_path / "a.mp4").read(1)
    assert np.abs(read[16, 8::16].astype(int) - colors).max() <= 4


def test_written_form(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", SIZE, 30, 18) as writer:
        writer.append(numbered_frame(1))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(tmp_path / "a.mp4")]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert re.search(r"Video: h264 .*yuv420p\(tv, bt709[,)]", text), text
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_frames_begin_at_zero_by_themselves(tmp_path: Path) -> None:
    """B frames shift times, which an edit list may shift back: not all browsers heed it when they tell times."""
    with VideoWriter(tmp_path / "a.mp4", (48, 64), 10, 18) as writer:
        for frame in moving_frames(12, (48, 64)):
            writer.append(frame)
    data = (tmp_path / "a.mp4").read_bytes()
    edits = data.find(b"elst")
    assert edits < 0 or struct.unpack_from(">I4xi", data, edits + 8) == (1, 0)
    offsets = data.index(b"ctts")  # there are B frames
    assert data[offsets + 4] == 1, "offsets have signs"
    assert struct.unpack_from(">i", data, offsets + 16) == (0,)
    np.testing.assert_allclose(read_frame_times(tmp_path / "a.mp4"), np.arange(12) / 10, atol=1e-6)


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, SIZE, 30, 18) as writer:
            for i in range(5):
                writer.append(numbered_frame(i))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_writer_leaves_the_old_video(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    writer = VideoWriter(tmp_path / "a.mp4", SIZE, 30, 18)

    def interrupted() -> None:
        with writer:
            writer.append(numbered_frame(0))
            raise error

    with pytest.raises(error):
        interrupted()
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert writer._process is not None
    assert writer._process.poll() is not None


def write_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> Callable[[], None]:
    """Write many frames with a shell script in the place of ffmpeg."""
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(video_module.imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))

    def write() -> None:
        with VideoWriter(tmp_path / "out" / "a.mp4", SIZE, 30, 18) as writer:
            for i in range(100):
                writer.append(numbered_frame(i))

    return write


FULL = 'echo "[out#0] Error writing trailer: No space left on device" >&2; exit 1'


@pytest.mark.parametrize("when", ["", "head -c 10000 >/dev/null; ", "cat >/dev/null; "])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        write_with(monkeypatch, tmp_path, when + FULL)()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "out" / "a.mp4")
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("when", ["", "cat >/dev/null; "])
def test_failing_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    write = write_with(monkeypatch, tmp_path, when + 'echo "Unknown encoder" >&2; exit 1')
    with pytest.raises(InputError, match=r"a\.mp4: ffmpeg could not write the video \(Unknown encoder\)"):
        write()
    assert os.listdir(tmp_path / "out") == []


def test_ffmpeg_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = write_with(monkeypatch, tmp_path, "")
    (tmp_path / "ffmpeg").unlink()
    with pytest.raises(InputError, match=r"a\.mp4: ffmpeg cannot be started .*; install it again"):
        write()


def test_writer_checks_what_it_gets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.avi: videos are written as \.mp4; choose"):
        VideoWriter(tmp_path / "a.avi", SIZE, 30, 18)
    with pytest.raises(ValueError, match="crf"):
        VideoWriter(tmp_path / "a.mp4", SIZE, 30, 52)
    with pytest.raises(ValueError, match="not open"):
        VideoWriter(tmp_path / "a.mp4", SIZE, 30, 18).append(numbered_frame(0))
    with VideoWriter(tmp_path / "a.mp4", SIZE, float(Fraction(30000, 1001)), 18) as writer:
        for bad in (np.zeros((4, 4, 3), np.uint8), np.zeros((*SIZE, 3), np.float32)):
            with pytest.raises(ValueError, match="frame: "):
                writer.append(bad)
        writer.append(numbered_frame(0))
    assert VideoFrames(tmp_path / "a.mp4").fps == pytest.approx(29.97, abs=0.01)


def test_writer_without_frames(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"a\.mp4: no frame was given"),
        VideoWriter(tmp_path / "a.mp4", SIZE),
    ):
        pass
    assert os.listdir(tmp_path) == []


def stream_all(path: Path) -> list[tuple[float, int, bool]]:
    """Time, number and soundness of all frames of a stream."""
    frames = FrameStream(path).frames(lambda time: True)
    return [(frame.time, -1 if frame.picture is None else number_of(frame.picture), frame.intact) for frame in frames]


@pytest.mark.parametrize("name", CLIPS)
def test_stream_gives_each_frame_at_its_time(clips: dict[str, Path], name: str) -> None:
    video = VideoFrames(clips[name])
    expected = [number_of(video.read(i)) for i in range(video.count)]
    times, numbers, intact = zip(*stream_all(clips[name]), strict=True)
    assert list(numbers) == expected
    assert all(intact)
    # Matroska counts milliseconds.
    np.testing.assert_allclose(np.array(times) * 30, np.array(expected) - expected[0], atol=0.02)


def test_stream_converts_only_what_is_wanted(clips: dict[str, Path]) -> None:
    frames = list(FrameStream(clips["front.mp4"]).frames(lambda time: 0.99 < time < 1.02, (16, 32)))
    pictures = {i: frame.picture for i, frame in enumerate(frames) if frame.picture is not None}
    assert len(frames) == COUNT
    assert list(pictures) == [30]
    assert pictures[30].shape == (16, 32, 3)
    np.testing.assert_array_equal(pictures[30], resize_image(VideoFrames(clips["front.mp4"]).read(30), (16, 32)))


@pytest.fixture(scope="module")
def large_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 frames that move, a key frame every 30."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 100, 3), np.uint8)
    wall = cv2.resize(noise, (480, 96), interpolation=cv2.INTER_CUBIC)
    frames = []
    for i in range(COUNT):
        frame = np.ascontiguousarray(wall[:, 2 * i : 2 * i + 128])
        frame[:48] = numbered_frame(i, (96, 128))[:48]
        frames.append(frame.tobytes())
    path = tmp_path_factory.mktemp("large") / "large.mp4"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "128x96", "-framerate", "30", "-i", "pipe:0"]
    codec = ["-c:v", "libx264", "-bf", "2", "-g", "30", "-crf", "24", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    ffmpeg(*source, *codec, path, stdin=b"".join(frames))
    return path


@pytest.mark.parametrize("place", [0.3, 0.45, 0.6, 0.75])
def test_damage_shifts_no_frame_and_is_told(large_clip: Path, tmp_path: Path, place: float) -> None:
    """Frames that are lost leave a gap in time; those that build on them are not intact, up to a key frame."""
    data = bytearray(large_clip.read_bytes())
    start = int(len(data) * place)
    data[start : start + 3000] = bytes(3000)
    (tmp_path / "a.mp4").write_bytes(data)
    frames = [(round(time * 30), number, intact) for time, number, intact in stream_all(tmp_path / "a.mp4")]
    assert len(frames) < COUNT
    assert all(at == number for at, number, intact in frames if intact)
    harmed = sorted(set(range(COUNT)) - {at for at, _, intact in frames if intact})
    assert 3 < len(harmed) <= 60
    # After the last one that is harmed comes a key frame.
    assert harmed[-1] == COUNT - 1 or (harmed[-1] + 1) % 30 == 0


def test_stream_of_a_video_without_its_last_part(large_clip: Path, tmp_path: Path) -> None:
    data = bytearray(large_clip.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / "a.mp4").write_bytes(data)
    frames = stream_all(tmp_path / "a.mp4")
    assert 30 < len(frames) < 110
    assert all(round(time * 30) == number for time, number, intact in frames if intact)
    assert not frames[-1][2]


@pytest.mark.parametrize("content", [None, b"", b"no video at all, but text of some length"])
def test_stream_of_no_video(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4: (no such video|the video is empty|cannot be opened)"):
        FrameStream(tmp_path / "a.mp4")
