"""Helpers for tests of preprocessing: numbered videos, scenes, and a local video server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from video_helpers import encode_frames

from maskvolume.io.realestate10k import SceneCameras
from preprocessing.make_example_data import ExampleOptions

SIZE = (48, 96)  # of numbered frames
BITS = 8
FPS = 25


@dataclass(frozen=True)
class MadeData:
    """A generated data set: its folder and its options."""

    folder: Path
    options: ExampleOptions

    @property
    def videos(self) -> Path:
        return self.folder / "videos"

    def cameras(self, split: str = "train") -> Path:
        return self.folder / "cameras" / split


def numbered_frame(number: int) -> np.ndarray:
    """Return a picture that shows its number as black and white bars, one per bit, over moving noise."""
    noise = np.random.default_rng(0).integers(60, 200, (SIZE[0], SIZE[1] + 256, 3), np.uint8)
    frame = np.ascontiguousarray(noise[:, number : number + SIZE[1]])
    width = SIZE[1] // BITS
    for bit in range(BITS):
        frame[: SIZE[0] // 2, bit * width : (bit + 1) * width] = 255 * ((number >> bit) & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    """Read the number that a picture of any size shows."""
    h, w = frame.shape[:2]
    bars = [
        frame[h // 16 : 7 * h // 16, round((b + 0.25) * w / BITS) : round((b + 0.75) * w / BITS)] for b in range(BITS)
    ]
    return sum((bar.mean() > 127) << bit for bit, bar in enumerate(bars))


def write_numbered_video(path: Path, count: int = 100, ticks: Sequence[int] | None = None) -> Path:
    """Write a video at 25 frames per second or at ticks of 1/3000 s, with B frames and a key frame every 25 frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"bf": "2", "g": "25", "crf": "20", "sc_threshold": "0"}
    return encode_frames(path, map(numbered_frame, range(count)), FPS, options, ticks=ticks)


def make_cameras(name: str, url: str, timestamps: Sequence[int]) -> SceneCameras:
    """Return cameras on a line, one unit apart, so that every row is different."""
    N = len(timestamps)
    T = np.tile(np.eye(3, 4), (N, 1, 1))
    T[:, 0, 3] = np.arange(N)
    return SceneCameras(name, url, np.array(timestamps, np.int64), np.tile([0.5, 0.9, 0.5, 0.5], (N, 1)), T)


def photo(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Return smooth colours, as in a photo, uint8 ``[h, w, 3]``."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)


def original_scenes(counts: Sequence[int], size: tuple[int, int]) -> list[tuple[SceneCameras, np.ndarray]]:
    """Return cameras and pictures of scenes with these frame counts."""
    return [
        (make_cameras(str(k), "", range(count)), np.stack([photo(50 * k + i, size) for i in range(count)]))
        for k, count in enumerate(counts)
    ]


@dataclass
class Reply:
    """An answer of the server.

    Attributes:
        data: the content.
        status: HTTP status.
        kind: content type.
        missing: number of announced bytes that are not sent.
        failures: number of requests that fail first.
        hold: event to wait for in the middle of the content.
    """

    data: bytes = b""
    status: int = 200
    kind: str = "video/mp4"
    missing: int = 0
    failures: int = 0
    hold: threading.Event | None = None


@dataclass
class VideoServer:
    """A local server that counts requests."""

    address: str
    replies: dict[str, Reply] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, reply: Reply) -> str:
        """Add a reply under a name and return its address."""
        self.replies[f"/{name}"] = reply
        return f"{self.address}/{name}"


@contextmanager
def serve_videos() -> Iterator[VideoServer]:
    """Run a server on a free local port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            videos.requests[self.path] += 1
            reply = videos.replies.get(self.path, Reply(status=404))
            if videos.requests[self.path] <= reply.failures:
                reply = Reply(status=503)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.data)))
            self.end_headers()
            try:
                self.wfile.write(reply.data[: len(reply.data) // 2])
                if reply.hold is not None:
                    reply.hold.wait(30)
                self.wfile.write(reply.data[len(reply.data) // 2 : len(reply.data) - reply.missing])
            except OSError:
                return
            if reply.missing:
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    videos = VideoServer(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield videos
    for reply in videos.replies.values():
        if reply.hold is not None:
            reply.hold.set()
    listener.shutdown()
    thread.join()
    listener.server_close()
