"""Points shared by the cameras of a rig: SIFT features of the static scene and of moving objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pycolmap
import torch
from tqdm import tqdm

from data_tools.mattes.difference import BackgroundModel, DifferenceSettings
from maskvolume.clips.backgrounds import evenly_spaced, temporal_median
from maskvolume.clips.layouts import Layout

MASK_MARGIN = 6  # pixels of a picture 640 wide: the neighbourhood that a feature depends on
UPSAMPLED_BELOW = 1000  # pixels of width; wider pictures have enough features without upsampling
MAX_RATIO = 0.8  # Lowe's ratio of the distances to the best and the second best descriptor
MAX_DISTANCE = 0.7
MATCH_ROWS = 2048  # compared at once


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one picture.

    Attributes:
        points: ``[N, 2]`` float32 (x, y) in pixels, pixel centres at +0.5.
        descriptors: ``[N, 128]`` float32 of length 1.
    """

    points: np.ndarray
    descriptors: np.ndarray

    def select(self, keep: np.ndarray) -> Features:
        """The features where ``keep [N]`` is set."""
        return Features(self.points[keep], self.descriptors[keep])


@dataclass(frozen=True)
class CameraFeatures:
    """The features of one camera.

    Attributes:
        background: of the median over time.
        still: of each instant, outside moving areas.
        moving: of each instant, inside moving areas.
    """

    background: Features
    still: tuple[Features, ...]
    moving: tuple[Features, ...]


def find_features(
    layout: Layout, cameras: Sequence[int], frames: Sequence[int], num_instants: int, max_features: int
) -> list[CameraFeatures]:
    """Find the features of cameras.

    Args:
        layout: the clip.
        cameras: positions in the clip.
        frames: positions in the clip of the frames whose median is the background.
        num_instants: number of these frames, evenly spaced, to search one by one.
        max_features: most features per picture.
    """
    instants = [frames[i] for i in evenly_spaced(len(frames), num_instants)] if num_instants else []
    extractor = _make_extractor(layout.size, max_features)
    features = []
    for camera in tqdm(cameras, desc="features", unit="camera", disable=None):
        features.append(_camera_features(layout, camera, frames, instants, extractor))
        layout.source.release(camera)
    return features


def match_features(a: Features, b: Features) -> np.ndarray:
    """Pairs ``[M, 2]`` uint32 of mutually best matches that pass the ratio test."""
    if len(a.points) < 1 or len(b.points) < 2:
        return np.zeros((0, 2), np.uint32)
    descriptors, others = torch.from_numpy(a.descriptors), torch.from_numpy(b.descriptors)
    best, first, second = [], [], []
    column_best = torch.full((len(others),), -torch.inf)
    column_row = torch.zeros(len(others), dtype=torch.int64)
    for top in range(0, len(descriptors), MATCH_ROWS):
        likeness = descriptors[top : top + MATCH_ROWS] @ others.T
        values, rows = likeness.max(dim=0)
        better = values > column_best
        column_best[better], column_row[better] = values[better], rows[better] + top
        values, columns = likeness.max(dim=1)
        likeness[torch.arange(len(likeness)), columns] = -torch.inf
        best.append(columns)
        first.append(values)
        second.append(likeness.amax(dim=1))
    columns = torch.cat(best)
    near, next_near = ((2 - 2 * torch.cat(values)).clamp_min(0).sqrt() for values in (first, second))
    is_mutual = column_row[columns] == torch.arange(len(columns))
    rows = torch.nonzero(is_mutual & (near < MAX_DISTANCE) & (near < MAX_RATIO * next_near))[:, 0]
    return torch.stack([rows, columns[rows]], dim=1).numpy().astype(np.uint32)


def _camera_features(
    layout: Layout,
    camera: int,
    frames: Sequence[int],
    instants: Sequence[int],
    extractor: pycolmap.FeatureExtractor,
) -> CameraFeatures:
    source = layout.source
    background = temporal_median(lambda i: source.read(camera, frames[i]), len(frames))
    still, moving = [], []
    if instants:
        model = BackgroundModel(background, lambda i: source.read(camera, frames[i]), len(frames))
        radius = max(round(MASK_MARGIN * layout.size[1] / 640), 1)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        for frame in instants:
            picture = source.read(camera, frame)
            mask = model.moving(picture, DifferenceSettings(keep_shadows=True)).astype(np.uint8)
            features = _extract(extractor, picture)
            still.append(features.select(~_lookup(cv2.dilate(mask, kernel), features.points)))
            moving.append(features.select(_lookup(cv2.erode(mask, kernel), features.points)))
    return CameraFeatures(_extract(extractor, background), tuple(still), tuple(moving))


def _lookup(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = points.astype(int).T
    return mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)] > 0


def _make_extractor(size: tuple[int, int], max_features: int) -> pycolmap.FeatureExtractor:
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1
    options.sift.max_num_features = max_features
    options.sift.first_octave = -1 if size[1] < UPSAMPLED_BELOW else 0
    return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)


def _extract(extractor: pycolmap.FeatureExtractor, picture: np.ndarray) -> Features:
    keypoints, descriptors = extractor.extract_from_uint8_array(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    values = np.asarray(descriptors.data, np.float32).reshape(-1, 128)
    values /= np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-6)
    return Features(pycolmap.keypoints_to_matrix(keypoints)[:, :2].astype(np.float32), values)
