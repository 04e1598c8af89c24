"""Signals from the frames of a rig: motion over time, the median picture, how much moves; and time offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from maskvolume.clips.backgrounds import evenly_spaced, temporal_median
from maskvolume.clips.layouts import Layout

SMALL_WIDTH = 160  # width in pixels of the small pictures, in which noise averages out
SAMPLES = 31  # small pictures of a camera for the median
NOISE = 2.0  # differences in grey levels of a small picture that do not count as motion
DIFFERS = 12.0  # a pixel differs from the median above this many grey levels
AGREE = 0.6  # the median is reliable if at least this share of the frames agrees with it
MIN_MOTION = 0.02  # lowest mean motion energy for an estimate, in grey levels
MIN_SAMPLES = 12  # fewest samples of motion energy
MAX_LAG = 30  # frames
SURE_CORRELATION, SURE_MARGIN = 0.6, 0.08
APART = 2  # frames; closer lags belong to the same peak


@dataclass(frozen=True, eq=False)
class CameraSignals:
    """Signals from the frames of one camera.

    Attributes:
        motion: ``[T - 1]`` motion energy: mean difference from frame to frame in grey levels, beyond noise.
        median: ``[h, w, 3]`` float32, the small median over time.
        covered: share of the picture that differs from the median, on average over the frames.
        unsure: share of the picture where too few frames agree with the median for it to be the empty scene.
    """

    motion: np.ndarray
    median: np.ndarray
    covered: float
    unsure: float


@dataclass(frozen=True)
class Offset:
    """The time offset of a camera relative to the others.

    Attributes:
        frames: delay in frames, with fractions, negative if early; None if there is too little motion.
        correlation: of its motion energy with that of the others at this offset, at most 1.
        is_sure: whether the correlation is high and that of all other offsets clearly lower.
    """

    frames: float | None
    correlation: float
    is_sure: bool

    @property
    def is_off(self) -> bool:
        """Whether the camera is certainly off by half a frame or more."""
        return self.is_sure and self.frames is not None and abs(self.frames) >= 0.5


def read_signals(layout: Layout, frames: Sequence[int]) -> list[CameraSignals]:
    """Read all frames of all cameras, one after the other, and compute their signals.

    Args:
        layout: the clip.
        frames: consecutive positions.
    """
    signals = []
    with tqdm(total=len(layout.names) * len(frames), desc="frames", unit="picture", disable=None) as progress:
        for camera in range(len(layout.names)):
            signals.append(_camera_signals(layout, camera, frames, progress))
            layout.source.release(camera)
    return signals


def _camera_signals(layout: Layout, camera: int, frames: Sequence[int], progress: tqdm) -> CameraSignals:
    h, w = layout.size
    size = (min(SMALL_WIDTH, w), max(round(h * min(SMALL_WIDTH, w) / w), 1))
    sampled = set(evenly_spaced(len(frames), SAMPLES))
    motion: list[float] = []
    samples: list[np.ndarray] = []
    last: np.ndarray | None = None
    for number, frame in enumerate(frames):
        small = cv2.resize(layout.source.read(camera, frame), size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small.astype(np.float32), cv2.COLOR_RGB2GRAY)
        if last is not None:
            change = grey - last
            # The median removes flickering light, which changes the whole picture.
            motion.append(float(np.maximum(np.abs(change - np.median(change)) - NOISE, 0).mean()))
        if number in sampled:
            samples.append(small)
        last = grey
        progress.update()
    median = temporal_median(samples.__getitem__, len(samples)).astype(np.float32)
    differs = np.stack([np.abs(picture - median).mean(axis=2) > DIFFERS for picture in samples])
    unsure = (1 - differs.mean(axis=0) < AGREE).mean()
    return CameraSignals(np.array(motion), median, float(differs.mean()), float(unsure))


def find_offsets(motions: Sequence[np.ndarray]) -> list[Offset]:
    """Estimate the time offset of each camera from motion energies ``[T - 1]`` of the same frames.

    Most cameras are assumed to be in sync: offsets are relative to the median one.
    """
    length = len(motions[0])
    max_lag = min(MAX_LAG, length // 3)
    if length < MIN_SAMPLES or len(motions) < 2:
        return [Offset(None, 0.0, False)] * len(motions)
    is_moving = [float(np.mean(motion)) >= MIN_MOTION and float(np.std(motion)) > 0 for motion in motions]
    moving = [camera for camera, has_motion in enumerate(is_moving) if has_motion]
    if len(moving) < 2:
        return [Offset(None, 0.0, False)] * len(motions)
    signals = {camera: _standardized(motions[camera]) for camera in moving}
    peaks = {a: {b: correlations(signals[a], signals[b], max_lag) for b in moving if b != a} for a in moving}
    reference = max(moving, key=lambda camera: sum(float(values.max()) for values in peaks[camera].values()))
    shifts = {c: int(peaks[c][reference].argmax()) - max_lag if c != reference else 0 for c in moving}
    middle = sorted(shifts.values())[len(shifts) // 2]
    shifts = {camera: shift - middle for camera, shift in shifts.items()}
    offsets = []
    for camera in range(len(motions)):
        if camera not in signals:
            offsets.append(Offset(None, 0.0, False))
            continue
        others = np.stack([_shifted(signals[c], -shifts[c]) for c in moving if c != camera])
        count = np.isfinite(others).sum(axis=0)
        mean = np.where(count > 0, np.nansum(others, axis=0) / np.maximum(count, 1), np.nan)
        offsets.append(_offset(correlations(signals[camera], mean, max_lag), max_lag))
    return offsets


def correlations(signal: np.ndarray, reference: np.ndarray, max_lag: int) -> np.ndarray:
    """Normalized cross-correlation ``[2 * max_lag + 1]`` of ``signal[t + lag]`` with ``reference[t]``.

    NaN samples are left out; with too few samples the value is 0.
    """
    values = np.zeros(2 * max_lag + 1)
    for i, lag in enumerate(range(-max_lag, max_lag + 1)):
        a, b = signal, _shifted(reference, lag)
        known = np.isfinite(a) & np.isfinite(b)
        if known.sum() < MIN_SAMPLES // 2:
            continue
        a, b = a[known] - a[known].mean(), b[known] - b[known].mean()
        norm = np.sqrt((a @ a) * (b @ b))
        values[i] = a @ b / norm if norm > 0 else 0.0
    return values


def _offset(values: np.ndarray, max_lag: int) -> Offset:
    best = int(values.argmax())
    lag = float(best - max_lag)
    if 0 < best < len(values) - 1:
        before, top, after = values[best - 1 : best + 2]
        curvature = before - 2 * top + after
        lag += 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    others = np.delete(values, slice(max(best - APART + 1, 0), best + APART))
    margin = float(values[best] - others.max(initial=-1.0))
    return Offset(lag, float(values[best]), bool(values[best] >= SURE_CORRELATION and margin >= SURE_MARGIN))


def _standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _shifted(values: np.ndarray, lag: int) -> np.ndarray:
    """``values[t - lag]`` for each t; NaN outside the range."""
    shifted = np.full(len(values), np.nan)
    if lag >= 0:
        shifted[lag:] = values[: len(values) - lag]
    else:
        shifted[:lag] = values[-lag:]
    return shifted
