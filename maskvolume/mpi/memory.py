"""What a rendering takes of memory, told before it starts, and the largest tiles that fit.

Everything of size is volumes: planes x height x width voxels, so many bytes each. What is kept is known by its type;
what the networks take while they run (``Architecture.work``) was measured on the processor. On a GPU the tensors are
the same ones, so the same figures stand for it; what its libraries take for themselves is not counted there and has to
find its place in what the budget leaves free. GB are 1e9 bytes.
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
SHARE = 0.8  # of what is free that a rendering may take where nobody says how much
MIN_TILE = 64  # pixels of a side; smaller ones are nearly all halo
PLANES, MASK = 16, 4  # bytes a voxel: four channels of float32, and one
PICTURE = 3  # bytes a pixel as it is read
AHEAD = 6  # pictures of each camera and of each view that wait in threads, at most
VIEW_WORK = 200  # bytes a pixel of a view while it is made and filled
VIEW_LAYERS = 32  # bytes a pixel of what one of several references shows of a view, until they are blended
# Of a process on the processor: libraries, weights, compiled loops, and what the C library keeps of smaller blocks.
PROGRAM = int(1.1 * GB)


# On the processor float32 convolutions over few planes and rows take the windows of all pixels apart first, which takes
# so much more where planes x rows are fewer than this. Measured with the matching networks; the fewest first.
UNFOLDED = ((2650, NetworkWork(Work(450, 0), Work(670, 0))), (5300, NetworkWork(Work(75, 0), Work(235, 0))))


@dataclass(frozen=True)
class Job:
    """What decides how much memory a rendering takes.

    Attributes:
        arch: name of the architecture.
        precision: of the networks.
        has_mask: whether there is a mask network, and thus a background.
        device_type: where it is computed.
        backend: of sweep and rendering.
        views: number of source cameras.
        planes: number of planes.
        mpi_size: ``(h, w)`` of the planes.
        picture_size: ``(h, w)`` of the pictures that are read.
        target_size: ``(h, w)`` of the views.
        stored_dtype: of the planes of a stored frame.
        stored: whether a frame's full MPI is kept.
        masks: whether the mask volume is kept with it and shown.
        references: number of reference cameras, each with a background of its own.
        references_at_once: how many of them have the MPI of a frame at once, at most.
        cameras: whose pictures are read for all of them; ``views`` where there is one reference.
        still_views: number of cameras that a background's MPI is made from; ``views`` of them unless there are more.
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
        """That of the architecture."""
        return ARCHITECTURES[self.arch].halo

    @property
    def whole(self) -> Tiling:
        """One tile."""
        return Tiling(self.mpi_size, self.mpi_size)


@dataclass(frozen=True)
class Need:
    """Bytes by what takes them; ``networks`` is what they take beyond the rest while they run."""

    background: int
    frame: int
    networks: int
    pictures: int
    program: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Plan:
    """How a rendering fits into memory.

    Attributes:
        tiling: that it is made in; of one tile where the whole frame fits.
        need: what it takes.
        budget: bytes that it may take.
        references: number of reference cameras.
        at_once: how many of them have the MPI of a frame at once, at most.
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
        shown = [
            f"{name} {size:.1f}" + (f" in {tiles}" if name == "networks" else "")
            for name, size in parts.items()
            if size
        ]
        several = f"; {self.references} references, {self.at_once} at once" if self.references > 1 else ""
        return f"memory: {self.need.total / GB:.1f} of {self.budget / GB:.1f} GB: {', '.join(shown)}{several}"


def need(job: Job, tiling: Tiling) -> Need:
    """What a rendering takes in these tiles."""
    volume = _padded(job, job.mpi_size)
    if tiling.is_whole:
        background, frame, peak = (round(volume * bytes_a_voxel) for bytes_a_voxel in _whole(job))
    else:
        background = volume * 4 * background_dtype(job.precision).itemsize if job.has_mask else 0
        frame = volume * _kept(job, stored=True)
        peak = frame + round(max(_tile_work(job, tiling), volume * _mask_view(job)))
    peak = max(peak - frame, _making_background(job, tiling) - background - frame)
    if job.device_type == "cuda" and tiling.is_whole:  # each has a graph, which keeps its memory
        frame, peak = frame * job.references, peak * job.references
    else:
        frame *= job.references_at_once
    source, target = math.prod(job.picture_size), math.prod(job.target_size)
    cameras = job.views if job.cameras is None else job.cameras
    # Bytes as they wait, and float32 twice while they are scaled to 0..1; those of the backgrounds again for tiles.
    pictures = PICTURE * source * (cameras * AHEAD + job.views * (8 + 4 * job.references * (not tiling.is_whole)))
    several = (VIEW_LAYERS * (job.references_at_once + 1)) if job.references > 1 else 0
    pictures += target * (VIEW_WORK + several + AHEAD * (PICTURE + 2 + job.masks))
    program = PROGRAM if job.device_type == "cpu" else 0
    return Need(background * job.references, frame, peak, pictures, program)


def make_plan(job: Job, budget: int, *, why: str) -> Plan:
    """The tiles with the least work that fit into ``budget`` bytes.

    Args:
        why: the budget is what it is, for the message.

    Raises:
        InputError: not even small tiles fit.
    """
    candidates = [job.whole]
    if job.halo is not None:
        most = [max(side // MIN_TILE, 1) for side in job.mpi_size]
        counts = ((rows, columns) for rows in range(1, most[0] + 1) for columns in range(1, most[1] + 1))
        candidates += [Tiling.of(job.mpi_size, *count, job.halo.grid) for count in counts if count != (1, 1)]
    needs = {tiling: need(job, tiling) for tiling in candidates}
    fitting = [tiling for tiling in candidates if needs[tiling].total <= budget]
    if fitting:
        best = min(fitting, key=lambda tiling: _pixels_worked_on(job, tiling))
        return Plan(best, needs[best], budget, job.references, job.references_at_once)
    least = min(entry.total for entry in needs.values())
    h, w = job.mpi_size
    tiles = " in the smallest tiles" if job.halo else f" (the networks of {job.arch!r} can't work in tiles)"
    for_each = f" for each of {job.references} references" if job.references > 1 else ""
    raise InputError(
        f"memory: {job.planes} planes of {w} x {h} from {job.views} cameras{for_each} need {least / GB:.1f} GB{tiles}, "
        f"{budget / GB:.1f} GB may be taken ({why}); give a smaller --img_wh, fewer --num_planes"
        f"{', fewer --references' if job.references > 1 else ''} or more --memory_gb"
    )


def free_bytes(device: torch.device, sharing: int = 1) -> int | None:
    """Bytes that are free on a device, for this process; None where that can't be told.

    Args:
        sharing: number of processes that share this machine's memory; a GPU is one's own.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    limits = [limit for limit in (_available(Path("/proc/meminfo")), cgroup_free()) if limit is not None]
    return min(limits) // sharing if limits else None


def budget_of(device: torch.device, sharing: int = 1) -> int | None:
    """Bytes that a rendering may take where nobody says: ``SHARE`` of what is free, and what this process has."""
    free = free_bytes(device, sharing)
    if free is None:
        return None
    return round(SHARE * free) + (resident_bytes() if device.type == "cpu" else 0)


def resident_bytes() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cgroup_free(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that the control groups of this process leave it, of either version; None where none sets a limit."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    found = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = base / path.lstrip("/")
        # Inside a container the path may be the host's, whose root is then what is seen here.
        found += [_group_free(folder, *names) for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    limits = [limit for limit in found if limit is not None]
    return min(limits) if limits else None


def _whole(job: Job) -> tuple[float, float, float]:
    """Bytes a voxel: background, frame, and what the frame takes at most while it is made or shown."""
    sweep = _sweep_bytes(job)
    rows = job.mpi_size[0]
    work = _mpi_work(job, rows)
    if job.has_mask:
        work = max(work, sweep + PLANES + _mask_work(job, rows))
    kept = _kept(job, stored=job.stored)
    made = PLANES + MASK * job.has_mask
    storing = made + PLANES * job.has_mask + kept if job.stored else 0  # blended, then converted
    blending = PLANES if job.backend == "reference" and job.has_mask and not job.stored else 0
    if job.device_type == "cuda":  # what a graph has recorded keeps its memory
        peak = work + (storing - made if job.stored else 0) + blending + _mask_view(job)
    else:
        peak = max(work, storing, kept + blending, kept + _mask_view(job))
    return (sweep + PLANES) * job.has_mask, kept, peak


def _making_background(job: Job, tiling: Tiling) -> int:
    """Bytes while a background is made from more cameras than a frame, of which no frame is kept yet; 0 otherwise."""
    if not job.has_mask or job.still_views is None or job.still_views <= job.views:
        return 0
    alone = replace(job, has_mask=False, views=job.still_views)
    if tiling.is_whole:
        return round(_padded(job, job.mpi_size) * _mpi_work(alone, job.mpi_size[0]))
    kept = _padded(job, job.mpi_size) * 4 * background_dtype(job.precision).itemsize
    return round(kept + _tile_work(alone, tiling))


def _kept(job: Job, *, stored: bool) -> int:
    """Bytes a voxel of a frame that is made."""
    planes = 4 * job.stored_dtype.itemsize if stored else PLANES
    return planes + MASK * (job.has_mask and (job.masks or not stored))


def _mask_view(job: Job) -> int:
    """Bytes a voxel of the planes that show the mask."""
    return 4 * job.stored_dtype.itemsize * job.masks


def _tile_work(job: Job, tiling: Tiling) -> float:
    """Bytes that a tile takes at most."""
    assert job.halo is not None
    kept = _sweep_bytes(job) + PLANES
    halo = job.halo
    pairs = {
        (tile.grown(halo.frame, tiling.size).size, tile.grown(halo.network, tiling.size).size)
        for tile in tiling.tiles()
    }
    peak = 0.0
    for wide, near in pairs:
        alone = _padded(job, near) * _mpi_work(job, near[0])
        peak = max(peak, alone)
        if not job.has_mask:
            continue
        peak = max(
            peak,
            _padded(job, wide) * _mpi_work(job, wide[0]),
            (_padded(job, wide) + _padded(job, near)) * kept,  # cut out for the mask network
            _padded(job, near) * (2 * kept + _mask_work(job, near[0])),
        )
    return peak


def _mpi_work(job: Job, rows: int) -> float:
    """Bytes a voxel while the MPI network and its sweep are made, in so many rows of pixels."""
    copies = 3 if job.backend == "reference" else 1
    measured = sum(work.mpi.of(job.views) for work in _works(job, rows))
    return max(measured, copies * _sweep_bytes(job))


def _mask_work(job: Job, rows: int) -> float:
    """Bytes a voxel that the mask network takes beside what it reads, in so many rows of pixels."""
    return sum(work.mask.of(job.views) for work in _works(job, rows))


def _works(job: Job, rows: int) -> list[NetworkWork]:
    """What adds up to the networks' work in so many rows of pixels."""
    works = [ARCHITECTURES[job.arch].work[job.precision]]
    if job.device_type == "cpu" and job.precision == "fp32":
        works += [work for below, work in UNFOLDED if job.planes * rows < below][:1]
    return works


def _sweep_bytes(job: Job) -> int:
    """Bytes a voxel of the sweep: three colours of each view."""
    return 3 * job.views * (2 if job.precision == "bf16" else 4)


def _pixels_worked_on(job: Job, tiling: Tiling) -> int:
    """Pixels of all tiles with their halos; with fewer of them there is less to do."""
    halo = 0 if job.halo is None or tiling.is_whole else job.halo.frame if job.has_mask else job.halo.network
    return sum(math.prod(tile.grown(halo, tiling.size).size) for tile in tiling.tiles())


def _padded(job: Job, size: tuple[int, int]) -> int:
    """Voxels of the planes of a picture, as the networks pad them."""
    h, w = (math.ceil(side / 8) * 8 for side in size)
    return math.ceil(job.planes / 4) * 4 * h * w


def _available(meminfo: Path) -> int | None:
    """Bytes of memory that new programs may take without swapping."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group_free(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    """Bytes that one control group leaves; its cached files are given up when memory is needed."""
    try:
        limit, usage = (folder / limit_name).read_text().strip(), int((folder / usage_name).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max" or int(limit) >= 1 << 60:  # how the first version says that there is none
        return None
    return max(int(limit) - usage + int(statistics.get(cache_name, 0)), 0)
