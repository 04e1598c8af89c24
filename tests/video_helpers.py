"""Unusual video files, written with PyAV, since the ffmpeg program may not be installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

B_FRAMES = {"bf": "3", "g": "30", "crf": "20", "x264-params": "b-adapt=0:open-gop=1"}


SIZE = (32, 64)  # of numbered frames
BITS = 8


def numbered_frame(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a picture that shows its number as black and white bars, one per bit."""
    frame = np.full((*size, 3), (40, 120, 60), np.uint8)
    width = size[1] // BITS
    for bit in range(BITS):
        frame[: size[0] // 2, bit * width : (bit + 1) * width] = 255 * ((number >> bit) & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    h, width = frame.shape[0], frame.shape[1] // BITS
    bars = [frame[2 : h // 2 - 2, b * width + 2 : (b + 1) * width - 2].mean() for b in range(BITS)]
    return sum((bar > 127) << bit for bit, bar in enumerate(bars))


def encode_frames(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: int | Fraction = 30,
    options: Mapping[str, str] = B_FRAMES,
    movflags: str = "+faststart",
    ticks: Sequence[int] | None = None,
) -> Path:
    """Encode uint8 ``[H, W, 3]`` RGB frames with libx264, at a constant rate or at ``ticks`` of 1/3000 s."""
    with av.open(str(path), "w", container_options={"movflags": movflags}) as container:
        stream = None
        for number, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options=dict(options))
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
                stream.codec_context.time_base = 1 / Fraction(rate) if ticks is None else Fraction(1, 3000)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            picture.pts = number if ticks is None else ticks[number]
            picture.time_base = stream.codec_context.time_base
            container.mux(stream.encode(picture))
        assert stream is not None
        container.mux(stream.encode(None))
    return path


def copy_packets(source: Path, target: Path, movflags: str = "", start: Fraction | None = None, loops: int = 1) -> Path:
    """Copy the packets of a video ``loops`` times, from ``start`` in seconds, which an edit list maps to time 0."""
    with av.open(str(source)) as reader, av.open(str(target), "w", container_options=_flags(movflags)) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        length = stream.duration
        for loop in range(loops):
            reader.seek(0 if start is None else int(start / stream.time_base), stream=stream)
            shift = loop * length - (0 if start is None else int(start / stream.time_base))
            for packet in reader.demux(stream):
                if packet.pts is None:
                    continue
                packet.pts += shift
                packet.dts += shift
                packet.stream = copy
                writer.mux(packet)
    return target


def _flags(movflags: str) -> dict[str, str]:
    return {"movflags": movflags} if movflags else {}
