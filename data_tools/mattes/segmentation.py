"""Mattes of objects by class, with a trained segmentation network from torchvision."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskvolume.runtime.errors import InputError

MODELS = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", "maskrcnn_resnet50_fpn")
_INSTANCE_SCORE = 0.5  # lowest score of maskrcnn's detections


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network and the classes of interest; create with :meth:`open`.

    Attributes:
        network: computes class scores for each pixel, or detections with masks.
        prepare: converts a picture to the network's input.
        classes: numbers of the classes of interest.
        device: the network's device.
    """

    network: nn.Module
    prepare: Any
    classes: tuple[int, ...]
    device: torch.device

    @classmethod
    def open(cls, model: str, classes: Sequence[str], device: torch.device, weights: str | None = None) -> Segmenter:
        """Load a network with its trained weights.

        Args:
            model: one of ``MODELS``.
            classes: names of the classes of interest.
            device: for the network.
            weights: file of the weights; None: torchvision's cache, or a download if they are not cached.

        Raises:
            InputError: the weights are unavailable or belong to another network, or a class is unknown.
        """
        import torchvision  # a slow import

        trained = torchvision.models.get_model_weights(model).DEFAULT
        names = trained.meta["categories"]
        numbers = tuple(_class_number(name, names, model) for name in classes)
        has_head = {} if _finds_instances(model) else {"aux_loss": True}
        network = torchvision.models.get_model(
            model, weights=None, weights_backbone=None, num_classes=len(names), **has_head
        )
        state = _load_file(Path(weights)) if weights else _load_cached(trained, model)
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InputError(
                f"{weights or trained.url}: these are not the weights of {model}; choose another --model or --weights"
            ) from error
        return cls(network.to(device).eval(), trained.transforms(), numbers, device)

    @torch.inference_mode()
    def matte(self, picture: np.ndarray) -> np.ndarray:
        """The probability that each pixel of uint8 ``[H, W, 3]`` RGB is of one of the classes, uint8 ``[H, W]``."""
        from torchvision.models.detection import MaskRCNN

        batch = self.prepare(torch.from_numpy(picture).permute(2, 0, 1).to(self.device))
        if isinstance(self.network, MaskRCNN):
            probability = self._of_instances(self.network([batch])[0], picture.shape[:2])
        else:
            scores = self.network(batch[None])["out"]
            scores = nn.functional.interpolate(scores, picture.shape[:2], mode="bilinear", align_corners=False)
            probability = scores[0].softmax(dim=0)[list(self.classes)].sum(dim=0)
        return (probability.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    def _of_instances(self, detections: dict[str, Tensor], size: tuple[int, ...]) -> Tensor:
        is_selected = torch.isin(detections["labels"], torch.tensor(self.classes, device=self.device))
        masks = detections["masks"][is_selected & (detections["scores"] >= _INSTANCE_SCORE), 0]  # [N, H, W]
        return masks.amax(dim=0) if len(masks) else torch.zeros(size, device=self.device)


def _finds_instances(model: str) -> bool:
    return model.startswith("maskrcnn")


def _class_number(name: str, names: Sequence[str], model: str) -> int:
    known = [other for other in names if not other.startswith(("_", "N/A"))]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise InputError(
            f"--classes: {model} has no class {name!r}; the nearest is {nearest!r}, all are {', '.join(known)}"
        )
    return list(names).index(name)


def _load_file(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check --weights") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: damaged or not a weights file; download it again") from error


def _load_cached(trained: Any, model: str) -> Any:
    try:
        return trained.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        reason = " ".join(str(error).split())
        raise InputError(
            f"{model}: its trained weights are unavailable ({reason}); download {trained.url} elsewhere, put the file "
            f"into {folder}, or give its path with --weights"
        ) from error
