"""The evaluation program: every row of every part, several checkpoints, what is kept of an interrupted run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_1

from benchmarks import evaluate
from benchmarks.quality.figures import (
    MEASURES,
    TRUTH,
)
from benchmarks.quality.held_out_worlds import WorldSet
from benchmarks.quality.methods import (
    CLASSICAL,
    FRAME_MPI,
    MASK_2D,
    MASK_VOLUME,
    METHODS,
    MORE,
    NEAREST,
    WARPING,
)
from maskvolume.io.images import read_image
from maskvolume.mpi.checkpoints import save_checkpoint
from maskvolume.mpi.model import CheckpointMeta, MaskVolumeModel
from maskvolume.runtime.errors import InputError

SIZE = (48, 64)
CAMERAS = ("cam00", "cam01", "cam02", "cam03")
SHORT = ("--num_static", 1, "--num_moving", 1, "--world_wh", 64, 48, "--precision", "fp32")


@pytest.fixture(scope="module")
def rig(make_rig: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 4 cameras with three held-out cameras between them, of which one has mattes."""
    root = make_rig(tmp_path_factory.mktemp("clip") / "rig", cameras=CAMERAS, size=SIZE)
    make_rig(root / "targets", cameras=("target0", "target1", "target2"), size=SIZE)
    masks = root / "targets" / "masks" / "target0"
    masks.mkdir(parents=True)
    for frame in range(3):
        mask = np.zeros(SIZE, np.uint8)
        mask[16:32, 16:32] = 255
        cv2.imwrite(str(masks / f"{frame:05d}.png"), mask)
    return root


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained models of few planes, of both stages."""
    paths = {}
    for stage in ("mask", "mpi"):
        torch.manual_seed(0)
        paths[stage] = tmp_path_factory.mktemp("checkpoint") / f"{stage}_untrained.safetensors"
        save_checkpoint(paths[stage], MaskVolumeModel(CheckpointMeta(stage, "matching", num_planes=8)))
    return paths


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: object) -> dict[str, Any]:
    words = ["evaluate.py", "--device", "cpu", "--out", out, *arguments]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    evaluate.main()
    return json.loads(out.read_text())


@pytest.mark.slow
def test_every_method_is_measured(
    rig: Path,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, sheet = tmp_path / "evaluate.json", tmp_path / "sheet.png"
    result = run(
        monkeypatch,
        out,
        *("--parts", "clip", "extrapolation", "static", "moving", *SHORT, "--every", 2, "--contact_sheet", sheet),
        *("--root_dir", rig, "--ckpt_path", checkpoints["mask"]),
    )
    assert {"commit", "machine", "torch", "command", "checkpoints", "borders"} <= set(result)
    assert [row["name"] for row in result["rows"]] == list(METHODS)
    clip, outside, moving = result["clip"], result["extrapolation"], result["moving"]
    assert clip["frames"] == [0, 2]
    sources = clip["targets"]["target0"]["sources"]
    assert set(sources) == {"cam00", "cam01", "cam02", "cam03"}
    assert outside["targets"]["cam00, 1 outside"]["sources"] == ["cam01", "cam02", "cam03"]
    assert outside["targets"]["cam00, 2 outside"]["sources"] == ["cam02", "cam03"]
    measured = [name for name in MEASURES if name != "lpips"]
    printed = capsys.readouterr().out
    for method in METHODS:
        assert list(clip["mean"][method]) == measured
        assert f"target0, {method}" in printed
        figures = moving["mean"][method]
        assert all(figures[name] is not None for name in ("psnr", "ssim_dynamic", "psnr_disoccluded", "flicker"))
        assert figures["ms_ssim"] is None, "the pictures are too small"
        # What motion hides is known of the worlds, not of this clip; of target1 not even what moves.
        known = {name: target["mean"][method] for name, target in clip["targets"].items()}
        assert known["target0"]["psnr_disoccluded"] is None
        assert known["target0"]["psnr_dynamic"] is not None
        for unknown in (known["target1"], outside["mean"][method]):
            assert unknown["psnr"] is not None
            assert unknown["psnr_dynamic"] is unknown["ssim_dynamic"] is unknown["flicker"] is None
        frames = clip["targets"]["target0"]["per_frame"][method]
        assert len(frames["psnr"]) == 2
        assert known["target0"]["psnr"] == pytest.approx(np.mean(frames["psnr"]), abs=1e-3)
        assert frames["flicker"][0] is None
        assert frames["flicker"][1] == known["target0"]["flicker"]
        assert result["static"]["mean"][method]["psnr_dynamic"] is None
    for method in (CLASSICAL, WARPING):
        # They see the depth that copying ignores.
        assert clip["targets"]["target0"]["mean"][method]["psnr"] - clip["mean"][NEAREST]["psnr"] > 3
    assert moving["worlds"][0]["per_frame"][NEAREST]["psnr"][2] > 0
    assert (moving["bands"]["small"]["num_worlds"], moving["bands"]["large"]["num_worlds"]) == (1, 0)
    tables = out.with_suffix(".md").read_text()
    assert tables in printed
    assert "| target1, 2D mask" in tables
    assert {path.name for path in tmp_path.iterdir()} == {"evaluate.json", "evaluate.md", "sheet.png"}
    height, width, _ = read_image(sheet).shape
    assert width == 320 * (1 + len(METHODS))
    assert height == 2 * 240 * (3 + 2 + 1 + 1)  # of every target, and of a world of every band


def test_several_checkpoints_are_sets_of_rows(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(
        monkeypatch,
        tmp_path / "evaluate.json",
        *("--parts", "moving", *SHORT, "--ckpt_path", checkpoints["mask"], checkpoints["mpi"], checkpoints["mpi"]),
        *("--methods", FRAME_MPI, MORE, NEAREST),
    )
    rows = [NEAREST, f"{FRAME_MPI} [mask_untrained]", f"{MORE} [mask_untrained]", f"{FRAME_MPI} [mpi_untrained]"]
    rows.append(f"{FRAME_MPI} [mpi_untrained']")
    assert [row["name"] for row in result["rows"]] == rows
    figures = result["moving"]["mean"]
    assert list(figures) == [*rows, TRUTH]
    assert figures[rows[3]] == figures[rows[4]]
    assert result["checkpoints"]["mpi_untrained"]["stage"] == "mpi"
    assert result["checkpoints"]["mpi_untrained"]["digest"] != result["checkpoints"]["mask_untrained"]["digest"]


def test_lpips_is_a_column_where_its_weights_are_given(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pth"
    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), weights)
    arguments = ("--parts", "static", *SHORT, "--ckpt_path", checkpoints["mpi"], "--lpips_weights", weights)
    with pytest.raises(InputError, match="--world_wh: at least 64 x 64 expected, which LPIPS needs"):
        run(monkeypatch, tmp_path / "evaluate.json", *arguments)
    result = run(monkeypatch, tmp_path / "evaluate.json", *arguments, "--world_wh", 72, 64, "--methods", NEAREST)
    assert result["static"]["mean"][NEAREST]["lpips"] > 0
    assert {"backbone": "squeeze", "input_range": "0..1, scaled to -1..1"}.items() <= result["lpips"].items()
    assert "| LPIPS |" in (tmp_path / "evaluate.md").read_text()


def test_the_stereo_pair_is_a_part(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--parts", "motorcycle", "--shrink", 8, "--stereo_planes", 8, "--ckpt_path", checkpoints["mask"])
    result = run(monkeypatch, tmp_path / "evaluate.json", *arguments)
    assert {"mask_untrained", "semi-global matching"} <= set(result["motorcycle"]["methods"])
    assert "Motorcycle pair, 92 x 62" in (tmp_path / "evaluate.md").read_text()


def test_an_interrupted_run_goes_on(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--parts", "static", *SHORT, "--ckpt_path", checkpoints["mask"], "--methods", NEAREST, FRAME_MPI)
    arguments = (*arguments, "--num_static", 3, "--contact_sheet", tmp_path / "sheet.png")
    whole = run(monkeypatch, tmp_path / "whole.json", *arguments)
    whole_sheet = read_image(tmp_path / "sheet.png")
    made: list[int] = []
    sample = WorldSet.sample

    def interrupted(world_set: WorldSet, index: int) -> Any:
        if index == 2 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(index)
        return sample(world_set, index)

    monkeypatch.setattr(WorldSet, "sample", interrupted)
    out = tmp_path / "evaluate.json"
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, out, *arguments)
    assert len(json.loads((tmp_path / "evaluate.partial.json").read_text())["units"]) == 2
    made.append(-1)
    result = run(monkeypatch, out, *arguments)
    assert made == [0, 1, -1, 2]
    assert result["static"] == whole["static"]
    np.testing.assert_array_equal(read_image(tmp_path / "sheet.png"), whole_sheet)
    assert "2 finished parts" in capsys.readouterr().err
    assert not list(tmp_path.glob("*partial*"))


def test_what_is_kept_of_other_options_does_not_count(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "evaluate.partial.json"
    arguments = ("--parts", "static", *SHORT, "--ckpt_path", checkpoints["mpi"], "--methods", NEAREST, FRAME_MPI)
    kept = {"key": "another", "units": {"static, 0": {"figures": {"table": {}}, "pictured": False}}}
    partial.write_text(json.dumps(kept))
    assert run(monkeypatch, tmp_path / "evaluate.json", *arguments)["static"]["mean"][NEAREST]["psnr"] > 0
    assert "starting over" in capsys.readouterr().err
    partial.write_text("{")
    with pytest.raises(InputError, match="--no-resume"):
        run(monkeypatch, tmp_path / "evaluate.json", *arguments)
    run(monkeypatch, tmp_path / "evaluate.json", *arguments, "--no-resume")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--parts", "clips"), "--parts: one or more of clip, extrapolation"),
        (("--methods", "best"), '--methods: some of "nearest camera".* got best'),
        (("--num_moving", 0), "--num_moving: 1 or more"),
        (("--world_wh", 16, 64), "--world_wh: at least 32 x 32"),
        (("--shrink", 9), "--shrink"),
        (("--contact_sheet", "sheet"), "--contact_sheet: sheet: a name with"),
        (("--target_dir", "nowhere"), "nowhere: no such folder; a folder of held-out cameras"),
        (("--ckpt_path", "none.safetensors"), "none.safetensors: no such checkpoint"),
        (("--parts", "moving", "--lpips_weights", "none.pth"), "--lpips_weights: none.pth: no such file"),
    ],
)
def test_bad_options_are_one_line(
    arguments: tuple[object, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        run(monkeypatch, tmp_path / "evaluate.json", *arguments)
    assert "\n" not in str(caught.value)


def test_a_stage_one_checkpoint_has_no_mask(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--parts", "moving", "--ckpt_path", checkpoints["mpi"], "--methods", MASK_2D, MASK_VOLUME)
    with pytest.raises(InputError, match="--methods: the checkpoints of --ckpt_path support none of them"):
        run(monkeypatch, tmp_path / "evaluate.json", *arguments)


def test_the_program_ends_on_bad_input(run_program) -> None:
    run_program("benchmarks/evaluate.py", "--every", 0).check_input_error("--every: 1 or more expected, got 0")
