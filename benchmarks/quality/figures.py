"""The measures of a novel view: figures of every frame and method, and their means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.quality.regions import flicker, static_pixels
from maskvolume.metrics import (
    BORDERS,
    MS_SSIM_SIDE,
    ms_ssim,
    psnr,
    ssim_map,
)

MEASURES = (
    *("psnr", "ssim", "ms_ssim", "lpips"),
    *("psnr_dynamic", "ssim_dynamic", "psnr_disoccluded", "ssim_disoccluded"),
    "flicker",
)
TRUTH = "truth"  # the row with the flicker of the true pictures
DECIMALS = 4

Distance = Callable[[Tensor, Tensor], float]  # from a picture [3, h, w] in 0..1 to the truth
Figures = dict[str, float | None]  # by measure; None: unknown, or no such pixels
Table = dict[str, dict[str, list[float | None]]]  # by row and measure, one value per frame


@dataclass(frozen=True)
class Moment:
    """A frame of a novel view: the truth, and the picture of each method.

    Attributes:
        truth: ``[3, h, w]`` in 0..1.
        dynamic: ``[1, h, w]`` bool, where something moves; None if unknown.
        uncovered: ``[1, h, w]`` bool, from ``regions.disoccluded``; None if unknown.
        pictures: ``[3, h, w]`` in 0..1 by name of the row.
    """

    truth: Tensor
    dynamic: Tensor | None
    uncovered: Tensor | None
    pictures: dict[str, Tensor]


def measure(moments: Iterable[Moment], keep: int, lpips: Distance | None = None) -> tuple[Moment, Table]:
    """Measure all moments; returns moment number ``keep`` and the figures of each row by measure."""
    rows: dict[str, list[Figures]] = {}
    before: Moment | None = None
    selected: Moment | None = None
    for number, moment in enumerate(moments):
        still = _still(before, moment)
        for name, picture in moment.pictures.items():
            change = None if before is None or still is None else flicker(before.pictures[name], picture, still)
            rows.setdefault(name, []).append({**_picture_figures(picture, moment, lpips), "flicker": _finite(change)})
        if before is not None and still is not None:
            rows.setdefault(TRUTH, []).append({"flicker": _finite(flicker(before.truth, moment.truth, still))})
        selected = moment if number == keep else selected
        before = moment
    if selected is None:
        raise ValueError(f"keep: the number of a moment expected, got {keep}")
    return selected, {
        name: {key: [entry[key] for entry in entries] for key in MEASURES if key in entries[0]}
        for name, entries in rows.items()
    }


def means(table: Table) -> dict[str, Figures]:
    """Means over the moments by row and measure; moments without such pixels don't count."""
    return {name: {key: _mean(values) for key, values in columns.items()} for name, columns in table.items()}


def mean_of(parts: Sequence[Mapping[str, Figures]]) -> dict[str, Figures]:
    """Means over views of their means; a view without such pixels doesn't count."""
    names = dict.fromkeys(name for part in parts for name in part)
    by_row = {name: [part[name] for part in parts if name in part] for name in names}
    return {
        name: {key: _mean([figures[key] for figures in entries]) for key in entries[0]}
        for name, entries in by_row.items()
    }


def borders() -> dict[str, Any]:
    """The number of ignored pixels at each border of a picture, by measure, for the record."""
    reflected = "0; windows at the border are reflected"
    return {
        **BORDERS,
        "ms_ssim": f"{BORDERS['ms_ssim']} at each of the five scales",
        "lpips": 0,
        "of reflected pixels": {"psnr": 0, "ssim": reflected, "flicker": 0},
    }


def _picture_figures(picture: Tensor, moment: Moment, lpips: Distance | None) -> Figures:
    """All but flicker; a column of LPIPS only where it is measured."""
    large = min(picture.shape[-2:]) >= MS_SSIM_SIDE
    similarity = ssim_map(picture, moment.truth)
    border = BORDERS["ssim"]
    figures: Figures = {
        "psnr": _finite(psnr(picture, moment.truth)),
        "ssim": _finite(similarity[..., border:-border, border:-border].mean()),
        "ms_ssim": _finite(ms_ssim(picture, moment.truth)) if large else None,
    }
    if lpips is not None:
        figures["lpips"] = _finite(lpips(picture, moment.truth))
    for region, mask in (("dynamic", moment.dynamic), ("disoccluded", moment.uncovered)):
        masked = None if mask is None else similarity[mask.expand_as(similarity)]
        figures[f"psnr_{region}"] = None if mask is None else _finite(psnr(picture, moment.truth, mask))
        figures[f"ssim_{region}"] = None if masked is None else _finite(masked.mean())
    return figures


def _still(before: Moment | None, after: Moment) -> Tensor | None:
    """The static pixels of two moments; None if unknown."""
    if before is None or before.dynamic is None or after.dynamic is None:
        return None
    return static_pixels(before.truth, after.truth, before.dynamic | after.dynamic)


def _finite(value: Tensor | float | None) -> float | None:
    """Round a value; None if it is not finite: a mean over no pixels, or the PSNR of equal pictures."""
    number = math.nan if value is None else float(value)
    return round(number, DECIMALS) if math.isfinite(number) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), DECIMALS) if known else None
