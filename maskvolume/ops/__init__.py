"""The operations that have more than one implementation: one signature each, behind one dispatch.

Axes: B batch, V view, D plane (0 = farthest), H and W pixels; leading ``...`` are any batch axes. ``backend=None``
takes the best implementation for the device and the types of the inputs, and for a gradient where one is needed. A name
takes that one: ``"reference"`` is plain torch for every operation, the others inherit from it what they don't speed up.
Every operation raises ValueError where a shape doesn't fit, and where the named backend is unknown or can't run on
these inputs.
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


def stored_dtype(device: torch.device) -> torch.dtype:
    """The type of planes that many views are rendered of fastest on a device."""
    return select_backend(None, device).stored_dtype


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
    """Render ``mask * dynamic + (1 - mask) * background``, colour and opacity alike, without storing it.

    Blended texel by texel, then rendered as ``render_mpi`` does; see there for the arguments. Worth it for a view or
    two of an MPI: for more, blend once (``maskvolume.mpi.image.blend``) and render that.
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
    """``mask * dynamic + (1 - mask) * background`` of planes, colour and opacity alike: ``[..., D, 4, H, W]``."""
    return choose(backend, "blend_planes", (dynamic, background, mask)).blend_planes(mask, dynamic, background)


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
    check_planes("rgba", rgba, depths)
    return choose(backend, "composite", (rgba,)).composite(rgba, depths, premultiplied)


def fill_unseen(rendering: Rendering, *, backend: str | None = None) -> Rendering:
    """Give pixels that no plane covers the colour of their surroundings (pull-push over a pyramid).

    Colour and disparity are divided by the opacity where there is some; what is missing comes from ever
    coarser levels. Gortler et al., "The Lumigraph", 1996, section 3.6.

    Args:
        rendering: one view or any batch of them.
        backend: see the module.

    Returns:
        Colour and disparity in float32 as if every pixel were opaque, and the opacity as it was. A view that is covered
        everywhere stays what it is.
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
    """How well views agree on each plane at each pixel. Without gradients.

    Args:
        sweep: plane sweep volume, ``NO_DATA`` where a view sees nothing; H and W are even.
        settings: how views are compared.
        channels: of the features; those after the ``MATCHING_FEATURES`` first are left to the caller.
        dtype: of the features.
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
    """What differs between a frame and the background, on each plane at each pixel. Without gradients.

    A point of a moving surface differs in every view that sees it; one that stands still only in views where something
    that moves hides it. So the evidence is the smallest difference over the views, there or where the ray ends.

    Args:
        sweep: plane sweep volume of the frame; H and W are even.
        background: that of the background.
        opacities: of the frame's MPI and of the background's, float32 in 0..1.
        settings: how views are compared.
        dtype: of the features.
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
    """Costs of planes that a view from which the point is hidden doesn't spoil. Without gradients.

    Brightness, its gradient and colour of each view are compared with the first view that sees the point, and only the
    smaller half of the differences counts.

    Args:
        sweep: plane sweep volume; H and W are even.
        settings: how views are compared.
        backend: see the module.

    Returns:
        ``[B, D, H / 2, W / 2]`` twice in float32: the cost, and the difference of the two views that are most alike.
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
    """Costs of planes, carried along paths in eight directions; the mean of these, ``[B, D, h, w]``. Without gradients.

    A path's cost at a pixel is the pixel's own and the least of the path's at the pixel before: on the same plane, on
    the next for the price of a step, or on any other for that of a jump (Hirschmueller 2008, eq. 13).

    Args:
        cost: of each plane at each pixel, float32.
        guide: brightness, float32; jumps cost less where it changes.
        prices: of steps and jumps.
        backend: see the module. Implementations are within 1e-5 of each other.
    """
    if cost.ndim != 4:
        raise ValueError(f"cost: [B, D, h, w] expected, got {list(cost.shape)}")
    if guide.shape != (cost.shape[0], *cost.shape[2:]):
        raise ValueError(f"guide: {[cost.shape[0], *cost.shape[2:]]} expected, got {list(guide.shape)}")
    return choose(backend, "aggregate", (cost, guide)).aggregate(cost, guide, prices)


def remaining_transmittance(opacity: Tensor, *, backend: str | None = None) -> Tensor:
    """How much of each reference ray the planes in front of a plane leave, from opacities ``[B, D, H, W]``."""
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
    """Premultiplied planes ``[B, d, 4, h, w]``; see ``make_planes_with_logits``, whose first result it is.

    The compiled loops take no gradient; where one is needed, ``backend=None`` takes the reference.
    """
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
    """Premultiplied planes from a residual of their logits, and the logits. Differentiable.

    The opacity along a ray is made by stick breaking: with w the softmax over planes of the logits,
    alpha_d = w_d / (sum of w over d and all farther planes), so the weights that compositing gives the
    planes in the reference view are w itself, and the farthest plane is opaque.

    Args:
        unet_output: for each 2 x 2 pixels the residuals of the logits, then logits of the first view against each other
            one.
        penalty: what is taken off the logits.
        sweep: the colours, ``NO_DATA`` where a view sees nothing.
        settings: how planes are colored.
        size: ``(d, h, w)`` of the result, what is left of D, H and W: networks pad.
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
    """The mask ``[B, 1, d, h, w]`` in 0..1, ``sigmoid(residual + slope * (evidence - threshold))``, low behind movers.

    Args:
        unet_output: the residuals of each 2 x 2 pixels.
        evidence: of what moves.
        opacity: of the frame's MPI.
        slope: of the prior.
        threshold: evidence that counts as much for as against.
        hidden: where less of a ray than this is left behind movers, it begins to be the background's.
        size: ``(d, h, w)`` of the result, what is left of D, H and W.
        backend: see the module. The compiled loops take no gradient; where one is needed, None takes the reference.
    """
    chosen = choose(backend, "make_mask", (unet_output, evidence, opacity, slope), unet_output.dtype)
    return chosen.make_mask(unet_output, evidence, opacity, slope, threshold, hidden, size)
