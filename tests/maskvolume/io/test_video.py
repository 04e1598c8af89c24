"""Videos: a frame number always means the same frame, and damage is an error, not a hang."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from video_helpers import SIZE, copy_packets, encode_frames, number_of, numbered_frame

from maskvolume.io import decoding
from maskvolume.io import video as video_module
from maskvolume.io.images import resize_image
from maskvolume.io.video import FrameStream, VideoFrames, VideoWriter
from maskvolume.runtime.errors import InputError

COUNT = 150
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos of numbered frames: B frames and open groups, varying rate, hidden frames, fragments."""
    folder = tmp_path_factory.mktemp("videos")
    front = encode_frames(folder / "front.mp4", map(numbered_frame, range(COUNT)))
    copy_packets(front, folder / "back.mp4")
    copy_packets(front, folder / "quicktime.mov")
    copy_packets(front, folder / "fragments.mp4", "+frag_keyframe+empty_moov")
    copy_packets(front, folder / "other.mkv")
    copy_packets(front, folder / "hidden.mp4", start=Fraction(21, 10))
    numbers = [i for i in range(COUNT) if i % 7 != 3 and not 40 <= i <= 60]
    encode_frames(folder / "varying.mp4", map(numbered_frame, numbers), ticks=[100 * i for i in numbers])
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


def test_frames_are_those_that_were_recorded(clips: dict[str, Path]) -> None:
    video = VideoFrames(clips["front.mp4"])
    for i in range(0, COUNT, 17):
        assert np.abs(video.read(i).astype(int) - numbered_frame(i)).mean() <= 8


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
    """A container whose seeks are off by some frames."""
    video = VideoFrames(clips["front.mp4"])

    class Inexact:
        def __init__(self, container: av.container.InputContainer) -> None:
            self.container = container

        def seek(self, offset: int, *, stream: av.VideoStream) -> None:
            self.container.seek(max(0, offset + lands * 512), stream=stream)

        def __getattr__(self, name: str) -> object:
            return getattr(self.container, name)

    open_container = decoding.open_container
    monkeypatch.setattr(decoding, "open_container", lambda path: Inexact(open_container(path)))
    for i in (100, 30, 140, 2, 80):
        assert number_of(video.read(i)) == i


def test_count_rate_and_times(clips: dict[str, Path]) -> None:
    np.testing.assert_allclose(times_of(clips["front.mp4"]), np.arange(COUNT) / 30, atol=1e-9)
    assert VideoFrames(clips["front.mp4"]).fps == pytest.approx(30)


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
        (b"no video at all, but text of some length", "cannot be opened as a video: .*; copy or record"),
        (b"\0\0\0\x10ftypisom\0\0\0\0", "cannot be opened as a video: .*; copy or record"),
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
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.color_range) == ("h264", "yuv420p", ColorRange.MPEG)
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
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
    np.testing.assert_allclose(times_of(tmp_path / "a.mp4"), np.arange(12) / 10, atol=1e-6)


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, SIZE, 30, 18) as writer:
            for i in range(5):
                writer.append(numbered_frame(i))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_encoder_reads_no_memory_that_nobody_wrote(tmp_path: Path) -> None:
    """The C library fills new memory with another byte in each process, where it can."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 256, (50, 50, 3), np.uint8), (200, 200))
    np.save(tmp_path / "frames.npy", np.stack([texture[i : i + 160, 2 * i : 2 * i + 160] for i in range(12)]))
    script = (
        "import sys, numpy\n"
        "from maskvolume.io.video import VideoWriter\n"
        "with VideoWriter(sys.argv[1], (160, 160), 30, 23, keyframe_every=15) as writer:\n"
        "    for frame in numpy.load('frames.npy'):\n"
        "        writer.append(frame)\n"
    )
    videos = set()
    for byte in ("1", "85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": byte, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", script, f"{byte}.mp4"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
        videos.add((tmp_path / f"{byte}.mp4").read_bytes())
    assert len(videos) == 1


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


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no device that is always full")
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write to the temporary file fails as on a full disk."""
    new_path = video_module.atomic_path

    @contextmanager
    def full_path(path: Path) -> Iterator[Path]:
        with new_path(path) as temporary:
            temporary.symlink_to(FULL)
            yield temporary

    monkeypatch.setattr(video_module, "atomic_path", full_path)

    def write() -> None:
        with VideoWriter(tmp_path / "out" / "a.mp4", SIZE, 30, 18) as writer:
            for i in range(100):
                writer.append(numbered_frame(i))

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "out" / "a.mp4")
    assert os.listdir(tmp_path / "out") == []


def test_failing_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = VideoWriter(tmp_path / "out" / "a.mp4", SIZE, 30, 18)
    writer._options["preset"] = "unknown"
    with (
        pytest.raises(InputError, match=r"a\.mp4: the video could not be written \(.+\); choose another place"),
        writer,
    ):
        writer.append(numbered_frame(0))
    assert os.listdir(tmp_path / "out") == []


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


def times_of(path: Path) -> list[float]:
    return [frame.time for frame in FrameStream(path).frames(lambda time: False)]


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
        frames.append(frame)
    path = tmp_path_factory.mktemp("large") / "large.mp4"
    return encode_frames(path, frames, options={"bf": "2", "g": "30", "crf": "24"})


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
