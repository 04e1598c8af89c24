"""Which cameras of a rig are the references of which view, and how much each of them counts.

A view between cameras is better from the multiplane images of two or more of them than from one, and a path over the
whole rig needs others at its end than at its start. So that pictures don't jump, weights are continuous in the pose of
the target: a camera's weight is zero before it leaves the set. After Buehler et al., "Unstructured Lumigraph
Rendering", SIGGRAPH 2001, section 4; but how far weights reach isn't one camera's distance alone, by which pictures
would jump where several cameras are as near.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera, invert_rigid

SMALLEST_SHARE = 0.03  # of a view; a multiplane image isn't worth making for less
SEEN_ENOUGH, SEEN_TOO_LITTLE = 0.75, 0.25  # of the target's picture, by a camera that suits it; by one that doesn't
LEAST_SUIT = 1e-3  # of a camera that sees nothing of the target's picture: as if it were 1000 spacings farther away
EDGE = 0.1  # of a side of the picture, over which it ends
GRID = 5  # points along each side of the target's picture


@dataclass(frozen=True)
class References:
    """The reference cameras of a path.

    Attributes:
        sources: the source cameras of each of the R references, itself the first.
        still_sources: more cameras for each, whose backgrounds its background is made from too.
        count: how many references a view is made from; see ``reference_weights``.
        candidates: the cameras that may be references, numbers in the rig.
        rig: all its cameras.
        near: depth of the nearest plane.
        far: depth of the farthest.
    """

    sources: tuple[tuple[int, ...], ...]
    still_sources: tuple[tuple[int, ...], ...]
    count: int
    candidates: tuple[int, ...]
    rig: Camera
    near: float
    far: float

    def weights(self, targets: Camera) -> Tensor:
        """``[N, R]`` of targets ``[N]``, float64 on the processor; each row adds up to 1."""
        every = reference_weights(self.rig[list(self.candidates)], targets, self.near, self.far, self.count)
        columns = [self.candidates.index(sources[0]) for sources in self.sources]
        chosen = every[:, columns]
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
    """All cameras that are a reference of some target, those with most weight first, and the sources of each.

    The sources beside the reference are those that suit the targets best that it serves.

    Args:
        rig: its cameras.
        targets: the whole path.
        near: depth of the nearest plane.
        far: depth of the farthest.
        count: see ``reference_weights``.
        max_sources: of one reference, itself among them.
        max_still_sources: of its background, those among them.
        candidates: the cameras that may be references or sources; all by default.
    """
    candidates = tuple(range(len(rig))) if candidates is None else candidates
    among = rig[list(candidates)]
    weights = reference_weights(among, targets, near, far, count)
    penalties = penalties_of(among, targets, near, far)
    total = weights.sum(dim=0)
    order = [number for number in _ascending(-total) if total[number] > 0]
    sources, still = [], []
    for number in order:
        others = [other for other in _ascending(weights[:, number] @ penalties) if other != number]
        sources.append(tuple(candidates[each] for each in (number, *others[: max_sources - 1])))
        still.append(tuple(candidates[each] for each in others[max_sources - 1 : max(max_still_sources, 1) - 1]))
    return References(tuple(sources), tuple(still), count, candidates, rig, near, far)


def reference_weights(
    cameras: Camera,  # [C]
    targets: Camera,  # [N]
    near: float,
    far: float,
    count: int,
) -> Tensor:
    """How much each camera counts as a reference of each target: ``[N, C]``, float64, on the processor.

    ``max(0, reach - penalty^2) / penalty``, normalised. The reach is such that the positive differences add up to what
    they are if the reach ends at the camera after the ``count`` nearest, and to no less than ``count - 1`` times the
    cameras' spacing squared, so that several that are about as near as each other share. Thereby weights are continuous
    wherever the target moves. Between two cameras of a row these two have a weight for a count of two, amid four of a
    grid these four; farther off before or behind the rig it is the same. A target where a camera stands has that camera
    alone. Shares below ``SMALLEST_SHARE`` become zero, continuously too.

    Args:
        cameras: that may be references.
        targets: what is looked from.
        near: depth of the nearest plane.
        far: depth of the farthest.
        count: how many cameras a view is made from, two or more; more where they are about as near as each other.
    """
    penalty = penalties_of(cameras, targets, near, far)
    penalty = penalty.clamp_min(1e-9 * float(penalty.max().clamp_min(1e-150)))
    square = penalty**2
    ascending = square.sort(dim=1).values
    after = ascending[:, min(count, len(cameras) - 1), None]
    least = max((count - 1) * spacing_of(cameras) ** 2, 1e-9 * float(square.max()))
    room = (after - ascending).clamp_min(0).sum(dim=1, keepdim=True).clamp_min(least)
    # With the n nearest within the reach: n * reach - sum = room. The right n gives the smallest reach.
    numbers = torch.arange(1, len(cameras) + 1, dtype=torch.float64)
    reach = ((ascending.cumsum(dim=1) + room) / numbers).amin(dim=1, keepdim=True)
    shares = _normalized((reach - square).clamp_min(0) / penalty)
    return _normalized((shares - SMALLEST_SHARE).clamp_min(0))


def spacing_of(cameras: Camera) -> float:
    """The median distance of a camera ``[C]`` to the one nearest to it; 0 of one alone."""
    if len(cameras) == 1:
        return 0.0
    centers = cameras.center.double().cpu()
    between = _distances(centers, centers) + torch.diag(torch.full((len(cameras),), torch.inf))
    return float(between.amin(dim=1).median())


def penalties_of(
    cameras: Camera,  # [C]
    targets: Camera,  # [N]
    near: float,
    far: float,
) -> Tensor:
    """How far each camera is from being each target's own: ``[N, C]``, float64, in scene units.

    It is the distance of the centres, for a camera that sees most of what the target sees, or as much of it as any
    does. For one that looks elsewhere it is some spacings of the cameras more.
    """
    cameras, targets = cameras.to("cpu", torch.float64), targets.to("cpu", torch.float64)
    distances = _distances(targets.center, cameras.center)
    spacing = spacing_of(cameras)
    x = (_seen(cameras, targets, near, far) - SEEN_TOO_LITTLE) / (SEEN_ENOUGH - SEEN_TOO_LITTLE)
    x = x.clamp(0, 1)
    suit = x * x * (3 - 2 * x)
    suit = (suit / suit.amax(dim=1, keepdim=True).clamp_min(LEAST_SUIT)).clamp_min(LEAST_SUIT)
    return distances + spacing * (1 - suit) / suit


def _seen(cameras: Camera, targets: Camera, near: float, far: float) -> Tensor:
    """How much of what each target sees each camera sees: ``[N, C]`` in 0..1; of points near, far and between."""
    h, w = targets.size
    steps = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    y, x = torch.meshgrid(steps * h, steps * w, indexing="ij")
    pixels = torch.stack([x.flatten(), y.flatten(), torch.ones(GRID * GRID, dtype=torch.float64)])
    rays = torch.linalg.inv(targets.K) @ pixels  # [N, 3, G]
    middle = 2 / (1 / near + 1 / far)
    points = torch.cat([rays * depth for depth in (near, middle, far)], dim=-1)
    T_world_target = invert_rigid(targets.T_cam_world)
    points = T_world_target[:, :3, :3] @ points + T_world_target[:, :3, 3:]  # [N, 3, P]
    seen = []
    height, width = cameras.size
    for T, K in zip(cameras.T_cam_world, cameras.K, strict=True):
        local = T[:3, :3] @ points + T[:3, 3:]
        projected = K @ local
        xy = projected[:, :2] / projected[:, 2:].clamp_min(1e-9)
        inside = torch.ones_like(xy[:, 0])
        for position, side in ((xy[:, 0], width), (xy[:, 1], height)):
            inside = torch.minimum(inside, 1 + torch.minimum(position, side - position) / (EDGE * side))
        seen.append((inside.clamp(0, 1) * (local[:, 2] > 0)).mean(dim=-1))
    return torch.stack(seen, dim=1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """``[N, M]`` between points ``[N, 3]`` and ``[M, 3]``, without the rounding of products."""
    return (a[:, None] - b).norm(dim=-1)


def _normalized(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=1, keepdim=True)


def _ascending(values: Tensor) -> list[int]:
    """Numbers in the order of values ``[C]``; rounded, so that ties go to the first on every machine."""
    return torch.argsort((values / values.abs().max().clamp_min(1e-300)).round(decimals=4), stable=True).tolist()
