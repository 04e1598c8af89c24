"""Random worlds: same seed same bits, and the laws that tie pictures, cameras, depths and mattes together."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from synthetic_helpers import CLEAN, MOVING
from torch import Tensor

from maskvolume.data.synthetic import SyntheticSample, sample_worlds
from maskvolume.geometry.cameras import Camera, relative_pose


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


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        sample_worlds(CLEAN, 0, generator=0, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_renders_what_the_cpu_renders(moving: SyntheticSample) -> None:
    there = sample_worlds(MOVING, 6, generator=4, device="cuda")
    difference = (there.target_image.cpu() - moving.target_image).abs()
    assert difference.median() < 1e-3
    assert (difference > 0.05).float().mean() < 0.01
