"""Fly between the two photographs of a real stereo pair, and compare the disparity with the true one.

python examples/stereo.py

The pair is scikit-image's ``stereo_motorcycle`` (Middlebury 2014, Scharstein et al., GCPR 2014), which is part of that
package; its documentation gives focal length, principal points and baseline, but the wrong direction of the disparity.
It belongs to the left picture: pixel x there is x - disparity in the right one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import skimage.data
import torch

from examples.sheets import Row, draw_sheet
from maskvolume.geometry.cameras import Camera
from maskvolume.io.images import resize_image
from maskvolume.mpi.blending import BlendedRenderer
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.renderer import ClipRenderer, RenderSettings
from maskvolume.options import option, parse_options
from maskvolume.rendering.loop import render_clip
from maskvolume.rendering.output_folder import RenderFolder, digest
from maskvolume.rendering.pictures import color_map, to_uint8
from maskvolume.rendering.shots import path_shots
from maskvolume.runtime.devices import resolve_device, resolve_precision
from maskvolume.runtime.errors import InputError, run_program

ROOT = Path(__file__).resolve().parents[1]
FOCAL, CENTER_X, CENTER_Y = 994.978, 311.193, 254.877  # pixels, of the left camera
CENTER_SHIFT = 31.086  # pixels; the right camera's principal point is this much farther right
BASELINE = 0.193001  # metres
MAX_DISPARITY = 70  # pixels; the search range is 0 to this
BAD = (1.0, 2.0, 4.0)  # pixels; errors above these limits are counted


@dataclass(frozen=True)
class StereoOptions:
    """Options of the stereo example."""

    ckpt_path: str = option(str(ROOT / "checkpoints/mpi.safetensors"), "weights of stage one (or two)")
    out_dir: str = option(str(ROOT / "out/stereo"), "folder for the video and the pictures")
    num_frames: int = option(60, "pictures of the video, from left to right and back")
    num_planes: int = option(64, "planes; the depth range is large, so more of them than in training help")
    shrink: int = option(1, "divide the pictures' size by this to save time")
    fps: float = option(30.0, "frames a second")
    device: str = option("auto", "where to compute", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "precision of the networks", choices=("auto", "fp32", "bf16"))


@dataclass(frozen=True)
class StereoPair:
    """The pair as a clip of one frame and two cameras, for ``ClipRenderer``.

    Attributes:
        pictures: left and right, uint8 ``[H, W, 3]``.
        size: (h, w) of the pictures.
    """

    pictures: tuple[np.ndarray, np.ndarray]
    size: tuple[int, int]

    def between(self, share: float, size: tuple[int, int] | None = None) -> Camera:
        """The camera at a fraction of the way from left (0) to right (1); its principal point is interpolated too."""
        T = torch.eye(4)
        T[0, 3] = -share * BASELINE
        center_x = CENTER_X + share * CENTER_SHIFT
        K = torch.tensor([[FOCAL, 0, center_x], [0, FOCAL, CENTER_Y], [0, 0, 1]])
        return Camera(T, K, self.size).scaled(size or self.size)

    def path(self, shares: Sequence[float], size: tuple[int, int] | None = None) -> Camera:
        """The cameras ``[N]`` at fractions of the way."""
        cameras = [self.between(share, size) for share in shares]
        T, K = (torch.stack([getattr(c, name) for c in cameras]) for name in ("T_cam_world", "K"))
        return Camera(T, K, cameras[0].size)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return "left", "right"

    @property
    def num_frames(self) -> int:
        """A single moment."""
        return 1

    def cameras(self, size: tuple[int, int] | None = None, time: float = 0.0) -> Camera:
        """The cameras ``[2]``: left and right."""
        return self.path((0.0, 1.0), size)

    def near_far(self) -> tuple[float, float]:
        """Depths in metres of the largest disparity searched, and of disparity 0."""
        return FOCAL * BASELINE / (MAX_DISPARITY + CENTER_SHIFT), FOCAL * BASELINE / CENTER_SHIFT

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """A picture, uint8 ``[h, w, 3]``, at a size."""
        return resize_image(self.pictures[camera], size or self.size)

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Raise InputError: a single instant has no background."""
        raise InputError("a stereo pair has no background; use a stage-one network")


def errors_of(disparity: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, str]:
    """Absolute error ``[h, w]`` in pixels, NaN where the truth is unknown, and a summary of it as text."""
    error = np.where(np.isfinite(truth), np.abs(disparity - truth), np.nan)
    known = error[np.isfinite(error)]
    bad = ", ".join(f"{100 * float((known > limit).mean()):.1f} % off by more than {limit:g}" for limit in BAD)
    return error, f"mean error {known.mean():.2f} px, median {np.median(known):.2f} px; {bad}"


def draw_disparity(path: Path, pair: StereoPair, middle: np.ndarray, disparity: np.ndarray, truth: np.ndarray) -> str:
    """Draw the estimate beside the truth, at the size of the pair; returns the figures."""
    error, figures = errors_of(disparity, truth)
    maps = [color_map(np.nan_to_num(values) / MAX_DISPARITY) for values in (disparity, truth)]
    maps[1][~np.isfinite(truth)] = 128
    error_map = color_map(np.nan_to_num(error) / BAD[-1])
    error_map[~np.isfinite(error)] = 128
    left, right = pair.pictures
    rows = [
        Row("Two photographs, and the view between them", [left, middle, right], ["left", "between", "right"]),
        Row(
            "Disparity of the left one",
            [*maps, error_map],
            ["estimated", "true (grey: not known)", f"error, 0 to {BAD[-1]:g} px"],
        ),
    ]
    draw_sheet(path, "A real pair: the Middlebury motorcycle", rows, figures[0].upper() + figures[1:])
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Render the video, draw the disparity, and print its error."""
    options = parse_options(
        StereoOptions,
        argv,
        prog="stereo.py",
        description="Fly between the photographs of a real stereo pair; compare its disparity with the true one.",
    )
    if options.num_frames < 2 or options.num_planes < 2 or not 1 <= options.shrink <= 16:
        raise InputError("--num_frames, --num_planes and --shrink: at least 2, 2 and 1 (at most 16) are needed")
    if not 0.1 <= options.fps <= 1000:
        raise InputError(f"--fps: 0.1 to 1000 expected, got {options.fps:g}")
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    model = load_model(options.ckpt_path, device, precision, stage="mpi")
    left, right, truth = skimage.data.stereo_motorcycle()
    pair = StereoPair((left, right), left.shape[:2])
    size = (pair.size[0] // options.shrink, pair.size[1] // options.shrink)
    steps = range(options.num_frames)
    path = pair.path([0.5 - 0.5 * math.cos(2 * math.pi * i / options.num_frames) for i in steps], size)
    settings = RenderSettings(size=size, num_planes=options.num_planes, stored=True)
    renderer = ClipRenderer(pair, model, (0, 1), settings, targets=path)
    folder = RenderFolder(Path(options.out_dir), with_disparity=True)
    folder.prepare({"ckpt_path": digest(Path(options.ckpt_path))}, options, overwrite=True)
    shots = path_shots(path, "fix:0", 1)
    report = render_clip(BlendedRenderer([renderer]), shots, folder, fps=options.fps, crf=18)

    view = renderer.render(0, pair.between(0.0))
    disparity = FOCAL * BASELINE * view.disparity[0].cpu().numpy() - CENTER_SHIFT
    middle = to_uint8(renderer.render(0, pair.between(0.5)).color)
    sheet = folder.root / "disparity.png"
    figures = draw_disparity(sheet, pair, middle, disparity, truth)
    print(f"video:      {folder.video}")
    print(f"disparity:  {sheet}")
    print(f"{figures}; {report.seconds:.0f} s")


if __name__ == "__main__":
    run_program(main)
