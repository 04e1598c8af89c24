"""Started by torchrun in a test: writes the gradient of the first step, averaged over the processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from training_helpers import NearestPicture, PictureTask  # noqa: E402

from maskvolume.training import TrainOptions, batch_plan, open_processes  # noqa: E402
from maskvolume.training.task import TaskLoss  # noqa: E402

if __name__ == "__main__":
    out, batch_size = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    options = TrainOptions(batch_size=batch_size)
    with open_processes(torch.device("cpu")) as (processes, _):
        torch.manual_seed(processes.rank)
        task, model = PictureTask(), NearestPicture()
        torch.nn.init.uniform_(model.shares)  # the first process's weights must count
        batch = next(iter(task.source.batches(batch_plan(options, processes).draws(5))))
        module: torch.nn.Module = TaskLoss(task, model)
        if processes.world > 1:
            module = DistributedDataParallel(module)
        loss, _ = module(batch)
        loss.backward()
        losses = processes.gather(float(loss.detach()))
        if processes.is_first:
            gradients = {name: value.grad for name, value in model.named_parameters()}
            torch.save({"gradients": gradients, "loss": sum(losses) / len(losses)}, out)
