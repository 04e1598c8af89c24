"""Checkpoints come back as they were, and wrong ones are refused by name."""

import argparse
import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maskvolume.mpi.checkpoints import load_model, save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.runtime.errors import InputError

PARITY = Path(__file__).parents[2] / "data" / "original_parity" / "checkpoint.ckpt"


def make_model(stage: str = "mask", arch: str = "matching") -> MaskVolumeModel:
    torch.manual_seed(0)
    return MaskVolumeModel(CheckpointMeta(stage, arch, info={"steps": 3}))  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", ["matching", "original"])
@pytest.mark.parametrize("stage", ["mpi", "mask"])
def test_round_trip(tmp_path: Path, arch: str, stage: str) -> None:
    model = make_model(stage, arch)
    save_checkpoint(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.meta == model.meta
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_a_native_checkpoint_is_exact_and_an_imported_one_original() -> None:
    model = load_model(PARITY)
    assert (model.meta.arch, model.meta.stage, model.meta.sampling) == ("original", "mask", "original")
    assert make_model().meta.sampling == "exact"


def test_a_bare_state_dict_of_the_original_loads(tmp_path: Path) -> None:
    state = torch.load(PARITY, weights_only=True)["state_dict"]
    torch.save({key: value for key, value in state.items() if key.startswith("models.mpi_net.")}, tmp_path / "bare.pth")
    assert load_model(tmp_path / "bare.pth").meta.stage == "mpi"


def test_stage_two_serves_stage_one_but_not_the_other_way(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "two.safetensors", make_model("mask"))
    assert not load_model(tmp_path / "two.safetensors", stage="mpi").has_mask
    save_checkpoint(tmp_path / "one.safetensors", make_model("mpi"))
    with pytest.raises(InputError, match=r"one\.safetensors.*stage two"):
        load_model(tmp_path / "one.safetensors", stage="mask")


def rewrite(path: Path, edit: str) -> None:
    tensors = load_file(path)
    header = json.dumps({"version": 1, "stage": "mask", "arch": "matching", "sampling": "exact", "num_planes": 32})
    key = next(iter(tensors))
    if edit == "missing":
        del tensors[key]
    elif edit == "foreign":
        tensors["other.weight"] = torch.zeros(2)
    elif edit == "shape":
        tensors[key] = torch.zeros(7)
    elif edit == "nan":
        tensors[key] = torch.full_like(tensors[key], float("nan"))
    elif edit == "version":
        header = header.replace('"version": 1', '"version": 9')
    elif edit == "arch":
        header = header.replace("matching", "unheard")
    metadata = {} if edit == "header" else {"maskvolume": header}
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("missing", "1 missing keys"),
        ("foreign", r"1 unexpected keys \(other\.weight\)"),
        ("shape", "of another shape"),
        ("nan", "not finite"),
        ("version", "format 9"),
        ("arch", "unheard"),
        ("header", "header"),
    ],
)
def test_a_wrong_checkpoint_is_refused(tmp_path: Path, edit: str, message: str) -> None:
    path = tmp_path / "wrong.safetensors"
    save_checkpoint(path, make_model())
    rewrite(path, edit)
    with pytest.raises(InputError, match=rf"wrong\.safetensors.*{message}"):
        load_model(path)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.ckpt"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    whole = tmp_path / "whole.safetensors"
    save_checkpoint(whole, make_model())
    source = whole if name.endswith("safetensors") else PARITY
    (tmp_path / name).write_bytes(source.read_bytes()[:5000])
    with pytest.raises(InputError, match=name):
        load_model(tmp_path / name)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors.*ckpt_path"):
        load_model(tmp_path / "none.safetensors")


def lightning_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package by Lightning's name, with the kinds of things that it leaves in checkpoints."""
    module = types.ModuleType("pytorch_lightning.things")
    for name, base in (("ModelCheckpoint", object), ("AttributeDict", dict)):
        made = type(name, (base,), {"__module__": module.__name__})
        setattr(module, name, made)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_what_lightning_leaves_beside_the_weights_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(PARITY, weights_only=True)["state_dict"]
    with monkeypatch.context() as there:
        module = lightning_module(there)
        content = {
            "state_dict": state,
            "epoch": 3,
            "callbacks": {module.ModelCheckpoint: {"best_model_score": np.float64(0.5)}},
            "hyper_parameters": module.AttributeDict(lr=1e-3, options=argparse.Namespace(seed=1)),
            "trainer": module.ModelCheckpoint(),
        }
        torch.save(content, tmp_path / "lightning.ckpt")
    assert "pytorch_lightning" not in sys.modules
    model = load_model(tmp_path / "lightning.ckpt")
    assert torch.equal(
        model.state_dict()["mpi_net.conv1_1.model.0.weight"], state["models.mpi_net.conv1_1.model.0.weight"]
    )


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.ckpt"
    if form == "torch":
        torch.save({"state_dict": {}, "callbacks": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    with pytest.raises(InputError, match=r"bomb\.ckpt.*code"):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


def test_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(InputError, match=r"list\.ckpt.*state dict"):
        load_model(tmp_path / "list.ckpt")
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"missing keys.*unexpected keys"):
        load_model(tmp_path / "other.ckpt")
