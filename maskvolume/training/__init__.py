"""The training loop: optimizer, schedule, precision, processes, logging, checkpoints, resume.

It takes any ``nn.Module`` and any source of batches; a program brings a ``Task``: where samples come from, what the
loss is, what is validated, what is shipped.
"""

from maskvolume.runtime.processes import Processes, open_processes
from maskvolume.training.distributed import start_processes
from maskvolume.training.loop import train
from maskvolume.training.options import (
    FREE,
    PRIVATE,
    TrainOptions,
    batch_plan,
    check_train_options,
    settle_options,
)
from maskvolume.training.task import Task

__all__ = [
    "FREE",
    "PRIVATE",
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
