"""Which pose looks at which frame, what is made once, and the threads around the computing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.paths import render_path
from maskvolume.io.images import write_image
from maskvolume.io.video import VideoFrames
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.rendering.loop import encode_video, make_backgrounds, render_clip
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.pictures import (
    color_map,
    disparity_to_uint16,
    read_disparity,
    to_bytes,
    to_steps,
    to_uint8,
)
from maskvolume.rendering.shots import (
    fixed_camera,
    fixed_shots,
    path_shots,
    time_order,
)
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.prefetch import WAITING, Writers


@pytest.fixture
def clip(tiny_rig: Path) -> RigClip:
    opened = RigClip.open(tiny_rig)
    make_backgrounds(opened, range(3), opened.background_dir, keep=True)
    return opened


def test_time_order() -> None:
    assert time_order("loop", 3) == (0, 1, 2)
    assert time_order("pingpong", 4) == (0, 1, 2, 3, 2, 1)
    assert time_order("pingpong", 1) == (0,)
    assert time_order("pingpong", 2) == (0, 1)
    assert time_order("fix:2", 3) == (2,)


@pytest.mark.parametrize("mode", ["fix", "fix:", "fix:-1", "fix:3", "fix:x", "bounce", ""])
def test_an_impossible_time_is_an_input_error(mode: str) -> None:
    with pytest.raises(InputError, match="time: "):
        time_order(mode, 3)


def test_a_path_wraps_time_around_the_clip(clip: RigClip) -> None:
    path = clip.cameras()[[0, 1, 2, 1, 0, 1, 2]]
    assert path_shots(path, "loop", 3).frames == (0, 1, 2, 0, 1, 2, 0)
    assert path_shots(path, "pingpong", 3).frames == (0, 1, 2, 1, 0, 1, 2)
    assert path_shots(path, "fix:1", 3).frames == (1,) * 7
    assert path_shots(path, "loop", 3, count=2).frames == (0, 1)
    assert len(path_shots(path, "loop", 3, count=99)) == 7


def test_a_fixed_view_lasts_one_pass_through_time_or_as_long_as_asked(clip: RigClip) -> None:
    camera = clip.cameras()[1]
    shots = fixed_shots(camera, "loop", 3)
    assert shots.frames == (0, 1, 2)
    assert torch.equal(shots.targets[2].T_cam_world, camera.T_cam_world)
    assert fixed_shots(camera, "pingpong", 3).frames == (0, 1, 2, 1)
    assert fixed_shots(camera, "loop", 3, count=5).frames == (0, 1, 2, 0, 1)


def test_view_names_a_camera_by_name_or_number(clip: RigClip) -> None:
    assert fixed_camera("path", clip) is None
    assert fixed_camera("fix:cam02", clip) == 2
    assert fixed_camera("fix:1", clip) == 1
    for view in ("fix:7", "fix:", "fix", "cam01", "fix:cam09"):
        with pytest.raises(InputError):
            fixed_camera(view, clip)


class CountingClip:
    """A clip that counts what is read of it."""

    def __init__(self, clip: RigClip) -> None:
        self.clip = clip
        self.size = clip.size
        self.cameras, self.near_far = clip.cameras, clip.near_far
        self.frames: Counter[tuple[int, int]] = Counter()
        self.backgrounds: Counter[int] = Counter()
        self.threads: set[int] = set()

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        self.frames[camera, frame] += 1
        self.threads.add(threading.get_ident())
        return self.clip.read(camera, frame, size)

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        self.backgrounds[camera] += 1
        return self.clip.read_background(camera, size)


def test_only_what_is_used_is_decoded_and_everything_is_made_once(
    clip: RigClip, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    for name in ("background", "frame"):
        real = getattr(MaskVolumeModel, name)

        def counted(self, *args, real=real, name=name):
            calls[name] += 1
            return real(self, *args)

        monkeypatch.setattr(MaskVolumeModel, name, counted)
    counting = CountingClip(clip)
    path = render_path(clip.poses, "circle", 4).scaled(clip.size)
    shots = path_shots(path, "pingpong", 2)
    renderer = ClipRenderer(counting, load_model(weights), (2, 1), targets=path)
    report = render_clip(renderer, shots, RenderFolder(tmp_path), fps=10, crf=30)
    assert (report.made, report.kept) == (8, 0)
    assert calls == {"background": 1, "frame": 2}
    assert counting.frames == {(camera, frame): 1 for camera in (2, 1) for frame in (0, 1)}
    assert counting.backgrounds == {2: 1, 1: 1}
    assert threading.get_ident() not in counting.threads


def test_a_stage_one_model_needs_no_background(clip: RigClip, stage_one_weights: Path) -> None:
    counting = CountingClip(clip)
    renderer = ClipRenderer(counting, load_model(stage_one_weights), (0, 1), targets=clip.cameras())
    view = renderer.render(0, clip.cameras()[1])
    assert view.color.shape == (3, 48, 64)
    assert not counting.backgrounds


def test_the_view_of_the_reference_is_its_picture(clip: RigClip, weights: Path) -> None:
    """Where an MPI is looked at from its own camera, it shows a mix of what the sources see there."""
    renderer = ClipRenderer(clip, load_model(weights), (1, 0), targets=clip.cameras()[1:2])
    view = renderer.render(1, clip.cameras()[1], with_mask=True)
    assert float(view.opacity.min()) > 0.99
    assert float(view.color.min()) >= 0
    assert float(view.color.max()) <= 1 + 1e-4
    assert view.mask is not None
    assert float(view.mask.min()) >= 0
    assert float(view.mask.max()) <= 1 + 1e-4
    near, far = clip.near_far()
    assert 1 / far * 0.99 <= float(view.disparity.min())
    assert float(view.disparity.max()) <= 1 / near * 1.01


def test_the_target_may_have_any_size_and_float_type(clip: RigClip, weights: Path) -> None:
    renderer = ClipRenderer(clip, load_model(weights), (1, 0), targets=clip.cameras(), size=(37, 51))
    target = clip.poses.cameras[2].scaled((29, 77))
    assert target.K.dtype == torch.float64
    assert renderer.render(0, target).color.shape == (3, 29, 77)


def submit_until_it_raises(writers: Writers, function: Callable[[], None]) -> None:
    for _ in range(1000):
        writers.submit(function)
        time.sleep(0.001)


def test_writers_raise_the_error_of_a_thread() -> None:
    def fail() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), Writers() as writers:
        writers.submit(fail)
    with Writers() as writers:
        with pytest.raises(OSError, match="no room"):
            submit_until_it_raises(writers, fail)
        writers.submit(int)


def test_writers_are_joined_and_bounded() -> None:
    release, finished = threading.Event(), []

    def work(number: int) -> None:
        release.wait(10)
        finished.append(number)

    with Writers() as writers:
        for number in range(WAITING):
            writers.submit(work, number)
        blocked = threading.Thread(target=writers.submit, args=(work, WAITING))
        blocked.start()
        blocked.join(0.1)
        assert blocked.is_alive(), "more calls wait than are allowed"
        release.set()
        blocked.join(10)
    assert sorted(finished) == list(range(WAITING + 1))


def test_an_interruption_drops_what_waits_but_joins_what_runs() -> None:
    finished = []

    def work(number: int) -> None:
        time.sleep(0.05)
        finished.append(number)

    def submit_and_interrupt() -> None:
        with Writers() as writers:
            for number in range(WAITING):
                writers.submit(work, number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit_and_interrupt()
    left = len(finished)
    assert left < WAITING
    time.sleep(0.1)
    assert len(finished) == left


def test_disparity_survives_the_file(tmp_path: Path) -> None:
    near = 1.35
    disparity = torch.linspace(0.05, 1 / near, 48 * 64).reshape(1, 48, 64)
    write_image(tmp_path / "d.png", disparity_to_uint16(disparity, near))
    read = read_disparity(tmp_path / "d.png") / near
    np.testing.assert_allclose(read, disparity[0].numpy(), atol=0.51 / near / 65535)
    colors = color_map(read_disparity(tmp_path / "d.png"), lowest=0.05 * near)
    assert colors.shape == (48, 64, 3)
    brightness = colors.astype(int).sum(-1).ravel()
    assert brightness[0] < 30
    assert brightness[-1] > 600


def test_to_uint8_clamps_and_rounds() -> None:
    image = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.7]).expand(3, 1, 5)
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(image[:1]).shape == (1, 5)


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


def test_views_of_a_frame_rendered_at_once_are_those_rendered_one_by_one(
    clip: RigClip, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render_path(clip.poses, "spiral", 7).scaled(clip.size)[:7]
    shots = path_shots(path, "fix:1", 3)
    launches: list[tuple[int, ...]] = []
    real = ClipRenderer.render

    def counted(self, frame, target, **options):
        launches.append(tuple(target.batch_shape))
        return real(self, frame, target, **options)

    monkeypatch.setattr(ClipRenderer, "render", counted)
    for at_once in (1, 3):
        monkeypatch.setattr(ClipRenderer, "views_at_once", lambda *_, at_once=at_once: at_once)
        renderer = ClipRenderer(clip, load_model(weights), (2, 1), targets=path, stored=True, masks=True)
        folder = RenderFolder(tmp_path / str(at_once), with_disparity=True, with_mask=True)
        render_clip(renderer, shots, folder, fps=10, crf=30)
    assert launches == [(), (), (), (), (), (), (), (3,), (3,), ()]
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.png"))
    assert len(files) == 3 * 7
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "3" / file).read_bytes(), file


def test_pixels_of_views_on_a_device_are_those_of_each_view() -> None:
    """What is asked of bytes and steps, said in another way; and that a batch changes nothing."""
    torch.manual_seed(0)
    near = 1.35
    images, disparities = torch.rand(4, 3, 9, 11) * 1.4 - 0.2, torch.rand(4, 1, 9, 11) / near * 1.1
    pixels, steps = to_bytes(images).numpy(), to_steps(disparities, near).numpy().view(np.uint16)
    for image, disparity, got, got_steps in zip(images, disparities, pixels, steps, strict=True):
        np.testing.assert_array_equal(got, to_uint8(image))
        np.testing.assert_array_equal(got, np.round(image.clamp(0, 1).numpy() * np.float32(255)).transpose(1, 2, 0))
        np.testing.assert_array_equal(got_steps, disparity_to_uint16(disparity, near))
        exact = np.clip(disparity[0].numpy().astype(np.float64) * near, 0, 1) * 65535
        np.testing.assert_array_equal(got_steps, np.round(exact))
    assert steps.max() == 65535


@pytest.mark.parametrize(("arch", "multiple"), [("matching", 8), ("original", 1)])
def test_local_networks_get_planes_on_their_grid(clip: RigClip, arch: str, multiple: int) -> None:
    model = MaskVolumeModel(CheckpointMeta("mask", arch, num_planes=8))
    targets = clip.cameras((43, 61))
    camera = ClipRenderer(clip, model, (1, 0), targets=targets[1:2], size=(43, 61), margin=0).camera
    assert camera.size == ((48, 64) if multiple == 8 else (43, 61))
    assert torch.equal(camera.K, targets[1].K)
