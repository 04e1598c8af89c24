"""Where a picture differs from the background of its camera, beyond noise, exposure and shadows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from maskvolume.clips.backgrounds import temporal_median

# Lengths are pixels of a picture 640 wide, and are scaled with the size.
REFERENCE_WIDTH = 640
DEVIATION_BLUR = 1.0
NOISE_BLUR = 4.0
PATCH_BLUR = 5 / 3  # the neighbourhood that a shadow is told from
EDGE = 2  # how far a shadow goes on beyond the neighbourhoods that lie inside of it
CLOSING_RADIUS, OPENING_RADIUS = 3, 1

HOLE_DIFFERS = 0.8  # part of a hole that differs from the background where it is part of a thing
SEED_FACTOR = 2.0  # a region needs a pixel that exceeds the threshold so many times
SHADOW_GAINS = (0.4, 1.1)  # a shadow leaves at least so much of the light, and light that is thrown back adds so little
SHADOW_SPREAD = 0.25  # by which the gains of the three colours may differ
NOISE_FLOOR = (3.0, 1.5, 1.5)  # grey levels of luma and colours, for what is no noise and yet no motion
_MAD_TO_SIGMA = 1.4826  # of the normal distribution
_STEPS = 4  # of a grey level, in which deviations are counted


@dataclass(frozen=True)
class DifferenceSettings:
    """What counts as moving.

    Attributes:
        threshold: difference in standard deviations of the noise.
        keep_shadows: whether shadows count.
        min_area: the smallest region that is kept and the largest hole that is not filled, as part of the picture.
    """

    threshold: float = 4.0
    keep_shadows: bool = False
    min_area: float = 0.0005


class BackgroundModel:
    """The background of a camera and how much its pictures vary about it.

    Args:
        background: uint8 ``[H, W, 3]`` RGB.
        read: gives sample i in 0..count-1 of the camera's pictures, of the same size.
        count: number of samples, of which the noise is estimated; memory does not grow with it.
    """

    def __init__(self, background: np.ndarray, read: Callable[[int], np.ndarray], count: int) -> None:
        self._scale = background.shape[1] / REFERENCE_WIDTH
        self._background = background
        self._opponent = _to_opponent(background)
        light = background.astype(np.float32) + 2
        self._light, self._energy = light, self._patch_mean(light * light)

        def deviation(i: int) -> np.ndarray:
            difference = self._blur(_to_opponent(self._evened(read(i))) - self._opponent, DEVIATION_BLUR)
            return np.minimum(np.abs(difference) * _STEPS, 255).astype(np.uint8)

        # The median over time sees no noise where nothing but noise happens less than half of the time; that over the
        # picture is the floor there.
        spread = temporal_median(deviation, count).astype(np.float32) * (_MAD_TO_SIGMA / _STEPS)
        floor = 0.7 * np.median(spread.reshape(-1, 3), axis=0)
        self.noise = np.maximum(self._blur(spread, NOISE_BLUR), floor) + NOISE_FLOOR  # [H, W, 3] grey levels

    def moving(self, picture: np.ndarray, settings: DifferenceSettings) -> np.ndarray:
        """Where something moves, bool ``[H, W]``.

        Args:
            picture: uint8 ``[H, W, 3]`` RGB of this camera.
            settings: what counts as moving.
        """
        picture = self._evened(picture)
        difference = _to_opponent(picture) - self._opponent
        # Smoothed against noise, yet not beyond the edges of what moves.
        score = np.minimum(self._score(self._blur(difference, DEVIATION_BLUR)), self._score(difference))
        differs = score > settings.threshold
        if not settings.keep_shadows:
            score[self._is_shadow(picture, settings.threshold)] = 0
        mask = _regions_with(score > settings.threshold, score > SEED_FACTOR * settings.threshold)
        return clean_mask(mask, differs, settings.min_area, self._scale)

    def _score(self, difference: np.ndarray) -> np.ndarray:
        """Length of a difference ``[H, W, 3]`` in standard deviations of the noise, ``[H, W]``."""
        deviation = difference / self.noise
        return np.sqrt((deviation * deviation).sum(axis=-1))

    def _evened(self, picture: np.ndarray) -> np.ndarray:
        """The picture, float32, with the exposure of the background: a gain for each colour, the median of them all."""
        step = max(round(2 * self._scale), 1)
        picture = picture.astype(np.float32)
        few, others = picture[::step, ::step], self._background[::step, ::step]
        gains = np.ones(3, np.float32)
        for channel in range(3):
            seen, expected = few[..., channel], others[..., channel]
            usable = (expected > 20) & (expected < 250) & (seen < 250)
            if usable.any():
                gains[channel] = np.median(seen[usable] / expected[usable])
        return picture / np.maximum(gains, 0.1)

    def _is_shadow(self, picture: np.ndarray, threshold: float) -> np.ndarray:
        """Where the neighbourhood is that of the background times a gain, as in a shadow: bool ``[H, W]``.

        A thing that moves has edges and a texture of its own, which no gain explains.
        """
        light = picture + 2
        product = self._patch_mean(light * self._light)
        gains = product / self._energy
        left = np.sqrt(np.maximum(self._patch_mean(light * light) - gains * product, 0)).mean(axis=-1)
        inside = _is_shade(gains) & (left < threshold * self.noise[..., 0])
        # At the edge of a shadow there is more than one gain, but for each pixel it is one of a shadow.
        edge = _is_shade(self._blur(light, DEVIATION_BLUR) / self._blur(self._light, DEVIATION_BLUR))
        return inside | (edge & _morph(inside, cv2.MORPH_DILATE, round(EDGE * max(self._scale, 1))))

    def _patch_mean(self, values: np.ndarray) -> np.ndarray:
        return self._blur(values, PATCH_BLUR)

    def _blur(self, values: np.ndarray, sigma: float) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), sigma * max(self._scale, 1))


def clean_mask(mask: np.ndarray, differs: np.ndarray, min_area: float, scale: float) -> np.ndarray:
    """Close gaps, fill holes, cut off hairs and drop small regions of bool ``[H, W]``.

    Args:
        mask: what to clean.
        differs: where the picture is not the background, shadows included, bool ``[H, W]``. A hole that does not show
            the background is filled whatever its size: there a thing looks like the background in shadow.
        min_area: smallest region, and largest hole that shows the background and yet is filled, as part of the picture.
        scale: of the lengths, 1 for a picture 640 wide.
    """
    limit = min_area * mask.size
    mask = _morph(mask, cv2.MORPH_CLOSE, round(CLOSING_RADIUS * scale))
    mask = ~_large_regions(~mask, limit, connectivity=4)
    mask |= _holes(mask, differs)
    mask = _morph(mask, cv2.MORPH_OPEN, round(OPENING_RADIUS * scale))
    return _large_regions(mask, limit, connectivity=8)


def soften(mask: np.ndarray, feather: float) -> np.ndarray:
    """A matte, uint8 ``[H, W]``, of bool ``[H, W]``: a Gaussian of ``feather`` pixels across the edge."""
    matte = mask.astype(np.uint8) * 255
    return cv2.GaussianBlur(matte, (0, 0), feather) if feather > 0 else matte


def _to_opponent(picture: np.ndarray) -> np.ndarray:
    """Luma and two colour differences, float32 ``[H, W, 3]``: shadows are in the first, JPEG coarsens the others."""
    return cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2YCrCb)


def _is_shade(gains: np.ndarray) -> np.ndarray:
    """Whether gains of the three colours ``[H, W, 3]`` can be those of a shadow."""
    gain = gains.mean(axis=-1)
    low, high = SHADOW_GAINS
    return (low < gain) & (gain < high) & (np.ptp(gains, axis=-1) < SHADOW_SPREAD * gain)


def _regions_with(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The regions of a mask that hold a seed."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    kept = np.zeros(count, bool)
    kept[labels[seeds]] = True
    kept[0] = False
    return kept[labels]


def _large_regions(mask: np.ndarray, limit: float, connectivity: int) -> np.ndarray:
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    kept = statistics[:count, cv2.CC_STAT_AREA] >= limit
    kept[0] = False
    return kept[labels]


def _holes(mask: np.ndarray, differs: np.ndarray) -> np.ndarray:
    """The holes of a mask that differ from the background nearly everywhere."""
    count, labels = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    is_hole = np.bincount(labels.ravel(), differs.ravel(), count) >= HOLE_DIFFERS * np.bincount(labels.ravel())
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        is_hole[edge] = False
    is_hole[0] = False
    return is_hole[labels]


def _morph(mask: np.ndarray, operation: int, radius: int) -> np.ndarray:
    if radius < 1:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # What touches the border goes on beyond it.
    border = 2 * radius
    wide = cv2.copyMakeBorder(mask.astype(np.uint8), border, border, border, border, cv2.BORDER_REPLICATE)
    return cv2.morphologyEx(wide, operation, kernel)[border:-border, border:-border] > 0
