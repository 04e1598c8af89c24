"""What sweeps and renderings are made of: planes and homographies."""

import pytest
import torch
from helpers import make_camera, project
from hypothesis import given, settings
from hypothesis import strategies as st

from maskvolume.geometry.cameras import Camera
from maskvolume.geometry.homography import render_homographies, sweep_homographies
from maskvolume.geometry.planes import disparity_planes


def to_float(camera: Camera) -> Camera:
    return camera.to(torch.float32)


@settings(deadline=None)
@given(st.floats(0.1, 5), st.floats(1.1, 100), st.integers(2, 70))
def test_planes_are_uniform_in_disparity(near: float, ratio: float, count: int) -> None:
    depths = disparity_planes(near, near * ratio, count, dtype=torch.float64)
    steps = (1 / depths).diff()
    assert depths[0].item() == pytest.approx(near * ratio)
    assert depths[-1].item() == pytest.approx(near)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


@pytest.mark.parametrize(("near", "far"), [(0.0, 1.0), (-1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (float("nan"), 2.0)])
def test_planes_refuse_a_wrong_range(near: float, far: float) -> None:
    with pytest.raises(ValueError, match="near"):
        disparity_planes(near, far, 4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 50))
def test_sweep_and_render_homographies_are_inverse(seed: int, depth: float) -> None:
    mpi, other = make_camera(seed), make_camera(seed + 1, size=(50, 41))
    depths = torch.tensor([depth + 1.0], dtype=torch.float64)
    product = render_homographies(mpi, depths, other) @ sweep_homographies(other, mpi, depths)
    torch.testing.assert_close(product / product[..., 2:, 2:], torch.eye(3).double()[None], atol=1e-8, rtol=0)


def test_homography_maps_the_projections_of_a_point() -> None:
    reference, source = make_camera(1), make_camera(2, size=(20, 33))
    point = torch.linalg.inv(reference.T_cam_world)[:3] @ torch.tensor([0.3, -0.2, 2.5, 1]).double()
    H = sweep_homographies(source, reference, torch.tensor([2.5]).double())[0]
    mapped = H @ torch.cat([project(reference, point), torch.ones(1).double()])
    torch.testing.assert_close(mapped[:2] / mapped[2], project(source, point))
