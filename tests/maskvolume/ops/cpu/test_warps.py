"""The compiled loops sweep and render what the reference does, in every type and layout."""

from __future__ import annotations

import pytest
import torch
from helpers import make_camera
from ops_helpers import check_close, smooth_planes, turned_cameras

from maskvolume import ops
from maskvolume.geometry.cameras import stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.image import MultiplaneImage, blend


@pytest.mark.parametrize("premultiplied", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_the_compiled_loops_render_what_the_reference_renders(seed: int, premultiplied: bool) -> None:
    cameras, targets, depths = turned_cameras(seed)
    rgba = smooth_planes(2, 7, 4, 61, 83, seed=seed)
    fast, slow = (
        ops.render_mpi(rgba, cameras, depths, targets, premultiplied=premultiplied, backend=backend)
        for backend in ("compiled", "reference")
    )
    # Coordinates of two float32 roundings, on planes that change by less than 0.1 a pixel.
    check_close(fast, slow, 1e-3)


@pytest.mark.parametrize("premultiplied", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_blend_is_rendered_as_if_it_were_stored(seed: int, premultiplied: bool) -> None:
    cameras, targets, depths = turned_cameras(seed)
    dynamic, background = (
        MultiplaneImage(smooth_planes(2, 7, 4, 61, 83, seed=seed + i), cameras, depths, premultiplied) for i in (0, 50)
    )
    mask = smooth_planes(2, 1, 7, 61, 83, seed=seed + 100)
    stored = blend(mask, dynamic, background).render(targets, "reference")
    for backend in ("compiled", "reference"):
        fused_view = ops.render_blended(
            mask, dynamic.rgba, background.rgba, cameras, depths, targets, premultiplied=premultiplied, backend=backend
        )
        check_close(fused_view, stored, 1e-3)


@pytest.mark.parametrize("size", [(6, 7), (45, 70), (200, 300)])
def test_a_view_from_afar_or_near_is_the_reference_s(size: tuple[int, int]) -> None:
    """Few pixels see many texels of a plane at once, or many pixels few."""
    camera = make_camera(3, size=(120, 180)).to(torch.float32)
    depths = disparity_planes(1.0, 9.0, 5)
    mpi = MultiplaneImage(smooth_planes(5, 4, 120, 180), camera, depths)
    target = camera.scaled(size)
    check_close(mpi.render(target, "compiled"), mpi.render(target, "reference"), 1e-3)


def test_what_lies_behind_opaque_planes_does_not_show() -> None:
    camera, depths = make_camera(0, size=(36, 300)).to(torch.float32), disparity_planes(1.0, 9.0, 4)
    rgba = smooth_planes(4, 4, 36, 300)
    rgba[2, 3] = 1.0
    rgba[3, :, :, 150:] = 0.0  # nothing in front of a half
    behind = rgba.clone()
    behind[:2] = 0.7
    views = [ops.render_mpi(x, camera, depths, camera, backend="compiled") for x in (rgba, behind)]
    check_close(views[0], ops.render_mpi(rgba, camera, depths, camera, backend="reference"), 1e-4)
    torch.testing.assert_close(views[0].color, views[1].color, atol=1e-4, rtol=0)


def test_planes_prepared_for_many_views_look_the_same() -> None:
    camera = make_camera(1).to(torch.float32)
    mpi = MultiplaneImage(torch.rand(5, 4, 36, 64), camera, disparity_planes(1.0, 9.0, 5))
    target = make_camera(2).to(torch.float32)
    assert mpi.prepared().rgba.dtype == ops.stored_dtype(torch.device("cpu"))
    check_close(mpi.prepared().render(target, "compiled"), mpi.render(target, "compiled"), 1e-3)


def test_planes_of_any_memory_layout_are_read_alike() -> None:
    camera, target = (make_camera(seed).to(torch.float32) for seed in (1, 2))
    rgba, depths = torch.rand(5, 4, 36, 64), disparity_planes(1.0, 9.0, 5)
    for other in (rgba.contiguous(memory_format=torch.channels_last), torch.rand(6, 4, 40, 70)[1:, :, 4:, :64]):
        views = [ops.render_mpi(x, camera, depths, target, backend="compiled") for x in (other, other.contiguous())]
        assert torch.equal(views[0].color, views[1].color)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_planes_of_few_bits_are_rendered_as_their_values(kind: torch.dtype, backend: str) -> None:
    camera, target = (make_camera(seed).to(torch.float32) for seed in (1, 2))
    depths = disparity_planes(1.0, 9.0, 5)
    rgba = smooth_planes(5, 4, 36, 64)
    stored = (rgba * 255).round().to(kind) if kind == torch.uint8 else rgba.to(kind)
    values = stored.float() / 255 if kind == torch.uint8 else stored.float()
    view = ops.render_mpi(stored, camera, depths, target, backend=backend)
    assert view.color.dtype == torch.float32
    check_close(view, ops.render_mpi(values, camera, depths, target, backend="reference"), 2e-5)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_a_path_of_targets_is_rendered_as_one_by_one(backend: str) -> None:
    camera, depths = make_camera(0).to(torch.float32), disparity_planes(1.0, 9.0, 5)
    targets = stack_cameras([make_camera(seed).to(torch.float32) for seed in range(1, 4)])
    mpi = MultiplaneImage(smooth_planes(5, 4, 36, 64), camera, depths)
    path = mpi.render(targets, backend)
    assert path.color.shape == (3, 3, 36, 64)
    for i in range(3):
        assert torch.equal(path.color[i], mpi.render(targets[i], backend).color)
        assert torch.equal(path.disparity[i], mpi.render(targets[i], backend).disparity)
    with pytest.raises(ValueError, match="target: batch axes"):
        mpi.render(targets[None], backend)


@pytest.mark.parametrize("sampling", ["exact", "original"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(3))
def test_the_compiled_loops_sweep_as_the_reference_does(seed: int, kind: torch.dtype, sampling: ops.Sampling) -> None:
    reference = make_camera(seed, size=(37, 51)).to(torch.float32)
    near = [make_camera(seed + 10 + i, size=(45, 140)).to(torch.float32) for i in range(2)]
    behind = make_camera(seed + 20, size=(45, 140), shift=2.0, turn=1.0).to(torch.float32)
    sources = stack_cameras([reference.scaled((45, 140)), *near, behind])
    images = smooth_planes(4, 3, 45, 140, seed=seed).to(kind)
    depths = disparity_planes(0.6, 9.0, 6)
    fast, slow = (
        ops.sweep_planes(images, sources, reference, depths, sampling=sampling, backend=backend)
        for backend in ("compiled", "reference")
    )
    assert fast.dtype == kind
    assert 0.1 < (fast[1:] > -0.5).float().mean() < 1
    # A point on a picture's border is in or out by the last bit of its coordinate.
    wrong = (fast.float() - slow.float()).abs() > {torch.float32: 1e-3}.get(kind, 1e-2)
    assert wrong.float().mean() < 1e-3
    if sampling == "exact":
        assert ((fast == ops.NO_DATA) != (slow == ops.NO_DATA)).float().mean() < 1e-3


def test_threads_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras, targets, depths = turned_cameras(1)
    rgba = smooth_planes(2, 7, 4, 61, 83)
    alone = ops.render_mpi(rgba, cameras, depths, targets, backend="compiled")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = ops.render_mpi(rgba, cameras, depths, targets, backend="compiled")
    assert torch.equal(alone.color, together.color)
