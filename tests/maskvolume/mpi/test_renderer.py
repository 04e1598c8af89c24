"""Laws of the frustum's choice and of views from one reference."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_camera

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.paths import render_path
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.renderer import (
    MARGIN_MULTIPLE,
    MAX_MARGIN,
    ClipRenderer,
    RenderSettings,
    choose_frustum,
)
from maskvolume.mpi.session import make_backgrounds
from maskvolume.rendering.loop import render_clip
from maskvolume.rendering.output_folder import RenderFolder
from maskvolume.rendering.shots import path_shots


@pytest.fixture(scope="module")
def clip(make_rig, tmp_path_factory: pytest.TempPathFactory) -> RigClip:
    opened = RigClip.open(make_rig(tmp_path_factory.mktemp("rig") / "frames"))
    make_backgrounds(opened, range(3), opened.background_dir, keep=True)
    return opened


def camera_at(x: float, size: tuple[int, int] = (36, 64)) -> Camera:
    camera = make_camera(0, size=size, shift=0, turn=0)
    T = camera.T_cam_world.clone()
    T[0, 3] = -x
    return Camera(T, camera.K, size)


def test_a_target_at_the_reference_needs_no_margin() -> None:
    sources = stack_cameras([camera_at(0), camera_at(0.2)])
    frustum = choose_frustum(sources[0], sources, stack_cameras([camera_at(0)]), 2.0, 20.0)
    assert (frustum.top, frustum.bottom, frustum.left, frustum.right) == (0, 0, 0, 0)


def test_the_margin_lies_on_the_side_of_the_target_and_holds_it() -> None:
    sources = stack_cameras([camera_at(0), camera_at(0.2)])
    target = camera_at(0.1)
    frustum = choose_frustum(sources[0], sources, stack_cameras([target]), 2.0, 20.0)
    assert frustum.left == 0
    assert frustum.right % MARGIN_MULTIPLE == 0
    reach = 0.1 * float(target.K[0, 0]) / 2.0  # disparity of the target at the nearest plane
    assert reach <= frustum.right < reach + MARGIN_MULTIPLE
    wider = frustum.apply(sources[0])
    assert wider.size == (36, 64 + frustum.right)


def test_the_margin_is_no_wider_than_what_a_source_sees_nor_than_the_limit() -> None:
    sources = stack_cameras([camera_at(0), camera_at(0.05)])
    far_out = stack_cameras([camera_at(-3.0), camera_at(3.0)])
    frustum = choose_frustum(sources[0], sources, far_out, 2.0, 20.0)
    assert frustum.left == 0  # no source looks there
    seen = 0.05 * float(sources[0].K[0, 0]) / 2.0
    assert frustum.right < seen + MARGIN_MULTIPLE
    everywhere = stack_cameras([camera_at(0), camera_at(5.0), camera_at(-5.0)])
    frustum = choose_frustum(everywhere[0], everywhere, far_out, 2.0, 20.0)
    assert frustum.left == frustum.right <= MAX_MARGIN * 64 + MARGIN_MULTIPLE


def test_a_renderer_that_nobody_holds_is_let_go_at_once(tiny_rig: Path) -> None:
    clip = RigClip.open(tiny_rig)
    targets = clip.cameras()
    renderer = ClipRenderer(clip, MaskVolumeModel(CheckpointMeta("mpi", "semiglobal", 4)), (0, 1), targets=targets)
    renderer.render(0, targets[1])
    held = weakref.ref(renderer)
    gc.disable()  # its planes are gigabytes, which the collector knows nothing of
    try:
        del renderer
        assert held() is None
    finally:
        gc.enable()


class CountingClip:
    """A clip that counts what is read of it."""

    def __init__(self, clip: RigClip) -> None:
        self.clip = clip
        self.names, self.num_frames, self.size = clip.names, clip.num_frames, clip.size
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
    report = render_clip(BlendedRenderer([renderer]), shots, RenderFolder(tmp_path), fps=10, crf=30)
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
    renderer = ClipRenderer(clip, load_model(weights), (1, 0), RenderSettings((37, 51)), targets=clip.cameras())
    target = clip.poses.cameras[2].scaled((29, 77))
    assert target.K.dtype == torch.float64
    assert renderer.render(0, target).color.shape == (3, 29, 77)


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
        renderer = ClipRenderer(
            clip, load_model(weights), (2, 1), RenderSettings(stored=True, masks=True), targets=path
        )
        folder = RenderFolder(tmp_path / str(at_once), with_disparity=True, with_mask=True)
        render_clip(BlendedRenderer([renderer]), shots, folder, fps=10, crf=30)
    assert launches == [(), (), (), (), (), (), (), (3,), (3,), ()]
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.png"))
    assert len(files) == 3 * 7
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "3" / file).read_bytes(), file


@pytest.mark.parametrize(("arch", "multiple"), [("matching", 8), ("original", 1)])
def test_local_networks_get_planes_on_their_grid(clip: RigClip, arch: str, multiple: int) -> None:
    model = MaskVolumeModel(CheckpointMeta("mask", arch, num_planes=8))
    targets = clip.cameras((43, 61))
    camera = ClipRenderer(clip, model, (1, 0), RenderSettings((43, 61), margin=0), targets=targets[1:2]).camera
    assert camera.size == ((48, 64) if multiple == 8 else (43, 61))
    assert torch.equal(camera.K, targets[1].K)
