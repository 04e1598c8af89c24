"""Views of a clip with known truth: held-out cameras, and cameras of the clip rendered from more distant ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.figures import Moment
from benchmarks.quality.holdout import Mattes, Targets, to_tensor
from benchmarks.quality.methods import BACKGROUND_CAMERAS, NovelView, Row
from benchmarks.quality.regions import disoccluded
from maskvolume.clips.rig import RigClip
from maskvolume.geometry.cameras import Camera, nearest_cameras
from maskvolume.mpi.model import MaskVolumeModel

MOST_STEPS = 3  # largest distance outside, in camera spacings
STEP_TOLERANCE = 0.5  # spacings; a camera this close to the expected position is the next one in a row


@dataclass(frozen=True)
class KnownView:
    """A view with known true pictures.

    Attributes:
        name: in results.
        camera: of the view, at the size of the pictures.
        indices: source cameras of the clip; the first two are the pair for every method.
        picture: returns ``[3, h, w]`` in 0..1 for the name of a frame.
        matte_name: name of its folder of mattes.
        still_depth: ``[1, h, w]`` of the static scene; None if unknown.
    """

    name: str
    camera: Camera
    indices: tuple[int, ...]
    picture: Callable[[str], Tensor]
    matte_name: str
    still_depth: Tensor | None


def held_out_views(clip: RigClip, targets: Targets) -> list[KnownView]:
    """The held-out cameras of a clip, each with the cameras nearest to it as sources."""
    return [
        KnownView(
            name,
            targets.camera(number),
            nearest_cameras(clip.cameras(targets.size), targets.camera(number), BACKGROUND_CAMERAS),
            lambda frame_name, number=number: targets.picture(number, frame_name),  # type: ignore[misc]
            name,
            targets.still_depth(number) if targets.has_depth else None,
        )
        for number, name in enumerate(targets.names)
    ]


def outside_views(clip: RigClip, size: tuple[int, int]) -> list[KnownView]:
    """A camera at the end of a row, with pairs of that row one, two and three spacings away as sources.

    It is the camera of the clip with the most others in a row beside it; its own pictures are the truth. Shorter rows
    give fewer views, or none.
    """
    cameras = clip.cameras(size)
    target, row, beside = end_of_row(cameras.center.double())
    frames = {name: number for number, name in enumerate(clip.frame_names)}

    def picture(frame_name: str) -> Tensor:
        return to_tensor(clip.read(target, frames[frame_name], size))

    views = []
    for step in range(1, min(MOST_STEPS, len(row) - 1) + 1):
        pair = (row[step - 1], row[step])
        others = [camera for camera in beside(step) if camera not in pair]
        name = f"{clip.names[target]}, {step} outside"
        indices = (*pair, *others[: BACKGROUND_CAMERAS - 2])
        views.append(KnownView(name, cameras[target], indices, picture, clip.names[target], None))
    return views


def end_of_row(
    centers: Tensor,  # [N, 3]
) -> tuple[int, tuple[int, ...], Callable[[int], list[int]]]:
    """Find the camera with the most others in a row on one side of it.

    Rows are parallel to the first principal axis of the centres. The spacing is the median distance of a camera to the
    nearest one.

    Returns:
        The camera; those of its row, the nearest first; and a function that returns all cameras at least a number of
        spacings away along the row, the nearest first.
    """
    distances = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
    spacing = float((distances + torch.diag(torch.full((len(centers),), torch.inf))).amin(dim=1).median())
    axis = torch.linalg.svd(centers - centers.mean(dim=0)).Vh[0]
    best: tuple[int, tuple[int, ...], Tensor] = (0, (), axis)
    for camera in range(len(centers)):
        for along in (axis, -axis):
            row = _row_from(camera, centers, along, spacing)
            if len(row) > len(best[1]):
                best = (camera, row, along)
    target, row, along = best
    ahead = (centers - centers[target]) @ along / spacing

    def beside(step: int) -> list[int]:
        order = torch.argsort(distances[target].round(decimals=6), stable=True).tolist()
        return [camera for camera in order if camera != target and ahead[camera] > step - STEP_TOLERANCE]

    return target, row, beside


def _row_from(camera: int, centers: Tensor, along: Tensor, spacing: float) -> tuple[int, ...]:
    row: list[int] = []
    position = centers[camera]
    while True:
        distance = (centers - (position + along * spacing)).norm(dim=1)
        distance[[camera, *row]] = torch.inf
        following = int(distance.argmin())
        if float(distance[following]) > STEP_TOLERANCE * spacing:
            return tuple(row)
        row.append(following)
        position = centers[following]


def view_moments(
    clip: RigClip,
    view: KnownView,
    mattes: Mattes,
    models: Mapping[str, MaskVolumeModel],
    rows: Sequence[Row],
    frames: range,
) -> Iterator[Moment]:
    """Yield a view by every row, frame by frame.

    Args:
        clip: the rig's pictures.
        view: the view to render.
        mattes: of the clip's cameras and of held-out ones, if available.
        models: ours, by name.
        rows: of the tables.
        frames: numbers of the frames.
    """
    novel = NovelView(clip, models, rows, view.indices, view.camera, view.camera.size)
    pair = [clip.names[i] for i in view.indices[:2]]
    for frame in frames:
        name = clip.frame_names[frame]
        dynamic = mattes.read(view.matte_name, name) if mattes.known(view.matte_name) else None
        uncovered = None
        if dynamic is not None and view.still_depth is not None and mattes.known(*pair):
            hiding = torch.stack([mattes.read(camera, name) for camera in pair])
            uncovered = disoccluded(view.still_depth, view.camera, novel.sources, hiding) & ~dynamic
        yield Moment(view.picture(name), dynamic, uncovered, novel.pictures(frame))
