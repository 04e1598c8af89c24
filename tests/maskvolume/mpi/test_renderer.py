"""Laws of the frustum's choice and of the renderer."""

import gc
import weakref
from pathlib import Path

from helpers import make_camera

from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.mpi.renderer import (
    MARGIN_MULTIPLE,
    MAX_MARGIN,
    ClipRenderer,
    choose_frustum,
)


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
