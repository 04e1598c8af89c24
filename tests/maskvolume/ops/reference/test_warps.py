"""Laws of the plane sweep and of rendering multiplane images, for every implementation of this device."""

import pytest
import torch
import torch.nn.functional as F
from helpers import look_at_plane, make_camera

from maskvolume import ops
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.image import MultiplaneImage, blend


def to_float(camera: Camera) -> Camera:
    return camera.to(torch.float32)


@pytest.mark.parametrize("size", [(36, 64), (37, 51)])
def test_sweep_shows_a_plane_at_its_depth_alike_in_all_views(size: tuple[int, int]) -> None:
    reference = make_camera(0, size=size)
    sources = [make_camera(seed, size=(45, 63)) for seed in (1, 2, 3)]
    depths = torch.tensor([8.0, 3.0, 1.5], dtype=torch.float64)
    images = torch.stack([look_at_plane(source, reference, 3.0) for source in sources])
    swept = ops.sweep_planes(images, stack_cameras(sources), reference, depths)
    assert swept.shape == (3, 3, 3, *size)
    truth = look_at_plane(reference, reference, 3.0)
    error = (swept[:, :, 1] - truth).abs()
    seen = swept[:, :, 1] > -0.5
    assert seen.double().mean() > 0.6
    # Half a pixel inside a source's border the outermost pixel is repeated: half a pixel's change of texture at most.
    assert error[seen].max() < 0.02
    assert error[seen].median() < 0.001
    assert (swept[:, :, 2] - truth).abs()[swept[:, :, 2] > -0.5].max() > 0.05  # a wrong plane does not match


def test_sweep_of_the_reference_is_itself_on_every_plane() -> None:
    camera = to_float(make_camera(3))
    image = torch.rand(1, 3, *camera.size)
    depths = disparity_planes(1.0, 10.0, 5)
    swept = ops.sweep_planes(image, stack_cameras([camera]), camera, depths)
    torch.testing.assert_close(swept[0], image[0][:, None].expand(-1, 5, -1, -1), atol=1e-5, rtol=0)


def test_sweep_into_a_padded_frustum_is_shifted_and_marked() -> None:
    camera = to_float(make_camera(3))
    image = torch.rand(1, 3, *camera.size)
    swept = ops.sweep_planes(image, stack_cameras([camera]), camera.padded(4), disparity_planes(1.0, 10.0, 2))
    torch.testing.assert_close(swept[0, :, 0, 4:-4, 4:-4], image[0], atol=1e-4, rtol=0)
    border = swept.clone()
    border[..., 4:-4, 4:-4] = -1
    assert (border == -1).all()


def test_original_sampling_is_half_a_pixel_off_at_the_borders() -> None:
    camera = to_float(make_camera(3))
    ramp = (torch.arange(64.0) + 0.5).expand(1, 3, 36, 64) / 64
    swept = ops.sweep_planes(ramp, stack_cameras([camera]), camera, disparity_planes(1.0, 10.0, 1), sampling="original")
    error = (swept[0, 0, 0, 18] - ramp[0, 0, 18]) * 64
    # u / W * 2 - 1 with align_corners=True reads index u (W - 1) / W, whose centre lies at u - u / W + 0.5.
    expected = 0.5 - (torch.arange(64.0) + 0.5) / 64
    torch.testing.assert_close(error[1:-1], expected[1:-1], atol=1e-3, rtol=0)


def test_sweep_behind_a_source_is_no_data() -> None:
    reference = to_float(make_camera(0, shift=0, turn=0))
    T = reference.T_cam_world.clone()
    T[2, 3] = -5.0  # five units ahead of the reference
    source = Camera(T, reference.K, reference.size)
    swept = ops.sweep_planes(torch.rand(1, 3, 36, 64), stack_cameras([source]), reference, torch.tensor([8.0, 3.0]))
    assert (swept[:, :, 1] == -1).all()
    assert (swept[:, :, 0] >= 0).any()


def test_sweep_is_batched() -> None:
    cameras = [[to_float(make_camera(10 * b + v)) for v in range(2)] for b in range(3)]
    sources = Camera(
        torch.stack([stack_cameras(row).T_cam_world for row in cameras]),
        torch.stack([stack_cameras(row).K for row in cameras]),
        cameras[0][0].size,
    )
    reference = stack_cameras([row[0] for row in cameras])
    images, depths = torch.rand(3, 2, 3, 36, 64), torch.stack([disparity_planes(1.0 + b, 20.0, 6) for b in range(3)])
    swept = ops.sweep_planes(images, sources, reference, depths)
    for b in range(3):
        alone = ops.sweep_planes(images[b], sources[b], reference[b], depths[b])
        torch.testing.assert_close(swept[b], alone)


def test_sweep_in_bfloat16_keeps_float32_coordinates() -> None:
    sources = stack_cameras([to_float(make_camera(1, size=(90, 160))), to_float(make_camera(2, size=(90, 160)))])
    images, depths = torch.rand(2, 3, 90, 160), disparity_planes(1.0, 20.0, 4)
    full = ops.sweep_planes(images, sources, sources[0], depths)
    half = ops.sweep_planes(images.bfloat16(), sources, sources[0], depths)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 1e-2  # two roundings of values up to 1 at 8 bits


def composite_by_definition(rgba: torch.Tensor, depths: torch.Tensor) -> tuple[torch.Tensor, ...]:
    alpha = rgba[:, 3]
    weights = [alpha[i] * torch.prod(1 - alpha[i + 1 :], dim=0) for i in range(len(depths))]
    color = sum(w * rgba[i, :3] for i, w in enumerate(weights))
    return color, sum(weights), sum(w / depths[i] for i, w in enumerate(weights))  # type: ignore[return-value]


@pytest.mark.parametrize("count", [1, 5, 11])
def test_composite_is_its_definition(count: int) -> None:
    rgba, depths = torch.rand(count, 4, 7, 9), disparity_planes(1.0, 10.0, count)
    color, opacity, disparity = composite_by_definition(rgba, depths)
    straight = ops.composite(rgba, depths, premultiplied=False)
    torch.testing.assert_close(straight.color, color)
    torch.testing.assert_close(straight.opacity[0], opacity)
    torch.testing.assert_close(straight.disparity[0], disparity)
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
    torch.testing.assert_close(ops.composite(premultiplied, depths).color, color)


@pytest.mark.parametrize("premultiplied", [True, False])
def test_rendering_from_the_own_camera_is_compositing(premultiplied: bool) -> None:
    camera = to_float(make_camera(5, size=(31, 47)))
    rgba, depths = torch.rand(9, 4, 31, 47), disparity_planes(1.0, 10.0, 9)
    mpi = MultiplaneImage(rgba, camera, depths, premultiplied)
    torch.testing.assert_close(mpi.render(camera).color, mpi.composite().color, atol=2e-4, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_an_opaque_plane_looks_as_from_the_target(seed: int) -> None:
    camera, target = make_camera(seed, size=(60, 80)).padded(30), make_camera(seed + 50, size=(33, 57))
    depths = torch.tensor([6.0, 2.5, 1.2], dtype=torch.float64)
    rgba = torch.zeros(3, 4, *camera.size, dtype=torch.float64)
    rgba[1, :3], rgba[1, 3] = look_at_plane(camera, camera, 2.5), 1
    rendering = MultiplaneImage(rgba, camera, depths).render(target)
    seen = rendering.opacity[0] > 0.999
    assert seen.double().mean() > 0.5
    error = (rendering.color - look_at_plane(target, camera, 2.5)).abs()
    assert error[:, seen].max() < 0.01
    torch.testing.assert_close(
        rendering.disparity[0][seen], torch.full_like(rendering.disparity[0][seen], 1 / 2.5), atol=1e-3, rtol=0
    )


def test_planes_behind_the_target_do_not_show() -> None:
    camera = to_float(make_camera(0, shift=0, turn=0))
    T = camera.T_cam_world.clone()
    T[2, 3] = -2.0  # two units ahead: the plane at 1 lies behind, the one at 4 in front
    rgba = torch.zeros(2, 4, *camera.size)
    rgba[1] = 1  # near, opaque, white
    target = Camera(T, camera.K, camera.size)
    rendering = ops.render_mpi(rgba, camera, torch.tensor([4.0, 1.0]), target)
    assert rendering.opacity.abs().max() == 0
    rgba[0] = 1
    assert ops.render_mpi(rgba, camera, torch.tensor([4.0, 1.0]), target).opacity[0, 18, 32] == 1


def test_a_target_on_a_plane_or_turned_away_renders_finite() -> None:
    camera = to_float(make_camera(0, shift=0, turn=0))
    rgba, depths = torch.rand(3, 4, *camera.size), torch.tensor([4.0, 2.0, 1.0])
    for z, flip in ((-2.0, 1.0), (0.0, -1.0)):
        T = camera.T_cam_world.clone()
        T[2, 3] = z
        T[0, 0], T[2, 2] = flip, flip
        rendering = ops.render_mpi(rgba, camera, depths, Camera(T, camera.K, camera.size))
        assert torch.isfinite(rendering.color).all()
        if flip < 0:
            assert rendering.opacity.max() == 0


def test_premultiplied_borders_do_not_darken() -> None:
    camera = to_float(make_camera(0, shift=0, turn=0))
    rgba = torch.zeros(1, 4, *camera.size)
    rgba[:, :, 8:28, 16:48] = torch.tensor([0.8, 0.8, 0.8, 1.0])[:, None, None]
    T = camera.T_cam_world.clone()
    T[0, 3] = 0.5 * 2.0 / camera.K[0, 0]  # half a pixel at depth 2
    rendering = ops.render_mpi(rgba, camera, torch.tensor([2.0]), Camera(T, camera.K, camera.size))
    inside = rendering.opacity > 0.1
    ratio = (rendering.color[:1] / rendering.opacity.clamp_min(1e-6))[inside]
    assert ((rendering.opacity > 0.4) & (rendering.opacity < 0.6)).any()  # the border is antialiased
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.8), atol=1e-4, rtol=0)


def test_render_is_batched_and_differentiable() -> None:
    cameras = stack_cameras([to_float(make_camera(i)) for i in range(2)])
    targets = stack_cameras([to_float(make_camera(i + 7, size=(20, 30))) for i in range(2)])
    depths = torch.stack([disparity_planes(1.0, 9.0, 4), disparity_planes(2.0, 9.0, 4)])
    rgba = torch.rand(2, 4, 4, 36, 64, requires_grad=True)
    rendering = ops.render_mpi(rgba, cameras, depths, targets)
    assert rendering.color.shape == (2, 3, 20, 30)
    alone = ops.render_mpi(rgba[1], cameras[1], depths[1], targets[1])
    torch.testing.assert_close(rendering.color[1], alone.color)
    rendering.color.sum().backward()
    assert rgba.grad is not None
    assert rgba.grad.abs().sum() > 0


def test_gradients_are_right() -> None:
    camera, target = make_camera(0, size=(5, 6)), make_camera(1, size=(4, 5))
    depths = disparity_planes(1.0, 9.0, 3, dtype=torch.float64)
    rgba = torch.rand(3, 4, 5, 6, dtype=torch.float64) * 0.8 + 0.1

    def color(x: torch.Tensor) -> torch.Tensor:
        return ops.render_mpi(x, camera, depths, target).color

    assert torch.autograd.gradcheck(color, (rgba.requires_grad_(),))


def test_blend_interpolates_colour_and_opacity() -> None:
    camera, depths = to_float(make_camera(0)), disparity_planes(1.0, 9.0, 3)
    a, b = (MultiplaneImage(torch.rand(3, 4, 36, 64), camera, depths) for _ in range(2))
    ones = torch.ones(1, 3, 36, 64)
    torch.testing.assert_close(blend(ones, a, b).rgba, a.rgba)
    torch.testing.assert_close(blend(0 * ones, a, b).rgba, b.rgba)
    torch.testing.assert_close(blend(0.25 * ones, a, b).rgba, 0.25 * a.rgba + 0.75 * b.rgba)
    with pytest.raises(ValueError, match="premultiplied"):
        blend(ones, a, MultiplaneImage(b.rgba, camera, depths, premultiplied=False))


def test_warp_agrees_with_a_per_pixel_loop() -> None:
    reference, source = to_float(make_camera(1, size=(9, 11))), to_float(make_camera(2, size=(10, 12)))
    image, depths = torch.rand(1, 3, 10, 12), torch.tensor([3.0, 1.7])
    swept = ops.sweep_planes(image, stack_cameras([source]), reference, depths)
    T = source.T_cam_world @ torch.linalg.inv(reference.T_cam_world)
    for d, depth in enumerate(depths):
        for y in range(9):
            for x in range(11):
                ray = torch.linalg.inv(reference.K) @ torch.tensor([x + 0.5, y + 0.5, 1.0])
                p = source.K @ (T[:3, :3] @ (ray * depth) + T[:3, 3])
                u, v = p[0] / p[2], p[1] / p[2]
                inside = 0 <= u <= 12 and 0 <= v <= 10 and p[2] > 0
                grid = torch.tensor([[[[u / 12 * 2 - 1, v / 10 * 2 - 1]]]])
                value = F.grid_sample(image, grid, padding_mode="border", align_corners=False)[0, :, 0, 0]
                expected = value if inside else torch.full((3,), -1.0)
                torch.testing.assert_close(swept[0, :, d, y, x], expected, atol=1e-4, rtol=0)
