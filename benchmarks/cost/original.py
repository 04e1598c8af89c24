"""A plain implementation of the original method, the reference for speed and parity.

It is independent of the library on purpose, so that neither can hide a mistake of the other. It computes everything
in the plain way: float32, contiguous layout, 3x3 and 4x4 matrix products for each pixel of each plane in the sweep,
the background's MPI again for each frame, every plane of the MPI blended. Pictures and networks may be on a GPU;
cameras and depths stay on the host, where small matrices are inverted faster.

Convention: OpenCV cameras; pixel centres at (i + 0.5, j + 0.5); plane 0 is the farthest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

NUM_FEATURES = 8
T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """A camera: ``T_cam_world [4, 4]`` world to camera, ``K [3, 3]`` in pixels of its picture."""

    T_cam_world: Tensor
    K: Tensor


@dataclass(frozen=True)
class Mpi:
    """Planes ``rgba [D, 4, H, W]``, straight alpha, at ``depths [D]`` in the camera ``view``."""

    rgba: Tensor
    depths: Tensor
    view: View


class PartTimer:
    """Adds up the seconds spent in each named part of a frame.

    Args:
        wait: waits until the device is done; by default does nothing.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = {}
        self._wait = wait

    def __call__(self, part: str, function: Callable[..., T], *args: object) -> T:
        self._wait()
        start = time.perf_counter()
        result = function(*args)
        self._wait()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start
        return result


class Block(nn.Module):
    """Convolution, ReLU, group norm with one group."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, padding: int, stride: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv3d(channels_in, channels_out, kernel, stride, padding),
            nn.ReLU(),
            nn.GroupNorm(1, channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class LastConv(nn.Module):
    """The head: a single convolution, named as in the original's checkpoints."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv3d(channels_in, channels_out, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class OriginalUNet(nn.Module):
    """The 3D U-Net of both networks: ``[B, channels_in, D, H, W] -> [B, channels_out, D, H, W]``.

    D, H and W are multiples of 8; the 640 x 360 of the original is one such size.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        nf = NUM_FEATURES
        self.conv1_1 = Block(channels_in, nf, 7, 3, 1)
        self.conv1_2 = Block(nf, 2 * nf, 7, 3, 2)
        self.conv2_1 = Block(2 * nf, 2 * nf, 3, 1, 1)
        self.conv2_2 = Block(2 * nf, 4 * nf, 3, 1, 2)
        self.conv3_1 = Block(4 * nf, 4 * nf, 3, 1, 1)
        self.conv3_2 = Block(4 * nf, 8 * nf, 3, 1, 2)
        self.conv4_1 = Block(8 * nf, 8 * nf, 3, 1, 1)
        self.conv4_2 = Block(8 * nf, 8 * nf, 3, 1, 1)
        self.conv5_1 = Block(16 * nf, 4 * nf, 3, 1, 1)
        self.conv5_2 = Block(4 * nf, 4 * nf, 3, 1, 1)
        self.conv6_1 = Block(8 * nf, 2 * nf, 3, 1, 1)
        self.conv6_2 = Block(2 * nf, 2 * nf, 3, 1, 1)
        self.conv7_1 = Block(4 * nf, 2 * nf, 3, 1, 1)
        self.conv7_2 = Block(2 * nf, nf, 3, 1, 1)
        self.conv7_3 = LastConv(nf, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        conv1 = self.conv1_2(self.conv1_1(x))
        conv2 = self.conv2_2(self.conv2_1(conv1))
        conv3 = self.conv3_2(self.conv3_1(conv2))
        conv4 = self.conv4_2(self.conv4_1(conv3))
        conv5 = self.conv5_2(self.conv5_1(_upsample(torch.cat([conv4, conv3], dim=1))))
        conv6 = self.conv6_2(self.conv6_1(_upsample(torch.cat([_crop(conv5, conv2), conv2], dim=1))))
        conv7 = self.conv7_2(self.conv7_1(_upsample(torch.cat([_crop(conv6, conv1), conv1], dim=1))))
        return self.conv7_3(conv7)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _crop(x: Tensor, like: Tensor) -> Tensor:
    depth, height, width = like.shape[-3:]
    return x[..., :depth, :height, :width]


@dataclass(frozen=True)
class Networks:
    """The two trained networks of the original."""

    mpi: OriginalUNet
    mask: OriginalUNet


def random_networks(seed: int = 0) -> Networks:
    """Networks with random weights, for measurements that ignore the picture."""
    torch.manual_seed(seed)
    return Networks(OriginalUNet(6, 2).eval(), OriginalUNet(12, 1).eval())


def load_networks(path: Path) -> Networks:
    """Load the networks of a checkpoint in the original's format; it must contain every key of both."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    networks = random_networks()
    networks.mpi.load_state_dict(_with_prefix(state, "models.mpi_net."))
    networks.mask.load_state_dict(_with_prefix(state, "models.mask_net."))
    return networks


def _with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def plane_depths(near: float, far: float, count: int = 32) -> Tensor:
    """``[D]`` depths, uniform in inverse depth, the farthest first."""
    return 1.0 / torch.linspace(1.0 / far, 1.0 / near, count)


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """``[H, W, 3]`` homogeneous (x, y, 1) of the pixel centres."""
    rows, columns = torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def sweep_view(image: Tensor, source: View, reference: View, depths: Tensor) -> Tensor:
    """Warp one view to the planes of the reference camera; -1 outside its picture.

    Convention: reference pixel -> source pixel; pixel centres at +0.5, normalised as u / W * 2 - 1 but
    sampled with align_corners=True (the original's half-pixel error); zero padding of image + 1.

    Args:
        image: ``[3, H, W]`` colours in 0..1.
        source: the camera of the image.
        reference: the camera of the planes, of the same picture size.
        depths: ``[D]`` depths in the reference camera.

    Returns:
        ``[3, D, H, W]``.
    """
    height, width = image.shape[-2:]
    count, device = depths.shape[0], image.device
    T_src_ref = (source.T_cam_world @ torch.linalg.inv(reference.T_cam_world)).to(device)
    pixels = pixel_grid(height, width, device).expand(count, height, width, 3)[..., None]
    rays = torch.matmul(torch.linalg.inv(reference.K).to(device), pixels)
    points = rays * depths.to(device)[:, None, None, None, None]
    points = torch.cat([points, torch.ones_like(points[..., :1, :])], dim=-2)
    projected = torch.matmul(source.K.to(device), torch.matmul(T_src_ref, points)[..., :3, :])[..., 0]
    uv = _normalise(projected, height, width)
    images = image.expand(count, -1, -1, -1) + 1.0
    swept = F.grid_sample(images, uv, mode="bilinear", padding_mode="zeros", align_corners=True) - 1.0
    return swept.transpose(0, 1)


def _normalise(projected: Tensor, height: int, width: int) -> Tensor:
    """Normalise homogeneous source pixels ``[..., 3]`` to -1..1; those behind the camera map outside."""
    z = projected[..., 2:]
    uv = projected[..., :2] / torch.where(z.abs() < 1e-8, 1e-8, z)
    uv = uv / torch.tensor([width, height], device=uv.device) * 2.0 - 1.0
    return torch.where(z > 0, uv, 2.0)


def sweep_all(images: Sequence[Tensor], sources: Sequence[View], reference: View, depths: Tensor) -> Tensor:
    """``[3V, D, H, W]``: the sweeps of all images, view by view."""
    return torch.cat([sweep_view(image, view, reference, depths) for image, view in zip(images, sources, strict=True)])


def mpi_planes(network: OriginalUNet, sweep: Tensor) -> Tensor:
    """``[4, D, H, W]`` colours and alpha from the sweep ``[6, D, H, W]`` of two views."""
    output = network(sweep[None])[0]
    alpha = torch.sigmoid(output[:1])
    weights = torch.softmax(torch.cat([torch.zeros_like(output[1:]), output[1:]]), dim=0)
    return torch.cat([weights[:1] * sweep[:3] + weights[1:] * sweep[3:], alpha])


def mask_volume(network: OriginalUNet, sweep: Tensor) -> Tensor:
    """``[1, D, H, W]`` in 0..1 from the sweep ``[12, D, H, W]`` of the frame and the background."""
    return torch.sigmoid(network(sweep[None])[0])


def blend(mask: Tensor, dynamic: Tensor, background: Tensor) -> Tensor:
    """``[D, 4, H, W]``: the frame's MPI where the mask is 1, the background's where it is 0."""
    return (mask * dynamic + (1.0 - mask) * background).transpose(0, 1).contiguous()


def warp_planes(mpi: Mpi, target: View) -> Tensor:
    """Warp every plane to the target camera.

    Convention: target pixel -> MPI pixel by the plane's homography; normalised as u / W * 2 - 1 and sampled
    with align_corners=False; zero padding of colour and alpha.

    Returns:
        ``[D, 4, H, W]``.
    """
    height, width = mpi.rgba.shape[-2:]
    T_tgt_mpi = target.T_cam_world @ torch.linalg.inv(mpi.view.T_cam_world)
    R, t = T_tgt_mpi[:3, :3], T_tgt_mpi[:3, 3:]
    normal = torch.tensor([[0.0, 0.0, 1.0]])
    pixels = pixel_grid(height, width, mpi.rgba.device).reshape(-1, 3).mT
    grids = []
    for depth in mpi.depths:
        H_tgt_mpi = target.K @ (R + t @ normal / depth) @ torch.linalg.inv(mpi.view.K)
        in_mpi = (torch.linalg.inv(H_tgt_mpi).to(pixels.device) @ pixels).mT.reshape(height, width, 3)
        grids.append(_normalise(in_mpi, height, width))
    return F.grid_sample(mpi.rgba, torch.stack(grids), mode="bilinear", padding_mode="zeros", align_corners=False)


def composite(planes: Tensor) -> Tensor:
    """``[3, H, W]`` over black, from straight alpha planes ``[D, 4, H, W]``, the farthest first."""
    picture = torch.zeros_like(planes[0, :3])
    for plane in planes:
        picture = plane[:3] * plane[3:] + picture * (1.0 - plane[3:])
    return picture


@torch.no_grad()
def make_mpi(
    networks: Networks,
    images: Sequence[Tensor],
    backgrounds: Sequence[Tensor],
    sources: Sequence[View],
    depths: Tensor,
    timer: PartTimer | None = None,
) -> Mpi:
    """The full MPI of a frame in the first camera's view, including the background.

    Args:
        networks: the two networks.
        images: two pictures ``[3, H, W]`` in 0..1.
        backgrounds: the same cameras' backgrounds ``[3, H, W]``.
        sources: the two cameras, the reference first.
        depths: ``[D]`` plane depths.
        timer: adds up the times of the parts.
    """
    timed = timer or PartTimer()
    sweep = timed("sweep", sweep_all, [*images, *backgrounds], [*sources, *sources], sources[0], depths)
    dynamic = timed("mpi network", mpi_planes, networks.mpi, sweep[:6])
    background = timed("mpi network", mpi_planes, networks.mpi, sweep[6:])
    mask = timed("mask network", mask_volume, networks.mask, sweep)
    return Mpi(timed("blend", blend, mask, dynamic, background), depths, sources[0])


@torch.no_grad()
def render(mpi: Mpi, target: View, timer: PartTimer | None = None) -> Tensor:
    """``[3, H, W]`` the target camera's picture of an MPI, not clamped."""
    timed = timer or PartTimer()
    return timed("composite", composite, timed("warp", warp_planes, mpi, target))


@dataclass(frozen=True)
class Clip:
    """A collected clip in the original's format: ten cameras, frames, backgrounds, target poses."""

    root: Path
    backgrounds: Path
    size: tuple[int, int]
    num_planes: int = 32

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return sum(1 for folder in self.root.iterdir() if (folder / "images").is_dir())

    def source(self, camera: int) -> View:
        """A camera of the rig, its K at the clip's size."""
        pose = self._rows()[camera, :15].reshape(3, 5)
        return self._view([pose[:, 1], pose[:, 0], -pose[:, 2], pose[:, 3]], pose[:, 4])

    def targets(self) -> list[View]:
        """The cameras of the path file of the first frame."""
        lines = (self.root / "00000" / "qual_path.txt").read_text().splitlines()
        views = []
        for line in lines[1 : 1 + int(lines[0])]:
            pose = np.array(line.split(), dtype=np.float64).reshape(5, 3).T
            views.append(self._view([pose[:, 0], -pose[:, 1], -pose[:, 2], pose[:, 3]], pose[:, 4]))
        return views

    def depths(self) -> Tensor:
        """``[D]`` the planes' depths, from the bounds of all cameras."""
        bounds = self._rows()[:, 15:]
        return plane_depths(0.9 * float(bounds.min()), 2.0 * float(bounds.max()), self.num_planes)

    def image(self, camera: int, frame: int) -> Tensor:
        """``[3, H, W]`` a picture in 0..1."""
        return read_picture(self.root / f"{frame:05d}" / "images" / f"{camera:03d}.png")

    def background(self, camera: int) -> Tensor:
        """``[3, H, W]`` a camera's background in 0..1."""
        return read_picture(self.backgrounds / f"cam{camera:02d}.png")

    def _rows(self) -> np.ndarray:
        return np.load(self.root / "00000" / "poses_bounds.npy", allow_pickle=False)

    def _view(self, columns: Sequence[np.ndarray], hwf: np.ndarray) -> View:
        T_world_cam = np.eye(4)
        T_world_cam[:3] = np.stack(columns, axis=1)
        height, width, focal = hwf
        scale_y, scale_x = self.size[0] / height, self.size[1] / width
        K = np.diag([focal * scale_x, focal * scale_y, 1.0])
        K[:2, 2] = self.size[1] / 2, self.size[0] / 2
        return View(
            torch.from_numpy(np.linalg.inv(T_world_cam)).float(),
            torch.from_numpy(K).float(),
        )


def read_picture(path: Path) -> Tensor:
    """``[3, H, W]`` colours in 0..1."""
    with Image.open(path) as picture:
        array = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255.0


def render_pose(clip: Clip, networks: Networks, pose: int, cameras: tuple[int, int]) -> Tensor:
    """``[3, H, W]`` the original's picture for a pose of the path, with frame ``pose`` modulo the clip's length."""
    frame = pose % clip.num_frames
    mpi = make_mpi(
        networks,
        [clip.image(camera, frame) for camera in cameras],
        [clip.background(camera) for camera in cameras],
        [clip.source(camera) for camera in cameras],
        clip.depths(),
    )
    return render(mpi, clip.targets()[pose])
