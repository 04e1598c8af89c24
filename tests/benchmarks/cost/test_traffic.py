"""Bytes that the operations move."""

from __future__ import annotations

import torch

from benchmarks.cost.traffic import (
    blended_view_bytes,
    network_bytes,
    stored_blend_bytes,
    sweep_bytes,
    view_bytes,
)

PLANES, MPI, VIEW = 5, (7, 11), (3, 4)


def test_the_bytes_are_those_of_the_tensors() -> None:
    """Counted again, from tensors of the shapes that the operations take and return."""

    def size(*shape: int, dtype: torch.dtype = torch.float32) -> int:
        return torch.empty(shape, dtype=dtype).nbytes

    rgba, mask, view = size(PLANES, 4, *MPI), size(1, PLANES, *MPI), size(5, *VIEW)
    assert view_bytes(PLANES, MPI, VIEW) == rgba + view
    assert view_bytes(PLANES, MPI, VIEW, views=9, element=1) == rgba // 4 + 9 * view
    assert blended_view_bytes(PLANES, MPI, VIEW) == 2 * rgba + mask + view
    assert stored_blend_bytes(PLANES, MPI, VIEW) == (2 * rgba + mask + rgba) + (rgba + view)
    half = torch.float16
    sweep = size(2, 3, PLANES, *MPI, dtype=half)
    assert sweep_bytes(2, PLANES, VIEW, MPI, 2) == size(2, 3, *VIEW, dtype=half) + sweep
    # Two sweeps and the background's MPI are read, the frame's is written and read, and the mask is written.
    assert network_bytes(2, PLANES, MPI, 2) == 2 * sweep + 3 * rgba + mask
