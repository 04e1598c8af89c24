"""Learning rates, optimizers and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskvolume.training.options import TrainOptions

LOWEST = 0.01  # of the highest learning rate: where cosine and poly end
SGD_MOMENTUM = 0.9


def learning_rate(options: TrainOptions, step: int) -> float:
    """The learning rate of a step: linear warm-up, times the schedule over all steps."""
    warm = min(1.0, (step + 1) / max(options.warmup_steps, 1))
    progress = min(step / max(options.num_steps, 1), 1.0)
    if options.lr_scheduler == "cosine":
        factor = LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * progress))
    elif options.lr_scheduler == "poly":
        factor = LOWEST + (1 - LOWEST) * (1 - progress) ** options.poly_exp
    elif options.lr_scheduler == "steplr":
        factor = options.decay_gamma ** sum(progress >= share for share in options.decay_at)
    else:
        factor = 1.0
    return options.lr * warm * factor


RATE_SHARE = "rate_share"  # key of a parameter group: its part of the learning rate


def make_optimizer(
    options: TrainOptions, model: nn.Module, rate_shares: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimizer over the parameters that require a gradient, and no others.

    Args:
        options: which optimizer, and how.
        model: whose parameters.
        rate_shares: by the first part of a parameter's name, what its learning rate is multiplied by; 1 for others.
    """
    shares = rate_shares or {}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(shares.get(name.split(".")[0], 1.0), []).append(parameter)
    parameters = [{"params": group, RATE_SHARE: share} for share, group in groups.items()]
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=options.lr)
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, options.lr, momentum=SGD_MOMENTUM, weight_decay=options.weight_decay)
    if options.optimizer == "radam":
        return torch.optim.RAdam(
            parameters, lr=options.lr, weight_decay=options.weight_decay, decoupled_weight_decay=True
        )
    return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)


class Averaged:
    """Exponential moving average of the trained weights; early steps have a lower decay, to forget the initial weights.

    Not torch's ``AveragedModel``: its first update copies the weights instead of averaging them, and it evaluates a
    deep copy, frozen and compiled networks included, where the averages here are swapped into the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Average the weights after a step, counted from 0."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(value, 1 - decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """The averaged weights in the model, in eval mode, for the length of the context."""
        trained = {name: value.detach().clone() for name, value in model.named_parameters() if name in self.values}
        self._assign(model, self.values)
        model.eval()
        try:
            yield
        finally:
            self._assign(model, trained)
            model.train()

    @staticmethod
    @torch.no_grad()
    def _assign(model: nn.Module, values: dict[str, Tensor]) -> None:
        for name, value in model.named_parameters():
            if name in values:
                value.copy_(values[name])
