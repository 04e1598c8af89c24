"""LPIPS with weights that its user gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.quality.learned_similarity import LearnedSimilarity
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones, of the smallest network."""
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_lpips_takes_the_weights_that_it_is_given(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    lpips = LearnedSimilarity(weights, torch.device("cpu"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert torch.hub.get_dir() == str(tmp_path / "hub"), "it still follows TORCH_HOME"
    assert lpips.record()["backbone"] == "squeeze"
    assert lpips.record()["input_range"] == "0..1, scaled to -1..1"
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 64, 72, generator=generator)
    noise = torch.randn(truth.shape, generator=generator)
    near, far = lpips(truth + 0.02 * noise, truth), lpips(truth + 0.3 * noise, truth)
    assert lpips(truth, truth) == 0
    assert 0 < near < far
    assert lpips(truth + 0.3 * noise, truth) == far, "what was measured before doesn't count"
    # Other weights give other distances: they are those of the file.
    state = {name: 0.5 * value for name, value in torch.load(weights).items()}
    torch.save(state, weights.with_name("other.pth"))
    assert LearnedSimilarity(weights.with_name("other.pth"), torch.device("cpu"))(truth + 0.3 * noise, truth) != far


def test_wrong_weights_of_lpips_are_one_line(weights: Path, tmp_path: Path) -> None:
    broken, foreign = tmp_path / "broken.pth", tmp_path / "foreign.pth"
    broken.write_bytes(weights.read_bytes()[:1000])
    torch.save({"weight": torch.zeros(3)}, foreign)
    for path, words in ((broken, "not a readable weights file"), (foreign, "not the weights of a network")):
        with pytest.raises(InputError, match=words) as caught:
            LearnedSimilarity(path, torch.device("cpu"))
        assert str(caught.value).startswith(f"--lpips_weights: {path}")
        assert "\n" not in str(caught.value)
