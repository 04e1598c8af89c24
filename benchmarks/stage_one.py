"""The quality of stage-one networks: held-out random worlds, the clip's empty scene, and a real stereo pair.

Worlds: views of worlds that neither training nor validation uses, from two sources. Empty scene: views from the
temporal medians of the cameras nearest to a held-out one, against the median of that one. Stereo: the disparity of
scikit-image's Motorcycle pair (Middlebury 2014), compared with OpenCV's semi-global matching.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.quality.classical import plane_sweep_stereo
from benchmarks.quality.holdout import Targets, open_with_background, to_tensor
from benchmarks.quality.motorcycle import measure_stereo, stereo_table
from benchmarks.record import (
    CHECKPOINTS_FOLDER,
    REPO_ROOT,
    RESULTS_FOLDER,
    display_path,
    markdown_table,
    run_record,
    write_result,
)
from maskvolume import losses
from maskvolume.clips.backgrounds import temporal_median
from maskvolume.clips.rig import RigClip
from maskvolume.data.synthetic import WorldOptions, sample_worlds
from maskvolume.geometry.cameras import Camera, nearest_cameras, stack_cameras
from maskvolume.metrics import psnr, ssim
from maskvolume.mpi.checkpoints import load_model
from maskvolume.mpi.model import MaskVolumeModel
from maskvolume.mpi.renderer import ClipRenderer
from maskvolume.mpi.stages import mpi_frustum
from maskvolume.ops import fill_unseen
from maskvolume.options import option, parse_options
from maskvolume.runtime.devices import resolve_device, resolve_precision
from maskvolume.runtime.errors import InputError, run_program

PARTS = ("worlds", "background", "stereo")
HELD_OUT_SEED = 876_543_210_000  # beyond the seeds of training samples, and separate from tasks.VALIDATION_SEED
MORE_CAMERAS = 4  # cameras of the second row for the clip, for architectures that take more than two
CLASSICAL = "classical plane sweep"


@dataclass(frozen=True)
class StageOneOptions:
    """The options of this program."""

    ckpt_path: tuple[str, ...] = option(
        (str(CHECKPOINTS_FOLDER / "mpi.safetensors"),), "checkpoints to compare, of stage one or two"
    )
    parts: tuple[str, ...] = option(PARTS, "what to measure: worlds, background, stereo")
    num_worlds: int = option(50, "held-out random worlds")
    img_hw: tuple[int, int] = option((144, 192), "height and width of their pictures")
    margin: int = option(24, "margin of their planes in pixels, for architectures that use one")
    root_dir: str = option(str(REPO_ROOT / "examples" / "rig"), "the clip")
    target_dir: str | None = option(None, "its held-out cameras; root_dir/targets by default")
    stereo_planes: int = option(64, "planes for the stereo pair, whose depth range is large")
    shrink: int = option(1, "divide the size of the stereo pair by this")
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "precision of the networks: auto, fp32 or bf16", choices=("auto", "fp32", "bf16"))
    out: str = option(str(RESULTS_FOLDER / "stage_one.json"), "file for the figures")


Models = Mapping[str, MaskVolumeModel]  # by label of the checkpoint
Figures = dict[str, dict[str, float]]  # of each method


@dataclass(frozen=True)
class EmptyClip:
    """A clip without motion: every frame is the background."""

    clip: RigClip

    @property
    def names(self) -> tuple[str, ...]:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.clip.names

    @property
    def num_frames(self) -> int:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.clip.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.clip.size

    def cameras(self, size: tuple[int, int] | None = None, time: float = 0.0) -> Camera:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.clip.cameras(size)

    def near_far(self) -> tuple[float, float]:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.clip.near_far()

    def read(self, camera: int, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """The background, whatever the frame."""
        return self.clip.read_background(camera, size)

    def read_background(self, camera: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """As ``maskvolume.clips.clip.StillClip``."""
        return self.clip.read_background(camera, size)


def main() -> None:
    """Measure, print the tables, write the figures."""
    options = parse_options(StageOneOptions, prog="stage_one.py", description=__doc__ or "")
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown or not options.parts or not options.ckpt_path:
        raise InputError(f"--parts, --ckpt_path: one or more expected, the parts of {', '.join(PARTS)}; got {unknown}")
    if options.num_worlds < 1 or min(options.img_hw) < 16 or options.margin < 0:
        raise InputError("--num_worlds, --img_hw, --margin: at least 1, 16 and 0 expected")
    if options.stereo_planes < 2 or not 1 <= options.shrink <= 8:
        raise InputError("--stereo_planes, --shrink: at least 2, and 1 to 8 expected")
    models = load_models(options)
    start = time.perf_counter()
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "worlds": lambda: measure_worlds(models, options.num_worlds, options.img_hw, options.margin),
        "background": lambda: measure_background(models, Path(options.root_dir), options.target_dir),
        "stereo": lambda: measure_stereo(models, options.stereo_planes, options.shrink),
    }
    figures = {part: measures[part]() for part in PARTS if part in options.parts}
    result = {
        **run_record(),
        "checkpoints": {
            name: {"arch": model.meta.arch, "num_planes": model.meta.num_planes, "precision": model.precision}
            for name, model in models.items()
        },
        "seconds": round(time.perf_counter() - start, 1),
        **figures,
    }
    write_result(Path(options.out), result)
    print(format_tables(result))
    print(f"\n{options.out}")


def load_models(options: StageOneOptions) -> Models:
    """The MPI networks of all checkpoints, by label."""
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    models: dict[str, MaskVolumeModel] = {}
    for path in options.ckpt_path:
        name = display_path(path)
        while name in models:
            name += "'"
        models[name] = load_model(path, device, precision, stage="mpi")
    return models


@torch.no_grad()
def measure_worlds(models: Models, count: int, size: tuple[int, int], margin: int) -> dict[str, Any]:
    """Mean PSNR and SSIM of the target views of held-out random worlds.

    "covered" weights pixels by the planes' opacity in the target, like the validation during training.
    """
    device = next(next(iter(models.values())).parameters()).device
    worlds = WorldOptions(size=size)
    values: dict[str, list[list[float]]] = {name: [] for name in models}
    for index in tqdm(range(count), unit="world", disable=None):
        sample = sample_worlds(worlds, 1, generator=HELD_OUT_SEED + index, device=device)
        for name, model in models.items():
            wider = margin if model.arch.uses_margin else 0
            camera, depths = mpi_frustum(sample, model.meta.num_planes, wider)
            rendering = model.dynamic(sample.images, sample.sources, camera, depths).render(sample.target)
            filled = fill_unseen(rendering) if model.meta.sampling == "exact" else rendering
            quality = _quality(filled.color[0], sample.target_image[0])
            covered = float(losses.psnr(rendering.color, sample.target_image, rendering.opacity))
            values[name].append([*quality, covered])
    return {
        "num_worlds": count,
        "size_wh": [size[1], size[0]],
        "margin": margin,
        "methods": {name: _means(("psnr", "ssim", "psnr_covered"), rows) for name, rows in values.items()},
    }


def measure_background(models: Models, root: Path, target_dir: str | None) -> dict[str, Any]:
    """PSNR and SSIM of the empty scene in the held-out cameras, from the medians of the nearest ones."""
    names = [*models, *(_more(name) for name, model in models.items() if model.arch.max_views is None)]
    methods = [CLASSICAL, *names]
    result: dict[str, Any] = {"clip": display_path(root), "targets": {}}
    with open_with_background(root, None) as clip:
        targets = Targets.open(Path(target_dir) if target_dir else root / "targets", clip.size)
        bar = tqdm(total=len(targets.names) * len(methods), unit="view", disable=None)
        for index, target in enumerate(targets.names):
            truth = static_truth(clip, targets, index)
            cameras = nearest_cameras(clip.cameras(), targets.camera(index), MORE_CAMERAS)
            entry: dict[str, Any] = {"sources": [clip.names[camera] for camera in cameras]}
            for method in methods:
                picture = background_view(method, models, EmptyClip(clip), cameras, targets.camera(index))
                entry[method] = dict(zip(("psnr", "ssim"), _rounded(_quality(picture, truth)), strict=True))
                bar.update()
            result["targets"][target] = entry
        bar.close()
    entries = result["targets"].values()
    result["methods"] = {
        method: _means(("psnr", "ssim"), [list(entry[method].values()) for entry in entries]) for method in methods
    }
    return result


@torch.no_grad()
def background_view(method: str, models: Models, clip: EmptyClip, cameras: tuple[int, ...], target: Camera) -> Tensor:
    """Render the empty scene in a held-out camera with a method: ``[3, h, w]``.

    Args:
        method: classical stereo, or the label of a checkpoint, with or without the suffix for more cameras.
        models: the checkpoints.
        clip: of backgrounds.
        cameras: the nearest cameras, the nearest first; methods for two cameras use the first two.
        target: the held-out camera.
    """
    if method == CLASSICAL:
        images = torch.stack([to_tensor(clip.read(camera, 0)) for camera in cameras[:2]])
        sources = stack_cameras([clip.cameras()[camera] for camera in cameras[:2]])
        return plane_sweep_stereo(images, sources, target, *clip.near_far()).color
    name = next(name for name in models if method in (name, _more(name)))
    chosen = cameras[:2] if method == name else cameras
    renderer = ClipRenderer(clip, models[name], chosen, targets=stack_cameras([target]))
    return renderer.render(0, target).color


def static_truth(clip: RigClip, targets: Targets, index: int) -> Tensor:
    """``[3, h, w]`` the median over time of a held-out camera's pictures."""

    def read(frame: int) -> np.ndarray:
        picture = targets.picture(index, clip.frame_names[frame])
        return (picture.permute(1, 2, 0) * 255).round().byte().numpy()

    return to_tensor(temporal_median(read, clip.num_frames))


def _more(name: str) -> str:
    return f"{name}, {MORE_CAMERAS} cameras"


def _quality(picture: Tensor, truth: Tensor) -> list[float]:
    picture, truth = picture.float().cpu(), truth.float().cpu()
    return [float(psnr(picture, truth)), float(ssim(picture, truth))]


def _means(names: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, float]:
    return dict(zip(names, _rounded([statistics.fmean(column) for column in zip(*rows, strict=True)]), strict=True))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def format_tables(result: dict[str, Any]) -> str:
    """The Markdown tables of a result."""
    lines = []
    if "worlds" in result:
        part = result["worlds"]
        rows = [[name, *_quality_cells(f), f"{f['psnr_covered']:.2f}"] for name, f in part["methods"].items()]
        lines += [f"{part['num_worlds']} held-out worlds of {_size(part)}:\n"]
        lines += [markdown_table(["checkpoint", "PSNR", "SSIM", "PSNR covered"], rows), ""]
    if "background" in result:
        part = result["background"]
        rows = [[name, *_quality_cells(figures)] for name, figures in part["methods"].items()]
        lines += [f"The empty scene of {part['clip']}, mean of {len(part['targets'])} held-out cameras:\n"]
        lines += [markdown_table(["method", "PSNR", "SSIM"], rows), ""]
    if "stereo" in result:
        lines += [stereo_table(result["stereo"]), ""]
    return "\n".join(lines).rstrip()


def _quality_cells(figures: dict[str, float]) -> list[str]:
    return [f"{figures['psnr']:.2f}", f"{figures['ssim']:.3f}"]


def _size(part: dict[str, Any]) -> str:
    return " x ".join(str(side) for side in part["size_wh"])


if __name__ == "__main__":
    run_program(main)
