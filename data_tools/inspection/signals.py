"""What the pictures of a rig say about it: when its cameras see motion, how bright they are, how much moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from maskvolume.clips.backgrounds import evenly_spaced, temporal_median
from maskvolume.clips.layouts import Layout

SMALL_WIDTH = 160  # pixels that pictures are brought to: noise averages out
KEPT = 31  # small pictures of a camera that the median is taken of
NOISE = 2.0  # grey levels of a small picture that are no motion
DIFFERS = 12.0  # grey levels from the median that are something else
AGREE = 0.6  # part of the frames that have to show the median for it to be sure
MIN_MOTION = 0.02  # grey levels: mean motion energy below which nothing can be told
MIN_SAMPLES = 12  # of motion energy
MAX_LAG = 30  # frames
SURE_CORRELATION, SURE_MARGIN = 0.6, 0.08
APART = 2  # frames: lags this near belong to the same peak


@dataclass(frozen=True, eq=False)
class CameraSignals:
    """What the frames of one camera say.

    Attributes:
        motion: ``[T - 1]`` motion energy: mean difference from frame to frame in grey levels, beyond noise.
        median: ``[h, w, 3]`` float32, the small median over time.
        covered: part of the picture that differs from the median, on average over the frames.
        unsure: part of the picture in which too few frames show the median for it to be the empty scene.
    """

    motion: np.ndarray
    median: np.ndarray
    covered: float
    unsure: float


@dataclass(frozen=True)
class Offset:
    """When a camera sees what the others see.

    Attributes:
        frames: by how many frames it is late (early if negative), with parts of a frame; None: too little motion.
        correlation: of its motion energy with that of the others at this offset, at most 1.
        is_sure: whether the correlation is high, and no other offset comes near it.
    """

    frames: float | None
    correlation: float
    is_sure: bool

    @property
    def is_off(self) -> bool:
        """Whether it surely is half a frame or more off."""
        return self.is_sure and self.frames is not None and abs(self.frames) >= 0.5


def read_signals(layout: Layout, frames: Sequence[int]) -> list[CameraSignals]:
    """Look at all frames of all cameras, one after the other.

    Args:
        layout: the clip.
        frames: positions that follow one another.
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
    kept_frames = set(evenly_spaced(len(frames), KEPT))
    motion: list[float] = []
    kept: list[np.ndarray] = []
    last: np.ndarray | None = None
    for number, frame in enumerate(frames):
        small = cv2.resize(layout.source.read(camera, frame), size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small.astype(np.float32), cv2.COLOR_RGB2GRAY)
        if last is not None:
            change = grey - last
            # A light that flickers changes all of the picture.
            motion.append(float(np.maximum(np.abs(change - np.median(change)) - NOISE, 0).mean()))
        if number in kept_frames:
            kept.append(small)
        last = grey
        progress.update()
    median = temporal_median(kept.__getitem__, len(kept)).astype(np.float32)
    differs = np.stack([np.abs(picture - median).mean(axis=2) > DIFFERS for picture in kept])
    unsure = (1 - differs.mean(axis=0) < AGREE).mean()
    return CameraSignals(np.array(motion), median, float(differs.mean()), float(unsure))


def find_offsets(motions: Sequence[np.ndarray]) -> list[Offset]:
    """By how many frames each camera is off the others, from motion energies ``[T - 1]`` of the same frames.

    Most cameras are taken to be in time: offsets are from the middle one.
    """
    length = len(motions[0])
    max_lag = min(MAX_LAG, length // 3)
    if length < MIN_SAMPLES or len(motions) < 2:
        return [Offset(None, 0.0, False)] * len(motions)
    is_moving = [float(np.mean(motion)) >= MIN_MOTION and float(np.std(motion)) > 0 for motion in motions]
    moving = [camera for camera, is_one in enumerate(is_moving) if is_one]
    if len(moving) < 2:
        return [Offset(None, 0.0, False)] * len(motions)
    signals = {camera: _standardized(motions[camera]) for camera in moving}
    peaks = {a: {b: correlations(signals[a], signals[b], max_lag) for b in moving if b != a} for a in moving}
    reference = max(moving, key=lambda camera: sum(float(values.max()) for values in peaks[camera].values()))
    shifts = {c: int(peaks[c][reference].argmax()) - max_lag if c != reference else 0 for c in moving}
    middle = sorted(shifts.values())[len(shifts) // 2]
    shifts = {camera: shift - middle for camera, shift in shifts.items()}
    found = []
    for camera in range(len(motions)):
        if camera not in signals:
            found.append(Offset(None, 0.0, False))
            continue
        others = np.stack([_shifted(signals[c], -shifts[c]) for c in moving if c != camera])
        count = np.isfinite(others).sum(axis=0)
        mean = np.where(count > 0, np.nansum(others, axis=0) / np.maximum(count, 1), np.nan)
        found.append(_offset(correlations(signals[camera], mean, max_lag), max_lag))
    return found


def correlations(signal: np.ndarray, reference: np.ndarray, max_lag: int) -> np.ndarray:
    """Normalized cross-correlation ``[2 * max_lag + 1]`` of ``signal[t + lag]`` with ``reference[t]``.

    Samples that are NaN are left out; too few of them give 0.
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
        bend = before - 2 * top + after
        lag += 0.5 * (before - after) / bend if bend < 0 else 0.0
    others = np.delete(values, slice(max(best - APART + 1, 0), best + APART))
    margin = float(values[best] - others.max(initial=-1.0))
    return Offset(lag, float(values[best]), bool(values[best] >= SURE_CORRELATION and margin >= SURE_MARGIN))


def _standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _shifted(values: np.ndarray, lag: int) -> np.ndarray:
    """``values[t - lag]`` for each t; NaN where there is none."""
    moved = np.full(len(values), np.nan)
    if lag >= 0:
        moved[lag:] = values[: len(values) - lag]
    else:
        moved[:lag] = values[-lag:]
    return moved
