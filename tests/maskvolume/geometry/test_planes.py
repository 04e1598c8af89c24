"""Depths of planes."""

from __future__ import annotations

import pytest
import torch

from maskvolume.geometry.planes import disparity_planes


def test_the_farthest_plane_comes_first_and_steps_are_equal_in_inverse_depth() -> None:
    depths = disparity_planes(1.0, 4.0, 4, dtype=torch.float64)
    torch.testing.assert_close(1 / depths, torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64))


def test_one_plane_lies_at_the_far_end() -> None:
    assert disparity_planes(1.0, 4.0, 1).tolist() == [4.0]


def test_ranges_may_be_batched() -> None:
    near, far = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 5.0, 9.0]])
    depths = disparity_planes(near, far, 6)
    assert depths.shape == (2, 3, 6)
    torch.testing.assert_close(depths[1, 2], disparity_planes(2.0, 9.0, 6))


def test_a_scene_of_another_unit_has_the_same_planes() -> None:
    depths = disparity_planes(0.5, 20.0, 16, dtype=torch.float64)
    torch.testing.assert_close(disparity_planes(50.0, 2000.0, 16, dtype=torch.float64), 100 * depths)


def test_type_and_device_are_those_that_are_asked_for() -> None:
    depths = disparity_planes(1.0, 2.0, 3, device="cpu", dtype=torch.float16)
    assert (depths.dtype, depths.device.type) == (torch.float16, "cpu")


@pytest.mark.parametrize(("near", "far", "count", "word"), [(1.0, 2.0, 0, "count"), (2.0, 1.0, 3, "near")])
def test_what_gives_no_planes_is_refused(near: float, far: float, count: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        disparity_planes(near, far, count)
