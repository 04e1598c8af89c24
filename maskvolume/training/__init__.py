"""The training loop that both stages use: optimizer, schedule, precision, processes, logging, checkpoints, resume.

A stage brings a ``Task``: where samples come from, what the loss is, what is validated.
"""

from maskvolume.runtime.processes import Processes, open_processes
from maskvolume.training.distributed import start_processes
from maskvolume.training.loop import Task, train
from maskvolume.training.options import (
    TrainOptions,
    batch_plan,
    check_train_options,
    settle_options,
)

__all__ = [
    "Processes",
    "Task",
    "TrainOptions",
    "batch_plan",
    "check_train_options",
    "open_processes",
    "settle_options",
    "start_processes",
    "train",
]
