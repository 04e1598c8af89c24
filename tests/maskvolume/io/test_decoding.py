"""Opened videos: frames in order from any key frame, and an index that agrees with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from video_helpers import copy_packets, encode_frames

from maskvolume.io.decoding import Decoder, RgbConverter, VideoIndex, open_container, read_index, time_stamp
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)
COUNT = 45  # with a key frame every 30 at least, see B_FRAMES


def grey(number: int) -> np.ndarray:
    return np.full((*SIZE, 3), 20 + 4 * number, np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode_frames(tmp_path_factory.mktemp("video") / "a.mp4", map(grey, range(COUNT)))


@pytest.fixture
def decoder(video: Path) -> Iterator[Decoder]:
    opened = Decoder(video)
    yield opened
    opened.close()


def stamps_and_seconds(index: VideoIndex, frames: list[av.VideoFrame]) -> tuple[list[int], list[float]]:
    return [time_stamp(frame) for frame in frames], [index.seconds(frame) for frame in frames]


def test_the_index_tells_the_frames_that_are_decoded(video: Path, decoder: Decoder) -> None:
    index = read_index(video)
    stamps, seconds = stamps_and_seconds(index, list(decoder.frames()))
    assert stamps == index.times.tolist()
    np.testing.assert_allclose(seconds, np.arange(COUNT) / 30, atol=1e-6)
    assert (index.size, index.fps) == (SIZE, pytest.approx(30))
    assert index.keys[0] == index.times[0]
    assert set(index.keys.tolist()) <= set(stamps)


def test_another_container_has_the_same_times(video: Path, tmp_path: Path) -> None:
    """Its packets do not tell which frames are shown: all of them are decoded."""
    index, other = read_index(video), read_index(copy_packets(video, tmp_path / "a.mkv"))
    seconds = [(each.times - each.times[0]) * each.tick for each in (index, other)]
    np.testing.assert_allclose(*seconds, atol=1e-3)


def test_frames_come_from_each_key_frame_on(video: Path, decoder: Decoder) -> None:
    index = read_index(video)
    assert len(index.keys) > 1
    for key in (*index.keys[::-1].tolist(), int(index.keys[0])):
        stamps = [time_stamp(frame) for frame in decoder.frames(key)]
        assert stamps == [stamp for stamp in index.times.tolist() if stamp >= key]


def test_frames_are_rgb_as_they_were_recorded(decoder: Decoder) -> None:
    convert = RgbConverter()
    for number, frame in enumerate(decoder.frames()):
        picture = convert(frame)
        assert picture is not None
        assert (picture.dtype, picture.shape) == (np.uint8, (*SIZE, 3))
        assert np.abs(picture.astype(int) - grey(number)).mean() < 6


def test_files_that_are_no_video_are_one_line(video: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.mp4: no such video; check the path"):
        open_container(tmp_path / "no.mp4")
    path = tmp_path / "a.mp4"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.mp4: the video is empty; copy or record it again"):
        open_container(path)
    path.write_bytes(b"text of some length, and no video")
    with pytest.raises(InputError, match=r"a\.mp4: cannot be opened as a video: .*; copy or record it again"):
        open_container(path)
    path.write_bytes(video.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.mp4: the video is cut short; copy or record it again"):
        read_index(path)
