"""Checkpoints: strict save and load, and import of checkpoints of the original implementation.

Native format: ``.safetensors`` whose header holds the JSON of a ``CheckpointMeta`` under the key "maskvolume".
Original format: Lightning ``.ckpt`` (``state_dict`` -> ``models.mpi_net.*``, ``models.mask_net.*``, ``loss.*``) or a
bare dict of the same keys, read without executing any code in it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import warnings
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from maskvolume.io.files import atomic_path
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel, Stage
from maskvolume.networks import ARCHITECTURES
from maskvolume.runtime.devices import Precision
from maskvolume.runtime.errors import InputError

HEADER_KEY = "maskvolume"
FORMAT_VERSION = 1
ORIGINAL_PREFIX = "models."
IGNORED_PREFIXES = ("loss.",)  # the frozen VGG that the original keeps in its checkpoints
# Packages whose objects Lightning stores in checkpoints: its callbacks and options, and NumPy scalars.
INERT_PREFIXES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "numpy.")
KEYS_SHOWN = 4  # most keys listed in an error message


def save_checkpoint(path: Path | str, model: MaskVolumeModel) -> None:
    """Write the networks and their ``meta`` as ``.safetensors``, atomically."""
    path = Path(path)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    header = json.dumps({"version": FORMAT_VERSION, **asdict(model.meta)}, sort_keys=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={HEADER_KEY: header, "format": "pt"}))


def load_model(
    path: Path | str,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    *,
    stage: Stage | None = None,
    backend: str | None = None,
) -> MaskVolumeModel:
    """Read a native or original checkpoint and build its model, frozen and in eval mode.

    Args:
        path: the checkpoint.
        device: where the model goes.
        precision: of the networks.
        stage: the stage to load: "mask" rejects a stage-one checkpoint; "mpi" accepts both and drops the mask network;
            None loads all networks in the file.
        backend: implementation of the operations; None for the fastest on the device.

    Returns:
        The model, without gradients.

    Raises:
        InputError: the file is missing or damaged, keys are missing or unexpected, the stage is wrong, or a pickle
            holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; check ckpt_path")
    meta, tensors = _read_native(path) if path.suffix == ".safetensors" else _read_original(path)
    if stage == "mask" and meta.stage != "mask":
        raise InputError(
            f"{path}: a stage-one checkpoint (MPI network only) where stage two is needed; "
            "give one that train_mask/train.py wrote"
        )
    if stage == "mpi" and meta.stage == "mask":
        meta = CheckpointMeta("mpi", meta.arch, meta.sampling, meta.num_planes, meta.info)
        tensors = {key: value for key, value in tensors.items() if not key.startswith("mask_net.")}
    model = MaskVolumeModel(meta, precision, backend)
    _load_strictly(model, tensors, path)
    return model.to(device).eval().requires_grad_(False)


def _read_native(path: Path) -> tuple[CheckpointMeta, dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from None
    if header is None:
        raise InputError(f"{path}: holds tensors but not how to use them (no {HEADER_KEY!r} header); not one of ours")
    try:
        fields: dict[str, Any] = dict(json.loads(header))
        version = fields.pop("version")
        meta = CheckpointMeta(**fields)
        if not isinstance(meta.num_planes, int) or meta.num_planes < 1 or not isinstance(meta.info, dict):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}: its header can't be read; it may come from another version") from None
    if version != FORMAT_VERSION or meta.stage not in ("mpi", "mask") or meta.sampling not in ("exact", "original"):
        raise InputError(
            f"{path}: made by a version that this one does not know (format {version}); update the project"
        )
    if meta.arch not in ARCHITECTURES:
        raise InputError(f"{path}: architecture {meta.arch!r} is not known here; known: {', '.join(ARCHITECTURES)}")
    return meta, tensors


def _read_original(path: Path) -> tuple[CheckpointMeta, dict[str, Tensor]]:
    try:
        with torch.serialization.safe_globals(_harmless_globals(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; unreadable files are rejected below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds Python objects beside weights (or is no checkpoint at all), and loading it could run "
            "code; refused. Save its state_dict alone, from the program that made it"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({_first_line(error)}); copy it again") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise InputError(f"{path}: no state dict inside; a checkpoint of the original or a .safetensors is needed")
    tensors = {
        key.removeprefix(ORIGINAL_PREFIX): value for key, value in state.items() if not key.startswith(IGNORED_PREFIXES)
    }
    stage: Stage = "mask" if any(key.startswith("mask_net.") for key in tensors) else "mpi"
    meta = CheckpointMeta(stage, "original", "original", info={"imported_from": path.name})
    return meta, tensors


class _Inert:
    """Placeholder for an object that Lightning stores beside the weights: accepts any arguments, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _harmless_globals(path: Path) -> list[Any]:
    """Globals that the pickle may name besides tensors: inert stand-ins for objects of Lightning and NumPy.

    None of these packages is imported or called. ``torch.load`` rejects a file that names any other package.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (ValueError, RuntimeError):  # not written by torch.save: torch.load reports the reason
        names = []
    harmless_names = [name for name in names if name.startswith(INERT_PREFIXES)]
    # Lightning stores its options in a dict subclass; torch only restores Python's own dict types.
    stand_ins = {name: OrderedDict if name.endswith(".AttributeDict") else _Inert for name in harmless_names}
    return [argparse.Namespace, *((kind, name) for name, kind in stand_ins.items())]


def _load_strictly(model: MaskVolumeModel, tensors: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    wrong_shapes = [
        f"{key} {list(value.shape)}, not {list(expected[key].shape)}"
        for key, value in tensors.items()
        if key in expected and value.shape != expected[key].shape
    ]
    problems = [
        f"{len(keys)} {problem} ({', '.join(keys[:KEYS_SHOWN])}{', ...' if len(keys) > KEYS_SHOWN else ''})"
        for problem, keys in (
            ("missing keys", missing),
            ("unexpected keys", unexpected),
            ("of another shape", wrong_shapes),
        )
        if keys
    ]
    if problems:
        raise InputError(
            f"{path}: not a checkpoint of {model.meta.arch!r}, stage {model.meta.stage!r}: {'; '.join(problems)}"
        )
    not_finite = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if not_finite:
        raise InputError(
            f"{path}: weights that are not finite ({', '.join(not_finite[:KEYS_SHOWN])}); use an earlier one"
        )
    model.load_state_dict(tensors)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:120]
