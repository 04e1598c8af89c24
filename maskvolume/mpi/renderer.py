"""Renders views of a clip from one reference camera: reads its sources and chooses the frustum of its MPI.

``ClipRenderer`` computes the background's sweep and MPI once per clip and caches the MPI of the last frame, which all
poses at that frame share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast
from weakref import WeakMethod

import numpy as np
import torch
from torch import Tensor, nn

from maskvolume.clips.clip import StillClip
from maskvolume.geometry.cameras import Camera, invert_rigid, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.memory import Job
from maskvolume.mpi.model import (
    Background,
    FrameMPI,
    MaskVolumeModel,
    StoredFrame,
)
from maskvolume.mpi.tiles import (
    TiledBackground,
    Tiling,
    background_in_tiles,
    frame_in_tiles,
    mpi_in_tiles,
)
from maskvolume.networks import Halo
from maskvolume.ops import Rendering, available_backends, fill_unseen, stored_dtype
from maskvolume.rendering.renderer import View
from maskvolume.runtime.cuda_graphs import Replayed
from maskvolume.runtime.errors import InputError
from maskvolume.runtime.transfers import Uploader

Frame = FrameMPI | StoredFrame

MARGIN_MULTIPLE = 8  # pixels; the networks halve sizes three times
MAX_MARGIN = 0.2  # of the larger side of the picture; hardly any source sees farther out
MAX_VIEWS = 64  # most views of a frame that a GPU renders in one launch
VIEW_BYTES_PER_PIXEL = 50 * 4  # while a view is rendered: five channels, and copies of them for filling
VIEWS_SHARE = 0.1  # of the free GPU memory that the views of one launch may use


@dataclass(frozen=True)
class Frustum:
    """How much wider than the reference view an MPI is, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def apply(self, reference: Camera) -> Camera:
        """The MPI's camera: the pose of the reference with a wider picture."""
        h, w = reference.size
        size = (h + self.top + self.bottom, w + self.left + self.right)
        return reference.cropped(-self.top, -self.left, size)


def choose_frustum(
    reference: Camera,
    sources: Camera,  # [V]
    targets: Camera,  # [N]
    near: float,
    far: float,
) -> Frustum:
    """Choose the margin around the reference view that the targets look into and at least one source sees.

    The corners of all targets at the nearest and the farthest plane are projected into the reference. The margin
    excludes regions that no source covers, and is at most ``MAX_MARGIN`` of the larger side.

    Args:
        reference: ``[]``, the reference camera.
        sources: ``[V]``, the source cameras.
        targets: ``[N]``, the cameras to render.
        near: depth of the nearest plane, in scene units.
        far: depth of the farthest plane, in scene units.

    Returns:
        The margins in pixels, multiples of ``MARGIN_MULTIPLE``.
    """
    target_extents = _extent(reference, targets, near, far)
    source_extents = _extent(reference, sources, near, far)
    limit = MAX_MARGIN * max(reference.size)
    margins = []
    for target_extent, source_extent in zip(target_extents, source_extents, strict=True):
        margin = min(max(target_extent, 0.0), max(source_extent, 0.0), limit)
        margins.append(math.ceil(margin / MARGIN_MULTIPLE) * MARGIN_MULTIPLE)
    return Frustum(*margins)


def _on_grid(camera: Camera, halo: Halo | None) -> Camera:
    """Extend the picture to the grid of local networks, so that they need no padding."""
    if halo is None:
        return camera
    h, w = (math.ceil(side / halo.grid) * halo.grid for side in camera.size)
    return camera.cropped(0, 0, (h, w))


def _extent(reference: Camera, cameras: Camera, near: float, far: float) -> list[float]:
    """How far the cameras' pictures extend beyond the reference's: top, bottom, left, right in pixels."""
    h, w = cameras.size
    corners = torch.tensor([[0.0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], dtype=torch.float64)
    T_ref_cam = reference.T_cam_world.double() @ invert_rigid(cameras.T_cam_world.double())
    rays = torch.linalg.inv(cameras.K.double()) @ corners.T  # [N, 3, 4]
    extents = [0.0] * 4
    for depth in (near, far):
        points = T_ref_cam[..., :3, :3] @ (rays * depth) + T_ref_cam[..., :3, 3:]
        visible = points[:, 2] > 1e-6
        pixels = reference.K.double() @ points
        xy = pixels[:, :2] / pixels[:, 2:].clamp_min(1e-6)
        if not bool(visible.any()):
            continue
        x, y = xy[:, 0][visible], xy[:, 1][visible]
        sides = (-y.min(), y.max() - reference.size[0], -x.min(), x.max() - reference.size[1])
        extents = [max(old, float(new)) for old, new in zip(extents, sides, strict=True)]
    return extents


@dataclass(frozen=True)
class RenderSettings:
    """How the multiplane images of a clip are computed, independent of the choice of cameras.

    Attributes:
        size: ``(h, w)`` at which the sources are read; None: the clip's own.
        num_planes: number of planes; None: as in training.
        margin: pixels on each side; None: what the targets need. Architectures without a margin use 0.
        stored: keep the blended MPI of a frame in memory, which is faster for several views of a frame. Otherwise each
            view blends the part it sees. The views are the same up to rounding.
        masks: keep the mask volume of a stored frame too, for views with a mask.
    """

    size: tuple[int, int] | None = None
    num_planes: int | None = None
    margin: int | None = None
    stored: bool = False
    masks: bool = False


DEFAULT_SETTINGS = RenderSettings()


def prepare_for_cuda(model: nn.Module) -> None:
    """Convert weights to channels-last, and let cuDNN benchmark its algorithms at the first call."""
    model.to(memory_format=torch.channels_last_3d)
    torch.backends.cudnn.benchmark = True


class ClipRenderer:
    """Renders views of a clip with one model and one choice of source cameras.

    On CUDA only the first frame makes the host wait for the device: its work is recorded as a CUDA graph and replayed
    for the other frames, so a frame's MPI is valid until the next one is computed. CUDA also changes the memory layout
    of the model's weights, and cuDNN benchmarks its algorithms.

    Args:
        clip: the pictures and cameras.
        model: the networks, on the device to compute on. A stage-one model predicts each frame's MPI without mask or
            background.
        indices: source cameras, two or more; the first is the reference.
        settings: size, planes, margin, and what is kept in memory.
        targets: ``[N]``, the cameras to render; they determine the MPI's frustum.
        still_indices: additional cameras for the background's MPI only.

    Raises:
        InputError: there are fewer than two sources, a duplicate, or more than the architecture takes.
        ValueError: ``still_indices`` repeats a source.
    """

    def __init__(
        self,
        clip: StillClip,
        model: MaskVolumeModel,
        indices: tuple[int, ...],
        settings: RenderSettings = DEFAULT_SETTINGS,
        *,
        targets: Camera,
        still_indices: tuple[int, ...] = (),
    ) -> None:
        limit = model.arch.max_views
        if len(set(indices)) != len(indices) or len(indices) < 2:
            raise InputError(f"indices: two or more different cameras are needed, got {list(indices)}")
        if limit is not None and len(indices) > limit:
            raise InputError(f"indices: the checkpoint's architecture takes {limit} cameras, got {len(indices)}")
        self.clip, self.model, self.indices, self.settings = clip, model, indices, settings
        self.still_indices = still_indices if model.has_mask and limit is None else ()
        if set(self.still_indices) & set(indices):
            raise ValueError("still_indices: other cameras than those of indices expected")
        self.size = settings.size or clip.size
        self.device = next(model.parameters()).device
        self.tiling: Tiling | None = None
        self._recorded: Replayed | None = None
        if self.device.type == "cuda":
            prepare_for_cuda(model)
            frame_of = WeakMethod(self._frame_of)  # weak, so that an unused renderer is freed with its planes
            self._recorded = Replayed(lambda images: cast(Callable[[Tensor], Frame], frame_of())(images), "networks")
        near, far = clip.near_far()
        self.depths = disparity_planes(near, far, settings.num_planes or model.meta.num_planes, device=self.device)
        cameras = clip.cameras(self.size)
        sources = stack_cameras([cameras[index] for index in indices])
        if not model.arch.uses_margin:
            frustum = Frustum(0, 0, 0, 0)
        elif settings.margin is not None:
            frustum = Frustum(*[settings.margin] * 4)
        else:
            frustum = choose_frustum(sources[0], sources, targets, near, far)
        self.sources = sources.to(self.device)
        self._still_sources = stack_cameras([cameras[index] for index in indices + self.still_indices]).to(self.device)
        self.camera = _on_grid(frustum.apply(sources[0]), model.arch.halo).to(self.device)
        self._upload = Uploader(self.device)
        self._background: Background | TiledBackground | None = None
        self._frame: tuple[int, Frame] | None = None

    def use_tiles(self, tiling: Tiling) -> None:
        """Compute all MPIs in tiles, which takes less memory and more time. Tiled frames are always stored.

        Args:
            tiling: a tiling of ``camera.size``; the architecture must have a halo.
        """
        self.tiling, self._recorded = tiling, None  # tiles run long kernels, so a CUDA graph gains nothing
        self._background = self._frame = None

    @torch.no_grad()
    def background(self) -> Background | TiledBackground:
        """The background's MPI with its sweep, or with its pictures if tiled; computed at the first call.

        Raises:
            InputError: a background picture can't be read.
        """
        if self._background is None:
            pictures = [self.clip.read_background(index, self.size) for index in self.indices + self.still_indices]
            inputs = self.to_tensor(pictures), self._still_sources, self.camera, self.depths
            views = len(self.indices)
            if self.tiling is None:
                self._background = self.model.background(*inputs, views)
            else:
                self._background = background_in_tiles(self.model, *inputs, self.tiling.tiles(), views)
        return self._background

    def job(self, target_size: tuple[int, int]) -> Job:
        """The input of the memory plan for views of size ``(h, w)``."""
        model = self.model
        return Job(
            arch=model.meta.arch,
            precision=model.precision,
            has_mask=model.has_mask,
            device_type=self.device.type,
            backend=model.backend or available_backends(self.device)[0],
            views=len(self.indices),
            still_views=len(self.indices) + len(self.still_indices),
            planes=len(self.depths),
            mpi_size=self.camera.size,
            picture_size=self.size,
            target_size=target_size,
            stored_dtype=stored_dtype(self.device, model.backend),
            stored=self.settings.stored,
            masks=self.settings.masks,
        )

    def read(self, frame: int) -> list[np.ndarray]:
        """Read the source pictures of a frame, each uint8 ``[H, W, 3]`` RGB; thread-safe."""
        return [self.read_camera(index, frame) for index in self.indices]

    def read_camera(self, index: int, frame: int) -> np.ndarray:
        """Read the picture of one camera, uint8 ``[H, W, 3]`` RGB; thread-safe."""
        return self.clip.read(index, frame, self.size)

    def to_tensor(self, pictures: list[np.ndarray]) -> Tensor:
        """Convert pictures, uint8 ``[H, W, 3]``, to ``[V, 3, H, W]`` in 0..1 on the device."""
        return self._upload(pictures).permute(0, 3, 1, 2).float() / 255

    @torch.no_grad()
    def frame_mpi(self, frame: int, pictures: list[np.ndarray] | None = None) -> Frame:
        """The MPI of a frame; the last one is cached. ``pictures`` are read from the clip if not given."""
        if self._frame is None or self._frame[0] != frame:
            self._frame = None  # free it before computing the next one
            images = self.to_tensor(pictures if pictures is not None else self.read(frame))
            if self.model.has_mask:
                self.background()  # outside the recorded graph
            compute = self._recorded or (self._frame_of if self.tiling is None else self._tiled_frame)
            frame_mpi = compute(images)
            if isinstance(frame_mpi, FrameMPI) and self.settings.stored:
                frame_mpi = frame_mpi.stored(with_mask=self.settings.masks, backend=self.model.backend)
            self._frame = (frame, frame_mpi)
        return self._frame[1]

    def forget_frame(self) -> None:
        """Release the cached frame."""
        self._frame = None

    def release(self) -> None:
        """Release all cached planes; later calls compute them again."""
        self._frame = self._background = self._recorded = None

    def _frame_of(self, images: Tensor) -> Frame:
        """The MPI of pictures ``[V, 3, H, W]``, untiled."""
        if self.model.has_mask:
            background = self.background()
            assert isinstance(background, Background)
            return self.model.frame(images, self.sources, background)
        mpi = self.model.dynamic(images, self.sources, self.camera, self.depths)
        return StoredFrame(mpi.prepared(self.model.backend) if self.settings.stored else mpi)

    def _tiled_frame(self, images: Tensor) -> StoredFrame:
        """The MPI of pictures ``[V, 3, H, W]``, computed in tiles."""
        assert self.tiling is not None
        tiles = self.tiling.tiles()
        if self.model.has_mask:
            background = self.background()
            assert isinstance(background, TiledBackground)
            return frame_in_tiles(self.model, images, self.sources, background, tiles, with_mask=self.settings.masks)
        inputs = images, self.sources, self.camera, self.depths
        return StoredFrame(mpi_in_tiles(self.model, *inputs, tiles, stored_dtype(self.device, self.model.backend)))

    def views_at_once(self, size: tuple[int, int]) -> int:
        """Number of views of size ``(h, w)`` per ``render`` call; 1 on the CPU, where batches gain nothing."""
        if self.device.type != "cuda":
            return 1
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(MAX_VIEWS, int(VIEWS_SHARE * free / (VIEW_BYTES_PER_PIXEL * size[0] * size[1]))))

    @torch.no_grad()
    def render(self, frame: int, target: Camera, *, with_mask: bool = False) -> View:
        """Render one frame from a target camera of any size, or from ``[N]`` of them."""
        return self.finish(*self.look(frame, target, with_mask=with_mask))

    @torch.no_grad()
    def look(self, frame: int, target: Camera, *, with_mask: bool = False) -> tuple[Rendering, Tensor | None]:
        """``render`` before unseen pixels are filled: the rendering of the planes, and the mask if requested."""
        frame_mpi = self.frame_mpi(frame)
        target = target.to(self.device, self.camera.K.dtype)
        rendering = frame_mpi.render(target, self.model.backend)
        return rendering, self._render_mask(frame_mpi, target) if with_mask else None

    def finish(self, rendering: Rendering, mask: Tensor | None) -> View:
        """Turn a rendering into a view; unseen pixels are filled if the checkpoint's convention requires it."""
        backend = self.model.backend
        filled = fill_unseen(rendering, backend=backend) if self.model.meta.sampling == "exact" else rendering
        return View(filled.color, filled.disparity, rendering.opacity, mask)

    def _render_mask(self, frame: Frame, target: Camera) -> Tensor:
        """Render the mask volume through the full MPI: each plane's mask replaces its colour."""
        if frame.mask is None:
            raise ValueError("with_mask: a renderer with masks and a model with a mask network expected")
        mpi = frame.mpi
        mask_rgba = torch.empty_like(mpi.rgba)
        mask_rgba[:, :3] = frame.mask[0][:, None]
        if mpi.premultiplied:
            mask_rgba[:, :3] *= mpi.rgba[:, 3:]
        mask_rgba[:, 3:] = mpi.rgba[:, 3:]
        return replace(mpi, rgba=mask_rgba).render(target, self.model.backend).color[..., :1, :, :]
