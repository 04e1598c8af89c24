"""The operations in plain torch: any device, any float type, differentiable. The measure of every other backend."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from maskvolume.cameras import Camera
from maskvolume.homography import homography_grid, render_homographies, sweep_homographies
from maskvolume.ops.types import Rendering, Sampling

NO_DATA = -1.0
# Planes that are warped together. Enough to keep the threads of `grid_sample` busy (it splits work by
# picture on the CPU), few enough that a chunk's grid stays small beside the volume.
PLANE_CHUNK = 4


class ReferenceBackend:
    """See ``maskvolume.ops`` for what each operation takes and returns."""

    def supports(self, device: torch.device) -> bool:
        return True

    def renders(self, rgba: Tensor) -> bool:
        return True

    def sweep_planes(
        self, images: Tensor, sources: Camera, reference: Camera, depths: Tensor, sampling: Sampling
    ) -> Tensor:
        batch, views = images.shape[:-4], images.shape[-4]
        size, count = reference.size, depths.shape[-1]
        flat_images = images.reshape(-1, views, *images.shape[-3:])
        flat_sources = flatten_cameras(sources, len(batch) + 1)
        flat_reference = flatten_cameras(reference, len(batch))
        flat_depths = depths.reshape(-1, count).to(flat_reference.K.dtype)
        work = _work_dtype(images)
        items = []
        for b in range(flat_images.shape[0]):
            for v in range(views):
                camera = flat_sources[b * views + v]
                image, planes = flat_images[b, v].to(work), flat_depths[b]
                # A source at the reference's own place looks the same on every plane: one warp is enough.
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

    def render_mpi(
        self, rgba: Tensor, camera: Camera, depths: Tensor, target: Camera, premultiplied: bool
    ) -> Rendering:
        batch = rgba.shape[:-4]
        flat = rgba.reshape(-1, *rgba.shape[-4:])
        flat_depths = depths.reshape(-1, depths.shape[-1])
        cameras, targets = flatten_cameras(camera, len(batch)), flatten_cameras(target, len(batch))
        views = []
        for b in range(flat.shape[0]):
            H = render_homographies(cameras[b], flat_depths[b].to(cameras.K.dtype), targets[b])
            H = H.to(_work_dtype(rgba))
            planes = _warped_chunks(flat[b], H, camera.size, target.size)
            views.append(_composite(planes, flat_depths[b], premultiplied))
        return stack_renderings(views, batch)

    def composite(self, rgba: Tensor, depths: Tensor, premultiplied: bool) -> Rendering:
        batch = rgba.shape[:-4]
        flat = rgba.reshape(-1, *rgba.shape[-4:])
        flat_depths = depths.reshape(-1, depths.shape[-1])
        views = [
            _composite(_chunks_near_to_far(flat[b].to(_work_dtype(rgba))), flat_depths[b], premultiplied)
            for b in range(flat.shape[0])
        ]
        return stack_renderings(views, batch)


def _work_dtype(x: Tensor) -> torch.dtype:
    """Coordinates and sums need float32 at least; float64 stays what it is."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def flatten_cameras(camera: Camera, axes: int) -> Camera:
    """A camera with ``axes`` batch axes as one with a single axis."""
    assert len(camera.batch_shape) == axes
    return Camera(camera.T_cam_world.reshape(-1, 4, 4), camera.K.reshape(-1, 3, 3), camera.size)


def stack_renderings(views: list[Rendering], batch: torch.Size) -> Rendering:
    """Views as one rendering with batch axes."""

    def stack(pictures: list[Tensor]) -> Tensor:
        stacked = pictures[0][None] if len(pictures) == 1 else torch.stack(pictures)
        return stacked.reshape(*batch, *pictures[0].shape)

    return Rendering(
        stack([view.color for view in views]),
        stack([view.opacity for view in views]),
        stack([view.disparity for view in views]),
    )


def _warp_to_planes(
    image: Tensor,  # [C, Hs, Ws]
    H: Tensor,  # [D, 3, 3]
    size: tuple[int, int],
    src_size: tuple[int, int],
    sampling: Sampling,
) -> Tensor:
    """One picture on each plane, ``[D, C, H, W]``, -1 where there is no data."""
    grid = homography_grid(H, size, src_size)
    pictures = image.expand(H.shape[0], -1, -1, -1)
    if sampling == "original":
        shifted = F.grid_sample(pictures - NO_DATA, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        return shifted + NO_DATA
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    # Repeat the outermost pixels by clamping to their centres: not every device has padding_mode="border".
    limit = 1 - 1 / torch.tensor([src_size[1], src_size[0]], dtype=grid.dtype, device=grid.device)
    grid = torch.minimum(torch.maximum(grid, -limit), limit)
    warped = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.masked_fill_(~inside, NO_DATA) if not warped.requires_grad else warped.where(inside, NO_DATA)


def _warped_chunks(
    rgba: Tensor,  # [D, 4, H, W]
    H: Tensor,  # [D, 3, 3]
    src_size: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[Tensor]:
    """The planes seen from the target, a few at a time, near to far: ``[n, 4, h, w]``, nearest first."""
    end = rgba.shape[0]
    for stop in range(end, 0, -PLANE_CHUNK):
        start = max(stop - PLANE_CHUNK, 0)
        grid = homography_grid(H[start:stop], size, src_size)
        warped = F.grid_sample(
            rgba[start:stop].to(H.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        yield warped.flip(0) if warped.requires_grad else warped[range(stop - start - 1, -1, -1)]


def _chunks_near_to_far(rgba: Tensor) -> Iterator[Tensor]:
    for stop in range(rgba.shape[0], 0, -PLANE_CHUNK):
        yield rgba[max(stop - PLANE_CHUNK, 0) : stop].flip(0)


def _composite(chunks: Iterator[Tensor], depths: Tensor, premultiplied: bool) -> Rendering:
    """Over-composite planes that come near to far: opacity is spent front to back."""
    color: Tensor | None = None
    transmittance = opacity = disparity = torch.zeros(())
    index = depths.shape[0]
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
            disparity = disparity + weight * (1 / depths[index]).to(weight.dtype)
            opacity = opacity + weight
            transmittance = transmittance - weight
    assert color is not None
    return Rendering(color, opacity, disparity)
