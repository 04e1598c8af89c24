"""Both sides of a benchmark compute the same things of the same setting."""

from __future__ import annotations

import math

import torch

from benchmarks.cost import original
from benchmarks.cost.sides import (
    Setting,
    make_renderer,
    our_frame,
    our_view,
    random_planes,
    straight,
    their_sweep,
    their_view,
)
from benchmarks.cost.timing import Seconds
from maskvolume.metrics import psnr
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.mpi.model import MaskVolumeModel


def test_cameras_and_pictures_are_those_of_the_clip(setting: Setting) -> None:
    cameras, clip = setting.cameras(), setting.clip
    for position, index in enumerate(setting.indices):
        assert torch.equal(cameras.K[position], clip.cameras(setting.size).K[index])
        expected = torch.from_numpy(clip.read(index, 0, setting.size)).permute(2, 0, 1) / 255
        torch.testing.assert_close(setting.picture(index, 0), expected.float())
        assert setting.background(index).shape == (3, *setting.size)


def test_random_planes_hide_what_is_behind_the_farthest_and_show_some_of_it() -> None:
    planes = random_planes(6, (48, 64))
    assert planes.shape == (6, 4, 48, 64)
    assert (planes[0, 3] == 1).all()
    assert 0 < planes[1:, 3].mean() < 0.5
    assert torch.equal(planes, random_planes(6, (48, 64)))


def test_straight_is_the_inverse_of_premultiplied(setting: Setting) -> None:
    planes = random_planes(4, setting.size)
    planes[:, 3] = planes[:, 3].clamp_min(0.1)
    camera, depths = setting.cameras()[0], torch.tensor([8.0, 4.0, 2.0, 1.0])
    premultiplied = torch.cat([planes[:, :3] * planes[:, 3:], planes[:, 3:]], dim=1)
    torch.testing.assert_close(straight(MultiplaneImage(premultiplied, camera, depths)), planes)


def test_both_sides_show_the_same_view_of_the_same_planes(setting: Setting, model: MaskVolumeModel) -> None:
    planes = random_planes(6, setting.size)
    camera = setting.cameras()[0].to(torch.float32)
    depths = torch.tensor([8.0, 5.0, 4.0, 3.0, 2.5, 2.0])
    premultiplied = torch.cat([planes[:, :3] * planes[:, 3:], planes[:, 3:]], dim=1)
    ours = our_view(MultiplaneImage(premultiplied, camera, depths), camera, model)
    theirs = original.render(original.Mpi(planes, depths, their_view(camera)), their_view(camera))
    assert psnr(ours, theirs.reshape(ours.shape)).item() > 40


def test_the_plain_sweep_puts_all_pictures_on_all_planes(setting: Setting) -> None:
    images = torch.stack([setting.picture(camera, 0) for camera in setting.indices])
    swept = their_sweep(setting, images, torch.tensor([5.0, 2.0, 1.5]))
    assert swept.shape == (6, 3, *setting.size)


def test_every_part_of_our_frame_has_its_time(setting: Setting, model: MaskVolumeModel) -> None:
    seconds: Seconds = {}
    our_frame(make_renderer(setting, model), setting, 0, seconds)
    assert set(seconds) == {"total", "sweep", "mpi network", "mask network", "blend and render", "fill unseen"}
    assert all(len(times) == 1 and times[0] > 0 and math.isfinite(times[0]) for times in seconds.values())
