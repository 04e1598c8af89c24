"""The measure of stage one: held-out seeds, the empty scene's truth, disparity errors and the peer beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import stage_one
from benchmarks.quality.holdout import Targets, open_with_background
from benchmarks.quality.motorcycle import SGBM, SGBM_BARE
from benchmarks.stage_one import (
    CLASSICAL,
    HELD_OUT_SEED,
    PARTS,
    EmptyClip,
)
from maskvolume.data.synthetic.source import SAMPLES_PER_SEED, VALIDATION_SEED
from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)
CAMERAS = ("cam00", "cam01", "cam02", "cam03", "cam04")


@pytest.fixture(scope="module")
def rig(make_rig: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 5 cameras with one held-out camera at the place of the middle one."""
    root = make_rig(tmp_path_factory.mktemp("clip") / "rig", cameras=CAMERAS, size=SIZE)
    make_rig(root / "targets", cameras=("target0",), size=SIZE)
    return root


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained models of few planes, one an architecture; the file names are the same."""
    paths = {}
    for arch in ("matching", "original"):
        torch.manual_seed(0)
        paths[arch] = tmp_path_factory.mktemp(arch) / "mpi.safetensors"
        save_checkpoint(paths[arch], MaskVolumeModel(CheckpointMeta("mpi", arch, num_planes=8)))
    return paths


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["stage_one.py", "--device", "cpu", *(str(word) for word in arguments)])
    stage_one.main()


def test_every_part_of_two_checkpoints_is_measured(
    rig: Path,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "stage_one.json"
    run(
        monkeypatch,
        *("--ckpt_path", checkpoints["matching"], checkpoints["original"], "--num_worlds", 2, "--img_hw", 32, 40),
        *("--margin", 4, "--root_dir", rig, "--stereo_planes", 16, "--shrink", 4, "--precision", "fp32", "--out", out),
    )
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    names = ["mpi.safetensors", "mpi.safetensors'"]
    assert [entry["arch"] for entry in result["checkpoints"].values()] == ["matching", "original"]
    assert list(result["checkpoints"]) == list(result["worlds"]["methods"]) == names
    background = result["background"]
    assert list(background["methods"]) == [CLASSICAL, *names, "mpi.safetensors, 4 cameras"]
    assert set(background["targets"]["target0"]["sources"]) == {"cam01", "cam02", "cam03", "cam00"}
    assert background["methods"]["mpi.safetensors"]["psnr"] > 20, "the nearest camera is the held-out one"
    assert list(result["stereo"]["methods"]) == [SGBM, SGBM_BARE, *names]
    assert result["stereo"]["sgbm"]["numDisparities"] == 32  # 70 / 4 pixels and up to a multiple of 16
    matching, semi_global = (result["stereo"]["methods"][name] for name in (names[0], SGBM))
    assert semi_global["mean"] < matching["mean"] < 15 / 4
    for words in ("2 held-out worlds of 40 x 32", "The empty scene of", "Motorcycle pair, 185 x 125, 16 planes"):
        assert words in printed


def test_one_part_alone(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "worlds.json"
    arguments = ("--parts", "worlds", "--num_worlds", 1, "--img_hw", 32, 32, "--ckpt_path", checkpoints["original"])
    run(monkeypatch, *arguments, "--out", out)
    result = json.loads(out.read_text())
    assert set(PARTS) & set(result) == {"worlds"}
    assert set(result["worlds"]["methods"]["mpi.safetensors"]) == {"psnr", "ssim", "psnr_covered"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--parts", "words"), "worlds, background, stereo"),
        (("--num_worlds", 0), "--num_worlds"),
        (("--shrink", 9), "--shrink"),
        (("--ckpt_path", "none.safetensors"), "none.safetensors: no such checkpoint"),
    ],
)
def test_bad_options_are_one_line(arguments: tuple[object, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=words):
        run(monkeypatch, *arguments)


def test_held_out_worlds_are_drawn_by_no_training() -> None:
    """Training draws from the multiples of SAMPLES_PER_SEED on; no run is 100,000 million samples long."""
    assert HELD_OUT_SEED % SAMPLES_PER_SEED > 100_000_000_000
    assert (HELD_OUT_SEED + 1_000_000) // SAMPLES_PER_SEED == HELD_OUT_SEED // SAMPLES_PER_SEED
    assert abs(HELD_OUT_SEED - VALIDATION_SEED) > 100_000_000_000


def test_the_truth_is_the_median_over_time(rig: Path) -> None:
    with open_with_background(rig, None) as clip:
        targets = Targets.open(rig / "targets", SIZE)
        truth = stage_one.static_truth(clip, targets, 0)
        pictures = torch.stack([targets.picture(0, name) for name in clip.frame_names])
        assert torch.equal(truth, pictures.median(dim=0).values)
        assert not torch.equal(truth, pictures[0])
        # cam02 stands where the held-out camera does, and sees the same.
        assert torch.equal(truth, torch.from_numpy(EmptyClip(clip).read(2, 1)).permute(2, 0, 1) / 255)
