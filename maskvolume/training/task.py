"""What a training program brings to the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from maskvolume.data.draws import SampleSource

Model = TypeVar("Model", bound=nn.Module)
AnyModel = TypeVar("AnyModel", bound=nn.Module, contravariant=True)


class Task(Protocol[AnyModel]):
    """What is learned from what: the loop takes any module whose task says so."""

    @property
    def source(self) -> SampleSource:
        """Where batches and validation samples come from."""
        ...

    @property
    def rate_shares(self) -> Mapping[str, float]:
        """Factors of the learning rate, by the first part of a parameter's name; 1 for names that are not listed."""
        ...

    @property
    def suffix(self) -> str:
        """Of the files that ``save`` writes, with its dot."""
        ...

    def loss(self, model: AnyModel, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, a mean over the samples, and named scalars to log, "psnr" among them."""
        ...

    def evaluate(self, model: AnyModel, sample: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Named scalars of a validation sample, "psnr" among them, and named pictures ``[3, H, W]`` in 0..1.

        The best model is the one with the highest PSNR.
        """
        ...

    def compiled_modules(self, model: AnyModel) -> Sequence[nn.Module]:
        """The parts of the model that the option ``compile`` is for."""
        ...

    def save(self, path: Path, model: AnyModel, info: dict[str, Any]) -> None:
        """Write the model as a checkpoint to ship.

        Args:
            path: of the file; its name ends in ``suffix``.
            model: with the weights to write.
            info: steps, metrics, options and commit of the run; plain values.
        """
        ...


class TaskLoss(nn.Module, Generic[Model]):
    """The loss as a module's forward pass, the form that DistributedDataParallel averages gradients of."""

    def __init__(self, task: Task[Model], model: Model) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.loss(self.model, batch)
