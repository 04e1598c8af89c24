"""Predicts the memory of a rendering before it starts, and chooses the largest tiles that fit.

Volumes of planes x height x width voxels dominate memory. The size of stored volumes follows from their type; the
working memory of the networks (``Architecture.work``) is measured on the CPU. The same figures hold on a GPU, where the
tensors are the same; the memory of GPU libraries is not counted and must fit in what the budget leaves free. 1 GB is
1e9 bytes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from maskvolume.mpi.tiles import Tiling, background_dtype
from maskvolume.networks import ARCHITECTURES, Halo, NetworkWork, Work
from maskvolume.runtime.devices import Precision
from maskvolume.runtime.errors import InputError

GB = 1e9
SHARE = 0.8  # default budget, as a share of free memory
MIN_TILE = 64  # pixels per side; smaller tiles are mostly halo
PLANES, MASK = 16, 4  # bytes per voxel: four float32 channels, and one
PICTURE = 3  # bytes per pixel of a decoded picture
AHEAD = 6  # most pictures per camera and per view that wait in threads
VIEW_WORK = 200  # bytes per pixel while a view is rendered and filled
VIEW_LAYERS = 32  # bytes per pixel of one reference's rendering, until all references are blended
# Process memory on the CPU: libraries, weights, compiled loops, and small blocks kept by the C library.
PROGRAM = int(1.1 * GB)


# On the CPU, float32 convolutions over few planes and rows unfold the windows of all pixels first. This takes the given
# extra memory where planes x rows is below the limit. Measured with the matching networks; smallest limit first.
UNFOLDED = ((2650, NetworkWork(Work(450, 0), Work(670, 0))), (5300, NetworkWork(Work(75, 0), Work(235, 0))))


@dataclass(frozen=True)
class Job:
    """The properties of a rendering that determine its memory.

    Attributes:
        arch: name of the architecture.
        precision: precision of the networks.
        has_mask: whether the model has a mask network, and thus a background.
        device_type: type of the device that computes.
        backend: implementation of the sweep and of the rendering.
        views: number of source cameras.
        planes: number of planes.
        mpi_size: ``(h, w)`` of the planes.
        picture_size: ``(h, w)`` of the source pictures.
        target_size: ``(h, w)`` of the views.
        stored_dtype: type of the planes of a stored frame.
        stored: whether the full MPI of a frame is kept.
        masks: whether the mask volume is kept with it and rendered.
        references: number of reference cameras, each with its own background.
        references_at_once: most references that hold the MPI of a frame at the same time.
        cameras: number of cameras whose pictures are read for all references; None: ``views``.
        still_views: number of cameras that a background MPI is computed from; None: ``views``.
    """

    arch: str
    precision: Precision
    has_mask: bool
    device_type: str
    backend: str
    views: int
    planes: int
    mpi_size: tuple[int, int]
    picture_size: tuple[int, int]
    target_size: tuple[int, int]
    stored_dtype: torch.dtype = torch.float32
    stored: bool = False
    masks: bool = False
    references: int = 1
    references_at_once: int = 1
    cameras: int | None = None
    still_views: int | None = None

    @property
    def halo(self) -> Halo | None:
        """The halo of the architecture; None if it can't work in tiles."""
        return ARCHITECTURES[self.arch].halo

    @property
    def whole(self) -> Tiling:
        """The tiling with a single tile."""
        return Tiling(self.mpi_size, self.mpi_size)


@dataclass(frozen=True)
class Need:
    """Bytes by purpose; ``networks`` is their working memory beyond the stored volumes."""

    background: int
    frame: int
    networks: int
    pictures: int
    program: int

    @property
    def total(self) -> int:
        """The sum of all bytes."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Plan:
    """How a rendering fits into memory.

    Attributes:
        tiling: the tiles to compute in; a single one if the whole frame fits.
        need: the predicted memory.
        budget: bytes that the rendering may use.
        references: number of reference cameras.
        at_once: most references that hold the MPI of a frame at the same time.
    """

    tiling: Tiling
    need: Need
    budget: int
    references: int = 1
    at_once: int = 1

    def __str__(self) -> str:
        count, (h, w) = len(self.tiling.tiles()), self.tiling.tile
        tiles = "1 tile" if count == 1 else f"{count} tiles of {w} x {h}"
        parts = {field.name: getattr(self.need, field.name) / GB for field in fields(self.need)}
        entries = [
            f"{name} {size:.1f}" + (f" in {tiles}" if name == "networks" else "")
            for name, size in parts.items()
            if size
        ]
        sharing = f"; {self.references} references, {self.at_once} at once" if self.references > 1 else ""
        return f"memory: {self.need.total / GB:.1f} of {self.budget / GB:.1f} GB: {', '.join(entries)}{sharing}"


def need(job: Job, tiling: Tiling) -> Need:
    """Predict the memory of a rendering that works in these tiles."""
    volume = _padded_voxels(job, job.mpi_size)
    if tiling.is_whole:
        background, frame, peak = (round(volume * bytes_a_voxel) for bytes_a_voxel in _untiled_bytes(job))
    else:
        background = volume * 4 * background_dtype(job.precision).itemsize if job.has_mask else 0
        frame = volume * _frame_bytes(job, stored=True)
        peak = frame + round(max(_tile_work(job, tiling), volume * _mask_view(job)))
    peak = max(peak - frame, _background_peak(job, tiling) - background - frame)
    if job.device_type == "cuda" and tiling.is_whole:  # each reference has a CUDA graph, which keeps its memory
        frame, peak = frame * job.references, peak * job.references
    else:
        frame *= job.references_at_once
    source, target = math.prod(job.picture_size), math.prod(job.target_size)
    cameras = job.views if job.cameras is None else job.cameras
    # Queued as bytes, and twice in float32 while they are scaled to 0..1; tiles also keep the background pictures.
    pictures = PICTURE * source * (cameras * AHEAD + job.views * (8 + 4 * job.references * (not tiling.is_whole)))
    layers = (VIEW_LAYERS * (job.references_at_once + 1)) if job.references > 1 else 0
    pictures += target * (VIEW_WORK + layers + AHEAD * (PICTURE + 2 + job.masks))
    program = PROGRAM if job.device_type == "cpu" else 0
    return Need(background * job.references, frame, peak, pictures, program)


def make_plan(job: Job, budget: int, *, why: str) -> Plan:
    """Choose the tiles with the least work that fit into ``budget`` bytes.

    Args:
        job: the rendering.
        budget: bytes that it may use.
        why: where the budget comes from, for the error message.

    Returns:
        The plan with the chosen tiles.

    Raises:
        InputError: not even the smallest tiles fit.
    """
    candidates = [job.whole]
    if job.halo is not None:
        most_tiles = [max(side // MIN_TILE, 1) for side in job.mpi_size]
        counts = ((rows, columns) for rows in range(1, most_tiles[0] + 1) for columns in range(1, most_tiles[1] + 1))
        candidates += [Tiling.of(job.mpi_size, *count, job.halo.grid) for count in counts if count != (1, 1)]
    needs = {tiling: need(job, tiling) for tiling in candidates}
    fitting = [tiling for tiling in candidates if needs[tiling].total <= budget]
    if fitting:
        best = min(fitting, key=lambda tiling: _pixels_worked_on(job, tiling))
        return Plan(best, needs[best], budget, job.references, job.references_at_once)
    lowest = min(entry.total for entry in needs.values())
    h, w = job.mpi_size
    tiles = " in the smallest tiles" if job.halo else f" (the networks of {job.arch!r} can't work in tiles)"
    for_each = f" for each of {job.references} references" if job.references > 1 else ""
    raise InputError(
        f"memory: {job.planes} planes of {w} x {h} from {job.views} cameras{for_each} need {lowest / GB:.1f} GB{tiles}"
        f", {budget / GB:.1f} GB may be taken ({why}); give a smaller --img_wh, fewer --num_planes"
        f"{', fewer --references' if job.references > 1 else ''} or more --memory_gb"
    )


def free_bytes(device: torch.device, sharing: int = 1) -> int | None:
    """Bytes of a device's memory that are free for this process; None if unknown.

    Args:
        device: the device that computes.
        sharing: number of processes that share this machine's memory; a GPU is not shared.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    limits = [limit for limit in (_available_bytes(Path("/proc/meminfo")), cgroup_free()) if limit is not None]
    return min(limits) // sharing if limits else None


def budget_of(device: torch.device, sharing: int = 1) -> int | None:
    """Default memory budget in bytes: ``SHARE`` of free memory, plus what this process holds; None if unknown."""
    free = free_bytes(device, sharing)
    if free is None:
        return None
    return round(SHARE * free) + (resident_bytes() if device.type == "cpu" else 0)


def resident_bytes() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cgroup_free(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes left to this process by its control groups (v1 or v2); None if none of them sets a limit."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    candidates = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.lstrip("/")
        # Inside a container the path may be the host's, of which only the root is visible.
        candidates += [_group_free(folder, *names) for folder in (group, *group.parents) if folder.is_relative_to(base)]
    limits = [limit for limit in candidates if limit is not None]
    return min(limits) if limits else None


def _untiled_bytes(job: Job) -> tuple[float, float, float]:
    """Bytes per voxel of an untiled frame: background, frame, and the peak while it is computed or rendered."""
    sweep = _sweep_bytes(job)
    rows = job.mpi_size[0]
    work = _mpi_work(job, rows)
    if job.has_mask:
        work = max(work, sweep + PLANES + _mask_work(job, rows))
    frame = _frame_bytes(job, stored=job.stored)
    blend_inputs = PLANES + MASK * job.has_mask
    storing = blend_inputs + PLANES * job.has_mask + frame if job.stored else 0  # blended, then converted
    blending = PLANES if job.backend == "reference" and job.has_mask and not job.stored else 0
    if job.device_type == "cuda":  # memory recorded in a CUDA graph stays allocated
        peak = work + (storing - blend_inputs if job.stored else 0) + blending + _mask_view(job)
    else:
        peak = max(work, storing, frame + blending, frame + _mask_view(job))
    return (sweep + PLANES) * job.has_mask, frame, peak


def _background_peak(job: Job, tiling: Tiling) -> int:
    """Bytes to compute a background from more cameras than a frame has, before any frame is kept; otherwise 0."""
    if not job.has_mask or job.still_views is None or job.still_views <= job.views:
        return 0
    background_job = replace(job, has_mask=False, views=job.still_views)
    if tiling.is_whole:
        return round(_padded_voxels(job, job.mpi_size) * _mpi_work(background_job, job.mpi_size[0]))
    planes = _padded_voxels(job, job.mpi_size) * 4 * background_dtype(job.precision).itemsize
    return round(planes + _tile_work(background_job, tiling))


def _frame_bytes(job: Job, *, stored: bool) -> int:
    """Bytes per voxel of a computed frame."""
    planes = 4 * job.stored_dtype.itemsize if stored else PLANES
    return planes + MASK * (job.has_mask and (job.masks or not stored))


def _mask_view(job: Job) -> int:
    """Bytes per voxel of the planes that render the mask."""
    return 4 * job.stored_dtype.itemsize * job.masks


def _tile_work(job: Job, tiling: Tiling) -> float:
    """Peak bytes of a tile."""
    assert job.halo is not None
    inputs = _sweep_bytes(job) + PLANES
    halo = job.halo
    pairs = {
        (tile.grown(halo.frame, tiling.size).size, tile.grown(halo.network, tiling.size).size)
        for tile in tiling.tiles()
    }
    peak = 0.0
    for wide, near in pairs:
        mpi_peak = _padded_voxels(job, near) * _mpi_work(job, near[0])
        peak = max(peak, mpi_peak)
        if not job.has_mask:
            continue
        peak = max(
            peak,
            _padded_voxels(job, wide) * _mpi_work(job, wide[0]),
            (_padded_voxels(job, wide) + _padded_voxels(job, near)) * inputs,  # cut out for the mask network
            _padded_voxels(job, near) * (2 * inputs + _mask_work(job, near[0])),
        )
    return peak


def _mpi_work(job: Job, rows: int) -> float:
    """Peak bytes per voxel of the sweep and the MPI network, over ``rows`` rows of pixels."""
    copies = 3 if job.backend == "reference" else 1
    measured = sum(work.mpi.of(job.views) for work in _works(job, rows))
    return max(measured, copies * _sweep_bytes(job))


def _mask_work(job: Job, rows: int) -> float:
    """Bytes per voxel of the mask network besides its inputs, over ``rows`` rows of pixels."""
    return sum(work.mask.of(job.views) for work in _works(job, rows))


def _works(job: Job, rows: int) -> list[NetworkWork]:
    """The terms that sum to the networks' working memory over ``rows`` rows of pixels."""
    works = [ARCHITECTURES[job.arch].work[job.precision]]
    if job.device_type == "cpu" and job.precision == "fp32":
        works += [work for below, work in UNFOLDED if job.planes * rows < below][:1]
    return works


def _sweep_bytes(job: Job) -> int:
    """Bytes per voxel of the sweep: three colour channels per view."""
    return 3 * job.views * (2 if job.precision == "bf16" else 4)


def _pixels_worked_on(job: Job, tiling: Tiling) -> int:
    """Pixels of all tiles including their halos: the cost of a tiling."""
    halo = 0 if job.halo is None or tiling.is_whole else job.halo.frame if job.has_mask else job.halo.network
    return sum(math.prod(tile.grown(halo, tiling.size).size) for tile in tiling.tiles())


def _padded_voxels(job: Job, size: tuple[int, int]) -> int:
    """Voxels of the planes of a picture after the networks' padding."""
    h, w = (math.ceil(side / 8) * 8 for side in size)
    return math.ceil(job.planes / 4) * 4 * h * w


def _available_bytes(meminfo: Path) -> int | None:
    """Bytes of memory available to new programs without swapping; None if unknown."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group_free(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    """Bytes left by one control group, counting its reclaimable file cache as free; None without a limit."""
    try:
        limit, usage = (folder / limit_name).read_text().strip(), int((folder / usage_name).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max" or int(limit) >= 1 << 60:  # cgroup v1 reports a huge number for "no limit"
        return None
    return max(int(limit) - usage + int(statistics.get(cache_name, 0)), 0)
