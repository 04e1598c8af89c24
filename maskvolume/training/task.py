"""The interface between a training program and the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from maskvolume.data.draws import SampleSource

Model = TypeVar("Model", bound=nn.Module)
AnyModel = TypeVar("AnyModel", bound=nn.Module, contravariant=True)


class Task(Protocol[AnyModel]):
    """The data, loss, validation and checkpoints of a training; the loop trains any module that has a task."""

    @property
    def source(self) -> SampleSource:
        """The source of batches and validation samples."""
        ...

    @property
    def rate_shares(self) -> Mapping[str, float]:
        """Factors of the learning rate, by the first part of a parameter's name; 1 for names not listed."""
        ...

    @property
    def suffix(self) -> str:
        """The suffix of the files that ``save`` writes, with its dot."""
        ...

    def loss(self, model: AnyModel, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch.

        Args:
            model: the model to train.
            batch: a batch of the source.

        Returns:
            The loss ``[]`` to minimise, a mean over the samples, and named scalars to log, including "psnr".
        """
        ...

    def evaluate(self, model: AnyModel, sample: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Evaluate the model on a validation sample. The best model is the one with the highest mean PSNR.

        Args:
            model: the model, with averaged weights and in eval mode.
            sample: a validation sample of the source.

        Returns:
            Named scalars, including "psnr", and named pictures ``[3, H, W]`` in 0..1.
        """
        ...

    def compiled_modules(self, model: AnyModel) -> Sequence[nn.Module]:
        """The parts of the model that the option ``compile`` compiles."""
        ...

    def save(self, path: Path, model: AnyModel, info: dict[str, Any]) -> None:
        """Write the model as a checkpoint to ship.

        Args:
            path: the file to write; its name ends in ``suffix``.
            model: the model, with the weights to write.
            info: steps, metrics, options and commit of the run, as plain values.
        """
        ...


class TaskLoss(nn.Module, Generic[Model]):
    """The loss as the forward pass of a module, as DistributedDataParallel requires it.

    Args:
        task: computes the loss.
        model: the model to train.
    """

    def __init__(self, task: Task[Model], model: Model) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.loss(self.model, batch)
