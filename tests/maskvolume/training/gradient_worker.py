"""Started by torchrun in a test: writes the gradient of the first step, averaged over the processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from maskvolume.mpi.stages import new_model  # noqa: E402
from maskvolume.training import batch_plan, open_processes  # noqa: E402
from maskvolume.training.loop import _LossOf  # noqa: E402
from train_mpi.train import MPITask, MPITrainOptions  # noqa: E402

if __name__ == "__main__":
    out, batch_size = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    options = MPITrainOptions(img_hw=(48, 64), num_planes=8, margin=8, batch_size=batch_size, precision="fp32", seed=3)
    with open_processes(torch.device("cpu")) as (processes, device):
        torch.manual_seed(processes.rank)  # the first process's weights must count
        task, model = MPITask(options, device), new_model(options)
        batch = next(iter(task.source.batches(batch_plan(options, processes).draws(5))))
        module: torch.nn.Module = _LossOf(task, model)
        if processes.world > 1:
            module = DistributedDataParallel(module)
        loss, _ = module(batch)
        loss.backward()
        losses = processes.gather(float(loss.detach()))
        if processes.is_first:
            gradients = {name: value.grad for name, value in model.named_parameters()}
            torch.save({"gradients": gradients, "loss": sum(losses) / len(losses)}, out)
