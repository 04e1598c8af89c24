"""Learning rates, optimizers and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskvolume.training.options import TrainOptions

LOWEST = 0.01  # final learning rate of cosine and poly, as a share of the highest
SGD_MOMENTUM = 0.9


def learning_rate(options: TrainOptions, step: int) -> float:
    """The learning rate of a step, counted from 0: the schedule over all steps times a linear warm-up."""
    warmup = min(1.0, (step + 1) / max(options.warmup_steps, 1))
    progress = min(step / max(options.num_steps, 1), 1.0)
    if options.lr_scheduler == "cosine":
        factor = LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * progress))
    elif options.lr_scheduler == "poly":
        factor = LOWEST + (1 - LOWEST) * (1 - progress) ** options.poly_exp
    elif options.lr_scheduler == "steplr":
        factor = options.decay_gamma ** sum(progress >= share for share in options.decay_at)
    else:
        factor = 1.0
    return options.lr * warmup * factor


RATE_SHARE = "rate_share"  # key of a parameter group: factor of its learning rate


def make_optimizer(
    options: TrainOptions, model: nn.Module, rate_shares: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Create the optimizer of the parameters that require a gradient.

    Args:
        options: the optimizer's name, learning rate and weight decay.
        model: the model to train.
        rate_shares: factors of the learning rate by the first part of a parameter's name; 1 for names not listed.

    Returns:
        The optimizer, with one parameter group per factor.
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
    """Exponential moving average of the trained weights. Early steps have a lower decay, to forget the initial weights.

    Torch's ``AveragedModel`` does not fit: its first update copies the weights instead of averaging them, and it
    evaluates a deep copy that includes frozen and compiled networks. Here, averages are swapped into the model itself.

    Args:
        model: the model to train.
        decay: weight of the previous average in each update, in 0..1.

    Attributes:
        values: the averaged weights, by name.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Include the weights after a step, counted from 0, in the average."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(value, 1 - decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Put the averaged weights into the model and the model into eval mode, until the context ends."""
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
