"""The perceptual loss: how far apart two pictures are for a network that was trained to recognise things.

Chen and Koltun, ICCV 2017, with batch norm (VGG-19-BN of torchvision, Simonyan and Zisserman 2015).
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

SLICE_ENDS = (6, 13, 20, 33, 46)  # of torchvision's list of layers: relu1_2, relu2_2, relu3_2, relu4_2, relu5_2
SLICE_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)  # Chen and Koltun's, beside 1 of the picture itself
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST_SIDE = 16  # pixels: it is halved four times
NEEDS_NONE = "l1_msssim_grad"  # a loss that works without any weights
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
KEYS_SHOWN = 4  # of a long list of keys, in a message
PREFIX = "features."
UNREADABLE = (RuntimeError, EOFError, ValueError, KeyError, AttributeError)  # what torch.load may raise
COUNTER = ".num_batches_tracked"  # of batch norm: not in older files, and of no use in eval mode


class PerceptualLoss(nn.Module):
    """L1 between the ImageNet-normalised pictures and between five of the network's feature maps.

    The network is frozen: no gradient to its weights, eval mode whatever is asked for, float32 outside autocast.

    Args:
        weights: a state dict of ``vgg19_bn``, as ``load_vgg_weights`` returns it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):  # no random weights, not even for a moment
            layers = _layers()
        layers.load_state_dict({key.removeprefix(PREFIX): value.clone() for key, value in weights.items()}, assign=True)
        starts = (0, *SLICE_ENDS[:-1])
        self.slices = nn.ModuleList(layers[start:end] for start, end in zip(starts, SLICE_ENDS, strict=True))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stay in eval mode: batch norm keeps ImageNet's statistics."""
        return super().train(False)

    def forward(
        self,
        prediction: Tensor,  # [B, 3, H, W]
        target: Tensor,  # [B, 3, H, W]
        weight: Tensor,  # [B, 1, H, W]
    ) -> Tensor:
        """Mean over the samples; where the weight is below 1 the target is blended into the prediction."""
        if min(target.shape[-2:]) < SMALLEST_SIDE:
            got = " x ".join(str(side) for side in target.shape[-2:])
            raise InputError(f"img_hw: the vgg loss needs {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels or more, got {got}")
        with torch.autocast(target.device.type, enabled=False):
            prediction, target, weight = prediction.float(), target.float(), weight.float()
            x = self._normalise(prediction * weight + target * (1 - weight))
            y = self._normalise(target)
            loss = F.l1_loss(x, y)  # of pictures of one size: the mean over the samples of their means
            for part, factor in zip(self.slices, SLICE_WEIGHTS, strict=True):
                x = part(x)
                with torch.no_grad():
                    y = part(y)
                loss = loss + factor * F.l1_loss(x, y)
        return loss

    def _normalise(self, picture: Tensor) -> Tensor:
        return (picture - self.mean) / self.std


def load_vgg_weights(path: str | Path = "") -> dict[str, Tensor]:
    """The weights of the layers that the loss needs: ``features.0.weight [64, 3, 3, 3]`` and so on, float32.

    Args:
        path: a state dict of torchvision's ``vgg19_bn``, whole or its ``features`` alone; "" for the one that
            torchvision keeps in its cache, downloaded if it is not there yet.

    Raises:
        InputError: no such file, not such a state dict, or no network to download from.
    """
    if not path:
        return _check(_torchvision_weights(), VGG19_BN_Weights.DEFAULT.url)
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check vgg_weights. {_how_to_get()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what can't be read is refused below
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
    """The state dict of torchvision's cache, downloaded first where it is missing."""
    try:
        with _timeout(DOWNLOAD_TIMEOUT):
            return VGG19_BN_Weights.DEFAULT.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, HTTPException) as error:  # those of urllib among them
        reason = f"neither in torchvision's cache nor to be downloaded ({_first_line(error)})"
    except (pickle.UnpicklingError, *UNREADABLE) as error:
        reason = f"damaged ({_first_line(error)}); delete {_cached_file()}"
    raise InputError(f"vgg loss: the weights of VGG-19-BN are {reason}. {_how_to_get()}")


def _cached_file() -> Path:
    """Where ``torch.hub`` keeps them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_BN_Weights.DEFAULT.url).name


def _how_to_get() -> str:
    return (
        f"Download {VGG19_BN_Weights.DEFAULT.url} where there is a network and give the file as --vgg_weights (or put "
        f"it into {_cached_file().parent}), or choose the loss {NEEDS_NONE}, which needs none"
    )


def _check(state: object, place: str | Path) -> dict[str, Tensor]:
    """Those tensors of a state dict that are needed."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{place}: no state dict inside. {_how_to_get()}")
    with torch.device("meta"):
        expected = {f"{PREFIX}{key}": value for key, value in _layers().state_dict().items()}
    tensors = {key: state[key] for key in expected if key in state}
    for key in expected:
        if key.endswith(COUNTER):
            tensors.setdefault(key, torch.zeros((), dtype=torch.long))
    missing = [key for key in expected if key not in tensors]
    shapes = [f"{key} {list(value.shape)}" for key, value in tensors.items() if value.shape != expected[key].shape]
    numbers = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    for what, keys in (("missing keys", missing), ("of another shape", shapes), ("not finite", numbers)):
        if keys:
            shown = ", ".join(keys[:KEYS_SHOWN]) + (", ..." if len(keys) > KEYS_SHOWN else "")
            raise InputError(f"{place}: not the weights of VGG-19-BN: {len(keys)} {what} ({shown}). {_how_to_get()}")
    return {key: value.to(expected[key].dtype) for key, value in tensors.items()}


def _layers() -> nn.Sequential:
    """The layers up to the last feature map."""
    layers: nn.Sequential = vgg19_bn(weights=None).features[: SLICE_ENDS[-1]]
    return layers


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Give up on a network that doesn't answer; ``torch.hub`` takes no such option."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:120]
