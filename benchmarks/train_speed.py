"""The training speed of stage one, compared with a plain implementation of the original's step in the same run.

A step consists of sweep, network, rendering, loss, gradient and optimizer; making the samples is timed separately. Both
use the same random worlds and the same loss, alternately. The original's step is float32 in contiguous layout, batch 1,
with its own network on raw colours. Neither side has the perceptual loss, whose weights would need a download.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost import original
from benchmarks.record import (
    RESULTS_FOLDER,
    markdown_table,
    run_record,
    write_result,
)
from maskvolume.data.draws import BatchPlan
from maskvolume.data.samples import ViewBatch
from maskvolume.geometry.cameras import Camera
from maskvolume.mpi.stages import new_model
from maskvolume.options import option, parse_options
from maskvolume.runtime.devices import Precision, resolve_device, resolve_precision
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.training.schedule import Averaged, make_optimizer
from train_mpi.train import MPITask, MPITrainOptions

ARCHITECTURES = ("semiglobal", "original")
GPU_BATCHES = (1, 2, 4, 8, 16)
GPU_STEPS = 5  # steps timed together on a GPU
ORIGINAL_LR = 5e-4  # Adam (Lin et al., ICCV 2021)
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": torch.nn.functional.l1_loss,
    "mse": torch.nn.functional.mse_loss,
}


@dataclass(frozen=True)
class TrainSpeedOptions:
    """The options of this program."""

    img_hw: tuple[int, int] = option((256, 256), "height and width of the pictures, multiples of 8", low=16)
    num_planes: int = option(32, "planes of both, a multiple of 8", low=8)
    batch_size: tuple[int, ...] | None = option(None, "batch sizes of ours; 1 on the CPU, 1 2 4 8 16 elsewhere", low=1)
    margin: int = option(24, "margin in pixels that ours adds to the planes, for architectures that use one", low=0)
    loss_type: str = option("l1", "loss of both: l1 or mse", choices=tuple(LOSSES))
    repeats: int = option(3, "measured turns, after an uncounted one", low=1)
    threads: int | None = option(None, "processor threads; all cores by default")
    device: str = option("auto", "auto, cuda, mps or cpu", choices=("auto", "cuda", "mps", "cpu"))
    precision: str = option("auto", "precision of our networks: auto, fp32 or bf16", choices=("auto", "fp32", "bf16"))
    compile: bool = option(False, "compile our networks (torch.compile)")
    out: str = option(str(RESULTS_FOLDER / "train_speed.json"), "file for the figures")


class Step(Protocol):
    """One side's training step."""

    def __call__(self, batch: ViewBatch) -> Tensor:
        """Train on a batch and return its loss."""
        ...


class OriginalStep:
    """The original's training step, from the parts of its plain implementation."""

    def __init__(self, num_planes: int, loss_type: str, device: torch.device) -> None:
        torch.manual_seed(0)
        self.network = original.OriginalUNet(6, 2).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=ORIGINAL_LR)
        self.num_planes, self.loss, self.device = num_planes, LOSSES[loss_type], device

    def __call__(self, batch: ViewBatch) -> Tensor:
        with self.device:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.render(batch), batch.target_image[0])
            loss.backward()
            self.optimizer.step()
        return loss.detach()

    def render(self, batch: ViewBatch) -> Tensor:
        """``[3, H, W]`` the target's picture, differentiable."""
        sources = [_view(batch.sources[0, index]) for index in range(2)]
        depths = original.plane_depths(float(batch.near[0]), float(batch.far[0]), self.num_planes)
        sweep = original.sweep_all(list(batch.images[0]), sources, sources[0], depths)
        rgba = original.mpi_planes(self.network, sweep).transpose(0, 1).contiguous()
        return original.composite(original.warp_planes(original.Mpi(rgba, depths, sources[0]), _view(batch.target[0])))


class OurStep:
    """The training step of ``train_mpi/train.py``: its task and optimizer, clipped gradients and averaged weights."""

    def __init__(self, options: MPITrainOptions, precision: Precision, device: torch.device) -> None:
        torch.manual_seed(0)
        self.options = options
        self.model = new_model(options).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.model.precision = precision
        self.task = MPITask(options, device)
        self.optimizer = make_optimizer(options, self.model)
        self.averaged = Averaged(self.model, options.ema_decay)
        self.count = 0
        if options.compile:
            self.model.mpi_net.compile()

    def __call__(self, batch: ViewBatch) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss, _ = self.task.loss(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_grad)
        self.optimizer.step()
        self.averaged.update(self.model, self.count)
        self.count += 1
        return loss.detach()


@dataclass
class Row:
    """A timed step.

    Attributes:
        name: in the table.
        batch_size: samples per step.
        step: the step to time.
        seconds: of one step, a figure per turn.
        peak_bytes: peak GPU memory.
        failed: whether memory ran out.
    """

    name: str
    batch_size: int
    step: Step
    seconds: list[float]
    peak_bytes: int = 0
    failed: bool = False


def main() -> None:
    """Measure, print the table, write the figures."""
    options = parse_options(TrainSpeedOptions, prog="train_speed.py", description=__doc__ or "")
    if any(side % 8 for side in options.img_hw) or options.num_planes % 8:
        raise InputError("--img_hw, --num_planes: multiples of 8 expected, as the plain implementation needs them")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    batches = options.batch_size or ((1,) if device.type == "cpu" else GPU_BATCHES)
    result = {**run_record(), **measure(options, device, precision, batches)}
    write_result(Path(options.out), result)
    print(format_table(result))
    print(f"\n{options.out}")


def measure(
    options: TrainSpeedOptions, device: torch.device, precision: Precision, batches: tuple[int, ...]
) -> dict[str, Any]:
    """Time all rows turn by turn."""
    ours = {arch: OurStep(_train_options(options, arch), precision, device) for arch in ARCHITECTURES}
    rows = [Row("original", 1, OriginalStep(options.num_planes, options.loss_type, device), [])]
    rows += [Row(f"ours, {arch}", size, step, []) for arch, step in ours.items() for size in sorted(set(batches))]
    source = ours[ARCHITECTURES[0]].task.source
    fetch: dict[int, list[float]] = {}
    steps = 1 if device.type == "cpu" else GPU_STEPS
    bar = tqdm(total=len(rows) * (options.repeats + 1), unit="row", disable=None)
    for turn in range(options.repeats + 1):
        samples: dict[int, ViewBatch] = {}
        for size in sorted({row.batch_size for row in rows}):
            start = _clock(device)
            samples[size] = next(iter(source.batches(BatchPlan(size).draws(turn))))
            if turn:  # the first turn includes one-time setup
                fetch.setdefault(size, []).append(_clock(device) - start)
        for row in rows:
            seconds = _time_row(row, samples[row.batch_size], steps if turn else 1, device)
            if turn and seconds is not None:
                row.seconds.append(seconds)
            bar.update()
    bar.close()
    return {
        "device": device.type,
        "precision": precision,
        "compile": options.compile,
        "size_wh": [options.img_hw[1], options.img_hw[0]],
        "num_planes": options.num_planes,
        "margin": options.margin,
        "loss_type": options.loss_type,
        "repeats": options.repeats,
        "steps_a_turn": steps,
        **_summary(rows),
        "seconds_to_make_a_batch": {str(size): round(statistics.median(times), 5) for size, times in fetch.items()},
    }


def _train_options(options: TrainSpeedOptions, arch: str) -> MPITrainOptions:
    return MPITrainOptions(
        img_hw=options.img_hw,
        num_planes=options.num_planes,
        margin=options.margin,
        loss_type=options.loss_type,
        arch=arch,
        compile=options.compile,
    )


def _time_row(row: Row, batch: ViewBatch, steps: int, device: torch.device) -> float | None:
    """Seconds of one step, the mean over ``steps`` steps; None if memory runs out."""
    if row.failed:
        return None
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    start = _clock(device)
    try:
        for _ in range(steps):
            loss = row.step(batch)
    except torch.OutOfMemoryError:
        row.failed = True
        return None
    seconds = (_clock(device) - start) / steps
    if not bool(torch.isfinite(loss)):
        raise RuntimeError(f"{row.name}: the loss is not finite")
    if device.type == "cuda":
        row.peak_bytes = max(row.peak_bytes, torch.cuda.max_memory_allocated(device))
    return seconds


def _clock(device: torch.device) -> float:
    """The time in seconds, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _summary(rows: list[Row]) -> dict[str, Any]:
    """The figures of all rows; ratios compare the median samples per second."""
    if rows[0].failed:
        raise InputError("--img_hw, --num_planes: the original's step does not fit into memory; choose smaller ones")
    original_rate = 1 / statistics.median(rows[0].seconds)
    table = []
    for row in rows:
        entry: dict[str, Any] = {"step": row.name, "batch_size": row.batch_size, "out_of_memory": row.failed}
        if not row.failed:
            median = statistics.median(row.seconds)
            rate = row.batch_size / median
            entry["seconds"] = {"median": round(median, 5), "spread": round(max(row.seconds) - min(row.seconds), 5)}
            entry["samples_per_second"] = round(rate, 4)
            entry["ratio"] = round(rate / original_rate, 2)
            if row.peak_bytes:
                entry["peak_gpu_gb"] = round(row.peak_bytes / 1e9, 3)
        table.append(entry)
    done = [entry for entry in table[1:] if not entry["out_of_memory"]]
    names = dict.fromkeys(entry["step"] for entry in done)
    best = {name: max((e for e in done if e["step"] == name), key=lambda e: e["samples_per_second"]) for name in names}
    return {
        "rows": table,
        "best": {name: {key: entry[key] for key in ("batch_size", "ratio")} for name, entry in best.items()},
    }


def format_table(result: dict[str, Any]) -> str:
    """The Markdown table of a result."""
    rows = []
    for entry in result["rows"]:
        cells = ["-"] * 3
        if not entry["out_of_memory"]:
            median, spread = entry["seconds"]["median"], entry["seconds"]["spread"]
            cells = [f"{median:.3g} +{spread:.2g}", f"{entry['samples_per_second']:.3g}", f"{entry['ratio']:.1f}"]
        rows.append([entry["step"], str(entry["batch_size"]), *cells])
    width, height = result["size_wh"]
    lines = [
        f"A training step of stage one, {width} x {height}, {result['num_planes']} planes, loss {result['loss_type']}, "
        f"{result['device']}; ours in {result['precision']}:\n",
        markdown_table(["step", "batch", "seconds (+spread)", "samples/s", "ratio"], rows),
        "",
        *(
            f"best of {name}: batch {best['batch_size']}, {best['ratio']:.1f} x"
            for name, best in result["best"].items()
        ),
    ]
    sampling = ", ".join(f"{seconds:.2g} s for {size}" for size, seconds in result["seconds_to_make_a_batch"].items())
    return "\n".join([*lines, f"making the samples, not included above: {sampling}"])


def _view(camera: Camera) -> original.View:
    return original.View(camera.T_cam_world.float(), camera.K.float())


if __name__ == "__main__":
    run_program(main)
