"""The share of a training step spent waiting for data: synthetic RealEstate10K scenes, read by worker processes.

python benchmarks/data_wait.py

Makes the data set, unless --root_dir names one written by compress_data.py, trains stage one on it like
train_mpi/train.py, and reads the share of waiting that the training logs every ten steps.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.record import (
    RESULTS_FOLDER,
    markdown_table,
    run_record,
    write_result,
)
from maskvolume.mpi.stages import new_model, run_training
from maskvolume.options import option, parse_options
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.training import Processes
from preprocessing.compress_data import CompressOptions, compress_data
from preprocessing.extract_frames import ExtractOptions, extract_frames
from preprocessing.make_example_data import ExampleOptions, make_example_data
from train_mpi.train import MPITask, MPITrainOptions


@dataclass(frozen=True)
class DataWaitOptions:
    """Options of the program."""

    root_dir: str = option("", "training shards; made for the run if empty")
    steps: int = option(40, "training steps; the first ten, in which the workers start, don't count")
    num_workers: tuple[int, ...] = option((0, 2), "numbers of worker processes, each with its own training")
    img_hw: tuple[int, int] = option((256, 256), "height and width of the crops")
    num_planes: int = option(32, "planes")
    device: str = option("auto", "where to train", choices=("auto", "cuda", "mps", "cpu"))
    out: str = option(str(RESULTS_FOLDER / "data_wait.json"), "file for the figures")


def make_shards(folder: Path) -> Path:
    """Make the synthetic data set and return its shards."""
    example = folder / "example"
    make_example_data(ExampleOptions(out_dir=str(example), num_videos=2, test_videos=0))
    frames, shards = folder / "frames", folder / "shards"
    extract_frames(
        ExtractOptions(root_dir=str(example / "cameras/train"), video_dir=str(example / "videos"), out_dir=str(frames))
    )
    compress_data(frames, shards, CompressOptions(bounds=str(example / "bounds.txt")))
    return shards


def measure(shards: Path, num_workers: int, options: DataWaitOptions) -> dict[str, float]:
    """Train with a number of workers; returns the median share of waiting and the median seconds per step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # a slow import

    with tempfile.TemporaryDirectory() as scratch:
        settings = MPITrainOptions(
            dataset_name="realestate10k", root_dir=str(shards), val_dir=str(shards), num_workers=num_workers,
            img_hw=options.img_hw, num_planes=options.num_planes, num_steps=options.steps, val_samples=1,
            val_every=10**9, save_every=10**9, device=options.device, exp_name="wait",
            log_dir=f"{scratch}/logs", ckpt_dir=f"{scratch}/checkpoints",
        )  # fmt: skip

        def make_task(device: torch.device, _: Processes) -> MPITask:
            return MPITask(settings, device)

        run_training(settings, lambda: new_model(settings), make_task)
        events = EventAccumulator(f"{scratch}/logs/wait")
        events.Reload()
        waits, rates = (
            [event.value for event in events.Scalars(f"train/{name}")][1:]
            for name in ("data_wait", "samples_per_second")
        )
    return {"wait_share": statistics.median(waits), "seconds_a_step": 1 / statistics.median(rates)}


def main() -> None:
    """Measure, print a table, write the figures."""
    options = parse_options(DataWaitOptions, prog="data_wait.py", description=__doc__ or "")
    if options.steps < 20 or min(options.num_workers, default=-1) < 0:
        raise InputError("--steps, --num_workers: at least 20 steps, and one number or more, 0 or above, expected")
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(options.root_dir) if options.root_dir else make_shards(Path(scratch))
        figures = {workers: measure(shards, workers, options) for workers in options.num_workers}
    rows = [
        (str(workers), f"{entry['seconds_a_step']:.2f}", f"{100 * entry['wait_share']:.2f} %")
        for workers, entry in figures.items()
    ]
    print(markdown_table(("workers", "seconds per step", "share of waiting"), rows))
    settings = {"img_hw": list(options.img_hw), "num_planes": options.num_planes, "steps": options.steps}
    by_workers = {str(workers): {key: round(v, 5) for key, v in entry.items()} for workers, entry in figures.items()}
    write_result(Path(options.out), {**run_record(), **settings, "workers": by_workers})


if __name__ == "__main__":
    run_program(main)
