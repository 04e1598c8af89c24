"""Detects where a picture differs from its camera's background, beyond noise, exposure and shadows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from maskvolume.clips.backgrounds import temporal_median

# Lengths are in pixels of a picture 640 wide and scale with the picture's size.
REFERENCE_WIDTH = 640
DEVIATION_BLUR = 1.0
NOISE_BLUR = 4.0
PATCH_BLUR = 5 / 3  # the neighbourhood for detecting shadows
EDGE = 2  # how far a shadow extends beyond the neighbourhoods inside it
CLOSING_RADIUS, OPENING_RADIUS = 3, 1

HOLE_DIFFERS = 0.8  # a hole belongs to the object if at least this share of it differs from the background
SEED_FACTOR = 2.0  # a region needs a pixel above this multiple of the threshold
SHADOW_GAINS = (0.4, 1.1)  # range of brightness ratios in shadows; above 1 from reflected light
SHADOW_SPREAD = 0.25  # largest difference between the gains of the three colours, relative to their mean
NOISE_FLOOR = (3.0, 1.5, 1.5)  # grey levels of luma and colours, for changes that are neither noise nor motion
_MAD_TO_SIGMA = 1.4826  # of the normal distribution
_STEPS = 4  # resolution of the deviations, in steps per grey level


@dataclass(frozen=True)
class DifferenceSettings:
    """The criteria for motion.

    Attributes:
        threshold: smallest difference, in standard deviations of the noise.
        keep_shadows: whether shadows count as moving.
        min_area: smallest region to keep and largest hole to fill, as a share of the picture.
    """

    threshold: float = 4.0
    keep_shadows: bool = False
    min_area: float = 0.0005


class BackgroundModel:
    """The background of a camera and the noise of its pictures.

    Args:
        background: uint8 ``[H, W, 3]`` RGB.
        read: returns sample i in 0..count-1 of the camera's pictures, of the same size.
        count: number of samples for estimating the noise; memory does not grow with it.
    """

    def __init__(self, background: np.ndarray, read: Callable[[int], np.ndarray], count: int) -> None:
        self._scale = background.shape[1] / REFERENCE_WIDTH
        self._background = background
        self._opponent = _to_opponent(background)
        light = background.astype(np.float32) + 2
        self._light, self._energy = light, self._patch_mean(light * light)

        def deviation(i: int) -> np.ndarray:
            difference = self._blur(_to_opponent(self._with_matched_exposure(read(i))) - self._opponent, DEVIATION_BLUR)
            return np.minimum(np.abs(difference) * _STEPS, 255).astype(np.uint8)

        # The median over time misses noise that is present less than half of the time; the median over the picture is
        # the floor there.
        spread = temporal_median(deviation, count).astype(np.float32) * (_MAD_TO_SIGMA / _STEPS)
        floor = 0.7 * np.median(spread.reshape(-1, 3), axis=0)
        self.noise = np.maximum(self._blur(spread, NOISE_BLUR), floor) + NOISE_FLOOR  # [H, W, 3] grey levels

    def moving(self, picture: np.ndarray, settings: DifferenceSettings) -> np.ndarray:
        """Where something moves, bool ``[H, W]``.

        Args:
            picture: uint8 ``[H, W, 3]`` RGB of this camera.
            settings: the criteria for motion.
        """
        picture = self._with_matched_exposure(picture)
        difference = _to_opponent(picture) - self._opponent
        # Smoothed against noise, but not beyond the edges of moving objects.
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

    def _with_matched_exposure(self, picture: np.ndarray) -> np.ndarray:
        """The picture, float32, with the exposure of the background: each colour divided by its median gain."""
        step = max(round(2 * self._scale), 1)
        picture = picture.astype(np.float32)
        sample, reference = picture[::step, ::step], self._background[::step, ::step]
        gains = np.ones(3, np.float32)
        for channel in range(3):
            seen, expected = sample[..., channel], reference[..., channel]
            usable = (expected > 20) & (expected < 250) & (seen < 250)
            if usable.any():
                gains[channel] = np.median(seen[usable] / expected[usable])
        return picture / np.maximum(gains, 0.1)

    def _is_shadow(self, picture: np.ndarray, threshold: float) -> np.ndarray:
        """Where the neighbourhood is the background's times a gain, as in a shadow: bool ``[H, W]``.

        A moving object has its own edges and texture, which no gain explains.
        """
        light = picture + 2
        product = self._patch_mean(light * self._light)
        gains = product / self._energy
        residual = np.sqrt(np.maximum(self._patch_mean(light * light) - gains * product, 0)).mean(axis=-1)
        inside = _is_shade(gains) & (residual < threshold * self.noise[..., 0])
        # At the edge of a shadow the gain varies, but at each pixel it is that of a shadow.
        edge = _is_shade(self._blur(light, DEVIATION_BLUR) / self._blur(self._light, DEVIATION_BLUR))
        return inside | (edge & _morph(inside, cv2.MORPH_DILATE, round(EDGE * max(self._scale, 1))))

    def _patch_mean(self, values: np.ndarray) -> np.ndarray:
        return self._blur(values, PATCH_BLUR)

    def _blur(self, values: np.ndarray, sigma: float) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), sigma * max(self._scale, 1))


def clean_mask(mask: np.ndarray, differs: np.ndarray, min_area: float, scale: float) -> np.ndarray:
    """Close gaps, fill holes, remove thin lines and drop small regions of bool ``[H, W]``.

    Args:
        mask: the mask to clean.
        differs: where the picture differs from the background, shadows included, bool ``[H, W]``. A hole that does not
            show the background is filled whatever its size: an object can look like the background in shadow.
        min_area: smallest region to keep, and largest hole with background to fill, as a share of the picture.
        scale: factor on the lengths, 1 for a picture 640 wide.
    """
    limit = min_area * mask.size
    mask = _morph(mask, cv2.MORPH_CLOSE, round(CLOSING_RADIUS * scale))
    mask = ~_large_regions(~mask, limit, connectivity=4)
    mask |= _holes(mask, differs)
    mask = _morph(mask, cv2.MORPH_OPEN, round(OPENING_RADIUS * scale))
    return _large_regions(mask, limit, connectivity=8)


def soften(mask: np.ndarray, feather: float) -> np.ndarray:
    """Turn a mask, bool ``[H, W]``, into a matte, uint8 ``[H, W]``, with an edge blurred by ``feather`` pixels."""
    matte = mask.astype(np.uint8) * 255
    return cv2.GaussianBlur(matte, (0, 0), feather) if feather > 0 else matte


def _to_opponent(picture: np.ndarray) -> np.ndarray:
    """Luma and two colour differences, float32 ``[H, W, 3]``: shadows affect the first, JPEG blurs the others."""
    return cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2YCrCb)


def _is_shade(gains: np.ndarray) -> np.ndarray:
    """Whether gains of the three colours ``[H, W, 3]`` are plausible for a shadow."""
    gain = gains.mean(axis=-1)
    low, high = SHADOW_GAINS
    return (low < gain) & (gain < high) & (np.ptp(gains, axis=-1) < SHADOW_SPREAD * gain)


def _regions_with(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The regions of a mask that contain a seed."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    has_seed = np.zeros(count, bool)
    has_seed[labels[seeds]] = True
    has_seed[0] = False
    return has_seed[labels]


def _large_regions(mask: np.ndarray, limit: float, connectivity: int) -> np.ndarray:
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    is_large = statistics[:count, cv2.CC_STAT_AREA] >= limit
    is_large[0] = False
    return is_large[labels]


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
    # Regions at the border are assumed to continue beyond it.
    border = 2 * radius
    wide = cv2.copyMakeBorder(mask.astype(np.uint8), border, border, border, border, cv2.BORDER_REPLICATE)
    return cv2.morphologyEx(wide, operation, kernel)[border:-border, border:-border] > 0
