"""The log of a training run: a progress bar and TensorBoard."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from maskvolume.io.files import require_writable_folder
from maskvolume.runtime.errors import describe_os_error
from maskvolume.runtime.processes import Processes
from maskvolume.training.options import TrainOptions

WRITER_THREAD = "_AsyncWriterThread"  # class of TensorBoard's writer thread
EVERY = 10  # steps between logged scalars


class TrainLog:
    """The progress bar and TensorBoard log of the first process; other processes only count. A context manager.

    Args:
        options: the training options.
        processes: the processes that train together.
        first_step: number of steps done before this start.
        samples_per_step: samples of a step in all processes.

    Attributes:
        waited: seconds spent waiting for data since the last logged scalars; the loop adds to it.

    Raises:
        InputError: the log folder can't be written.
    """

    def __init__(self, options: TrainOptions, processes: Processes, first_step: int, samples_per_step: int) -> None:
        self.processes, self.samples_per_step = processes, samples_per_step
        self.waited = 0.0
        self._start, self._steps = time.monotonic(), 0
        self._writer: SummaryWriter | None = None
        self._folder = Path(options.log_dir) / options.exp_name
        self._excepthook = threading.excepthook
        processes.first_does(lambda: self._open(first_step))
        self.bar = tqdm(
            total=options.num_steps, initial=first_step, desc=options.exp_name, dynamic_ncols=True, file=sys.stdout,
            disable=not processes.is_first,
        )  # fmt: skip

    def _open(self, first_step: int) -> None:
        require_writable_folder(self._folder)
        # Hides the scalars that an earlier run logged for later steps.
        self._writer = SummaryWriter(str(self._folder), purge_step=first_step + 1)

    def __enter__(self) -> TrainLog:
        threading.excepthook = self._thread_failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._surviving():
            if self._writer is not None:
                self._writer.close()
        self.bar.close()
        threading.excepthook = self._excepthook

    def _thread_failed(self, args: threading.ExceptHookArgs) -> None:
        """Report the errors of all threads except TensorBoard's, whose error the next logged scalar raises again."""
        if not isinstance(args.exc_value, OSError) or type(args.thread).__name__ != WRITER_THREAD:
            self._excepthook(args)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Report an error of the log and stop logging, so that training continues."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self._folder)
            reason = describe_os_error(error) or f"{self._folder}: {error}"
            self._writer = None
            self.say(f"{reason}; training continues without a log")

    def step(self, step: int, scalars: dict[str, Tensor], rate: float) -> None:
        """Count a finished step; every ``EVERY`` steps, log the mean scalars over all processes.

        Args:
            step: number of steps done.
            scalars: named scalars of this process.
            rate: learning rate of the step.
        """
        self.bar.update()
        self._steps += 1
        if step % EVERY:
            return
        gathered = self.processes.gather({name: float(value) for name, value in scalars.items()})
        means = {name: sum(values[name] for values in gathered) / len(gathered) for name in gathered[0]}
        seconds = max(time.monotonic() - self._start, 1e-9)
        means["samples_per_second"] = self._steps * self.samples_per_step / seconds
        means["data_wait"] = self.waited / seconds
        means["lr"] = rate
        self.pause()
        with self._surviving():
            for name, value in means.items():
                if self._writer is not None:
                    self._writer.add_scalar(f"train/{name}", value, step)
        postfix = {name: f"{means[name]:.3f}" for name in ("loss", "psnr") if name in means}
        wait = f"{means['data_wait']:.0%}"
        self.bar.set_postfix(postfix | {"samples/s": f"{means['samples_per_second']:.2f}", "data": wait})

    def pause(self) -> None:
        """Restart the clock of the logged rates, so that time between steps, such as a validation, does not count."""
        self.waited, self._start, self._steps = 0.0, time.monotonic(), 0

    def validation(self, step: int, scalars: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Log the result of a validation.

        Args:
            step: number of steps done.
            scalars: means over the validation samples, by name.
            pictures: ``[3, H, W]`` in 0..1, by name.
        """
        with self._surviving():
            if self._writer is not None:
                for name, value in scalars.items():
                    self._writer.add_scalar(f"val/{name}", value, step)
                for name, picture in pictures.items():
                    self._writer.add_image(f"val/{name}", picture.float().clamp(0, 1), step)
        self.say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scalars.items()))

    def say(self, line: str) -> None:
        """Print a line above the bar, in the first process only."""
        if self.processes.is_first:
            self.bar.write(line, file=sys.stdout)
