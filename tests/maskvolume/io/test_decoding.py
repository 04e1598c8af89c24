"""Recordings as phones and cameras make them: turned, of any colour space, with a cover picture."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from video_helpers import SIZE, copy_packets, encode_frames, number_of, numbered_frame

from maskvolume.io.decoding import Decoder, read_index, time_stamp
from maskvolume.io.video import VideoFrames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode_frames(tmp_path_factory.mktemp("video") / "clip.mp4", map(numbered_frame, range(40)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_index_lists_what_is_decoded(clip: Path, tmp_path: Path, suffix: str) -> None:
    path = copy_packets(clip, tmp_path / f"a{suffix}")
    index, decoder = read_index(path), Decoder(path)
    stamps = [time_stamp(frame) for frame in decoder.frames()]
    assert stamps == index.times.tolist()
    assert index.keys.tolist() == [stamps[0], stamps[30]]
    assert [time_stamp(frame) for frame in decoder.frames(int(index.keys[1]))] == stamps[30:]
    decoder.close()


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_recording_is_shown_upright(clip: Path, tmp_path: Path, degrees: int) -> None:
    """The display matrix of the track's header says how players turn the pictures."""
    data = bytearray(clip.read_bytes())
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    header = data.index(b"tkhd") + 4
    struct.pack_into(">9i", data, header + 40, *(n << 16 for n in (cos, sin, 0, -sin, cos, 0, 0, 0)), 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    turned, upright = VideoFrames(tmp_path / "a.mp4"), VideoFrames(clip)
    expected = np.rot90(upright.read(5), -degrees // 90)
    assert turned.size == expected.shape[:2]
    np.testing.assert_array_equal(turned.read(5), expected)


@pytest.mark.parametrize(("matrix", "full"), [("ITU601", False), ("ITU709", False), ("ITU709", True)])
def test_recorded_colours_by_their_tags(tmp_path: Path, matrix: str, full: bool) -> None:
    colors = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (128, 128, 128)], np.uint8)
    frame = np.ascontiguousarray(np.broadcast_to(colors.repeat(16, axis=0), (32, 80, 3)))
    color_range = ColorRange.JPEG if full else ColorRange.MPEG
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "2"})
        stream.height, stream.width, stream.pix_fmt = 32, 80, "yuv420p"
        stream.codec_context.color_range = color_range
        stream.codec_context.colorspace = 6 if matrix == "ITU601" else 1
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=matrix, dst_color_range=color_range
        )
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    read = VideoFrames(tmp_path / "a.mp4").read(0)
    assert np.abs(read[16, 8::16].astype(int) - colors).max() <= 4


def test_a_cover_picture_is_not_the_video(clip: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as writer, av.open(str(clip)) as reader:
        cover = writer.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 128, 128, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        copy = writer.add_stream_from_template(reader.streams.video[0])
        writer.mux(cover.encode(av.VideoFrame(128, 128, "yuvj420p")))
        for packet in reader.demux(reader.streams.video[0]):
            if packet.pts is not None:
                packet.stream = copy
                writer.mux(packet)
    video = VideoFrames(tmp_path / "a.mp4")
    assert (video.count, video.size) == (40, SIZE)
    assert number_of(video.read(30)) == 30


@pytest.mark.slow  # swscale computes a table of colours
def test_hdr_is_brought_to_the_range_of_displays(tmp_path: Path) -> None:
    """Greys in HLG stay grey and in their order, and are not shown as if they were those of BT.709."""
    levels = np.linspace(16, 240, 8).astype(np.uint8)
    frame = np.ascontiguousarray(np.broadcast_to(levels.repeat(16)[None, :, None], (32, 128, 3)))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "2"})
        stream.height, stream.width, stream.pix_fmt = 32, 128, "yuv420p"
        context = stream.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, 9
        context.color_primaries, context.color_trc = ColorPrimaries.BT2020, ColorTrc.ARIB_STD_B67
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    read = VideoFrames(tmp_path / "a.mp4").read(0)[16, 8::16].astype(int)
    assert np.ptp(read, axis=1).max() <= 2
    assert np.all(np.diff(read[:, 1]) >= 0)
    assert np.abs(read[:, 1] - levels).max() > 10
