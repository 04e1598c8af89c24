"""Laws of the frustum's choice and of filling what no plane covers."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
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
from maskvolume.ops import Rendering, fill_unseen, filling


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


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (1, 5)])
def test_filling_keeps_what_is_seen_and_invents_no_new_colour(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    color = torch.rand(3, *size) * 0.5 + 0.25
    opacity = torch.ones(1, *size)
    opacity[..., : size[1] // 3] = 0
    filled = fill_unseen(Rendering(color * opacity, opacity, opacity * 0.5))
    torch.testing.assert_close(filled.color * opacity, color * opacity)
    assert filled.color.min() > 0.2
    assert filled.color.max() < 0.8
    torch.testing.assert_close(filled.disparity, torch.full_like(filled.disparity, 0.5), atol=1e-4, rtol=0)


def test_filling_a_half_covered_pixel_does_not_darken_it() -> None:
    opacity = torch.ones(1, 16, 16)
    opacity[..., 8] = 0.5
    filled = fill_unseen(Rendering(0.6 * opacity.expand(3, -1, -1), opacity, 0.2 * opacity))
    torch.testing.assert_close(filled.color, torch.full((3, 16, 16), 0.6), atol=1e-3, rtol=0)


def test_views_are_filled_each_by_itself() -> None:
    torch.manual_seed(0)
    color, opacity = torch.rand(3, 3, 18, 30), torch.ones(3, 1, 18, 30)
    opacity[1, :, :, 20:] = 0
    views = Rendering(color * opacity, opacity, 0.4 * opacity)
    filled = fill_unseen(views)
    for index in range(3):
        alone = fill_unseen(Rendering(views.color[index], opacity[index], views.disparity[index]))
        assert torch.equal(filled.color[index], alone.color)
        assert torch.equal(filled.disparity[index], alone.disparity)
    assert torch.equal(filled.color[0], color[0])


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (3, 5), (2, 7)])
def test_filling_by_compiled_loops_is_that_of_plain_torch(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    opacity = ((torch.rand(2, 1, *size, generator=generator) - 0.3) * 3).clamp(0, 1)
    opacity[..., : size[1] // 2] = 0
    views = Rendering(torch.rand(2, 3, *size, generator=generator) * opacity, opacity, opacity * 0.5)
    assert filling._loops() is not None
    fast = fill_unseen(views)
    monkeypatch.setattr(filling, "_loops", lambda: None)
    slow = fill_unseen(views)
    torch.testing.assert_close(fast.color, slow.color, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.disparity, slow.disparity, atol=1e-5, rtol=0)


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
