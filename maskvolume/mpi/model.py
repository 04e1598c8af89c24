"""The model: turns views and backgrounds into multiplane images with the MPI and mask networks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskvolume import ops
from maskvolume.geometry.cameras import Camera
from maskvolume.mpi.consistency import contradicted, leave_out
from maskvolume.mpi.image import MultiplaneImage, blend, render_blended
from maskvolume.networks import ARCHITECTURES
from maskvolume.ops import Rendering, Sampling
from maskvolume.runtime.devices import Precision

Stage = Literal["mpi", "mask"]


@dataclass(frozen=True)
class CheckpointMeta:
    """Metadata of a checkpoint.

    Attributes:
        stage: "mpi" for stage one (MPI network only), "mask" for stage two (both networks).
        arch: a key of ``maskvolume.networks.ARCHITECTURES``.
        sampling: the plane sweep convention that the networks were trained with.
        num_planes: the number of planes in training, the default for rendering.
        info: training record (command, steps, metrics, commit) as free-form JSON.
    """

    stage: Stage
    arch: str
    sampling: Sampling = "exact"
    num_planes: int = 32
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Background:
    """The inputs of frames that come from the background, computed once per clip.

    Attributes:
        sweep: ``[..., V, 3, D, H, W]``, plane sweep volume of the background pictures.
        mpi: the background's multiplane image.
    """

    sweep: Tensor
    mpi: MultiplaneImage


@dataclass(frozen=True)
class FrameMPI:
    """A frame's multiplane image, kept as the inputs of its blend.

    Attributes:
        mask: ``[..., 1, D, H, W]`` in 0..1; 1 selects the frame's own MPI.
        dynamic: the frame's own MPI.
        background: the background MPI of the clip.
    """

    mask: Tensor
    dynamic: MultiplaneImage
    background: MultiplaneImage

    @property
    def mpi(self) -> MultiplaneImage:
        """The full MPI, ``mask * dynamic + (1 - mask) * background``; computed on each access."""
        return blend(self.mask, self.dynamic, self.background)

    def render(self, target: Camera, backend: str | None = None) -> Rendering:
        """Render the view of a target camera without storing the full MPI."""
        return render_blended(self.mask, self.dynamic, self.background, target, backend)

    def stored(self, *, with_mask: bool = False, backend: str | None = None) -> StoredFrame:
        """The frame with its full MPI in memory, ready for many views by a backend; its inputs are released."""
        return StoredFrame(self.mpi.prepared(backend), self.mask if with_mask else None)


@dataclass(frozen=True)
class StoredFrame:
    """A frame's full multiplane image.

    Attributes:
        mpi: the full MPI.
        mask: ``[..., 1, D, H, W]`` in 0..1, the mask of its blend; None if it isn't kept or there was none.
    """

    mpi: MultiplaneImage
    mask: Tensor | None = None

    def render(self, target: Camera, backend: str | None = None) -> Rendering:
        """Render the view of a target camera."""
        return self.mpi.render(target, backend)


class MaskVolumeModel(nn.Module):
    """The two networks of a checkpoint. Every method takes optional leading batch axes.

    Args:
        meta: architecture and conventions; only stage "mask" has a mask network.
        precision: "bf16" runs the networks under autocast and keeps sweeps in float16; MPIs stay float32.
        backend: implementation of all operations, including those of the networks; None for the fastest.

    Raises:
        ValueError: the architecture is unknown.
    """

    def __init__(self, meta: CheckpointMeta, precision: Precision = "fp32", backend: str | None = None) -> None:
        super().__init__()
        if meta.arch not in ARCHITECTURES:
            raise ValueError(f"arch: one of {', '.join(ARCHITECTURES)} expected, got {meta.arch!r}")
        self.meta = meta
        self.arch = ARCHITECTURES[meta.arch]
        self.precision: Precision = precision
        self.backend = backend
        self.mpi_net = self.arch.mpi()
        self.mask_net = self.arch.mask() if meta.stage == "mask" else None
        for network in (self.mpi_net, self.mask_net):
            if network is not None:
                network.backend = backend

    @property
    def has_mask(self) -> bool:
        """Whether the model has a mask network (a stage-two checkpoint)."""
        return self.mask_net is not None

    def sweep(
        self,
        images: Tensor,  # [..., V, 3, Hs, Ws] in 0..1
        sources: Camera,  # [..., V]
        mpi_camera: Camera,  # [...]
        depths: Tensor,  # [..., D]
    ) -> Tensor:
        """Compute the plane sweep volume in the checkpoint's sampling convention.

        Args:
            images: ``[..., V, 3, Hs, Ws]`` in 0..1.
            sources: ``[..., V]``, the cameras of the images.
            mpi_camera: ``[...]``, the camera of the MPI, of size (H, W).
            depths: ``[..., D]``, plane depths in scene units, the farthest first.

        Returns:
            ``[..., V, 3, D, H, W]``; float16 if the networks run in bfloat16: colours in 0..1 keep 11 bits in half the
            memory.

        Raises:
            ValueError: the architecture does not take this number of views.
        """
        limit = self.arch.max_views
        if images.shape[-4] < 2 or (limit is not None and images.shape[-4] > limit):
            expected = f"2 to {limit}" if limit not in (None, 2) else ("2" if limit else "2 or more")
            raise ValueError(f"images: {expected} views expected by {self.meta.arch!r}, got {images.shape[-4]}")
        if self.precision == "bf16":
            images = images.half()
        return ops.sweep_planes(images, sources, mpi_camera, depths, sampling=self.meta.sampling, backend=self.backend)

    def mpi_from_sweep(
        self, sweep: Tensor, mpi_camera: Camera, depths: Tensor, context: Tensor | None = None
    ) -> MultiplaneImage:
        """Stage one: predict the MPI of a plane sweep volume.

        Args:
            sweep: ``[..., V, 3, D, H, W]``, the plane sweep volume.
            mpi_camera: ``[...]``, the camera of the sweep.
            depths: ``[..., D]``, plane depths in scene units, the farthest first.
            context: ``[..., D, H / 2, W / 2]``, the context of this window if the sweep covers only a part of the
                picture (``Architecture.context``).

        Returns:
            The MPI, float32.
        """
        batch = sweep.shape[:-5]
        conventions = {"mix_no_data": True} if self.meta.sampling == "original" else {}
        with self._autocast(sweep.device):
            if context is not None:
                context = context.reshape(-1, *context.shape[-3:])
            rgba = self.mpi_net(sweep.reshape(-1, *sweep.shape[-5:]), context, **conventions)
        rgba = rgba.float().contiguous().reshape(*batch, *rgba.shape[1:])  # crops the networks' padding
        return MultiplaneImage(rgba, mpi_camera, depths, self.arch.premultiplied)

    def dynamic(self, images: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor) -> MultiplaneImage:
        """Stage one: predict the MPI of one instant from pictures ``[..., V, 3, Hs, Ws]`` in 0..1."""
        return self.mpi_from_sweep(self.sweep(images, sources, mpi_camera, depths), mpi_camera, depths)

    def dynamic_with_logits(
        self, images: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor
    ) -> tuple[MultiplaneImage, Tensor]:
        """``dynamic`` of pictures ``[B, V, 3, Hs, Ws]``, and the plane logits ``[B, D, H, W]`` in the MPI's own view.

        Requires networks that predict a distribution over planes (``arch.gives_logits``).
        """
        sweep = self.sweep(images, sources, mpi_camera, depths)
        with self._autocast(sweep.device):
            rgba, logits = self.mpi_net.with_logits(sweep)  # type: ignore[operator]
        return MultiplaneImage(rgba.float(), mpi_camera, depths, self.arch.premultiplied), logits.float()

    def background(
        self, images: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor, views: int | None = None
    ) -> Background:
        """Compute the sweep and the MPI of the background; called once per clip.

        If the architecture provides costs of the whole picture (``Architecture.context``), the MPI ignores views that
        contradict them (``maskvolume.mpi.consistency``).

        Args:
            images: ``[..., B, 3, Hs, Ws]`` in 0..1: the V cameras of the frames first, then any additional cameras.
            sources: ``[..., B]``, the cameras of the images.
            mpi_camera: ``[...]``, the camera of the MPI.
            depths: ``[..., D]``, plane depths in scene units, the farthest first.
            views: V, the number of cameras whose sweep is kept; all by default.

        Returns:
            The sweep of the first V views, and the MPI of all of them.
        """
        count = images.shape[-4] if views is None else views
        sweep = self.sweep(images, sources, mpi_camera, depths)
        if self.arch.context is not None:
            sweep = self._without_contradicted(sweep, sources, mpi_camera, depths)
            mpi = self.mpi_from_sweep(sweep, mpi_camera, depths)
            del sweep  # sweeping again is cheap; a copy would cost memory
            first_views = (*(slice(None) for _ in images.shape[:-4]), slice(count))
            sweep = self.sweep(images[first_views], sources[first_views], mpi_camera, depths)
            return Background(sweep, mpi)
        mpi = self.mpi_from_sweep(sweep, mpi_camera, depths)
        if count < sweep.shape[-5]:
            sweep = sweep[..., :count, :, :, :, :].contiguous()
        return Background(sweep, mpi)

    @torch.no_grad()
    def _without_contradicted(self, sweep: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor) -> Tensor:
        """Remove data from the sweep ``[..., V, 3, D, H, W]`` where a view contradicts the costs; in place."""
        flat = sweep.reshape(-1, *sweep.shape[-5:])
        assert self.arch.context is not None
        costs = self.arch.context.of(flat, self.backend)[:, : flat.shape[-3]]
        camera = Camera(mpi_camera.T_cam_world.reshape(-1, 4, 4), mpi_camera.K.reshape(-1, 3, 3), mpi_camera.size)
        T, K = sources.T_cam_world, sources.K
        views = Camera(T.reshape(len(flat), -1, 4, 4), K.reshape(len(flat), -1, 3, 3), sources.size)
        contradictions = contradicted(costs, views, camera, depths.reshape(len(flat), -1))
        return leave_out(flat, contradictions).reshape(sweep.shape)

    def frame(self, images: Tensor, sources: Camera, background: Background) -> FrameMPI:
        """Stage two: predict the frame of pictures ``[..., V, 3, Hs, Ws]`` in 0..1, on the background's planes.

        Raises:
            ValueError: the model has no mask network.
        """
        background_mpi = background.mpi
        sweep = self.sweep(images, sources, background_mpi.camera, background_mpi.depths)
        dynamic = self.mpi_from_sweep(sweep, background_mpi.camera, background_mpi.depths)
        mask = self.mask_from_sweeps(sweep, background, dynamic)
        return FrameMPI(mask, dynamic, background_mpi)

    def mask_from_sweeps(self, sweep: Tensor, background: Background, dynamic: MultiplaneImage) -> Tensor:
        """Predict the mask volume ``[..., 1, D, H, W]`` in 0..1 of a frame from its sweep and MPI.

        Raises:
            ValueError: the model has no mask network.
        """
        if self.mask_net is None:
            raise ValueError("a stage-one checkpoint has no mask network")
        batch, sweep_shape = sweep.shape[:-5], sweep.shape[-5:]
        with self._autocast(sweep.device):
            mask = self.mask_net(
                sweep.reshape(-1, *sweep_shape),
                background.sweep.reshape(-1, *sweep_shape),
                dynamic.rgba.reshape(-1, *dynamic.rgba.shape[-4:]),
                background.mpi.rgba.reshape(-1, *dynamic.rgba.shape[-4:]),
            )
        return mask.float().contiguous().reshape(*batch, *mask.shape[1:])

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
