"""Which cameras a view from outside is made of, and which worlds are in a set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import stage_one
from benchmarks.quality.held_out_worlds import (
    BANDS,
    MOVING_SEED,
    STATIC_SEED,
    WorldSet,
    describe,
    seen_disparity,
)
from benchmarks.quality.learned_similarity import LearnedSimilarity
from benchmarks.quality.rig_views import end_of_row, outside_views
from maskvolume.clips.rig import RigClip
from maskvolume.mpi.stages import SAMPLES_PER_SEED, VALIDATION_SEED
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)


def test_the_bundled_rig_is_seen_from_its_upper_row(repo_root: Path) -> None:
    clip = RigClip.open(repo_root / "examples" / "rig")
    views = outside_views(clip, SIZE)
    assert [view.name for view in views] == ["cam00, 1 outside", "cam00, 2 outside", "cam00, 3 outside"]
    assert [view.indices[:2] for view in views] == [(1, 2), (2, 3), (3, 4)]
    assert [set(view.indices[2:4]) for view in views] == [{6, 7}, {7, 8}, {8, 9}]
    assert all(0 not in view.indices and 5 not in view.indices for view in views)
    expected = torch.from_numpy(clip.read(0, 3, SIZE)).permute(2, 0, 1) / 255
    assert torch.equal(views[2].picture(clip.frame_names[3]), expected)


def test_a_row_goes_as_far_as_its_cameras() -> None:
    line = torch.tensor([[0.0, 0, 0], [3, 0, 0], [1, 0.1, 0], [2, -0.1, 0], [7, 0, 0]], dtype=torch.float64)
    target, row, beside = end_of_row(line)
    assert (target, row) == (0, (2, 3, 1))
    assert beside(1) == [2, 3, 1, 4]
    assert beside(3) == [1, 4]
    alone = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    assert len(end_of_row(alone)[1]) == 1, "one other camera: no pair"


def test_no_training_draws_the_worlds() -> None:
    """Training draws from the multiples of SAMPLES_PER_SEED on; no run is 100,000 million samples long."""
    others = (VALIDATION_SEED, stage_one.HELD_OUT_SEED)
    for seed, rest in ((STATIC_SEED, (MOVING_SEED, *others)), (MOVING_SEED, (STATIC_SEED, *others))):
        assert seed % SAMPLES_PER_SEED > 100_000_000_000
        assert (seed + 1_000_000) // SAMPLES_PER_SEED == seed // SAMPLES_PER_SEED
        assert all(abs(seed - other) > 100_000_000_000 for other in rest)


def test_a_set_is_the_beginning_of_a_larger_one() -> None:
    world_set = WorldSet(True, SIZE)
    few, many = describe(world_set, 4), describe(world_set, 40)
    assert [few["bands"][band]["num_worlds"] for band in BANDS] == [2, 1, 1]
    assert [many["bands"][band]["num_worlds"] for band in BANDS] == [14, 13, 13]
    assert few["first_seed"] == many["first_seed"] == MOVING_SEED
    assert (few["instants"], describe(WorldSet(False, SIZE), 1)["instants"]) == (3, 1)
    sizes = [tuple(many["bands"][band]["disparity_px"]) for band in BANDS]
    assert sizes == [(1.3, 3.2), (3.2, 6.4), (6.4, 12.8)]
    assert describe(WorldSet(False, (192, 256)), 3)["bands"]["medium"]["disparity_px"] == [12.8, 25.6]


@pytest.mark.parametrize("moving", [False, True])
def test_worlds_are_of_their_band(moving: bool) -> None:
    world_set = WorldSet(moving, SIZE)
    seen = []
    for index in range(3):
        sample = world_set.sample(index)
        assert sample.images.shape[1] == 4
        assert bool((sample.source_mattes > 0).any()) == moving
        largest = world_set.disparity_bounds(world_set.band(index))[1]
        seen.append(seen_disparity(sample) / largest)
        # The rig and its baseline are jittered a little, and the nearest thing may be farther than it could be.
        assert 0.05 < seen[-1] < 1.15
    assert max(seen) > 0.3
    again = world_set.sample(2)
    assert torch.equal(again.images, sample.images)


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
    assert torch.hub.get_dir() == str(tmp_path / "hub"), "it goes on following TORCH_HOME"
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
