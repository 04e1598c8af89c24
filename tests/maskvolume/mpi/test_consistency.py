"""The left-right check of costs: who hides from whom, which claims are wrong, and what a sweep keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.consistency import contradicted, leave_out

SIZE = (48, 96)  # of pictures; costs are half as large
PLANES = 9
DEPTHS = disparity_planes(1.0, 9.0, PLANES)  # disparities of 1/9 to 1
WALL, THING = 1, 7  # planes
SHIFT = 16.0  # pixels of half the picture between neighbouring cameras, at depth 1


def camera_at(place: float) -> Camera:
    """A camera ``place`` spacings to the right of the reference."""
    T = torch.eye(4, dtype=torch.float64)
    K = torch.tensor([[96.0, 0, 48], [0, 96, 24], [0, 0, 1]], dtype=torch.float64)
    T[0, 3] = -place * SHIFT * 2 / 96
    return Camera(T, K, SIZE)


def disparity(plane: int, place: float) -> int:
    """Return the shift to the left of a point of a plane in a camera, in pixels of half the picture."""
    return round(float(place * SHIFT / DEPTHS[plane]))


def flagged(costs: Tensor, *places: float, margin: int = 0) -> Tensor:
    """``[V, h, w]`` of the reference and cameras at ``places``; the MPI is wider by a margin."""
    cameras = stack_cameras([camera_at(place) for place in (0.0, *places)])
    batch = Camera(cameras.T_cam_world[None], cameras.K[None], cameras.size)
    found = contradicted(costs[None], batch, batch[:, 0].padded(margin), DEPTHS[None])[0]
    assert found.shape == (1 + len(places), *costs.shape[-2:])
    assert not found[0].any(), "the reference is never wrong about itself"
    return found


def claims(planes: Tensor, cost: float = 0.0) -> Tensor:
    """Costs ``[D, h, w]``: 1, but for the planes ``[h, w]`` that pixels claim."""
    return torch.ones(PLANES, *planes.shape).scatter_(0, planes[None], cost)


def thing_before_a_wall() -> Tensor:
    """Planes ``[24, 48]`` with a thing in rows 6 to 18, columns 20 to 30."""
    planes = torch.full((24, 48), WALL)
    planes[6:18, 20:30] = THING
    return planes


def test_what_is_consistent_is_kept() -> None:
    planes = thing_before_a_wall()
    costs = claims(planes)
    found = flagged(costs, 1.0, -1.0)
    assert not found.any()


def test_a_view_that_something_hides_a_point_from_is_left_out_and_no_other() -> None:
    """From a camera to the right a thing hides the wall to the left of it, from one to the left it doesn't."""
    planes = thing_before_a_wall()
    costs = claims(planes)
    moved = disparity(THING, 1.0) - disparity(WALL, 1.0)  # of the thing before the wall, as cameras change
    hidden = torch.zeros(24, 48, dtype=torch.bool)
    hidden[6:18, 20 - moved : 20] = True
    costs[WALL][hidden] = 0.3  # no match is found there
    right, left = flagged(costs, 1.0, -1.0)[1:]
    inner = hidden[:, 20 - moved + 1 : 19]
    assert torch.equal(right[:, 20 - moved + 1 : 19], inner)
    assert not right[:, : 20 - moved - 1].any()
    assert not right[:, 21:].any()
    assert not left.any()


def test_a_claim_that_all_look_through_is_wrong() -> None:
    planes = torch.full((24, 48), WALL)
    costs = claims(planes)
    costs[:, 10:14, 26:32] = claims(torch.full((4, 6), THING), 0.3)
    wrong = torch.zeros(24, 48, dtype=torch.bool)
    wrong[10:14, 26:32] = True
    for found in flagged(costs, 1.0, -1.0)[1:]:
        assert torch.equal(found, wrong)
    agreed = costs.clone()  # one of them sees the thing too: nobody is left out
    agreed[:, 10:14, 26:32] = claims(torch.full((4, 6), THING), -1.0)
    assert not flagged(agreed, 1.0, -1.0)[:, 10:14, 26:32].any()


def test_where_the_reference_sees_nothing_all_others_stay() -> None:
    planes = torch.full((24 + 16, 48 + 16), WALL)
    costs = claims(planes)
    costs[:, 12:28, 5:11] = claims(torch.full((16, 6), THING), 0.3)  # a wrong claim, half of it in the margin
    found = flagged(costs, 1.0, -1.0, margin=16)
    assert found[1:, 12:28, 8:11].all()
    assert not found[:, :, :8].any()


def test_a_lower_cost_by_chance_contradicts_nothing() -> None:
    planes = torch.full((24, 48), WALL)
    costs = claims(planes)
    costs[:, 10:14, 26:32] = claims(torch.full((4, 6), THING), 0.08)
    assert not flagged(costs, 1.0)[:, 10:14, 26:32].any()


def test_what_views_do_not_see_they_do_not_contradict() -> None:
    costs = claims(torch.full((24, 48), THING), 0.3)
    found = flagged(costs, 40.0)  # far away: all points lie outside of its picture
    assert not found.any()


def test_a_sweep_without_views() -> None:
    torch.manual_seed(0)
    sweep = torch.rand(1, 3, 3, 2, 7, 10)  # costs are of a padded picture
    views = torch.zeros(1, 3, 4, 6, dtype=torch.bool)
    views[0, 1, 3, 4] = views[0, 2, 0, 5] = True
    found = leave_out(sweep.clone(), views)
    assert torch.equal(found[0, 0], sweep[0, 0])
    assert bool((found[0, 1, :, :, 6:, 8:10] == -1).all())
    found[0, 1, :, :, 6:, 8:10] = sweep[0, 1, :, :, 6:, 8:10]
    assert torch.equal(found, sweep)
