"""Laws of the model: shapes, batch axes, which views it takes, what a frame is blended from."""

from __future__ import annotations

import pytest
import torch
from helpers import make_camera
from torch import Tensor

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel

SIZE = (16, 24)
PLANES = 4


def model_of(stage: str, arch: str = "semiglobal") -> MaskVolumeModel:
    torch.manual_seed(0)
    model = MaskVolumeModel(CheckpointMeta(stage, arch, num_planes=PLANES))  # type: ignore[arg-type]
    for parameter in model.parameters():  # the last layers start at zero, and would hide the others
        torch.nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


def views(count: int, seed: int = 0) -> tuple[Tensor, Camera, Camera, Tensor]:
    """Pictures ``[V, 3, h, w]``, their cameras, the first of them, and depths of planes."""
    cameras = stack_cameras([make_camera(number, SIZE, shift=0.05).to(torch.float32) for number in range(count)])
    images = torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    return images, cameras, cameras[0], disparity_planes(1.0, 8.0, PLANES)


def test_a_frame_is_blended_by_its_mask() -> None:
    model, (images, cameras, camera, depths) = model_of("mask"), views(2)
    background = model.background(views(2, seed=1)[0], cameras, camera, depths)
    frame = model.frame(images, cameras, background)
    assert frame.mask.shape == (1, PLANES, *SIZE)
    assert 0 <= float(frame.mask.min()) <= float(frame.mask.max()) <= 1
    mask = frame.mask[0, :, None]
    torch.testing.assert_close(frame.mpi.rgba, mask * frame.dynamic.rgba + (1 - mask) * background.mpi.rgba)
    stored = frame.stored(with_mask=True)
    assert stored.mask is frame.mask
    torch.testing.assert_close(stored.render(camera).color, frame.render(camera).color, atol=4e-3, rtol=0)


def test_batch_axes_are_independent() -> None:
    model, (images, cameras, camera, depths) = model_of("mpi"), views(2)
    other = views(2, seed=2)[0]
    batch = Camera(cameras.T_cam_world.expand(2, 2, 4, 4), cameras.K.expand(2, 2, 3, 3), SIZE)
    first = Camera(camera.T_cam_world.expand(2, 4, 4), camera.K.expand(2, 3, 3), SIZE)
    together = model.dynamic(torch.stack([images, other]), batch, first, depths.expand(2, -1)).rgba
    for index, pictures in enumerate((images, other)):
        torch.testing.assert_close(
            together[index], model.dynamic(pictures, cameras, camera, depths).rgba, atol=1e-5, rtol=0
        )


def test_a_background_keeps_the_sweep_of_the_frames_views_alone() -> None:
    model, (images, cameras, camera, depths) = model_of("mask"), views(3)
    background = model.background(images, cameras, camera, depths, views=2)
    assert torch.equal(background.sweep, model.sweep(images[:2], cameras[:2], camera, depths))


def test_numbers_of_views() -> None:
    images, cameras, camera, depths = views(3)
    with pytest.raises(ValueError, match="images: 2 or more views expected by 'semiglobal', got 1"):
        model_of("mpi").sweep(images[:1], cameras[:1], camera, depths)
    with pytest.raises(ValueError, match="images: 2 views expected by 'original', got 3"):
        model_of("mpi", "original").sweep(images, cameras, camera, depths)


def test_stage_one_has_no_mask() -> None:
    model, (images, cameras, camera, depths) = model_of("mpi"), views(2)
    assert not model.has_mask
    with pytest.raises(ValueError, match="no mask network"):
        model.frame(images, cameras, model.background(images, cameras, camera, depths))


def test_an_unknown_architecture() -> None:
    with pytest.raises(ValueError, match="arch: one of semiglobal, matching, original expected, got 'other'"):
        MaskVolumeModel(CheckpointMeta("mpi", "other"))
