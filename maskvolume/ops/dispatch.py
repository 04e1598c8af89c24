"""Choice of the backend that runs an operation. ``maskvolume.ops`` is the public interface."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from maskvolume.ops.reference import ReferenceBackend
from maskvolume.ops.types import Backend

# Optional backends by name, best first: the module that defines each one and its device type.
_MODULES = {"triton": ("maskvolume.ops.triton.backend", "cuda"), "compiled": ("maskvolume.ops.cpu.backend", "cpu")}


# Loaded backends, or the reason why a backend is missing.
_LOADED: dict[str, Backend | str] = {"reference": ReferenceBackend()}


def _is_there(name: str) -> bool:
    """Return whether this machine has the named backend.

    Imports are lazy: Numba takes a second to import and is not needed on a GPU. ``torch.compile`` would trace them:
    call ``available_backends`` before it.
    """
    if name not in _LOADED:
        try:
            _LOADED[name] = import_module(_MODULES[name][0]).BACKEND
        except (ImportError, RuntimeError) as error:  # RuntimeError: no writable cache for compiled loops
            _LOADED[name] = str(error)
    return not isinstance(_LOADED[name], str)


def available_backends(device: torch.device) -> list[str]:
    """Return the names of the backends that run on a device, the preferred one first."""
    usable = [name for name, (_, device_type) in _MODULES.items() if device_type == device.type and _is_there(name)]
    return [*usable, "reference"]


def missing_backends(device: torch.device) -> dict[str, str]:
    """Return the backends for a device that this machine lacks, with the reasons."""
    missing = [name for name, (_, kind) in _MODULES.items() if kind == device.type and not _is_there(name)]
    return {name: str(_LOADED[name]) for name in missing}


def select_backend(name: str | None, device: torch.device) -> Backend:
    """Return the named backend, or the preferred one of the device for None.

    Raises:
        ValueError: the name is unknown, or the backend cannot run on the device.
    """
    usable = available_backends(device)
    chosen = usable[0] if name is None else name
    if chosen not in usable:
        raise ValueError(f"backend: {name!r} can't run on {device.type}; available: {', '.join(usable)}")
    backend = _LOADED[chosen]
    assert not isinstance(backend, str)
    return backend


def choose(name: str | None, operation: str, inputs: Sequence[Tensor], dtype: torch.dtype | None = None) -> Backend:
    """Return the named backend, or for None the best one that runs an operation on these inputs.

    Args:
        name: name of the backend.
        operation: name of the backend method.
        inputs: tensors on one device; a gradient is needed if autograd records and one of them requires it.
        dtype: see ``types.Backend.runs``.

    Raises:
        ValueError: the name is unknown, or the backend cannot run the operation on the inputs.
    """
    device = inputs[0].device
    if name is None:
        usable = (select_backend(each, device) for each in available_backends(device))
        return next(backend for backend in usable if backend.runs(operation, inputs, dtype))
    backend = select_backend(name, device)
    if not backend.runs(operation, inputs, dtype):
        kinds = ", ".join(dict.fromkeys(str(x.dtype).removeprefix("torch.") for x in inputs))
        raise ValueError(f"backend: {name!r} runs no {operation} of {kinds}, or none with a gradient")
    return backend
