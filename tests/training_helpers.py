"""A method without MPIs for tests of the training loop: it learns which of its input pictures to show.

As a program it trains from the command line, also under torchrun.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskvolume.data.draws import BatchPlan, Draws
from maskvolume.metrics import psnr
from maskvolume.options import option, parse_options
from maskvolume.runtime.errors import run_program
from maskvolume.training import FREE, PRIVATE, TrainOptions, open_processes, settle_options, train
from maskvolume.training.state import LAST_NAME


@dataclass(frozen=True)
class PictureOptions(TrainOptions):
    """Options of the method: one affects the training, one does not."""

    num_pictures: int = option(2, "input pictures of a sample", low=2)
    folder: str = option("", "a path of this machine", marks=(FREE, PRIVATE))


class NearestPicture(nn.Module):
    """A learned mixture of the input pictures, plus a learned colour."""

    def __init__(self, num_pictures: int = 2) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.full((num_pictures,), 1 / num_pictures))
        self.colour = nn.Parameter(torch.tensor([0.1, 0.2, -0.1]))

    def forward(self, pictures: Tensor) -> Tensor:
        return (pictures * self.shares[:, None, None, None]).sum(dim=1) + self.colour[:, None, None]


class PictureSource:
    """Random pictures ``[B, N, 3, 8, 8]`` by sample number; the first is the target."""

    epoch_samples: int | None = 8

    def __init__(self, on_draw: Callable[[int], None] = lambda step: None, num_pictures: int = 2) -> None:
        self.num_pictures, self.on_draw = num_pictures, on_draw

    def batches(self, draws: Draws) -> Generator[Tensor, None, None]:
        for draw in draws:
            self.on_draw(draw.step)
            yield torch.cat([self.pictures(index) for index in draw.indices])

    def validation(self) -> list[Tensor]:
        return [self.pictures(10_000), self.pictures(10_001)]

    def pictures(self, index: int) -> Tensor:
        return torch.rand(1, self.num_pictures, 3, 8, 8, generator=torch.Generator().manual_seed(index))


class PictureTask:
    """Learns to show the first picture; optionally interrupts the process at a step."""

    suffix = ".npz"
    rate_shares: Mapping[str, float] = {"colour": 0.5}

    def __init__(self, stop_at: int | None = None, num_pictures: int = 2) -> None:
        self.stop_at, self.step = stop_at, -1
        self.source = PictureSource(self.drawn, num_pictures)

    def drawn(self, step: int) -> None:
        self.step = step
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        picture, truth = model(batch), batch[:, 0]
        return ((picture - truth) ** 2).mean(), {"psnr": psnr(picture.detach(), truth).mean()}

    def evaluate(self, model: nn.Module, sample: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.loss(model, sample)[1], {"picture": model(sample)[0]}

    def compiled_modules(self, model: nn.Module) -> Sequence[nn.Module]:
        return [model]

    def save(self, path: Path, model: nn.Module, info: dict[str, Any]) -> None:
        arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
        np.savez(path, info=json.dumps(info), **arrays)

    def score(self, model: nn.Module) -> float:
        """Return the mean PSNR of the validation samples."""
        with torch.no_grad():
            values = [self.loss(model, sample)[1]["psnr"] for sample in self.source.validation()]
        return float(torch.stack(values).mean())


def shipped(path: Path) -> tuple[NearestPicture, dict[str, Any]]:
    """Load the model of a checkpoint, and the information on the run in the file."""
    with np.load(path) as file:
        weights = {name: torch.from_numpy(file[name]) for name in file.files if name != "info"}
        info = json.loads(str(file["info"]))
    model = NearestPicture(len(weights["shares"]))
    model.load_state_dict(weights)
    return model, info


def weights_of(path: Path) -> dict[str, Tensor]:
    """Load the weights of a checkpoint."""
    return shipped(path)[0].state_dict()


def draw(task: Any, step: int, batch_size: int = 1) -> Any:
    """Return the batch of a step of any task."""
    return next(iter(task.source.batches(BatchPlan(batch_size).draws(step))))


def final_loss_ratio(task: Any, model: nn.Module, steps: int) -> float:
    """Train on one sample and return the ratio of the last loss to the first."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    batch = draw(task, 0)
    losses = []
    for _ in range(steps):
        loss, _ = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[-1] / losses[0]


def interrupt_start(program: Path, cwd: Path) -> None:
    """Interrupt a program while it imports torch, and assert that the signal ends it without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(program)], cwd=cwd, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "torch" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in errors


def last_state(options: TrainOptions) -> dict[str, Any]:
    """Load last.pt."""
    content: dict[str, Any] = torch.load(Path(options.ckpt_dir) / options.exp_name / LAST_NAME, weights_only=True)
    return content


def logged(options: TrainOptions) -> EventAccumulator:
    """Load the TensorBoard log of a run."""
    events = EventAccumulator(str(Path(options.log_dir) / options.exp_name))
    events.Reload()
    return events


def logged_steps(options: TrainOptions, tag: str) -> list[int]:
    """Return the steps at which a scalar is logged."""
    return [event.step for event in logged(options).Scalars(tag)]


def main() -> None:
    options = settle_options(parse_options(PictureOptions, prog="training_helpers.py", description="Learn a picture."))
    with open_processes(torch.device("cpu")) as (processes, _):
        task = PictureTask(num_pictures=options.num_pictures)
        path = train(task, NearestPicture(options.num_pictures), options, processes)
    if processes.is_first:
        print(f"written: {path}")


if __name__ == "__main__":
    run_program(main)
