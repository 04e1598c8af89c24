"""The two sides of the speed benchmark: a plain implementation of the original, and our pipeline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.cost import original
from benchmarks.cost.timing import Clock, Seconds
from benchmarks.quality.holdout import to_tensor
from benchmarks.record import default_checkpoint
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.mpi.model import (
    Background,
    FrameMPI,
    MaskVolumeModel,
    StoredFrame,
)
from maskvolume.mpi.renderer import ClipRenderer, RenderSettings
from maskvolume.ops import fill_unseen
from maskvolume.runtime.devices import resolve_precision

RANDOM_OPAQUE = 0.1  # share of covered pixels on the planes of a random MPI


@dataclass(frozen=True)
class Setting:
    """The common setting of both sides.

    Attributes:
        clip: with the pictures.
        size: ``(h, w)`` of all pictures.
        num_planes: of all MPIs.
        indices: the source cameras.
        target: the camera to render.
        device: of the computation.
    """

    clip: RigClip
    size: tuple[int, int]
    num_planes: int
    indices: tuple[int, ...]
    target: Camera
    device: torch.device

    @property
    def clock(self) -> Clock:
        """A clock for the device."""
        return Clock(self.device)

    def cameras(self) -> Camera:
        """``[2]`` the source cameras."""
        cameras = self.clip.cameras(self.size)
        return stack_cameras([cameras[index] for index in self.indices])

    def picture(self, camera: int, frame: int) -> Tensor:
        """``[3, H, W]`` in 0..1 on the device."""
        return to_tensor(self.clip.read(camera, frame, self.size)).to(self.device)

    def background(self, camera: int) -> Tensor:
        """``[3, H, W]`` in 0..1 on the device."""
        return to_tensor(self.clip.read_background(camera, self.size)).to(self.device)


def load_ours(ckpt_path: str | None, precision: str, device: torch.device) -> tuple[MaskVolumeModel, Path]:
    """Our model and the path of its checkpoint: by default the shipped one of stage two."""
    path = Path(ckpt_path) if ckpt_path else default_checkpoint()
    return load_model(path, device, resolve_precision(precision, device)), path


def make_renderer(setting: Setting, model: MaskVolumeModel, *, stored: bool = False) -> ClipRenderer:
    """Our pipeline for the setting."""
    return ClipRenderer(
        setting.clip,
        model,
        setting.indices,
        RenderSettings(setting.size, setting.num_planes, stored=stored),
        targets=stack_cameras([setting.target]),
    )


def their_networks(setting: Setting) -> original.Networks:
    """The networks of the original on the device, with random weights."""
    networks = original.random_networks()
    return original.Networks(networks.mpi.to(setting.device), networks.mask.to(setting.device))


def their_frame(networks: original.Networks, setting: Setting, frame: int, seconds: Seconds) -> Tensor:
    """One frame by the plain implementation; the times of its parts are added to ``seconds``."""
    timer = original.PartTimer(setting.clock.wait)
    images = [setting.picture(camera, frame) for camera in setting.indices]
    backgrounds = [setting.background(camera) for camera in setting.indices]
    cameras = setting.cameras()
    sources = [their_view(cameras[index]) for index in range(len(cameras))]
    near, far = setting.clip.near_far()
    depths = original.plane_depths(near, far, setting.num_planes)
    setting.clock.wait()
    start = time.perf_counter()
    mpi = original.make_mpi(networks, images, backgrounds, sources, depths, timer)
    picture = original.render(mpi, their_view(setting.target), timer)
    seconds.setdefault("total", []).append(time.perf_counter() - start)
    for part, value in timer.seconds.items():
        seconds.setdefault(part, []).append(value)
    return picture


@torch.no_grad()
def our_frame(renderer: ClipRenderer, setting: Setting, repeat: int, seconds: Seconds) -> None:
    """One frame by our pipeline: once as a whole, for the total, and once part by part."""
    clock, timed = setting.clock, setting.clock.timed
    pictures = renderer.read(repeat % setting.clip.num_frames)
    background = renderer.background() if renderer.model.has_mask else None

    def whole() -> Tensor:
        renderer.frame_mpi(repeat, pictures)  # numbered by the repeat, so that no MPI is cached
        return renderer.render(repeat, setting.target).color

    timed(seconds, "total", whole)
    model = renderer.model
    images = renderer.to_tensor(pictures)
    clock.wait()
    camera, depths = renderer.camera, renderer.depths
    sweep = timed(seconds, "sweep", model.sweep, images, renderer.sources, camera, depths)
    dynamic = timed(seconds, "mpi network", model.mpi_from_sweep, sweep, camera, depths)
    frame_mpi: FrameMPI | StoredFrame = StoredFrame(dynamic)
    if isinstance(background, Background):
        mask = timed(seconds, "mask network", model.mask_from_sweeps, sweep, background, dynamic)
        frame_mpi = FrameMPI(mask, dynamic, background.mpi)
    del sweep
    part = "blend and render" if model.has_mask else "render"
    target = setting.target.to(setting.device)
    rendering = timed(seconds, part, frame_mpi.render, target, model.backend)
    if model.meta.sampling == "exact":
        timed(seconds, "fill unseen", fill_unseen, rendering)


def our_view(mpi: MultiplaneImage, target: Camera, model: MaskVolumeModel) -> Tensor:
    """A view, rendered like ``ClipRenderer`` does."""
    rendering = mpi.render(target, model.backend)
    return (fill_unseen(rendering) if model.meta.sampling == "exact" else rendering).color


def their_view(camera: Camera) -> original.View:
    """A camera in the plain implementation's form."""
    return original.View(camera.T_cam_world.float().cpu(), camera.K.float().cpu())


def their_sweep(setting: Setting, images: Tensor, depths: Tensor) -> Tensor:
    """Sweep ``[3V, D, H, W]`` of pictures ``[V, 3, H, W]`` over the first camera's planes, plainly implemented."""
    cameras = setting.cameras()
    views = [their_view(cameras[index]) for index in range(len(cameras))]
    return original.sweep_all(list(images), views, views[0], depths)


def random_planes(count: int, size: tuple[int, int]) -> Tensor:
    """``[D, 4, H, W]`` straight alpha: blobs of random colours on every plane, the farthest one opaque."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    coarse = torch.rand(count, 4, height // 8, width // 8, generator=generator)
    rgba = nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    rgba[:, 3] = ((rgba[:, 3] - (1 - RANDOM_OPAQUE)) * 20 + 0.5).clamp(0, 1)
    rgba[0, 3] = 1.0
    return rgba


def straight(mpi: MultiplaneImage) -> Tensor:
    """The planes of an MPI with straight alpha."""
    rgba = mpi.rgba.float()
    if not mpi.premultiplied:
        return rgba
    return torch.cat([rgba[:, :3] / rgba[:, 3:].clamp_min(1e-6), rgba[:, 3:]], dim=1)
