"""The bytes that an operation must read and write at least: what no implementation can do without."""

from __future__ import annotations

RESULT_CHANNELS = 5  # of a view, float32: colour, opacity, disparity


def view_bytes(planes: int, mpi_size: tuple[int, int], size: tuple[int, int], views: int = 1, element: int = 4) -> int:
    """Views of a finished MPI: its planes once, however many views there are, and the views.

    Args:
        planes: of the MPI.
        mpi_size: ``(H, W)`` of its planes.
        size: ``(h, w)`` of the views.
        views: made in one launch.
        element: bytes of a number of the planes.
    """
    return 4 * planes * mpi_size[0] * mpi_size[1] * element + views * 4 * RESULT_CHANNELS * size[0] * size[1]


def blended_view_bytes(planes: int, mpi_size: tuple[int, int], size: tuple[int, int]) -> int:
    """A view that blends two MPIs as it reads them: both, the mask, the view."""
    volume = planes * mpi_size[0] * mpi_size[1] * 4
    return volume + view_bytes(planes, mpi_size, size) + 4 * volume


def stored_blend_bytes(planes: int, mpi_size: tuple[int, int], size: tuple[int, int]) -> int:
    """The same with the blend in memory: it is written and read again."""
    return blended_view_bytes(planes, mpi_size, size) + 8 * planes * mpi_size[0] * mpi_size[1] * 4


def sweep_bytes(views: int, planes: int, size: tuple[int, int], mpi_size: tuple[int, int], element: int) -> int:
    """A sweep of some pictures: the pictures, and each of them on each plane.

    Args:
        views: number of pictures.
        planes: that they are warped to.
        size: ``(h, w)`` of the pictures.
        mpi_size: ``(H, W)`` of the planes.
        element: bytes of a number.
    """
    return 3 * views * element * (size[0] * size[1] + planes * mpi_size[0] * mpi_size[1])


def network_bytes(views: int, planes: int, mpi_size: tuple[int, int], element: int) -> int:
    """Both networks of a frame: two sweeps and the background's MPI are read, the frame's is written and read, and the
    mask is written.

    What goes on between layers is left out: it could stay in a cache, if that were large enough.
    """
    volume = planes * mpi_size[0] * mpi_size[1]
    return volume * (6 * views * element + 3 * 4 * 4 + 4)
