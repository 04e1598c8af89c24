"""The perceptual loss follows its formula, its network stays frozen, and unavailable weights give one line of error."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskvolume.losses import make_image_loss, perceptual
from maskvolume.losses.perceptual import PerceptualLoss, load_vgg_weights
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.runtime.errors import InputError

SIZE = (32, 48)
# VGG-19 (Simonyan and Zisserman 2015), up to the second convolution of the fifth block; 0 is a pooling.
CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512)
# The feature maps are those of the second convolution of each block.
TAPS = {1: 1 / 2.6, 4: 1 / 4.8, 7: 1 / 3.7, 12: 1 / 5.6, 17: 10 / 1.5}


def random_state() -> dict[str, Tensor]:
    """A state dict with the keys of torchvision's, as far as the loss reads it; batch norm is not trivial."""
    generator = torch.Generator().manual_seed(0)
    state, index, c_in = {}, 0, 3
    for channels in CHANNELS:
        if not channels:
            index += 1
            continue
        conv, norm = f"features.{index}", f"features.{index + 1}"
        state[f"{conv}.weight"] = torch.randn(channels, c_in, 3, 3, generator=generator) * (2 / (9 * c_in)) ** 0.5
        state[f"{conv}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        for name, low in (("weight", 0.7), ("bias", -0.3), ("running_mean", -0.2), ("running_var", 0.7)):
            state[f"{norm}.{name}"] = low + 0.6 * torch.rand(channels, generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
        index, c_in = index + 3, channels
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state()


@pytest.fixture(scope="module")
def vgg_file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg19_bn.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def loss(vgg_file: Path) -> PerceptualLoss:
    made = make_image_loss("vgg", vgg_weights=str(vgg_file))
    assert isinstance(made, PerceptualLoss)
    return made


def pictures(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(count, 3, *SIZE, generator=generator)
    prediction = target + 0.1 * torch.randn(count, 3, *SIZE, generator=generator)
    return prediction, target, torch.rand(count, 1, *SIZE, generator=generator)


def formula(state: dict[str, Tensor], x: Tensor, y: Tensor) -> float:
    """The loss of one prediction and its target ``[3, H, W]``, in float64, from the state dict alone."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    maps = [((z - mean[:, None, None]) / std[:, None, None]).double()[None] for z in (x, y)]
    total = float((maps[0] - maps[1]).abs().mean())
    index = 0
    for number, channels in enumerate(CHANNELS):
        if not channels:
            maps = [F.max_pool2d(z, 2) for z in maps]
            index += 1
            continue
        conv = [state[f"features.{index}.{name}"].double() for name in ("weight", "bias")]
        norm = [
            state[f"features.{index + 1}.{name}"].double()[:, None, None]
            for name in ("weight", "bias", "running_mean", "running_var")
        ]
        maps = [F.conv2d(z, *conv, padding=1) for z in maps]
        maps = [((z - norm[2]) / (norm[3] + 1e-5).sqrt() * norm[0] + norm[1]).clamp_min(0) for z in maps]
        if number in TAPS:
            total += TAPS[number] * float((maps[0] - maps[1]).abs().mean())
        index += 3
    return total


def test_the_loss_is_the_formula(loss: PerceptualLoss, state: dict[str, Tensor]) -> None:
    prediction, target, weight = pictures()
    mixed = prediction * weight + target * (1 - weight)
    expected = sum(formula(state, x, y) for x, y in zip(mixed, target, strict=True)) / 2
    assert float(loss(prediction, target, weight)) == pytest.approx(expected, rel=1e-4)  # float32 against float64
    assert expected > 0.1


def test_both_names_are_one_loss(loss: PerceptualLoss, vgg_file: Path) -> None:
    other = make_image_loss("vgg_only", vgg_weights=str(vgg_file))
    assert torch.equal(loss(*pictures()), other(*pictures()))


def test_a_batch_is_the_mean_of_its_samples_and_so_is_its_gradient(loss: PerceptualLoss) -> None:
    prediction, target, weight = pictures()
    weight[1, :, :, :30] = 0
    prediction.requires_grad_(True)
    whole = loss(prediction, target, weight)
    alone = [loss(prediction[i : i + 1], target[i : i + 1], weight[i : i + 1]) for i in range(2)]
    mean = (alone[0] + alone[1]) / 2
    torch.testing.assert_close(whole, mean)
    gradients = [torch.autograd.grad(value, prediction)[0] for value in (whole, mean)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_pixels_without_weight_do_not_count(loss: PerceptualLoss) -> None:
    prediction, target, weight = pictures()
    weight[..., 20:28] = 0
    other = torch.where(weight > 0, prediction, 5.0).requires_grad_(True)
    value = loss(other, target, weight)
    torch.testing.assert_close(value, loss(prediction, target, weight))
    (gradient,) = torch.autograd.grad(value, other)
    assert gradient[..., 20:28].abs().max() == 0
    assert loss(prediction, target, torch.zeros_like(weight)) == 0


def test_the_network_never_changes(loss: PerceptualLoss) -> None:
    """Batch norm's buffers included, although a parent is put into train mode and an optimizer gets all it can."""
    parent = nn.ModuleDict({"loss": loss, "fit": nn.Conv2d(3, 3, 1)})
    parent.train()
    assert parent.training
    assert not any(module.training for module in loss.modules())
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    optimizer = torch.optim.AdamW(parent.parameters(), lr=0.1, weight_decay=0.1)
    prediction, target, weight = pictures(1)
    values = []
    for _ in range(3):
        optimizer.zero_grad()
        value = loss.train()(parent["fit"](prediction), target, weight)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert len(set(values)) == 3
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert all(parameter.grad is None for parameter in loss.parameters())
    after = loss.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert any(key.endswith("running_var") for key in before)


def test_the_network_is_not_part_of_a_model(loss: PerceptualLoss) -> None:
    model = MaskVolumeModel(CheckpointMeta("mpi", "matching", num_planes=4))
    keys = set(model.state_dict())
    loss(*pictures(1))
    assert set(model.state_dict()) == keys
    assert not any("features" in key or "slices" in key for key in keys)


def test_it_runs_in_float32_inside_autocast(loss: PerceptualLoss) -> None:
    seen = []
    hooks = [part.register_forward_hook(lambda *args: seen.append(args[2].dtype)) for part in loss.slices]
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*pictures())
    for hook in hooks:
        hook.remove()
    assert set(seen) == {torch.float32}
    assert torch.equal(value, loss(*pictures()))
    low = loss(*(x.bfloat16() for x in pictures()))
    torch.testing.assert_close(low, value, rtol=0.05, atol=0)


def test_only_the_layers_that_are_needed_are_kept(loss: PerceptualLoss) -> None:
    parts = list(loss.slices)
    assert [len(part) for part in parts] == [6, 7, 7, 13, 13]
    assert all(isinstance(part[-1], nn.ReLU) for part in parts)
    assert sum(isinstance(module, nn.Conv2d) for module in loss.modules()) == sum(c > 0 for c in CHANNELS)


def test_small_pictures_are_one_line(loss: PerceptualLoss) -> None:
    with pytest.raises(InputError, match=r"img_hw: .*16 x 16.*got 15 x 40"):
        loss(torch.rand(1, 3, 15, 40), torch.rand(1, 3, 15, 40), torch.ones(1, 1, 15, 40))
    small = torch.rand(1, 3, 16, 16)
    assert loss(small, small, torch.ones(1, 1, 16, 16)) == 0


def test_weights_of_torchvisions_cache_are_used(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True)
    file = folder / perceptual.VGG19_BN_Weights.DEFAULT.url.rsplit("/", 1)[1]
    whole = {**state, "classifier.0.bias": torch.zeros(4096)}  # what the loss doesn't read
    without_counters = {key: value for key, value in whole.items() if not key.endswith("num_batches_tracked")}
    torch.save(without_counters, file)
    weights = load_vgg_weights()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], value) for key, value in state.items() if not key.endswith("tracked"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"damaged.*delete {file}"):
        load_vgg_weights()


def no_network(*_: object, **__: object) -> None:
    raise URLError("no network here")


def test_without_weights_one_line_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(InputError) as caught:
        make_image_loss("vgg")
    message = str(caught.value)
    assert "\n" not in message
    for words in (perceptual.VGG19_BN_Weights.DEFAULT.url, "--vgg_weights", "l1_msssim_grad", "no network here"):
        assert words in message


def broken_files(state: dict[str, Tensor]) -> dict[str, tuple[object, str]]:
    """Damaged contents of a file, each with the words of the error message."""
    last = "features.40.weight"
    return {
        "missing": ({key: value for key, value in state.items() if key != last}, rf"1 missing keys \({last}\)"),
        "shape": ({**state, last: torch.zeros(3, 3)}, rf"of another shape \({last} \[3, 3\]\)"),
        "nan": ({**state, last: torch.full_like(state[last], torch.nan)}, rf"not finite \({last}\)"),
        "other": ({"conv1.weight": torch.zeros(3)}, r"missing keys \(features\.0\.weight, .*, \.\.\.\)"),
        "list": ([1, 2], "no state dict"),
        "objects": ({"model": Path("x")}, "refused"),
    }


@pytest.mark.parametrize("kind", ["missing", "shape", "nan", "other", "list", "objects", "text", "absent", "cut"])
def test_a_file_that_is_not_the_weights_is_one_line(
    kind: str, state: dict[str, Tensor], vgg_file: Path, tmp_path: Path
) -> None:
    path, words = tmp_path / f"{kind}.pth", "not a readable checkpoint|refused"
    if kind == "text":
        path.write_text("no weights")
    elif kind == "cut":
        path.write_bytes(vgg_file.read_bytes()[:100_000])
    elif kind == "absent":
        words = "no such file"
    else:
        content, words = broken_files(state)[kind]
        torch.save(content, path)
    with pytest.raises(InputError, match=words) as caught:
        make_image_loss("vgg_only", vgg_weights=str(path))
    assert str(caught.value).startswith(str(path))
    assert "l1_msssim_grad" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="refused"):
        load_vgg_weights(path)
    assert not (tmp_path / "ran").exists()
