"""Fixed sets of random worlds, static or moving, outside all training, in three bands of difficulty.

A band is a range of the largest disparity between two neighbouring cameras of a world, that at its nearest depth: 5 to
13, 13 to 26 and 26 to 51 pixels of pictures 256 wide. World i of a set belongs to band i modulo 3 and has the set's
seed plus i, so that a smaller set is the beginning of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.figures import Moment
from benchmarks.quality.methods import (
    MORE_CAMERAS,
    NovelView,
    Row,
    WorldClip,
)
from benchmarks.quality.regions import disoccluded
from maskvolume.data.synthetic import SyntheticSample, WorldOptions, sample_worlds
from maskvolume.geometry.cameras import nearest_cameras
from maskvolume.mpi.model import MaskVolumeModel

# Seeds beyond those of training samples, separate from each other and from the worlds of other programs.
STATIC_SEED, MOVING_SEED = 654_321_000_000, 765_432_100_000
BANDS = {"small": (0.02, 0.05), "medium": (0.05, 0.1), "large": (0.1, 0.2)}  # relative to the picture's width
INSTANTS = 3
SHADOW_SHARE = 0.3  # of the movers, as in training
NEAR_SHARE = 0.9  # ratio of a sample's nearest plane to the nearest depth that a source sees


@dataclass(frozen=True)
class WorldSet:
    """One of the sets.

    Attributes:
        moving: whether things move in its worlds.
        size: ``(h, w)`` of the pictures.
    """

    moving: bool
    size: tuple[int, int]

    @property
    def instants(self) -> int:
        """Number of instants of a world."""
        return INSTANTS if self.moving else 1

    def seed(self, index: int) -> int:
        """The seed of a world."""
        return (MOVING_SEED if self.moving else STATIC_SEED) + index

    def band(self, index: int) -> str:
        """The band of a world."""
        return tuple(BANDS)[index % len(BANDS)]

    def sample(self, index: int) -> SyntheticSample:
        """A world, seen by four cameras and from the novel view."""
        options = WorldOptions(
            size=self.size,
            num_sources=MORE_CAMERAS,
            moving=self.moving,
            shadow_share=SHADOW_SHARE,
            instants=self.instants,
            disparity=BANDS[self.band(index)],
        )
        return sample_worlds(options, 1, generator=self.seed(index), device="cpu")

    def disparity_bounds(self, band: str) -> tuple[float, float]:
        """The disparity range of a band in pixels."""
        low, high = BANDS[band]
        return round(low * self.size[1], 1), round(high * self.size[1], 1)


def seen_disparity(sample: SyntheticSample) -> float:
    """The largest disparity in pixels between the first two sources: that of the nearest visible point."""
    cameras = sample.sources[0]
    baseline = (cameras.center[1] - cameras.center[0]).norm()
    return round(float(cameras.K[0, 0, 0] * baseline / (sample.near[0] / NEAR_SHARE)), 2)


def world_moments(
    sample: SyntheticSample, models: Mapping[str, MaskVolumeModel], rows: Sequence[Row]
) -> Iterator[Moment]:
    """Yield the novel view of a world by every row, instant by instant."""
    clip, target = WorldClip(sample), sample.target[0]
    indices = nearest_cameras(clip.cameras(), target, MORE_CAMERAS)
    view = NovelView(clip, models, rows, indices, target, clip.size)
    for frame in range(clip.num_frames):
        truth, matte = sample.target_image[0], sample.matte[0]
        if frame:
            assert sample.later_target_images is not None
            assert sample.later_mattes is not None
            truth, matte = sample.later_target_images[0, frame - 1], sample.later_mattes[0, frame - 1]
        # A pixel that a mover covers partly is neither dynamic nor uncovered.
        mattes = sample.source_mattes[0, frame, list(indices[:2])]
        uncovered = disoccluded(sample.target_background_depth[0], target, view.sources, mattes) & (matte == 0)
        yield Moment(truth, matte >= 0.5, uncovered, view.pictures(frame))


def describe(world_set: WorldSet, count: int) -> dict[str, Any]:
    """A description of the first worlds of a set, for the record."""
    h, w = world_set.size
    numbers = {band: sum(world_set.band(index) == band for index in range(count)) for band in BANDS}
    return {
        "num_worlds": count,
        "size_wh": [w, h],
        "instants": world_set.instants,
        "first_seed": world_set.seed(0),
        "bands": {
            band: {"disparity_px": list(world_set.disparity_bounds(band)), "num_worlds": number}
            for band, number in numbers.items()
        },
    }
