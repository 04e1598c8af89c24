"""A made data set, a numbered video, and a server of videos on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from realestate10k_helpers import MadeData, VideoServer, make_cameras, serve_videos, write_numbered_video

from maskvolume.io.realestate10k import SceneCameras, write_scene_cameras
from maskvolume.options import Size
from preprocessing.make_example_data import ExampleOptions, make_example_data


@pytest.fixture(scope="session")
def made_realestate10k(tmp_path_factory: pytest.TempPathFactory) -> MadeData:
    """2 videos, one of them for tests, with 2 clips of 16 frames of 96 x 64 each; not to be changed."""
    folder = tmp_path_factory.mktemp("realestate10k")
    options = ExampleOptions(
        out_dir=str(folder), num_videos=2, clips_per_video=2, frames_per_clip=16, img_wh=Size(h=64, w=96), device="cpu"
    )
    make_example_data(options)
    return MadeData(folder, options)


@pytest.fixture(scope="session")
def numbered_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 numbered frames in 4 seconds; not to be changed."""
    return write_numbered_video(tmp_path_factory.mktemp("numbered") / "numbered.mp4")


@pytest.fixture
def write_scene(tmp_path: Path) -> Callable[..., SceneCameras]:
    """A function that writes a scene's text file into tmp_path/cameras: name, address, timestamps."""

    def write(name: str, url: str, timestamps: Sequence[int] = (0, 40000)) -> SceneCameras:
        cameras = make_cameras(name, url, timestamps)
        write_scene_cameras(tmp_path / "cameras" / f"{name}.txt", cameras)
        return cameras

    return write


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[VideoServer]:
    """A server of videos; a proxy of the machine is not asked."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with serve_videos() as videos:
        yield videos
