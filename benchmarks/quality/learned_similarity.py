"""LPIPS (Zhang et al., CVPR 2018) with torchmetrics and local weights: nothing is downloaded.

torchmetrics includes the linear layers; the network below them is torchvision's, and the user provides its file.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from maskvolume.io.files import link_or_copy
from maskvolume.rendering.output_folder import digest
from maskvolume.runtime.errors import InputError

# The names that LPIPS has for them, and those of torchvision.
BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
INPUT_RANGE = "0..1, scaled to -1..1"
SMALLEST_SIDE = 64  # pixels; smaller pictures vanish at the last feature map


class LearnedSimilarity:
    """The LPIPS distance of two pictures; 0 for equal ones.

    Args:
        path: torchvision's weights of AlexNet, VGG-16 or SqueezeNet 1.1; the network is detected from the tensors.
        device: where to compute.

    Raises:
        InputError: no such file, or not the weights of one of the three.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self.device = path, device
        self.backbone = _backbone_of(path)
        self._metric = _build(self.backbone, path).to(device)

    def __call__(self, picture: Tensor, truth: Tensor) -> float:
        """The distance of pictures ``[3, h, w]``, clamped to 0..1; all pixels count."""
        a, b = (x.detach().float().clamp(0, 1)[None].to(self.device) for x in (picture, truth))
        value = float(self._metric(a, b))
        self._metric.reset()
        return value

    def record(self) -> dict[str, str]:
        """The settings that the figures depend on."""
        return {
            "backbone": self.backbone,
            "weights": self.path.name,
            "digest": digest(self.path),
            "input_range": INPUT_RANGE,
        }


def _backbone_of(path: Path) -> str:
    """The name of the network whose weights the file holds."""
    if not path.is_file():
        raise InputError(f"--lpips_weights: {path}: no such file; {_how_to_get()}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, OSError):
        raise InputError(f"--lpips_weights: {path}: not a readable weights file; {_how_to_get()}") from None
    if isinstance(state, Mapping):
        from torchvision.models import get_model  # a slow import

        for name, network in BACKBONES.items():
            with torch.device("meta"):
                expected = get_model(network, weights=None).state_dict()
            shapes = {key: value.shape for key, value in state.items() if isinstance(value, Tensor)}
            if shapes == {key: value.shape for key, value in expected.items()}:
                return name
    raise InputError(f"--lpips_weights: {path}: not the weights of a network of LPIPS; {_how_to_get()}")


def _build(backbone: str, path: Path) -> Any:
    """Build the metric; torchvision finds the file in its cache folder and downloads nothing."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # a slow import

    name = Path(_url_of(backbone)).name
    with tempfile.TemporaryDirectory(prefix="lpips_") as folder:
        link_or_copy(path, Path(folder) / "checkpoints" / name)
        # Not set_dir, which would override the user's TORCH_HOME permanently.
        with mock.patch.object(torch.hub, "get_dir", return_value=folder):
            return LearnedPerceptualImagePatchSimilarity(net_type=backbone, normalize=True)  # type: ignore[arg-type]


def _url_of(backbone: str) -> str:
    """Where torchvision downloads the file of a network from."""
    from torchvision.models import get_model_weights

    return get_model_weights(BACKBONES[backbone]).DEFAULT.url


def _how_to_get() -> str:
    return (
        f"download {_url_of('alex')} (or torchvision's file of VGG-16 or SqueezeNet 1.1) where there is a "
        "network, or leave --lpips_weights out"
    )
