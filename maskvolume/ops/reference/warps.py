"""Plane sweeps and rendering of multiplane images in plain torch: any device, any float dtype, differentiable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.homography import homography_grid, render_homographies, sweep_homographies
from maskvolume.ops.types import NO_DATA, Rendering, Sampling

# Planes warped together: enough to keep the threads of `grid_sample` busy (on the CPU it splits work by picture), few
# enough that the grid of a chunk is small compared with the volume.
PLANE_CHUNK = 4


def sweep_planes(images: Tensor, sources: Camera, reference: Camera, depths: Tensor, sampling: Sampling) -> Tensor:
    """See ``maskvolume.ops``."""
    batch, views = images.shape[:-4], images.shape[-4]
    size, count = reference.size, depths.shape[-1]
    flat_images = images.reshape(-1, views, *images.shape[-3:])
    flat_sources = flatten_cameras(sources, len(batch) + 1)
    flat_reference = flatten_cameras(reference, len(batch))
    flat_depths = depths.reshape(-1, count).to(flat_reference.K.dtype)
    work = work_dtype(images)
    items = []
    for b in range(flat_images.shape[0]):
        for v in range(views):
            camera = flat_sources[b * views + v]
            image, planes = flat_images[b, v].to(work), flat_depths[b]
            # A source at the reference pose is the same on every plane: one warp is enough.
            if torch.equal(camera.T_cam_world, flat_reference[b].T_cam_world):
                planes = planes[:1]
            H = sweep_homographies(camera, flat_reference[b], planes).to(work)
            parts = [
                _warp_to_planes(image, H_chunk, size, camera.size, sampling).to(images.dtype)
                for H_chunk in H.split(PLANE_CHUNK)
            ]
            items.append((parts[0] if len(parts) == 1 else torch.cat(parts)).expand(count, -1, -1, -1))
    swept = torch.stack(items)  # [B * V, D, C, H, W]
    return swept.transpose(1, 2).reshape(*batch, views, images.shape[-3], count, *size)


def render_mpi(rgba: Tensor, camera: Camera, depths: Tensor, target: Camera, premultiplied: bool) -> Rendering:
    """See ``maskvolume.ops``."""
    H, inverse_depths = mpi_homographies(rgba, camera, depths, target)
    return rendering_of(
        render_planes(rgba.reshape(-1, *rgba.shape[-4:]), H, inverse_depths, target.size, premultiplied), target
    )


def render_blended(
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    camera: Camera,
    depths: Tensor,
    target: Camera,
    premultiplied: bool,
) -> Rendering:
    """See ``maskvolume.ops``."""
    return render_mpi(blend_planes(mask, dynamic, background), camera, depths, target, premultiplied)


def composite(rgba: Tensor, depths: Tensor, premultiplied: bool) -> Rendering:
    """See ``maskvolume.ops``."""
    batch = rgba.shape[:-4]
    flat = rgba.reshape(-1, *rgba.shape[-4:])
    inverse_depths = (1 / depths.reshape(-1, depths.shape[-1])).to(work_dtype(rgba))
    views = [
        _composite(_chunks_near_to_far(plane_values(flat[b])), inverse_depths[b], premultiplied)
        for b in range(flat.shape[0])
    ]
    return split_views(torch.stack(views).reshape(*batch, *views[0].shape))


def render_planes(
    rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, size: tuple[int, int], premultiplied: bool
) -> Tensor:
    """Render N views of each of B multiplane images.

    Args:
        rgba: ``[B, D, 4, H, W]``, plane 0 the farthest; uint8 stores value * 255.
        homographies: ``[B, N, D, 3, 3]`` target pixel to plane pixel (``render_homographies``).
        inverse_depths: ``[B, D]`` 1 / depth of the planes.
        size: ``(h, w)`` of the targets.
        premultiplied: whether colours are multiplied by their opacity.

    Returns:
        ``[B, N, 5, h, w]`` in float32 (float64 for float64 planes): colour over black, opacity, disparity.
    """
    h, w = rgba.shape[-2:]
    views = [
        _composite(_warped_chunks(rgba[b], H, (h, w), size), inverse_depths[b], premultiplied)
        for b in range(rgba.shape[0])
        for H in homographies[b]
    ]
    return torch.stack(views).unflatten(0, homographies.shape[:2])


def render_planes_backward(
    grad: Tensor, rgba: Tensor, homographies: Tensor, inverse_depths: Tensor, premultiplied: bool
) -> Tensor:
    """Return the gradient of planes ``[B, D, 4, H, W]`` from that of views ``[B, N, 5, h, w]``; recompute the views."""
    size, src_size = (grad.shape[-2], grad.shape[-1]), (rgba.shape[-2], rgba.shape[-1])
    found = torch.zeros(rgba.shape, dtype=work_dtype(rgba), device=rgba.device)
    for b, planes in enumerate(rgba):
        values = plane_values(planes)
        for view, H in zip(grad[b].to(values.dtype), homographies[b], strict=True):
            grids = [homography_grid(part, size, src_size) for part in H.split(PLANE_CHUNK)]
            chunks = zip(values.split(PLANE_CHUNK), grids, strict=True)
            warped = torch.cat([F.grid_sample(part, grid, align_corners=False) for part, grid in chunks])
            of_warped = _composite_backward(view, warped, inverse_depths[b], premultiplied)
            for chunk, part, grid, into in zip(
                of_warped.split(PLANE_CHUNK),
                values.split(PLANE_CHUNK),
                grids,
                found[b].split(PLANE_CHUNK),
                strict=True,
            ):
                into += _sample_backward(chunk, part, grid, align_corners=False)
    return found


def render_blended_backward(
    grad: Tensor,
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    premultiplied: bool,
    needs: Sequence[bool],  # of mask, dynamic, background
) -> tuple[Tensor | None, ...]:
    """Return the needed gradients of mask ``[B, D, H, W]`` and planes, else None; recomputes the views."""
    weight, moving, still = mask[:, :, None].to(work_dtype(mask)), plane_values(dynamic), plane_values(background)
    blended = still + weight * (moving - still)
    of_planes = render_planes_backward(grad, blended, homographies, inverse_depths, premultiplied)
    return (
        (of_planes * (moving - still)).sum(dim=2) if needs[0] else None,
        of_planes * weight if needs[1] else None,
        of_planes * (1 - weight) if needs[2] else None,
    )


def render_blended_planes(
    mask: Tensor,
    dynamic: Tensor,
    background: Tensor,
    homographies: Tensor,
    inverse_depths: Tensor,
    size: tuple[int, int],
    premultiplied: bool,
) -> Tensor:
    """Render ``mask * dynamic + (1 - mask) * background``.

    Args:
        mask: ``[B, D, H, W]`` in 0..1.
        dynamic: ``[B, D, 4, H, W]`` planes as in ``render_planes``.
        background: ``[B, D, 4, H, W]``.
        homographies: ``[B, N, D, 3, 3]`` as in ``render_planes``.
        inverse_depths: ``[B, D]`` as in ``render_planes``.
        size: ``(h, w)`` of the targets.
        premultiplied: whether colours of both MPIs are multiplied by their opacity.

    Returns:
        ``[B, N, 5, h, w]`` as in ``render_planes``.
    """
    layers = plane_values(mask[:, None]), plane_values(dynamic), plane_values(background)
    return render_planes(blend_planes(*layers), homographies, inverse_depths, size, premultiplied)


def sweep(images: Tensor, homographies: Tensor, size: tuple[int, int], original: bool) -> Tensor:
    """Warp pictures to planes.

    Args:
        images: ``[B, C, Hs, Ws]``.
        homographies: ``[B, D, 3, 3]`` reference pixel to source pixel over each plane (``sweep_homographies``).
        size: ``(h, w)`` of the reference.
        original: sample as the original does.

    Returns:
        ``[B, C, D, h, w]`` in the dtype of ``images``, -1 where there is no data.
    """
    source_size = (images.shape[-2], images.shape[-1])
    sampling: Sampling = "original" if original else "exact"
    swept = [
        torch.cat([_warp_to_planes(image, part, size, source_size, sampling) for part in H.split(PLANE_CHUNK)])
        for image, H in zip(images.to(work_dtype(images)), homographies, strict=True)
    ]
    return torch.stack(swept).to(images.dtype).transpose(1, 2).contiguous()


def sweep_backward(grad: Tensor, homographies: Tensor, source_size: tuple[int, int], original: bool) -> Tensor:
    """Return the gradient of pictures ``[B, C, Hs, Ws]`` from that of planes ``[B, C, D, h, w]``."""
    size, work = (grad.shape[-2], grad.shape[-1]), work_dtype(grad)
    image = torch.zeros(1, grad.shape[1], *source_size, dtype=work, device=grad.device)
    found = []
    for planes, H in zip(grad, homographies, strict=True):
        total = torch.zeros_like(image[0])
        for of_warped, part in zip(planes.to(work).split(1, dim=1), H.split(1), strict=True):
            grid = homography_grid(part, size, source_size)
            of_picture = of_warped.transpose(0, 1).contiguous()
            if not original:
                inside, grid = _clamp_grid(grid, source_size)
                of_picture = of_picture * inside
            total += _sample_backward(of_picture, image, grid, align_corners=original)[0]
        found.append(total)
    return torch.stack(found)


def _composite_backward(grad: Tensor, warped: Tensor, inverse_depths: Tensor, premultiplied: bool) -> Tensor:
    """Return the gradient of warped planes ``[D, 4, h, w]``, the farthest first, from that of their view ``[5, h, w]``.

    With V the view from just behind a plane and T the transmittance in front of it, the view is
    ... + T * (plane + (1 - alpha) * V), so the derivative by alpha is T * (d plane / d alpha - V). There is no division
    by 1 - alpha, so opaque planes are safe.
    """
    alpha = warped[:, 3:]
    through = torch.cat([(1 - alpha.flip(0)).cumprod(dim=0).flip(0)[1:], torch.ones_like(alpha[:1])])
    behind = torch.zeros_like(grad)
    found = torch.empty_like(warped)
    for plane, left, into, inverse_depth in zip(warped, through, found, inverse_depths, strict=True):
        color, opacity = plane[:3], plane[3:]
        ones = torch.ones_like(opacity)
        slope = torch.cat([torch.zeros_like(color) if premultiplied else color, ones, ones * inverse_depth])
        into[:3] = grad[:3] * (left if premultiplied else left * opacity)
        into[3:] = left * (grad * (slope - behind)).sum(dim=0, keepdim=True)
        shown = torch.cat([color if premultiplied else color * opacity, opacity, opacity * inverse_depth])
        behind = shown + (1 - opacity) * behind
    return found


def _sample_backward(grad: Tensor, pictures: Tensor, grid: Tensor, *, align_corners: bool) -> Tensor:
    """Return the gradient of the input of ``grid_sample`` (bilinear, zeros)."""
    bilinear, zeros = 0, 0
    return torch.ops.aten.grid_sampler_2d_backward(grad, pictures, grid, bilinear, zeros, align_corners, [True, False])[
        0
    ]


def blend_planes(mask: Tensor, dynamic: Tensor, background: Tensor) -> Tensor:
    """Blend planes ``[..., D, 4, H, W]`` with a mask ``[..., 1, D, H, W]``."""
    return torch.lerp(background, dynamic, mask.movedim(-4, -3))


def mpi_homographies(rgba: Tensor, camera: Camera, depths: Tensor, target: Camera) -> tuple[Tensor, Tensor]:
    """Return homographies from targets to planes, ``[B, N, D, 3, 3]``, and 1 / depth of the planes, ``[B, D]``.

    B is the product of the batch axes of ``rgba [..., D, 4, H, W]``; N is 1 if the target has no further axis.
    """
    planes = depths.reshape(-1, depths.shape[-1]).double()
    count = len(planes)
    targets = Camera(
        target.T_cam_world.reshape(count, -1, 4, 4).double(), target.K.reshape(count, -1, 3, 3).double(), target.size
    )
    views = targets.batch_shape[1]
    cameras = Camera(
        camera.T_cam_world.reshape(count, 1, 4, 4).double().expand(-1, views, -1, -1),
        camera.K.reshape(count, 1, 3, 3).double().expand(-1, views, -1, -1),
        camera.size,
    )
    H = render_homographies(cameras, planes[:, None].expand(-1, views, -1), targets)
    return H.to(work_dtype(rgba)), (1 / planes).to(work_dtype(rgba))


def rendering_of(views: Tensor, target: Camera) -> Rendering:
    """Convert views ``[B, N, 5, h, w]`` to a rendering with the batch axes of the target."""
    return split_views(views.reshape(*target.batch_shape, *views.shape[2:]))


def split_views(views: Tensor) -> Rendering:
    """Convert ``[..., 5, h, w]`` to a rendering."""
    return Rendering(views[..., :3, :, :], views[..., 3:4, :, :], views[..., 4:, :, :])


def plane_values(planes: Tensor) -> Tensor:
    """Convert planes to the dtype for computation; bytes store value * 255."""
    return planes.to(work_dtype(planes)) / 255 if planes.dtype == torch.uint8 else planes.to(work_dtype(planes))


def work_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of coordinates and sums: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def flatten_cameras(camera: Camera, axes: int) -> Camera:
    """Flatten ``axes`` batch axes of a camera into one."""
    assert len(camera.batch_shape) == axes
    return Camera(camera.T_cam_world.reshape(-1, 4, 4), camera.K.reshape(-1, 3, 3), camera.size)


def _warp_to_planes(
    image: Tensor,  # [C, Hs, Ws]
    H: Tensor,  # [D, 3, 3]
    size: tuple[int, int],
    src_size: tuple[int, int],
    sampling: Sampling,
) -> Tensor:
    """Warp one picture to each plane, ``[D, C, H, W]``, -1 where there is no data."""
    grid = homography_grid(H, size, src_size)
    pictures = image.expand(H.shape[0], -1, -1, -1)
    if sampling == "original":
        shifted = F.grid_sample(pictures - NO_DATA, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        return shifted + NO_DATA
    inside, grid = _clamp_grid(grid, src_size)
    warped = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.masked_fill_(~inside, NO_DATA) if not warped.requires_grad else warped.where(inside, NO_DATA)


def _clamp_grid(grid: Tensor, src_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return which points ``[N, 1, h, w]`` are in the picture, and the grid clamped to the outermost pixel centres.

    Clamping repeats the outermost pixels: not every device supports padding_mode="border".
    """
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    limit = 1 - 1 / torch.tensor([src_size[1], src_size[0]], dtype=grid.dtype, device=grid.device)
    return inside, torch.minimum(torch.maximum(grid, -limit), limit)


def _warped_chunks(
    rgba: Tensor,  # [D, 4, H, W]
    H: Tensor,  # [D, 3, 3]
    src_size: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[Tensor]:
    """Yield the planes warped to the target in chunks ``[n, 4, h, w]``, near to far."""
    end = rgba.shape[0]
    for stop in range(end, 0, -PLANE_CHUNK):
        start = max(stop - PLANE_CHUNK, 0)
        grid = homography_grid(H[start:stop], size, src_size)
        warped = F.grid_sample(
            plane_values(rgba[start:stop]), grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        yield warped.flip(0) if warped.requires_grad else warped[range(stop - start - 1, -1, -1)]


def _chunks_near_to_far(rgba: Tensor) -> Iterator[Tensor]:
    for stop in range(rgba.shape[0], 0, -PLANE_CHUNK):
        yield rgba[max(stop - PLANE_CHUNK, 0) : stop].flip(0)


def _composite(chunks: Iterator[Tensor], inverse_depths: Tensor, premultiplied: bool) -> Tensor:
    """Composite planes that arrive near to far into ``[5, h, w]``."""
    color: Tensor | None = None
    transmittance = opacity = disparity = torch.zeros(())
    index = inverse_depths.shape[0]
    for chunk in chunks:
        for plane in chunk:
            index -= 1
            alpha = plane[3:]
            if color is None:
                transmittance = torch.ones_like(alpha)
                color = torch.zeros_like(plane[:3])
                opacity, disparity = torch.zeros_like(alpha), torch.zeros_like(alpha)
            weight = alpha * transmittance
            color = torch.addcmul(color, plane[:3], transmittance if premultiplied else weight)
            disparity = disparity + weight * inverse_depths[index]
            opacity = opacity + weight
            transmittance = transmittance - weight
    assert color is not None
    return torch.cat([color, opacity, disparity])
