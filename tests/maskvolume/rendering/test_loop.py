"""The loop from a clip to files, with a method of a few lines: a view is the picture of the camera nearest to it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskvolume.clips.rig import RigClip
from maskvolume.io.images import read_image, write_image
from maskvolume.io.video import VideoFrames
from maskvolume.rendering.loop import RenderReport, encode_video, render_clip, share_of
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.pictures import read_disparity
from maskvolume.rendering.renderer import Moment, Renderer, Source, View
from maskvolume.rendering.shots import Shots
from maskvolume.runtime.prefetch import WAITING, Writers
from maskvolume.runtime.processes import Processes


@dataclass(frozen=True)
class PickedMoment(Moment):
    """A moment with the nearest camera of each of its shots."""

    cameras: Mapping[int, int]


class NearestPicture:
    """Shows the recorded picture of the camera nearest to each shot; between two frames their mix."""

    device = torch.device("cpu")
    has_masks = False

    def __init__(self, clip: RigClip, depth: float = 4.0) -> None:
        self.clip, self.depth = clip, depth
        self.depth_range = clip.near_far()
        self.indices = tuple(range(len(clip.names)))
        self.read_sources: Counter[Source] = Counter()
        self._pictures: dict[int, Tensor] = {}

    def begin(self, shots: Shots, numbers: Sequence[int]) -> list[PickedMoment]:
        nearest = torch.cdist(shots.targets.center, self.clip.cameras().center).argmin(dim=1).tolist()
        moments = []
        for time, members in shots.by_time(numbers):
            picked = {number: nearest[number] for number in members}
            cameras, frames = sorted(set(picked.values())), sorted({math.floor(time), math.ceil(time)})
            sources = tuple((camera, frame) for camera in cameras for frame in frames)
            batches = tuple(tuple(n for n in members if picked[n] == camera) for camera in cameras)
            moments.append(PickedMoment(time, sources, batches, picked))
        return moments

    def views_at_once(self, size: tuple[int, int]) -> int:
        return 2

    def read(self, source: Source) -> np.ndarray:
        self.read_sources[source] += 1
        return self.clip.read(*source)

    def prepare(self, moment: PickedMoment, pictures: Mapping[Source, np.ndarray]) -> None:
        before, after, share = math.floor(moment.time), math.ceil(moment.time), moment.time % 1
        tensors = {source: torch.from_numpy(picture).permute(2, 0, 1) / 255 for source, picture in pictures.items()}
        self._pictures = {
            camera: (1 - share) * tensors[camera, before] + share * tensors[camera, after] for camera, _ in tensors
        }

    def render(self, moment: PickedMoment, numbers: Sequence[int], *, with_mask: bool = False) -> View:
        color = torch.stack([self._pictures[moment.cameras[number]] for number in numbers])
        ones = torch.ones_like(color[:, :1])
        view = View(color, ones / self.depth, ones)
        return view if len(numbers) > 1 else View(color[0], view.disparity[0], ones[0])


@pytest.fixture(scope="module")
def clip(make_rig, tmp_path_factory: pytest.TempPathFactory) -> RigClip:
    return RigClip.open(make_rig(tmp_path_factory.mktemp("rig") / "frames"))


@pytest.fixture(scope="module")
def shots(clip: RigClip) -> Shots:
    """Six views from the three cameras, at recorded times and between them."""
    return Shots(clip.cameras()[[0, 2, 0, 0, 1, 2]], (0.0, 1.5, 0.0, 0.0, 2.0, 0.25))


def run(clip: RigClip, shots: Shots, folder: RenderFolder) -> tuple[RenderReport, Counter[Source]]:
    method = NearestPicture(clip)
    renderer: Renderer[PickedMoment] = method
    for path in folder.files_of(0):
        path.parent.mkdir(parents=True, exist_ok=True)
    return render_clip(renderer, shots, folder, fps=10, crf=20), method.read_sources


def test_a_method_of_a_few_lines_is_rendered_to_pictures_and_videos(
    clip: RigClip, shots: Shots, tmp_path: Path
) -> None:
    folder = RenderFolder(tmp_path / "out", with_disparity=True)
    report, read = run(clip, shots, folder)
    assert (report.made, report.kept, report.times) == (6, 0, shots.times)
    assert report.indices == (0, 1, 2)
    for number in (0, 2, 3):
        np.testing.assert_array_equal(read_image(folder.frame(number)), clip.read(0, 0))
    np.testing.assert_array_equal(read_image(folder.frame(4)), clip.read(1, 2))
    for number, share, frame in ((1, 0.5, 1), (5, 0.25, 0)):
        mix = (1 - share) * clip.read(2, frame).astype(float) + share * clip.read(2, frame + 1)
        assert np.abs(read_image(folder.frame(number)) - mix).max() <= 0.5 + 1e-3
    near, _ = clip.near_far()
    np.testing.assert_allclose(read_disparity(folder.disparity(1)), near / 4, atol=1e-5)
    assert VideoFrames(folder.video).count == VideoFrames(folder.disparity_video).count == 6
    # Each picture that some view shows was read once for each of its moments, and no other one.
    assert read == {(0, 0): 1, (2, 0): 1, (2, 1): 2, (2, 2): 1, (1, 2): 1}


def test_what_is_missing_is_rendered_from_its_own_pictures_alone(clip: RigClip, shots: Shots, tmp_path: Path) -> None:
    folder = RenderFolder(tmp_path / "out", with_disparity=True)
    run(clip, shots, folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder.frame(1).unlink()
    folder.disparity(4).unlink()
    report, read = run(clip, shots, folder)
    assert (report.made, report.kept) == (2, 4)
    assert read == {(2, 1): 1, (2, 2): 1, (1, 2): 1}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_each_moment_is_announced_once_and_in_order(clip: RigClip, shots: Shots, tmp_path: Path) -> None:
    times: list[float] = []

    def note(time: float, writers: Writers) -> None:
        times.append(time)

    render_clip(NearestPicture(clip), shots, RenderFolder(tmp_path), fps=10, crf=30, with_moment=note)
    assert times == [0.0, 0.25, 1.5, 2.0]


def test_masks_are_not_asked_of_a_method_without(clip: RigClip, shots: Shots, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="masks"):
        render_clip(NearestPicture(clip), shots, RenderFolder(tmp_path, with_mask=True), fps=10, crf=30)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 9))
def test_each_pose_is_the_share_of_one_process(sizes: list[int], world: int) -> None:
    groups: list[tuple[float, list[int]]] = []
    first = 0
    for frame, size in enumerate(sizes):
        groups.append((frame, list(range(first, first + size))))
        first += size
    shares = [share_of(groups, Processes(rank, world)) for rank in range(world)]
    assert sorted(pose for share in shares for pose in share) == list(range(first))
    for _, members in groups:  # what the shots of a moment share is made by one of them
        assert sum(bool(set(members) & set(share)) for share in shares) == 1
    even = first / world
    assert all(abs(len(share) - even) <= max(sizes, default=0) for share in shares)


def test_a_video_holds_all_pictures_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(2 * WAITING + 3)]
    for i, path in enumerate(paths):
        write_image(path, np.full((33, 47, 3), 10 * i, np.uint8))
    encode_video(paths, tmp_path / "v.mp4", fps=25, crf=10)
    video = VideoFrames(tmp_path / "v.mp4")
    assert video.count == len(paths)
    assert video.size == (34, 48)
    for i in range(video.count):
        assert abs(float(video.read(i).mean()) - 10 * i) < 4
