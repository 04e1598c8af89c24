"""Views by disparity, on cameras and worlds whose geometry is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.quality.warping import DisparityWarp, rectify
from maskvolume.data.synthetic import WorldOptions, sample_worlds
from maskvolume.geometry.cameras import Camera
from maskvolume.metrics import psnr


def turned(rng: np.random.Generator, place: tuple[float, float, float]) -> torch.Tensor:
    """World to camera, turned by a few degrees."""
    q, _ = np.linalg.qr(np.eye(3) + rng.normal(0, 0.03, (3, 3)))
    R = q * np.sign(np.diag(q))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, -R @ np.array(place)
    return torch.from_numpy(T).float()


@pytest.mark.parametrize("places", [[(0, 0, 0), (0.2, 0.01, 0)], [(0.3, 0, 0.02), (0, 0, 0)], [(0, 0, 0), (0, 0.2, 0)]])
def test_points_lie_in_the_same_row_after_rectification(places: list[tuple[float, float, float]]) -> None:
    rng = np.random.default_rng(0)
    K = torch.tensor([[90.0, 0, 48], [0, 88, 36], [0, 0, 1]])
    cameras = Camera(torch.stack([turned(rng, place) for place in places]), K.expand(2, 3, 3), (72, 96))
    pair = rectify(cameras)
    points = np.concatenate([rng.uniform(-0.5, 0.5, (2, 50)), rng.uniform(2, 8, (1, 50))])
    seen = []
    for side, source in enumerate(pair.order):
        T = cameras.T_cam_world[source].double().numpy()
        pixels = cameras.K[source].double().numpy() @ (T[:3, :3] @ points + T[:3, 3:])
        rectified = pair.homographies[side] @ (pixels / pixels[2])
        seen.append(rectified[:2] / rectified[2])
        ours = pair.K @ pair.R @ (points - pair.centers[side][:, None])
        np.testing.assert_allclose(seen[side], ours[:2] / ours[2], atol=1e-3)
    np.testing.assert_allclose(seen[0][1], seen[1][1], atol=1e-3)
    depth = (pair.R @ (points - pair.centers[0][:, None]))[2]
    np.testing.assert_allclose(seen[0][0] - seen[1][0], pair.K[0, 0] * pair.baseline / depth, rtol=1e-3)


def test_a_world_is_seen_from_between_its_cameras() -> None:
    """Better than the nearest picture by far, in either order of the sources."""
    gains = []
    for seed in range(3):
        options = WorldOptions(size=(96, 128), disparity=(0.06, 0.1), between_share=1.0, num_things=(8, 10))
        sample = sample_worlds(options, 1, generator=seed, device="cpu")
        for order in ([0, 1], [1, 0]):
            sources = sample.sources[0][order]
            images = sample.images[0, order]
            warp = DisparityWarp(sources, sample.target[0], float(sample.near), float(sample.far), images)
            view = warp.view(images)
            assert view.shape == sample.target_image[0].shape
            truth = sample.target_image[0]
            gains.append(float(psnr(view, truth) - torch.maximum(psnr(images[0], truth), psnr(images[1], truth))))
    assert np.mean(gains) > 4
    assert min(gains) > 0


def test_holes_are_filled_from_the_background() -> None:
    """What a mover hides from both cameras comes from the backgrounds."""
    options = WorldOptions(size=(96, 128), moving=True, mover_size=(0.3, 0.4), shadow_share=0.0, between_share=1.0)
    better = []
    for seed in range(4):
        sample = sample_worlds(options, 1, generator=seed, device="cpu")
        near, far = float(sample.near), float(sample.far)
        black = torch.zeros_like(sample.backgrounds[0])
        args = (sample.sources[0], sample.target[0], near, far)
        with_it, without = (
            DisparityWarp(*args, backgrounds).view(sample.images[0]) for backgrounds in (sample.backgrounds[0], black)
        )
        truth = sample.target_image[0]
        better.append(float(psnr(with_it, truth) - psnr(without, truth)))
    assert np.mean(better) > 0.1
    assert min(better) > -0.1
