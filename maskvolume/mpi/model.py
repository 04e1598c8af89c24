"""Views and backgrounds in, multiplane images out: the two networks and how they are run."""

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
    """What a checkpoint says of itself.

    Attributes:
        stage: "mpi" for stage one (the MPI network alone), "mask" for stage two (both networks).
        arch: a name of ``maskvolume.networks.ARCHITECTURES``.
        sampling: the convention of the plane sweep that the networks were trained with.
        num_planes: the number of planes they were trained with, the default for rendering.
        info: how it was made: command, steps, metrics, commit. Free form, JSON.
    """

    stage: Stage
    arch: str
    sampling: Sampling = "exact"
    num_planes: int = 32
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Background:
    """What the background of a clip contributes, made once per clip.

    Attributes:
        sweep: ``[..., V, 3, D, H, W]`` plane sweep volume of the background pictures.
        mpi: the background's multiplane image.
    """

    sweep: Tensor
    mpi: MultiplaneImage


@dataclass(frozen=True)
class FrameMPI:
    """A frame's multiplane image, as what it is blended from.

    Attributes:
        mask: ``[..., 1, D, H, W]`` in 0..1, 1 where the frame's own MPI is taken.
        dynamic: the frame's own MPI.
        background: the clip's.
    """

    mask: Tensor
    dynamic: MultiplaneImage
    background: MultiplaneImage

    @property
    def mpi(self) -> MultiplaneImage:
        """The full MPI, ``mask * dynamic + (1 - mask) * background``; blended anew each time."""
        return blend(self.mask, self.dynamic, self.background)

    def render(self, target: Camera, backend: str | None = None) -> Rendering:
        """The view of a target camera; the full MPI is not stored."""
        return render_blended(self.mask, self.dynamic, self.background, target, backend)

    def stored(self, *, with_mask: bool = False) -> StoredFrame:
        """The same with the full MPI in memory, ready for many views; what it was blended from is let go."""
        return StoredFrame(self.mpi.prepared(), self.mask if with_mask else None)


@dataclass(frozen=True)
class StoredFrame:
    """A frame's multiplane image in full.

    Attributes:
        mpi: the full MPI.
        mask: ``[..., 1, D, H, W]`` that it was blended by; None where it isn't kept, or was none.
    """

    mpi: MultiplaneImage
    mask: Tensor | None = None

    def render(self, target: Camera, backend: str | None = None) -> Rendering:
        """The view of a target camera."""
        return self.mpi.render(target, backend)


class MaskVolumeModel(nn.Module):
    """The two networks of a checkpoint. Every method takes optional leading batch axes.

    Args:
        meta: architecture and conventions; a mask network is made for stage "mask" alone.
        precision: "bf16" runs the networks under autocast and keeps sweeps in float16; MPIs stay float32.
        backend: of the operations, also those of the networks; None for the best of the device.
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
        """Whether there is a mask network (a stage-two checkpoint)."""
        return self.mask_net is not None

    def sweep(
        self,
        images: Tensor,  # [..., V, 3, Hs, Ws] in 0..1
        sources: Camera,  # [..., V]
        mpi_camera: Camera,  # [...]
        depths: Tensor,  # [..., D]
    ) -> Tensor:
        """Plane sweep volume ``[..., V, 3, D, H, W]`` in the checkpoint's sampling convention.

        It is float16 where the networks run in bfloat16: colours in 0..1 keep 11 bits, in half the memory.
        """
        limit = self.arch.max_views
        if images.shape[-4] < 2 or (limit is not None and images.shape[-4] > limit):
            wanted = f"2 to {limit}" if limit not in (None, 2) else ("2" if limit else "2 or more")
            raise ValueError(f"images: {wanted} views expected by {self.meta.arch!r}, got {images.shape[-4]}")
        if self.precision == "bf16":
            images = images.half()
        return ops.sweep_planes(images, sources, mpi_camera, depths, sampling=self.meta.sampling, backend=self.backend)

    def mpi_from_sweep(
        self, sweep: Tensor, mpi_camera: Camera, depths: Tensor, context: Tensor | None = None
    ) -> MultiplaneImage:
        """Stage one: ``sweep [..., V, 3, D, H, W]`` to the MPI of what it shows.

        Args:
            sweep: plane sweep volume.
            mpi_camera: the camera that it was swept to.
            depths: of its planes.
            context: ``[..., D, H / 2, W / 2]`` where the sweep is of a part of a picture: this part of what the
                architecture looks at of the whole (``Architecture.context``).
        """
        batch = sweep.shape[:-5]
        extra = {"mix_no_data": True} if self.meta.sampling == "original" else {}
        with self._autocast(sweep.device):
            if context is not None:
                context = context.reshape(-1, *context.shape[-3:])
            rgba = self.mpi_net(sweep.reshape(-1, *sweep.shape[-5:]), context, **extra)
        rgba = rgba.float().contiguous().reshape(*batch, *rgba.shape[1:])  # what the networks padded is cut off
        return MultiplaneImage(rgba, mpi_camera, depths, self.arch.premultiplied)

    def dynamic(self, images: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor) -> MultiplaneImage:
        """Stage one on pictures ``[..., V, 3, Hs, Ws]``: the MPI of one instant."""
        return self.mpi_from_sweep(self.sweep(images, sources, mpi_camera, depths), mpi_camera, depths)

    def dynamic_with_logits(
        self, images: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor
    ) -> tuple[MultiplaneImage, Tensor]:
        """``dynamic`` of pictures ``[B, V, 3, Hs, Ws]``, and the logits ``[B, D, H, W]`` of its planes in its own view.

        Only networks that make a distribution over planes have these (``arch.gives_logits``).
        """
        sweep = self.sweep(images, sources, mpi_camera, depths)
        with self._autocast(sweep.device):
            rgba, logits = self.mpi_net.with_logits(sweep)  # type: ignore[operator]
        return MultiplaneImage(rgba.float(), mpi_camera, depths, self.arch.premultiplied), logits.float()

    def background(
        self, images: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor, views: int | None = None
    ) -> Background:
        """Sweep and MPI of the background pictures ``[..., B, 3, Hs, Ws]``: once per clip.

        Where the networks have costs of the whole picture (``Architecture.context``), the MPI leaves out the views that
        contradict them (``maskvolume.mpi.consistency``).

        Args:
            images: of the cameras that the frames are seen by, then of more of them, if there are.
            sources: their cameras ``[..., B]``.
            mpi_camera: the camera of the MPI.
            depths: of its planes.
            views: number V of the cameras that the frames are seen by, whose sweep is kept; all by default.
        """
        count = images.shape[-4] if views is None else views
        sweep = self.sweep(images, sources, mpi_camera, depths)
        if self.arch.context is not None:
            sweep = self._without_contradicted(sweep, sources, mpi_camera, depths)
            mpi = self.mpi_from_sweep(sweep, mpi_camera, depths)
            del sweep  # a sweep takes less time than a copy takes memory
            kept = (*(slice(None) for _ in images.shape[:-4]), slice(count))
            sweep = self.sweep(images[kept], sources[kept], mpi_camera, depths)
            return Background(sweep, mpi)
        mpi = self.mpi_from_sweep(sweep, mpi_camera, depths)
        if count < sweep.shape[-5]:
            sweep = sweep[..., :count, :, :, :, :].contiguous()
        return Background(sweep, mpi)

    @torch.no_grad()
    def _without_contradicted(self, sweep: Tensor, sources: Camera, mpi_camera: Camera, depths: Tensor) -> Tensor:
        """The sweep ``[..., V, 3, D, H, W]`` without data where a view can't see what is claimed; changes it."""
        flat = sweep.reshape(-1, *sweep.shape[-5:])
        assert self.arch.context is not None
        costs = self.arch.context.of(flat, self.backend)[:, : flat.shape[-3]]
        camera = Camera(mpi_camera.T_cam_world.reshape(-1, 4, 4), mpi_camera.K.reshape(-1, 3, 3), mpi_camera.size)
        T, K = sources.T_cam_world, sources.K
        views = Camera(T.reshape(len(flat), -1, 4, 4), K.reshape(len(flat), -1, 3, 3), sources.size)
        found = contradicted(costs, views, camera, depths.reshape(len(flat), -1))
        return leave_out(flat, found).reshape(sweep.shape)

    def frame(self, images: Tensor, sources: Camera, background: Background) -> FrameMPI:
        """Stage two on the pictures ``[..., V, 3, Hs, Ws]`` of an instant, on the background's planes."""
        still = background.mpi
        sweep = self.sweep(images, sources, still.camera, still.depths)
        dynamic = self.mpi_from_sweep(sweep, still.camera, still.depths)
        mask = self.mask_from_sweeps(sweep, background, dynamic)
        return FrameMPI(mask, dynamic, still)

    def mask_from_sweeps(self, sweep: Tensor, background: Background, dynamic: MultiplaneImage) -> Tensor:
        """The mask volume ``[..., 1, D, H, W]`` of a frame whose sweep and MPI are known."""
        if self.mask_net is None:
            raise ValueError("a stage-one checkpoint has no mask network")
        batch, inner = sweep.shape[:-5], sweep.shape[-5:]
        with self._autocast(sweep.device):
            mask = self.mask_net(
                sweep.reshape(-1, *inner),
                background.sweep.reshape(-1, *inner),
                dynamic.rgba.reshape(-1, *dynamic.rgba.shape[-4:]),
                background.mpi.rgba.reshape(-1, *dynamic.rgba.shape[-4:]),
            )
        return mask.float().contiguous().reshape(*batch, *mask.shape[1:])

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
