"""Chooses the reference cameras of each view, and the weight of each reference.

A view between cameras is better when blended from the multiplane images of two or more of them, and a path across the
whole rig needs different references at its start and at its end. Weights are continuous in the pose of the target, so
that pictures don't jump: a camera's weight reaches zero before the camera leaves the set. This follows Buehler et al.,
"Unstructured Lumigraph Rendering", SIGGRAPH 2001, section 4, except that the reach of the weights does not depend on
the distance of a single camera, because pictures would jump where several cameras are equally near.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid

SMALLEST_SHARE = 0.03  # of a view; smaller weights aren't worth a multiplane image
SEEN_ENOUGH, SEEN_TOO_LITTLE = 0.75, 0.25  # share of the target's picture that a suitable, an unsuitable camera sees
LEAST_SUIT = 1e-3  # suitability of a camera that sees nothing of the target: as if 1000 spacings farther away
EDGE = 0.1  # width of the soft border, as a share of the picture's side
GRID = 5  # sample points along each side of the target's picture


@dataclass(frozen=True)
class References:
    """The reference cameras of a path.

    Attributes:
        sources: source cameras of each of the R references, the reference itself first.
        still_sources: additional cameras of each reference, used for its background only.
        count: number of references that a view is blended from; see ``reference_weights``.
        candidates: cameras that may be references, as numbers in the rig.
        rig: ``[C]``, all cameras of the rig.
        near: depth of the nearest plane, in scene units.
        far: depth of the farthest plane, in scene units.
    """

    sources: tuple[tuple[int, ...], ...]
    still_sources: tuple[tuple[int, ...], ...]
    count: int
    candidates: tuple[int, ...]
    rig: Camera
    near: float
    far: float

    def weights(self, targets: Camera) -> Tensor:
        """Weight of each reference for each target ``[N]``: ``[N, R]`` float64 on the CPU; each row sums to 1."""
        all_weights = reference_weights(self.rig[list(self.candidates)], targets, self.near, self.far, self.count)
        columns = [self.candidates.index(sources[0]) for sources in self.sources]
        chosen = all_weights[:, columns]
        return chosen / chosen.sum(dim=1, keepdim=True)


def choose_references(
    rig: Camera,  # [C]
    targets: Camera,  # [N]
    near: float,
    far: float,
    *,
    count: int,
    max_sources: int,
    max_still_sources: int = 0,
    candidates: tuple[int, ...] | None = None,
) -> References:
    """Choose all cameras that are a reference of any target, and the sources of each.

    The sources of a reference are the cameras that best suit the targets it serves.

    Args:
        rig: ``[C]``, the cameras of the rig.
        targets: ``[N]``, the whole path.
        near: depth of the nearest plane, in scene units.
        far: depth of the farthest plane, in scene units.
        count: number of references per view; see ``reference_weights``.
        max_sources: most sources of a reference, including the reference.
        max_still_sources: most sources of its background, including the former.
        candidates: cameras that may be references or sources; all by default.

    Returns:
        The references, the one with the largest total weight first.
    """
    candidates = tuple(range(len(rig))) if candidates is None else candidates
    candidate_cameras = rig[list(candidates)]
    weights = reference_weights(candidate_cameras, targets, near, far, count)
    penalties = penalties_of(candidate_cameras, targets, near, far)
    total = weights.sum(dim=0)
    order = [number for number in _ascending(-total) if total[number] > 0]
    sources, still_sources = [], []
    for number in order:
        others = [other for other in _ascending(weights[:, number] @ penalties) if other != number]
        sources.append(tuple(candidates[each] for each in (number, *others[: max_sources - 1])))
        still_sources.append(
            tuple(candidates[each] for each in others[max_sources - 1 : max(max_still_sources, 1) - 1])
        )
    return References(tuple(sources), tuple(still_sources), count, candidates, rig, near, far)


def reference_weights(
    cameras: Camera,  # [C]
    targets: Camera,  # [N]
    near: float,
    far: float,
    count: int,
) -> Tensor:
    """Weight of each camera as a reference of each target.

    The weight is ``max(0, reach - penalty^2) / penalty``, normalised. The reach is chosen so that the positive
    differences sum to their value for a reach that ends at the camera after the ``count`` nearest, but to at least
    ``count - 1`` times the squared spacing of the cameras, so that several cameras at similar distances share a view.
    This keeps weights continuous wherever the target moves. With a count of two, a target between two cameras of a row
    uses these two, and a target between four cameras of a grid uses all four; the same holds in front of and behind the
    rig. A target at a camera's position uses that camera alone. Weights below ``SMALLEST_SHARE`` go to zero, also
    continuously.

    Args:
        cameras: ``[C]``, the candidate references.
        targets: ``[N]``, the cameras to render.
        near: depth of the nearest plane, in scene units.
        far: depth of the farthest plane, in scene units.
        count: number of references per view, two or more; more are used where several are at similar distances.

    Returns:
        ``[N, C]`` float64 on the CPU; each row sums to 1.
    """
    penalty = penalties_of(cameras, targets, near, far)
    penalty = penalty.clamp_min(1e-9 * float(penalty.max().clamp_min(1e-150)))
    square = penalty**2
    ascending = square.sort(dim=1).values
    next_square = ascending[:, min(count, len(cameras) - 1), None]
    least_room = max((count - 1) * spacing_of(cameras) ** 2, 1e-9 * float(square.max()))
    room = (next_square - ascending).clamp_min(0).sum(dim=1, keepdim=True).clamp_min(least_room)
    # With the n nearest within the reach: n * reach - sum = room. The right n gives the smallest reach.
    numbers = torch.arange(1, len(cameras) + 1, dtype=torch.float64)
    reach = ((ascending.cumsum(dim=1) + room) / numbers).amin(dim=1, keepdim=True)
    shares = _normalized((reach - square).clamp_min(0) / penalty)
    return _normalized((shares - SMALLEST_SHARE).clamp_min(0))


def spacing_of(cameras: Camera) -> float:
    """Median distance of the cameras ``[C]`` to their nearest neighbour, in scene units; 0 for a single camera."""
    if len(cameras) == 1:
        return 0.0
    centers = cameras.center.double().cpu()
    distances = _distances(centers, centers) + torch.diag(torch.full((len(cameras),), torch.inf))
    return float(distances.amin(dim=1).median())


def penalties_of(
    cameras: Camera,  # [C]
    targets: Camera,  # [N]
    near: float,
    far: float,
) -> Tensor:
    """How badly each camera suits each target: ``[N, C]`` float64 on the CPU, in scene units.

    The penalty of a camera that sees most of what the target sees, or as much as any camera does, is the distance
    between their centres. A camera that looks elsewhere is penalised by additional multiples of the camera spacing.
    """
    cameras, targets = cameras.to("cpu", torch.float64), targets.to("cpu", torch.float64)
    distances = _distances(targets.center, cameras.center)
    spacing = spacing_of(cameras)
    x = (_seen(cameras, targets, near, far) - SEEN_TOO_LITTLE) / (SEEN_ENOUGH - SEEN_TOO_LITTLE)
    x = x.clamp(0, 1)
    suitability = x * x * (3 - 2 * x)
    suitability = (suitability / suitability.amax(dim=1, keepdim=True).clamp_min(LEAST_SUIT)).clamp_min(LEAST_SUIT)
    return distances + spacing * (1 - suitability) / suitability


def _seen(cameras: Camera, targets: Camera, near: float, far: float) -> Tensor:
    """Share of each target's view that each camera sees: ``[N, C]`` in 0..1, over near, middle and far points."""
    h, w = targets.size
    steps = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    y, x = torch.meshgrid(steps * h, steps * w, indexing="ij")
    pixels = torch.stack([x.flatten(), y.flatten(), torch.ones(GRID * GRID, dtype=torch.float64)])
    rays = torch.linalg.inv(targets.K) @ pixels  # [N, 3, G]
    middle = 2 / (1 / near + 1 / far)
    points = torch.cat([rays * depth for depth in (near, middle, far)], dim=-1)
    T_world_target = invert_rigid(targets.T_cam_world)
    points = T_world_target[:, :3, :3] @ points + T_world_target[:, :3, 3:]  # [N, 3, P]
    shares = []
    height, width = cameras.size
    for T, K in zip(cameras.T_cam_world, cameras.K, strict=True):
        local = T[:3, :3] @ points + T[:3, 3:]
        projected = K @ local
        xy = projected[:, :2] / projected[:, 2:].clamp_min(1e-9)
        inside = torch.ones_like(xy[:, 0])
        for position, side in ((xy[:, 0], width), (xy[:, 1], height)):
            inside = torch.minimum(inside, 1 + torch.minimum(position, side - position) / (EDGE * side))
        shares.append((inside.clamp(0, 1) * (local[:, 2] > 0)).mean(dim=-1))
    return torch.stack(shares, dim=1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances ``[N, M]`` between points ``[N, 3]`` and ``[M, 3]``, without the rounding error of a product form."""
    return (a[:, None] - b).norm(dim=-1)


def _normalized(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=1, keepdim=True)


def _ascending(values: Tensor) -> list[int]:
    """Indices that sort values ``[C]``; rounding makes ties go to the first on every machine."""
    return torch.argsort((values / values.abs().max().clamp_min(1e-300)).round(decimals=4), stable=True).tolist()
