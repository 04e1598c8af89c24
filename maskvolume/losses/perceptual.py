"""The perceptual loss: the distance between two pictures in the features of a network trained on image recognition.

Follows Chen and Koltun, ICCV 2017, but with batch norm (torchvision's VGG-19-BN; Simonyan and Zisserman 2015).
"""

from __future__ import annotations

import pickle
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG19_BN_Weights, vgg19_bn

from maskvolume.runtime.errors import InputError

SLICE_ENDS = (6, 13, 20, 33, 46)  # in torchvision's list of layers: relu1_2, relu2_2, relu3_2, relu4_2, relu5_2
SLICE_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)  # from Chen and Koltun; the picture itself has weight 1
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST_SIDE = 16  # pixels; the network halves the picture four times
NEEDS_NONE = "l1_msssim_grad"  # a loss that works without any weights
DOWNLOAD_TIMEOUT = 30.0  # seconds without a response
KEYS_SHOWN = 4  # most keys listed in an error message
PREFIX = "features."
UNREADABLE = (RuntimeError, EOFError, ValueError, KeyError, AttributeError)  # raised by torch.load for damaged files
COUNTER = ".num_batches_tracked"  # of batch norm; missing in older files and unused in eval mode


class PerceptualLoss(nn.Module):
    """L1 distance of the ImageNet-normalised pictures, plus the L1 distances of five feature maps of the network.

    The network is frozen: its weights get no gradient, it stays in eval mode, and it runs in float32 without autocast.

    Args:
        weights: a state dict of ``vgg19_bn`` as returned by ``load_vgg_weights``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):  # skips the random initialisation
            layers = _layers()
        layers.load_state_dict({key.removeprefix(PREFIX): value.clone() for key, value in weights.items()}, assign=True)
        starts = (0, *SLICE_ENDS[:-1])
        self.slices = nn.ModuleList(layers[start:end] for start, end in zip(starts, SLICE_ENDS, strict=True))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stay in eval mode, where batch norm keeps the statistics of ImageNet."""
        return super().train(False)

    def forward(
        self,
        prediction: Tensor,  # [B, 3, H, W]
        target: Tensor,  # [B, 3, H, W]
        weight: Tensor,  # [B, 1, H, W]
    ) -> Tensor:
        """Compute the loss.

        Args:
            prediction: ``[B, 3, H, W]`` in 0..1.
            target: ``[B, 3, H, W]`` in 0..1.
            weight: ``[B, 1, H, W]`` in 0..1; below 1, the target is blended into the prediction.

        Returns:
            The mean over the samples, ``[]``.

        Raises:
            InputError: H or W is below ``SMALLEST_SIDE``.
        """
        if min(target.shape[-2:]) < SMALLEST_SIDE:
            size = " x ".join(str(side) for side in target.shape[-2:])
            raise InputError(f"img_hw: the vgg loss needs {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels or more, got {size}")
        with torch.autocast(target.device.type, enabled=False):
            prediction, target, weight = prediction.float(), target.float(), weight.float()
            x = self._normalise(prediction * weight + target * (1 - weight))
            y = self._normalise(target)
            loss = F.l1_loss(x, y)  # all pictures have one size, so this is the mean of the samples' means
            for part, factor in zip(self.slices, SLICE_WEIGHTS, strict=True):
                x = part(x)
                with torch.no_grad():
                    y = part(y)
                loss = loss + factor * F.l1_loss(x, y)
        return loss

    def _normalise(self, picture: Tensor) -> Tensor:
        return (picture - self.mean) / self.std


def load_vgg_weights(path: str | Path = "") -> dict[str, Tensor]:
    """Load the weights of the layers that the loss uses.

    Args:
        path: file with a state dict of torchvision's ``vgg19_bn``, complete or only its ``features``; "" for the one in
            torchvision's cache, which is downloaded if it is missing.

    Returns:
        The float32 state dict: ``features.0.weight [64, 3, 3, 3]`` and so on.

    Raises:
        InputError: the file is missing, damaged or not such a state dict, or the download fails.
    """
    if not path:
        return _check(_torchvision_weights(), VGG19_BN_Weights.DEFAULT.url)
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check vgg_weights. {_how_to_get()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; unreadable files are rejected below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds Python objects beside weights (or is no checkpoint at all), and loading it could run code; "
            f"refused. {_how_to_get()}"
        ) from None
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable checkpoint ({_first_line(error)}). {_how_to_get()}") from None
    return _check(state, path)


def _torchvision_weights() -> object:
    """Load the state dict from torchvision's cache, after downloading it if it is missing."""
    try:
        with _timeout(DOWNLOAD_TIMEOUT):
            return VGG19_BN_Weights.DEFAULT.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, HTTPException) as error:  # OSError includes the errors of urllib
        reason = f"not in torchvision's cache, and the download failed ({_first_line(error)})"
    except (pickle.UnpicklingError, *UNREADABLE) as error:
        reason = f"damaged ({_first_line(error)}); delete {_cached_file()}"
    raise InputError(f"vgg loss: the weights of VGG-19-BN are {reason}. {_how_to_get()}")


def _cached_file() -> Path:
    """The path of the weights in the cache of ``torch.hub``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_BN_Weights.DEFAULT.url).name


def _how_to_get() -> str:
    return (
        f"Download {VGG19_BN_Weights.DEFAULT.url} where there is a network and give the file as --vgg_weights (or put "
        f"it into {_cached_file().parent}), or choose the loss {NEEDS_NONE}, which needs none"
    )


def _check(state: object, place: str | Path) -> dict[str, Tensor]:
    """Check a state dict read from ``place``, and return the tensors that the loss uses."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{place}: no state dict inside. {_how_to_get()}")
    with torch.device("meta"):
        expected = {f"{PREFIX}{key}": value for key, value in _layers().state_dict().items()}
    tensors = {key: state[key] for key in expected if key in state}
    for key in expected:
        if key.endswith(COUNTER):
            tensors.setdefault(key, torch.zeros((), dtype=torch.long))
    missing = [key for key in expected if key not in tensors]
    wrong_shapes = [
        f"{key} {list(value.shape)}" for key, value in tensors.items() if value.shape != expected[key].shape
    ]
    not_finite = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    for problem, keys in (("missing keys", missing), ("of another shape", wrong_shapes), ("not finite", not_finite)):
        if keys:
            listed = ", ".join(keys[:KEYS_SHOWN]) + (", ..." if len(keys) > KEYS_SHOWN else "")
            raise InputError(
                f"{place}: not the weights of VGG-19-BN: {len(keys)} {problem} ({listed}). {_how_to_get()}"
            )
    return {key: value.to(expected[key].dtype) for key, value in tensors.items()}


def _layers() -> nn.Sequential:
    """Build the layers up to the last feature map."""
    layers: nn.Sequential = vgg19_bn(weights=None).features[: SLICE_ENDS[-1]]
    return layers


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of sockets in the context; ``torch.hub`` has no option for it."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:120]
