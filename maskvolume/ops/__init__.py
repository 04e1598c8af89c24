"""Operations with more than one implementation, behind one dispatch.

Axes: B batch, V view, D plane (0 = farthest), H and W pixels; leading ``...`` are any batch axes. ``backend=None``
selects the best implementation for the device and dtypes of the inputs, and for gradients if they are needed; a name
selects that backend. ``"reference"`` is plain torch; the others fall back to it for what they do not speed up. Every
operation raises ValueError on mismatched shapes, an unknown backend, or a backend that cannot run on the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.ops.checks import check_batch, check_mpi, check_planes, check_sweep
from maskvolume.ops.dispatch import (
    available_backends,
    choose,
    missing_backends,
    select_backend,
)
from maskvolume.ops.reference.pixels import valid_views
from maskvolume.ops.types import (
    MASK_FEATURES,
    MATCHING_FEATURES,
    NO_DATA,
    Backend,
    CostSettings,
    PathPrices,
    PlaneSettings,
    Rendering,
    RobustSettings,
    Sampling,
)

__all__ = [
    "MASK_FEATURES",
    "MATCHING_FEATURES",
    "NO_DATA",
    "Backend",
    "CostSettings",
    "PathPrices",
    "PlaneSettings",
    "Rendering",
    "RobustSettings",
    "Sampling",
    "aggregate",
    "available_backends",
    "blend_planes",
    "composite",
    "fill_unseen",
    "make_mask",
    "make_planes",
    "make_planes_with_logits",
    "mask_evidence",
    "matching_evidence",
    "missing_backends",
    "remaining_transmittance",
    "render_blended",
    "render_mpi",
    "robust_costs",
    "select_backend",
    "stored_dtype",
    "sweep_planes",
    "valid_views",
]


def stored_dtype(device: torch.device, backend: str | None = None) -> torch.dtype:
    """Return the dtype in which a backend renders many views of the same planes fastest.

    Args:
        device: of the planes.
        backend: name of the backend; None: the preferred one of the device.

    Raises:
        ValueError: the name is unknown, or the backend cannot run on the device.
    """
    return select_backend(backend, device).stored_dtype


# --- planes, views and pixels ---------------------------------------------------------------------


def sweep_planes(
    images: Tensor,  # [..., V, C, Hs, Ws]
    sources: Camera,  # [..., V]
    reference: Camera,  # [...]
    depths: Tensor,  # [..., D]
    *,
    sampling: Sampling = "exact",
    backend: str | None = None,
) -> Tensor:
    """Warp every source to every plane of the reference: a plane sweep volume ``[..., V, C, D, H, W]``.

    Args:
        images: source pictures, colours in 0..1; float32 or bfloat16 (warped in float32).
        sources: cameras of the pictures, with the same size.
        reference: the camera whose frustum is swept; its size is H, W of the volume.
        depths: depths of the planes in the reference, scene units, > 0.
        sampling: ``"exact"`` samples at pixel centres; ``"original"`` has the half-pixel error of the original.

    Returns:
        The volume in the dtype of ``images``; -1 ("no data") in every channel of a view that does not see the point.

    Convention: inverse warp, bilinear, pixel centres at +0.5. With ``"exact"``, a point has data if it is within the
    picture rectangle; with ``"original"``, the border is mixed with -1.
    """
    if images.ndim < 4:
        raise ValueError(f"images: [..., V, C, H, W] expected, got {list(images.shape)}")
    if tuple(images.shape[-2:]) != tuple(sources.size):
        raise ValueError(f"images: the sources' size {sources.size} expected, got {list(images.shape[-2:])}")
    if sources.batch_shape != images.shape[:-3]:
        raise ValueError(
            f"sources: batch axes {list(images.shape[:-3])} of images expected, got {list(sources.batch_shape)}"
        )
    check_batch("reference", reference.batch_shape, images.shape[:-4])
    check_batch("depths", depths.shape[:-1], images.shape[:-4])
    chosen = choose(backend, "sweep_planes", (images,))
    return chosen.sweep_planes(images, sources, reference, depths, sampling)


def render_mpi(
    rgba: Tensor,  # [..., D, 4, H, W]
    camera: Camera,  # [...]
    depths: Tensor,  # [..., D]
    target: Camera,  # [...] or [..., N]
    *,
    premultiplied: bool = True,
    backend: str | None = None,
) -> Rendering:
    """Render a multiplane image from one target camera or from N at once.

    Args:
        rgba: planes of colour and opacity (0..1), plane 0 the farthest; uint8 stores value * 255.
        camera: the camera of the MPI, with the size of the planes.
        depths: depths of the planes in ``camera``.
        target: the camera to render from; any size.
        premultiplied: whether the colour of ``rgba`` is already multiplied by its opacity. Colours are sampled
            unchanged: sampling straight colours darkens plane borders, as in the original.

    Returns:
        Colour over black, opacity, and disparity (1 / depth in ``camera``, weighted by opacity), ``[..., C, h, w]``.

    Convention: inverse warp with one homography per plane, bilinear, ``align_corners=False``, zero padding; planes
    behind the target are invisible.
    """
    check_mpi("rgba", rgba, camera, depths, target)
    chosen = choose(backend, "render_mpi", (rgba,))
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
    """Render ``mask * dynamic + (1 - mask) * background``, for colour and opacity, without storing the blend.

    Blends texel by texel, then renders like ``render_mpi``, with the same arguments and result. This pays off for one
    or two views of an MPI; for more, blend once (``maskvolume.mpi.image.blend``) and render the blend.
    """
    check_mpi("dynamic", dynamic, camera, depths, target)
    if background.shape != dynamic.shape:
        raise ValueError(f"background: {list(dynamic.shape)} of dynamic expected, got {list(background.shape)}")
    wanted = (*dynamic.shape[:-4], 1, dynamic.shape[-4], *dynamic.shape[-2:])
    if tuple(mask.shape) != wanted:
        raise ValueError(f"mask: {list(wanted)} expected, got {list(mask.shape)}")
    chosen = choose(backend, "render_blended", (mask, dynamic, background))
    return chosen.render_blended(mask, dynamic, background, camera, depths, target, premultiplied)


def blend_planes(
    mask: Tensor,  # [..., 1, D, H, W]
    dynamic: Tensor,  # [..., D, 4, H, W]
    background: Tensor,  # [..., D, 4, H, W]
    *,
    backend: str | None = None,
) -> Tensor:
    """Return ``mask * dynamic + (1 - mask) * background``, for colour and opacity: ``[..., D, 4, H, W]``."""
    return choose(backend, "blend_planes", (dynamic, background, mask)).blend_planes(mask, dynamic, background)


def composite(
    rgba: Tensor,  # [..., D, 4, H, W]
    depths: Tensor,  # [..., D]
    *,
    premultiplied: bool = True,
    backend: str | None = None,
) -> Rendering:
    """Over-composite unwarped planes, plane 0 the farthest: the view from the camera of the MPI.

    w_i = alpha_i * prod over nearer j of (1 - alpha_j); colour = sum w_i c_i; opacity = sum w_i;
    disparity = sum w_i / depth_i.
    """
    check_planes("rgba", rgba, depths)
    return choose(backend, "composite", (rgba,)).composite(rgba, depths, premultiplied)


def fill_unseen(rendering: Rendering, *, backend: str | None = None) -> Rendering:
    """Fill pixels that no plane covers with the colour of their surroundings (pull-push over a pyramid).

    Divides colour and disparity by the opacity where it is not 0, and fills the rest from coarser and coarser levels.
    Gortler et al., "The Lumigraph", 1996, section 3.6.

    Returns:
        Colour and disparity in float32 as if every pixel were opaque, and the original opacity. A fully covered view
        is returned unchanged.
    """
    inputs = rendering.color, rendering.disparity, rendering.opacity
    return choose(backend, "fill_unseen", inputs).fill_unseen(rendering)


# --- evidence of plane sweeps ---------------------------------------------------------------------


def matching_evidence(
    sweep: Tensor,  # [B, V, 3, D, H, W]
    settings: CostSettings,
    *,
    channels: int = MATCHING_FEATURES,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Measure how well views agree on each plane at each pixel. Without gradients.

    Args:
        sweep: plane sweep volume, ``NO_DATA`` where a view sees nothing; H and W are even.
        settings: how to compare views.
        channels: number of features; the caller fills those after the first ``MATCHING_FEATURES``.
        dtype: dtype of the features.
        backend: see the module. Implementations are within 1e-6 of each other.

    Returns:
        The cost ``[B, 1, D, H, W]`` over the wide window in float32, and features ``[B, channels, D, H / 2, W / 2]``.
    """
    check_sweep(sweep)
    return choose(backend, "matching_evidence", (sweep,), dtype).matching_evidence(sweep, settings, channels, dtype)


def mask_evidence(
    sweep: Tensor,  # [B, V, 3, D, H, W]
    background: Tensor,  # [B, V, 3, D, H, W]
    opacities: Tensor,  # [B, 2, D, H, W]
    settings: CostSettings,
    *,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Measure how a frame differs from the background, on each plane at each pixel. Without gradients.

    A point on a moving surface differs in every view that sees it; a static point differs only in views where a mover
    hides it. The evidence is therefore the smallest difference over the views, at the point or where its ray ends.

    Args:
        sweep: plane sweep volume of the frame; H and W are even.
        background: plane sweep volume of the background.
        opacities: opacities of the frame MPI and the background MPI, float32 in 0..1.
        settings: how to compare views.
        dtype: dtype of the features.
        backend: see the module. Implementations are within 1e-6 of each other.

    Returns:
        Features ``[B, MASK_FEATURES, D, H / 2, W / 2]``, and the evidence ``[B, 1, D, H, W]`` in float32.
    """
    check_sweep(sweep)
    if background.shape != sweep.shape:
        raise ValueError(f"background: {list(sweep.shape)} of sweep expected, got {list(background.shape)}")
    chosen = choose(backend, "mask_evidence", (sweep, background, opacities), dtype)
    return chosen.mask_evidence(sweep, background, opacities, settings, dtype)


def robust_costs(
    sweep: Tensor,  # [B, V, 3, D, H, W]
    settings: RobustSettings,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute plane costs that are robust to views in which the point is hidden. Without gradients.

    Compares brightness, its gradient and colour of each view with the first view that sees the point, and counts only
    the smaller half of the differences.

    Args:
        sweep: plane sweep volume; H and W are even.
        settings: how to compare views.
        backend: see the module.

    Returns:
        The cost and the difference of the two most similar views, each ``[B, D, H / 2, W / 2]`` in float32.
    """
    check_sweep(sweep)
    return choose(backend, "robust_costs", (sweep,)).robust_costs(sweep, settings)


def aggregate(
    cost: Tensor,  # [B, D, h, w]
    guide: Tensor,  # [B, h, w]
    prices: PathPrices,
    *,
    backend: str | None = None,
) -> Tensor:
    """Average plane costs accumulated along paths in eight directions, ``[B, D, h, w]``. Without gradients.

    The path cost at a pixel is its own cost plus the lowest path cost at the previous pixel: on the same plane, on a
    neighbouring plane plus the price of a step, or on any other plus that of a jump (Hirschmueller 2008, eq. 13).

    Args:
        cost: cost of each plane at each pixel, float32.
        guide: brightness, float32; jumps are cheaper where it changes.
        prices: prices of steps and jumps.
        backend: see the module. Implementations are within 1e-5 of each other.
    """
    if cost.ndim != 4:
        raise ValueError(f"cost: [B, D, h, w] expected, got {list(cost.shape)}")
    if guide.shape != (cost.shape[0], *cost.shape[2:]):
        raise ValueError(f"guide: {[cost.shape[0], *cost.shape[2:]]} expected, got {list(guide.shape)}")
    return choose(backend, "aggregate", (cost, guide)).aggregate(cost, guide, prices)


def remaining_transmittance(opacity: Tensor, *, backend: str | None = None) -> Tensor:
    """Return the transmittance of each reference ray in front of each plane, from opacities ``[B, D, H, W]``."""
    return choose(backend, "remaining_transmittance", (opacity,)).remaining_transmittance(opacity)


# --- planes and masks of the networks -------------------------------------------------------------


def make_planes(
    unet_output: Tensor,  # [B, 8, D, H / 2, W / 2]
    penalty: Tensor,  # [B, 1, D, H, W]
    sweep: Tensor,  # [B, V, 3, D, H, W]
    settings: PlaneSettings,
    size: tuple[int, int, int],
    *,
    backend: str | None = None,
) -> Tensor:
    """Return the premultiplied planes ``[B, d, 4, h, w]`` of ``make_planes_with_logits``, with the same arguments."""
    trust = () if settings.trust is None else (settings.trust,)
    chosen = choose(backend, "make_planes", (sweep, unet_output, penalty, *trust), unet_output.dtype)
    return chosen.make_planes(unet_output, penalty, sweep, settings, size)


def make_planes_with_logits(
    unet_output: Tensor,  # [B, 8, D, H / 2, W / 2]
    penalty: Tensor,  # [B, 1, D, H, W]
    sweep: Tensor,  # [B, V, 3, D, H, W]
    settings: PlaneSettings,
    size: tuple[int, int, int],
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute premultiplied planes and their logits from residual logits. Differentiable.

    Opacities come from stick breaking: with w the softmax of the logits over planes, alpha_d = w_d / (sum of w over d
    and all farther planes). Compositing in the reference view then weights plane d by w_d; the farthest is opaque.

    Args:
        unet_output: for each 2 x 2 pixels, four residual logits, then four logits of the first view against the others.
        penalty: subtracted from the logits.
        sweep: colours, ``NO_DATA`` where a view sees nothing.
        settings: how to colour planes.
        size: ``(d, h, w)`` of the result, cropped from the padded D, H and W.
        backend: see the module.

    Returns:
        Planes ``[B, d, 4, h, w]``, and the logits ``[B, d, h, w]`` along each ray of the reference.
    """
    chosen = choose(backend, "make_planes_with_logits", (sweep, unet_output, penalty), unet_output.dtype)
    return chosen.make_planes_with_logits(unet_output, penalty, sweep, settings, size)


def make_mask(
    unet_output: Tensor,  # [B, 4, D, H / 2, W / 2]
    evidence: Tensor,  # [B, 1, D, H, W]
    opacity: Tensor,  # [B, D, H, W]
    *,
    slope: Tensor,  # []
    threshold: Tensor,  # []
    hidden: Tensor,  # []
    size: tuple[int, int, int],
    backend: str | None = None,
) -> Tensor:
    """Compute the mask ``sigmoid(residual + slope * (evidence - threshold))``, low behind movers.

    Args:
        unet_output: four residuals for each 2 x 2 pixels.
        evidence: evidence of motion.
        opacity: opacity of the frame MPI.
        slope: slope of the prior.
        threshold: evidence at which the prior is 0.5.
        hidden: transmittance behind movers below which the background takes over.
        size: ``(d, h, w)`` of the result, cropped from the padded D, H and W.
        backend: see the module.

    Returns:
        The mask ``[B, 1, d, h, w]`` in 0..1.
    """
    chosen = choose(backend, "make_mask", (unet_output, evidence, opacity, slope), unet_output.dtype)
    return chosen.make_mask(unet_output, evidence, opacity, slope, threshold, hidden, size)
