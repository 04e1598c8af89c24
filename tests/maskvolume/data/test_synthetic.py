"""Random worlds: same seed same bits, and the laws that tie pictures, cameras, depths and mattes together."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.data.synthetic import SyntheticSample, WorldOptions, sample_worlds
from maskvolume.data.synthetic.raycast import RayCaster
from maskvolume.geometry.cameras import Camera, relative_pose

TEXTURES = 24  # a small bank is quick to make
CLEAN = WorldOptions(
    size=(60, 80), num_textures=TEXTURES, source_depth=True, gain=0, white_balance=0, blur=0, noise=0,
    block_noise_share=0,
)  # fmt: skip
MOVING = replace(CLEAN, moving=True, shadow_share=0.0)


@pytest.fixture(scope="module")
def clean() -> SyntheticSample:
    return sample_worlds(CLEAN, 6, generator=3, device="cpu")


@pytest.fixture(scope="module")
def moving() -> SyntheticSample:
    return sample_worlds(MOVING, 6, generator=4, device="cpu")


def warp_to_target(images: Tensor, source: Camera, target: Camera, depth: Tensor) -> tuple[Tensor, Tensor]:
    """``images [B, C, H, W]`` of ``source [B]`` seen from ``target [B]`` at its ``depth [B, 1, h, w]``, and
    the depth ``[B, 1, h, w]`` of those points in the source."""
    h, w = depth.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
    points = torch.linalg.inv(target.K) @ pixels * depth.flatten(2)
    T = relative_pose(source, target)
    seen = source.K @ (T[:, :3, :3] @ points + T[:, :3, 3:])
    at = (seen[:, :2] / seen[:, 2:]).view(-1, 2, h, w)
    H, W = images.shape[-2:]
    grid = torch.stack([at[:, 0] * (2 / W) - 1, at[:, 1] * (2 / H) - 1], dim=-1)
    warped = F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
    inside = grid.abs().amax(-1) < 1
    return warped, torch.where(inside[:, None], seen[:, 2:].view(-1, 1, h, w), torch.nan)


def test_same_seed_gives_same_bits_and_another_does_not() -> None:
    options = replace(MOVING, noise=0.01, blur=0.5, block_noise_share=1.0, source_depth=True, instants=2)
    first, again, other = (sample_worlds(options, 2, generator=seed, device="cpu") for seed in (5, 5, 6))
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(again, field.name)
        pairs = [(a.K, b.K), (a.T_cam_world, b.T_cam_world)] if isinstance(a, Camera) else [(a, b)]
        assert all(torch.equal(x, y) for x, y in pairs), field.name
    assert not torch.equal(first.images, other.images)


def test_a_generator_is_drawn_from() -> None:
    def draw() -> list[Tensor]:
        generator = torch.Generator().manual_seed(9)
        return [sample_worlds(CLEAN, 1, generator=generator, device="cpu").images for _ in range(2)]

    one, two = draw()
    assert not torch.equal(one, two)
    assert torch.equal(torch.stack([one, two]), torch.stack(draw()))


@pytest.mark.parametrize("sources", [1, 2, 4])
@pytest.mark.parametrize("target_size", [None, (33, 47)])
def test_shapes_and_ranges(sources: int, target_size: tuple[int, int] | None) -> None:
    options = replace(MOVING, size=(41, 53), num_sources=sources, target_size=target_size, noise=0.02)
    sample = sample_worlds(options, 2, generator=1, device="cpu")
    h, w = target_size or options.size
    assert sample.images.shape == sample.backgrounds.shape == (2, sources, 3, 41, 53)
    assert sample.sources.batch_shape == (2, sources)
    assert sample.sources.size == (41, 53)
    assert sample.target.batch_shape == (2,)
    assert sample.target.size == (h, w)
    assert sample.target_image.shape == sample.target_background.shape == (2, 3, h, w)
    assert sample.matte.shape == sample.target_depth.shape == (2, 1, h, w)
    assert sample.source_depth is not None
    assert sample.source_depth.shape == (2, sources, 1, 41, 53)
    assert sample.near.shape == sample.far.shape == (2,)
    for name in ("images", "backgrounds", "target_image", "target_background", "matte"):
        value = getattr(sample, name)
        assert value.dtype == torch.float32, name
        assert value.min() >= 0, name
        assert value.max() <= 1, name
    assert ((sample.near > 0) & (sample.far > sample.near)).all()


def test_poses_are_rigid(clean: SyntheticSample) -> None:
    for camera in (clean.sources, clean.target):
        R = camera.T_cam_world[..., :3, :3]
        assert torch.allclose(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5)
        assert torch.allclose(torch.linalg.det(R), torch.ones(()), atol=1e-5)


def test_depths_lie_between_the_planes(clean: SyntheticSample) -> None:
    assert clean.source_depth is not None
    near, far = (bound.view(-1, 1, 1, 1, 1) for bound in (clean.near, clean.far))
    assert (clean.source_depth >= near / 0.9 * (1 - 1e-4)).all()
    assert (clean.source_depth <= far / 2 * (1 + 1e-4)).all()
    assert clean.target_depth.isfinite().all()
    assert (clean.target_depth > 0).all()


@pytest.mark.parametrize("target_size", [None, (45, 72)])
def test_a_source_warped_by_the_true_depth_is_the_target(target_size: tuple[int, int] | None) -> None:
    sample = sample_worlds(replace(MOVING, target_size=target_size), 12, generator=2, device="cpu")
    assert sample.source_depth is not None
    for v in range(2):
        source = sample.sources[:, v]
        warped, depth = warp_to_target(sample.images[:, v], source, sample.target, sample.target_depth)
        stored, _ = warp_to_target(sample.source_depth[:, v], source, sample.target, sample.target_depth)
        seen = (stored / depth - 1).abs() < 0.01
        assert seen.float().mean() > 0.5
        error = (warped - sample.target_image).abs().mean(1, keepdim=True)[seen]
        plain = (sample.images[:, v] - F.interpolate(sample.target_image, CLEAN.size)).abs().mean()
        assert error.median() < 0.012
        assert error.mean() < 0.3 * plain


def test_depth_is_exact_to_a_small_part_of_a_pixel(clean: SyntheticSample) -> None:
    """Shifting the target's camera by half a pixel makes the warp worse."""

    def error(shift: float) -> float:
        K = clean.target.K.clone()
        K[:, 0, 2] += shift
        target = replace(clean.target, K=K)
        warped, depth = warp_to_target(clean.images[:, 0], clean.sources[:, 0], target, clean.target_depth)
        seen = depth.isfinite().expand_as(warped)
        return float((warped - clean.target_image).abs()[seen].median())

    assert error(0.0) < 0.75 * min(error(-0.5), error(0.5))


def test_background_is_the_picture_where_no_mover_is(moving: SyntheticSample) -> None:
    still = (moving.matte == 0).expand_as(moving.target_image)
    assert torch.equal(moving.target_image[still], moving.target_background[still])
    changed = (moving.backgrounds != moving.images).any(2).float().mean((1, 2, 3))
    assert (changed < 0.9).all()
    assert (changed > 0).any()


def test_matte_holds_what_movers_change(moving: SyntheticSample) -> None:
    changed = (moving.target_image - moving.target_background).abs().amax(1, keepdim=True) > 1 / 255
    assert (moving.matte[changed] > 0).all()
    assert changed[moving.matte > 0.9].float().mean() > 0.7
    assert 0.002 < moving.matte.mean() < 0.6


def test_a_static_world_is_its_background(clean: SyntheticSample) -> None:
    assert torch.equal(clean.images, clean.backgrounds)
    assert torch.equal(clean.target_image, clean.target_background)
    assert not clean.matte.any()


def test_effects_change_pictures_but_little() -> None:
    options = replace(CLEAN, gain=0.03, white_balance=0.015, blur=0.6, noise=0.012, block_noise_share=1.0)
    plain = sample_worlds(CLEAN, 3, generator=8, device="cpu")
    rough = sample_worlds(options, 3, generator=8, device="cpu")
    difference = (plain.images - rough.images).abs().mean()
    assert 0.001 < difference < 0.05
    assert not torch.equal(rough.images, rough.backgrounds), "noise is other in the backgrounds"


def test_calibration_that_is_wrong_changes_what_is_given_not_what_is_seen() -> None:
    right = sample_worlds(CLEAN, 16, generator=9, device="cpu")
    wrong = sample_worlds(replace(CLEAN, calibration=0.5), 16, generator=9, device="cpu")
    assert torch.equal(right.images, wrong.images)
    assert torch.equal(right.sources.T_cam_world, wrong.sources.T_cam_world)
    assert torch.equal(right.target.K, wrong.target.K)
    error = wrong.sources.K - right.sources.K
    assert 0.1 < error[..., :2, 2].std() < 0.5  # in pixels
    edge = error[..., 0, 0] / right.sources.K[..., 0, 0] * (0.5 * CLEAN.size[1])
    assert 0.1 < edge.std() < 0.5
    torch.testing.assert_close(
        error[..., 0, 0] / right.sources.K[..., 0, 0], error[..., 1, 1] / right.sources.K[..., 1, 1]
    )


def test_plain_surfaces_show_less() -> None:
    """Of a world of nothing else; the others are as they were."""
    contrasts = []
    for share in (0.0, 1.0):
        sample = sample_worlds(replace(CLEAN, plain_share=share), 8, generator=10, device="cpu")
        steps = (sample.images[..., 1:] - sample.images[..., :-1]).abs()
        contrasts.append(float(steps.median()))
    assert contrasts[1] < 0.6 * contrasts[0]
    assert WorldOptions().plain_share == 0 < WorldOptions().to_train_on().plain_share < 1


def test_more_rays_make_smoother_edges() -> None:
    """Few rays per pixel approach the picture of many."""
    pictures = [
        sample_worlds(replace(CLEAN, rays_per_side=n), 4, generator=11, device="cpu").target_image for n in (1, 2, 4)
    ]
    one, two = ((picture - pictures[2]).abs().mean() for picture in pictures[:2])
    assert two < 0.75 * one


def test_worlds_do_not_depend_on_their_neighbours_in_the_batch(clean: SyntheticSample) -> None:
    fewer = sample_worlds(CLEAN, 2, generator=3, device="cpu")
    assert torch.equal(fewer.target_image, clean.target_image[:2])


def test_disparity_between_sources_is_as_asked() -> None:
    options = replace(CLEAN, disparity=(0.1, 0.1), rotation=0.0)
    sample = sample_worlds(options, 8, generator=12, device="cpu")
    baseline = (sample.sources.center[:, 0] - sample.sources.center[:, 1]).norm(dim=-1)
    shift = baseline * sample.sources.K[:, 0, 0, 0] / (sample.near / 0.9) / 80
    assert (shift < 0.12).all()
    assert (shift > 0.02).all()


@pytest.mark.parametrize(
    "wrong", [{"near": (2.0, 1.0)}, {"size": (2, 90)}, {"num_sources": 0}, {"blur": -1.0}, {"rays_per_side": 0}]
)
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WorldOptions(**wrong)  # type: ignore[arg-type]


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        sample_worlds(CLEAN, 0, generator=0, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_renders_what_the_cpu_renders(moving: SyntheticSample) -> None:
    there = sample_worlds(MOVING, 6, generator=4, device="cuda")
    difference = (there.target_image.cpu() - moving.target_image).abs()
    assert difference.median() < 1e-3
    assert (difference > 0.05).float().mean() < 0.01


def test_one_batch_of_all_worlds_is_what_rectangles_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices other than the CPU cast whole pictures of all worlds at once."""
    options = replace(MOVING, shadow_share=1.0, source_depth=False)
    by_rectangles = sample_worlds(options, 3, generator=13, device="cpu")
    start = RayCaster.__init__

    def start_batched(self: RayCaster, *args: Any) -> None:
        start(self, *args, by_rectangles=False)

    monkeypatch.setattr(RayCaster, "__init__", start_batched)
    batched = sample_worlds(options, 3, generator=13, device="cpu")
    for name in ("images", "backgrounds", "target_image", "target_background", "matte"):
        difference = (getattr(batched, name) - getattr(by_rectangles, name)).abs()
        assert difference.mean() < 1e-3, name
        assert (difference > 0.02).float().mean() < 5e-3, name
    assert torch.allclose(batched.near, by_rectangles.near, rtol=1e-3)


def test_movers_go_on_from_instant_to_instant() -> None:
    """The first instant is what it is without the others; then the movers, and nothing else, have gone as far again."""
    options = replace(MOVING, shadow_share=0.0, num_movers=(1, 1), mover_step=(0.04, 0.04), size=(72, 96))
    clip = sample_worlds(replace(options, instants=3), 4, generator=3, device="cpu")
    one = sample_worlds(options, 4, generator=3, device="cpu")
    assert torch.equal(clip.images, one.images)
    assert torch.equal(clip.target_image, one.target_image)
    assert clip.later_images is not None
    assert clip.later_target_images is not None
    assert clip.later_mattes is not None
    assert clip.later_images.shape == (4, 2, *clip.images.shape[1:])
    mattes = torch.cat([clip.matte[:, None], clip.later_mattes], dim=1)
    pictures = torch.cat([clip.target_image[:, None], clip.later_target_images], dim=1)
    still = (mattes == 0).expand_as(pictures)
    assert torch.equal(pictures[still], clip.target_background[:, None].expand_as(pictures)[still])
    assert all(
        not torch.equal(a, b) for a, b in zip(mattes[:, 1:].flatten(0, 1), mattes[:, :-1].flatten(0, 1), strict=True)
    )
    # Those that are seen whole: their middle goes equally far both times, and about as far as asked.
    w = options.size[1]
    x = torch.arange(w) + 0.5
    area = mattes.sum((-1, -2))[..., 0]
    middle = (mattes * x).sum((-1, -2))[..., 0] / area.clamp_min(1e-6)
    whole = (
        (mattes[..., [0, -1]].amax((2, 3, 4)) == 0).all(1) & (area.amin(1) > 0.9 * area.amax(1)) & (area.amin(1) > 20)
    )
    assert whole.sum() >= 1
    steps = middle.diff(dim=1)[whole]
    torch.testing.assert_close(steps[:, 0], steps[:, 1], atol=0.5, rtol=0.1)
    assert ((steps.abs() > 0.01 * w) & (steps.abs() < 0.05 * w)).all()


def test_movers_darken_what_is_around_them() -> None:
    plain, shaded = (
        sample_worlds(replace(MOVING, shadow_share=share), 6, generator=14, device="cpu") for share in (0.0, 1.0)
    )
    assert torch.equal(plain.matte, shaded.matte)
    assert torch.equal(plain.target_background, shaded.target_background)
    still = (plain.matte == 0).expand_as(plain.target_image)
    change = (shaded.target_image - plain.target_image)[still]
    assert change.max() <= 0
    assert change.min() < -0.05
