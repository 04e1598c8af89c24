"""Which implementation runs an operation: the one place that knows them all. ``maskvolume.ops`` is its face."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from maskvolume.ops.reference import ReferenceBackend
from maskvolume.ops.types import Backend

# Names, and for those that may be missing the module that makes them and the device they are for; the best one first.
_MODULES = {"triton": ("maskvolume.ops.triton.backend", "cuda"), "compiled": ("maskvolume.ops.cpu.backend", "cpu")}


# The backends, or the reasons why this machine has none.
_LOADED: dict[str, Backend | str] = {"reference": ReferenceBackend()}


@torch.compiler.assume_constant_result  # torch.compile asks for it once, instead of tracing imports
def _is_there(name: str) -> bool:
    """Whether this machine has the backend of that name.

    It is imported only where it is wanted: Numba takes a second, and isn't needed where there is a GPU.
    """
    if name not in _LOADED:
        try:
            _LOADED[name] = import_module(_MODULES[name][0]).BACKEND
        except (ImportError, RuntimeError) as error:  # the latter where there is no place to keep compiled loops
            _LOADED[name] = str(error)
    return not isinstance(_LOADED[name], str)


def available_backends(device: torch.device) -> list[str]:
    """Names of the backends that run on a device, the preferred one first."""
    usable = [name for name, (_, device_type) in _MODULES.items() if device_type == device.type and _is_there(name)]
    return [*usable, "reference"]


def missing_backends(device: torch.device) -> dict[str, str]:
    """The backends that are made for a device but that this machine lacks, and why."""
    missing = [name for name, (_, kind) in _MODULES.items() if kind == device.type and not _is_there(name)]
    return {name: str(_LOADED[name]) for name in missing}


def select_backend(name: str | None, device: torch.device) -> Backend:
    """The backend of that name, or the preferred one of the device for None.

    Raises:
        ValueError: the name is unknown, or the backend can't run on the device.
    """
    usable = available_backends(device)
    chosen = usable[0] if name is None else name
    if chosen not in usable:
        raise ValueError(f"backend: {name!r} can't run on {device.type}; available: {', '.join(usable)}")
    backend = _LOADED[chosen]
    assert not isinstance(backend, str)
    return backend


def choose(name: str | None, operation: str, inputs: Sequence[Tensor], dtype: torch.dtype | None = None) -> Backend:
    """The backend of that name, or for None the best one that runs an operation on these inputs.

    Args:
        name: of the backend.
        operation: name of its method.
        inputs: tensors of one device; a gradient is needed where autograd records and one of them requires it.
        dtype: see ``types.Backend.runs``.

    Raises:
        ValueError: the name is unknown, or the backend can't run the operation there.
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
