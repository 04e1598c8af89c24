"""Multiplane images: planes of colour and opacity in the frustum of a camera of their own."""

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
        rgba: ``[..., D, 4, H, W]``, plane 0 the farthest.
        camera: ``[...]`` the MPI's own camera, of size (H, W): any pose, any frustum.
        depths: ``[..., D]`` of the planes in that camera, scene units.
        premultiplied: whether colours are multiplied by their opacity; the original's are not.
    """

    rgba: Tensor
    camera: Camera
    depths: Tensor
    premultiplied: bool = True

    def prepared(self) -> MultiplaneImage:
        """The same MPI in the type that many views are rendered fastest from: half precision, where it is there.

        Colours and opacities in 0..1 keep 11 bits.
        """
        return replace(self, rgba=self.rgba.to(ops.stored_dtype(self.rgba.device)).contiguous())

    def cropped(self, top: int, left: int, size: tuple[int, int]) -> MultiplaneImage:
        """The window of ``size`` (h, w) whose top left pixel is (top, left), within the planes; shares their memory."""
        h, w = size
        window = self.rgba[..., top : top + h, left : left + w]
        return replace(self, rgba=window, camera=self.camera.cropped(top, left, size))

    def render(self, target: Camera, backend: str | None = None) -> Rendering:
        """The view of a target camera of any size, or of N of them: one axis more than the MPI's."""
        return ops.render_mpi(
            self.rgba, self.camera, self.depths, target, premultiplied=self.premultiplied, backend=backend
        )

    def composite(self, backend: str | None = None) -> Rendering:
        """The view of the MPI's own camera."""
        return ops.composite(self.rgba, self.depths, premultiplied=self.premultiplied, backend=backend)


def blend(
    mask: Tensor,  # [..., 1, D, H, W] in 0..1
    dynamic: MultiplaneImage,
    background: MultiplaneImage,
) -> MultiplaneImage:
    """``mask * dynamic + (1 - mask) * background``, colour and opacity alike (Lin et al., ICCV 2021, eq. 2).

    Both must lie on the same planes of the same camera. Between premultiplied MPIs, colours are thereby weighted
    by their opacity, so that the colour of an empty place never shows.
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
    """The view that a target camera has of ``blend``, which is not stored."""
    _check_alike(dynamic, background)
    return ops.render_blended(
        mask, dynamic.rgba, background.rgba, dynamic.camera, dynamic.depths, target,
        premultiplied=dynamic.premultiplied, backend=backend,
    )  # fmt: skip


def _check_alike(dynamic: MultiplaneImage, background: MultiplaneImage) -> None:
    if dynamic.premultiplied != background.premultiplied:
        raise ValueError("dynamic, background: both premultiplied or both straight expected")
