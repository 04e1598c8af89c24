"""The training loop: optimizer, schedule, precision, processes, logging, checkpoints, resume.

The loop trains any ``nn.Module`` on any source of batches. A program provides a ``Task``: the source of the samples,
the loss, the validation, and the format of the checkpoints.
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
