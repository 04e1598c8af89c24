"""Multiplane images: planes of colour and opacity in the frustum of a camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from maskvolume import ops
from maskvolume.geometry.cameras import Camera
from maskvolume.ops import Rendering


@dataclass(frozen=True)
class MultiplaneImage:
    """Planes of colour and opacity.

    Attributes:
        rgba: ``[..., D, 4, H, W]`` in 0..1, plane 0 the farthest.
        camera: ``[...]``, the MPI's own camera of size (H, W), with any pose and frustum.
        depths: ``[..., D]``, plane depths in that camera, in scene units.
        premultiplied: whether colours are multiplied by opacity; those of the original implementation are not.
    """

    rgba: Tensor
    camera: Camera
    depths: Tensor
    premultiplied: bool = True

    def prepared(self, backend: str | None = None) -> MultiplaneImage:
        """A copy in the type that a backend renders fastest: half precision, but for the reference.

        Colours and opacities in 0..1 keep 11 bits in half precision.
        """
        return replace(self, rgba=self.rgba.to(ops.stored_dtype(self.rgba.device, backend)).contiguous())

    def cropped(self, top: int, left: int, size: tuple[int, int]) -> MultiplaneImage:
        """The window of ``size`` (h, w) whose top left pixel is (top, left); shares memory with the planes."""
        h, w = size
        window = self.rgba[..., top : top + h, left : left + w]
        return replace(self, rgba=window, camera=self.camera.cropped(top, left, size))

    def render(self, target: Camera, backend: str | None = None) -> Rendering:
        """Render the view of a target camera of any size, or of ``[N]``, which adds a batch axis to the result."""
        return ops.render_mpi(
            self.rgba, self.camera, self.depths, target, premultiplied=self.premultiplied, backend=backend
        )

    def composite(self, backend: str | None = None) -> Rendering:
        """Over-composite the planes in the MPI's own camera, ``[..., C, H, W]``."""
        return ops.composite(self.rgba, self.depths, premultiplied=self.premultiplied, backend=backend)


def blend(
    mask: Tensor,  # [..., 1, D, H, W] in 0..1
    dynamic: MultiplaneImage,
    background: MultiplaneImage,
) -> MultiplaneImage:
    """Blend two MPIs: ``mask * dynamic + (1 - mask) * background`` for colour and opacity (Lin et al. 2021, eq. 2).

    Both MPIs must have the same camera and planes. Premultiplied colours are thereby weighted by opacity, so the colour
    of empty space never shows.

    Args:
        mask: ``[..., 1, D, H, W]`` in 0..1.
        dynamic: the MPI of the frame.
        background: the MPI of the background.

    Returns:
        The blended MPI.

    Raises:
        ValueError: only one of the MPIs is premultiplied.
    """
    _check_alike(dynamic, background)
    rgba = ops.blend_planes(mask, dynamic.rgba, background.rgba)
    return MultiplaneImage(rgba, dynamic.camera, dynamic.depths, dynamic.premultiplied)


def render_blended(
    mask: Tensor,  # [..., 1, D, H, W] in 0..1
    dynamic: MultiplaneImage,
    background: MultiplaneImage,
    target: Camera,
    backend: str | None = None,
) -> Rendering:
    """Render ``blend(mask, dynamic, background)`` from a target camera without storing the blended MPI.

    Raises:
        ValueError: only one of the MPIs is premultiplied.
    """
    _check_alike(dynamic, background)
    return ops.render_blended(
        mask, dynamic.rgba, background.rgba, dynamic.camera, dynamic.depths, target,
        premultiplied=dynamic.premultiplied, backend=backend,
    )  # fmt: skip


def _check_alike(dynamic: MultiplaneImage, background: MultiplaneImage) -> None:
    if dynamic.premultiplied != background.premultiplied:
        raise ValueError("dynamic, background: both premultiplied or both straight expected")
