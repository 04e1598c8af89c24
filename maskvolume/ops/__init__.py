"""The operations that have more than one implementation: one signature each, behind one dispatch.

``backend=None`` takes the best implementation for the device of the inputs; a name takes that one, and one
that is unknown or can't run here raises.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.ops import reference as _reference
from maskvolume.ops.operators import FusedBackend
from maskvolume.ops.types import Backend, Rendering, Sampling

__all__ = [
    "NO_DATA",
    "Backend",
    "Rendering",
    "Sampling",
    "available_backends",
    "blend_planes",
    "composite",
    "missing_backends",
    "render_blended",
    "render_mpi",
    "select_backend",
    "stored_dtype",
    "sweep_planes",
]

NO_DATA = _reference.NO_DATA
blend_planes = _reference.blend_planes

# The preferred ones first.
_BACKENDS: dict[str, Backend] = {
    "triton": FusedBackend("cuda"),
    "compiled": FusedBackend("cpu"),
    "reference": _reference.ReferenceBackend(),
}


def available_backends(device: torch.device) -> list[str]:
    """Names of the backends that run on a device, the preferred one first."""
    return [name for name, backend in _BACKENDS.items() if backend.supports(device)]


def missing_backends(device: torch.device) -> dict[str, str]:
    """The backends that are made for a device but can't be had on this machine, and why."""
    made = {name: backend for name, backend in _BACKENDS.items() if isinstance(backend, FusedBackend)}
    reasons = {name: backend.missing() for name, backend in made.items() if backend.device_type == device.type}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def select_backend(name: str | None, device: torch.device) -> Backend:
    """The backend of that name, or the preferred one of the device for None.

    Raises:
        ValueError: the name is unknown, or the backend can't run on the device.
    """
    usable = available_backends(device)
    if name is None:
        return _BACKENDS[usable[0]]
    if name not in usable:
        raise ValueError(f"backend: {name!r} can't run on {device.type}; available: {', '.join(usable)}")
    return _BACKENDS[name]


def stored_dtype(device: torch.device) -> torch.dtype:
    """The type of planes that many views are rendered of fastest on a device."""
    return select_backend(None, device).stored_dtype


def sweep_planes(
    images: Tensor,  # [..., V, C, Hs, Ws]
    sources: Camera,  # [..., V]
    reference: Camera,  # [...]
    depths: Tensor,  # [..., D]
    *,
    sampling: Sampling = "exact",
    backend: str | None = None,
) -> Tensor:
    """Plane sweep volume ``[..., V, C, D, H, W]``: every source warped to every plane of the reference.

    Args:
        images: colours in 0..1, pictures of the sources; float32 or bfloat16 (warped in float32).
        sources: cameras of the pictures, of the pictures' size.
        reference: the camera whose frustum is swept; its size is the volume's H, W.
        depths: depths of the planes in the reference, scene units, > 0.
        sampling: ``"exact"`` samples at pixel centres; ``"original"`` repeats the half-pixel error of the
            original implementation (``align_corners=True`` on the same coordinates).

    Returns:
        The dtype of ``images``. Where a point falls outside a source or behind it, every channel of that view is
        -1 ("no data").

    Convention: inverse warp, bilinear, pixel centres at +0.5. Under ``"exact"`` a point has data if it falls
    within the picture's rectangle; under ``"original"`` the border is mixed with -1.
    """
    if images.ndim < 4:
        raise ValueError(f"images: [..., V, C, H, W] expected, got {list(images.shape)}")
    if tuple(images.shape[-2:]) != tuple(sources.size):
        raise ValueError(f"images: the sources' size {sources.size} expected, got {list(images.shape[-2:])}")
    if sources.batch_shape != images.shape[:-3]:
        raise ValueError(
            f"sources: batch axes {list(images.shape[:-3])} of images expected, got {list(sources.batch_shape)}"
        )
    _check_batch("reference", reference.batch_shape, images.shape[:-4])
    _check_batch("depths", depths.shape[:-1], images.shape[:-4])
    return select_backend(backend, images.device).sweep_planes(images, sources, reference, depths, sampling)


def render_mpi(
    rgba: Tensor,  # [..., D, 4, H, W]
    camera: Camera,  # [...]
    depths: Tensor,  # [..., D]
    target: Camera,  # [...] or [..., N]
    *,
    premultiplied: bool = True,
    backend: str | None = None,
) -> Rendering:
    """Render a multiplane image from a target camera, or from N of them at once.

    Args:
        rgba: planes of colour and opacity (0..1), plane 0 the farthest; uint8 stands for value * 255.
        camera: the camera of the MPI, of the planes' size.
        depths: depths of the planes in ``camera``.
        target: where to look from; any size.
        premultiplied: whether the colour of ``rgba`` is already multiplied by its opacity. Colours are sampled as
            they are given: sampling straight colours darkens plane borders, as the original does.

    Returns:
        Colour over black, opacity, and disparity (1 / depth in ``camera``, weighted by opacity).

    Convention: inverse warp by one homography a plane, bilinear, ``align_corners=False``, zero padding;
    planes behind the target don't show.
    """
    _check_mpi("rgba", rgba, camera, depths, target)
    chosen = _renderer(backend, rgba)
    return chosen.render_mpi(rgba, camera, depths, target, premultiplied)


def render_blended(
    mask: Tensor,  # [..., 1, D, H, W]
    dynamic: Tensor,  # [..., D, 4, H, W]
    background: Tensor,  # [..., D, 4, H, W]
    camera: Camera,  # [...]
    depths: Tensor,  # [..., D]
    target: Camera,  # [...] or [..., N]
    *,
    premultiplied: bool = True,
    backend: str | None = None,
) -> Rendering:
    """Render ``mask * dynamic + (1 - mask) * background``, colour and opacity alike, without storing it.

    Blended texel by texel, then rendered as ``render_mpi`` does; see there for the arguments. Worth it for a view or
    two of an MPI: for more, blend once (``maskvolume.mpi.image.blend``) and render that.
    """
    _check_mpi("dynamic", dynamic, camera, depths, target)
    if background.shape != dynamic.shape:
        raise ValueError(f"background: {list(dynamic.shape)} of dynamic expected, got {list(background.shape)}")
    wanted = (*dynamic.shape[:-4], 1, dynamic.shape[-4], *dynamic.shape[-2:])
    if tuple(mask.shape) != wanted:
        raise ValueError(f"mask: {list(wanted)} expected, got {list(mask.shape)}")
    chosen = _renderer(backend, mask, dynamic, background)
    return chosen.render_blended(mask, dynamic, background, camera, depths, target, premultiplied)


def composite(
    rgba: Tensor,  # [..., D, 4, H, W]
    depths: Tensor,  # [..., D]
    *,
    premultiplied: bool = True,
    backend: str | None = None,
) -> Rendering:
    """Over-composite planes as they lie, plane 0 the farthest: the view of the MPI's own camera.

    w_i = alpha_i * prod over nearer j of (1 - alpha_j); colour = sum w_i c_i; opacity = sum w_i;
    disparity = sum w_i / depth_i.
    """
    _check_planes("rgba", rgba, depths)
    return select_backend(backend, rgba.device).composite(rgba, depths, premultiplied)


def _renderer(name: str | None, *inputs: Tensor) -> Backend:
    """The backend of that name, or the preferred one that renders these inputs."""
    if name is None:  # training needs a gradient, which not every implementation has
        usable = (_BACKENDS[each] for each in available_backends(inputs[0].device))
        return next(candidate for candidate in usable if all(candidate.renders(x) for x in inputs))
    chosen = select_backend(name, inputs[0].device)
    for x in inputs:
        if not chosen.renders(x):
            raise ValueError(f"backend: {name!r} renders no planes of {x.dtype} or with a gradient")
    return chosen


def _check_planes(name: str, rgba: Tensor, depths: Tensor) -> None:
    if rgba.ndim < 4 or rgba.shape[-3] != 4:
        raise ValueError(f"{name}: [..., D, 4, H, W] expected, got {list(rgba.shape)}")
    if depths.shape != rgba.shape[:-3]:
        raise ValueError(f"depths: {list(rgba.shape[:-3])} expected, got {list(depths.shape)}")


def _check_mpi(name: str, rgba: Tensor, camera: Camera, depths: Tensor, target: Camera) -> None:
    _check_planes(name, rgba, depths)
    if tuple(rgba.shape[-2:]) != tuple(camera.size):
        raise ValueError(f"{name}: the camera's size {camera.size} expected, got {list(rgba.shape[-2:])}")
    _check_batch("camera", camera.batch_shape, rgba.shape[:-4])
    batch, views = rgba.shape[:-4], target.batch_shape
    if views[: len(batch)] != batch or len(views) > len(batch) + 1:
        raise ValueError(f"target: batch axes {list(batch)} expected, and at most one more, got {list(views)}")


def _check_batch(name: str, got: torch.Size, expected: torch.Size) -> None:
    if got != expected:
        raise ValueError(f"{name}: batch axes {list(expected)} expected, got {list(got)}")
