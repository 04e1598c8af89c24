"""Lower bounds of the bytes that operations must read and write, for any implementation."""

from __future__ import annotations

RESULT_CHANNELS = 5  # channels of a view, float32: colour, opacity, disparity


def view_bytes(planes: int, mpi_size: tuple[int, int], size: tuple[int, int], views: int = 1, element: int = 4) -> int:
    """Bytes for views of a finished MPI: its planes once for any number of views, and the views.

    Args:
        planes: of the MPI.
        mpi_size: ``(H, W)`` of its planes.
        size: ``(h, w)`` of the views.
        views: number of views in one launch.
        element: bytes of a value of the planes.
    """
    return 4 * planes * mpi_size[0] * mpi_size[1] * element + views * 4 * RESULT_CHANNELS * size[0] * size[1]


def blended_view_bytes(planes: int, mpi_size: tuple[int, int], size: tuple[int, int]) -> int:
    """Bytes for a view that blends two MPIs while reading them: both MPIs, the mask, the view."""
    volume = planes * mpi_size[0] * mpi_size[1] * 4
    return volume + view_bytes(planes, mpi_size, size) + 4 * volume


def stored_blend_bytes(planes: int, mpi_size: tuple[int, int], size: tuple[int, int]) -> int:
    """The same with the blend stored in memory: it is also written and read."""
    return blended_view_bytes(planes, mpi_size, size) + 8 * planes * mpi_size[0] * mpi_size[1] * 4


def sweep_bytes(views: int, planes: int, size: tuple[int, int], mpi_size: tuple[int, int], element: int) -> int:
    """Bytes for a sweep: the pictures, and each of them on each plane.

    Args:
        views: number of pictures.
        planes: number of planes.
        size: ``(h, w)`` of the pictures.
        mpi_size: ``(H, W)`` of the planes.
        element: bytes of a value.
    """
    return 3 * views * element * (size[0] * size[1] + planes * mpi_size[0] * mpi_size[1])


def network_bytes(views: int, planes: int, mpi_size: tuple[int, int], element: int) -> int:
    """Bytes for both networks of a frame: they read two sweeps and the background's MPI, write and read the frame's
    MPI, and write the mask.

    Traffic between layers is not included, since it could stay in a large enough cache.
    """
    volume = planes * mpi_size[0] * mpi_size[1]
    return volume * (6 * views * element + 3 * 4 * 4 + 4)
