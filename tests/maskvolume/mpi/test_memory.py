"""The plan of memory: it holds, it takes the largest tiles that fit, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskvolume.mpi.memory import (
    GB,
    Job,
    budget_of,
    cgroup_free,
    free_bytes,
    make_plan,
    need,
)
from maskvolume.mpi.tiles import Tiling
from maskvolume.networks import ARCHITECTURES
from maskvolume.runtime.devices import resolve_precision
from maskvolume.runtime.errors import InputError

FULL_HD = Job(
    arch="semiglobal",
    precision="bf16",
    has_mask=True,
    device_type="cpu",
    backend="compiled",
    views=4,
    planes=64,
    mpi_size=(1128, 2008),
    picture_size=(1080, 1920),
    target_size=(1080, 1920),
    stored_dtype=torch.float16,
)
KINDS = [
    FULL_HD,
    replace(FULL_HD, stored=True, masks=True),
    replace(FULL_HD, has_mask=False),
    replace(FULL_HD, precision="fp32", views=2),
    replace(FULL_HD, device_type="cuda", backend="triton", stored=True),
    replace(FULL_HD, backend="reference"),
]


def plan_for(job: Job, gb: float) -> Tiling:
    plan = make_plan(job, round(gb * GB), why="test")
    assert plan.need.total <= plan.budget == round(gb * GB)
    assert plan.need == need(job, plan.tiling)
    return plan.tiling


@pytest.mark.slow
@pytest.mark.parametrize("job", KINDS)
def test_the_whole_frame_if_it_fits_and_else_as_few_tiles_as_fit(job: Job) -> None:
    whole = need(job, job.whole).total / GB
    assert plan_for(job, whole * 1.001).is_whole
    counts = [len(plan_for(job, whole * share).tiles()) for share in (0.9, 0.6, 0.4)]
    assert 1 < counts[0] <= counts[1] <= counts[2]


@pytest.mark.parametrize("job", KINDS)
def test_smaller_tiles_need_less(job: Job) -> None:
    needs = [need(job, Tiling.of(job.mpi_size, count, 1, 8)) for count in (2, 4, 8)]
    assert needs[0].total > needs[1].total > needs[2].total
    assert needs[0].frame == needs[1].frame


def test_the_need_grows_with_everything() -> None:
    least = need(FULL_HD, FULL_HD.whole).total
    wider = (FULL_HD.mpi_size[0], FULL_HD.mpi_size[1] + 64)
    for more in (
        replace(FULL_HD, views=5), replace(FULL_HD, planes=96), replace(FULL_HD, mpi_size=wider),
        replace(FULL_HD, precision="fp32"), replace(FULL_HD, target_size=(2160, 3840)),
    ):  # fmt: skip
        assert need(more, more.whole).total > least
    assert need(replace(FULL_HD, has_mask=False), FULL_HD.whole).total < least


def test_what_does_not_fit_is_one_line_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"64 planes of 2008 x 1128 .* 2\.0 GB may be taken \(test\).*--num_planes"):
        make_plan(FULL_HD, round(2 * GB), why="test")
    original = replace(FULL_HD, arch="original", views=2)
    with pytest.raises(InputError, match="can't work in tiles"):
        make_plan(original, need(original, original.whole).total - 1, why="test")


def test_the_plan_is_one_line() -> None:
    whole = make_plan(FULL_HD, round(500 * GB), why="test")
    assert str(whole).startswith(f"memory: {whole.need.total / GB:.1f} of 500.0 GB: background ")
    assert "in 1 tile, " in str(whole)
    tiled = make_plan(FULL_HD, round(10 * GB), why="test")
    h, w = tiled.tiling.tile
    assert f"in {len(tiled.tiling.tiles())} tiles of {w} x {h}, " in str(tiled)
    assert "background" not in str(make_plan(replace(FULL_HD, has_mask=False), round(500 * GB), why="test"))


def write_group(folder: Path, names: tuple[str, str], limit: str, usage: int, cache: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cache} 100\n")


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    second = ("memory.max", "memory.current")
    write_group(tmp_path / "2/outer/inner", second, "max", 500, "inactive_file")
    assert cgroup_free(tmp_path / "2", membership) is None
    write_group(tmp_path / "2/outer", second, "4000", 1000, "inactive_file")
    write_group(tmp_path / "2", second, "9000", 1000, "inactive_file")
    assert cgroup_free(tmp_path / "2", membership) == 4000 - 1000 + 100
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    membership.write_text("4:cpu,cpuacct:/a\n3:memory:/not/seen/here\n")
    write_group(tmp_path / "1/memory", first, str(2**63 - 4096), 500, "total_inactive_file")
    assert cgroup_free(tmp_path / "1", membership) is None
    write_group(tmp_path / "1/memory", first, "7000", 500, "total_inactive_file")
    assert cgroup_free(tmp_path / "1", membership) == 7000 - 500 + 100
    assert cgroup_free(tmp_path / "1", tmp_path / "none") is None


def test_what_is_free_is_shared_and_never_guessed() -> None:
    alone, shared = (free_bytes(torch.device("cpu"), sharing) for sharing in (1, 4))
    assert budget_of(torch.device("mps")) is None
    if alone is not None and shared is not None:
        assert shared < alone / 3


@pytest.mark.slow
@pytest.mark.skipif(
    resolve_precision("auto", torch.device("cpu")) != "bf16",
    reason="what convolutions take was measured where the processor multiplies bfloat16; other ones take other ways",
)
@pytest.mark.parametrize(
    ("precision", "rows", "tile"), [("fp32", 184, None), ("fp32", 152, None), ("bf16", 184, None), ("fp32", 184, 96)]
)
def test_a_plan_is_no_less_than_what_is_taken_and_no_more_than_half_again(
    precision: str, rows: int, tile: int | None, make_rig: Callable[..., Path], tmp_path: Path, run_program
) -> None:
    rig = make_rig(tmp_path / "rig", size=(rows, 320))
    options = ["--root_dir", rig, "--memory_of", "frame", "--img_wh", 320, rows, "--num_planes", 32]
    options += ["--precision", precision, *(("--tile_wh", tile, rows) if tile else ())]
    done = run_program("benchmarks/memory.py", *options)
    assert done.rc == 0, done.stderr
    taken, _, planned = (int(word) for word in done.stdout.split("memory:")[1].split())
    assert taken <= planned <= 1.5 * taken, f"{taken} bytes were taken, {planned} planned"


def test_references_have_backgrounds_of_their_own_and_some_have_frames_at_once() -> None:
    one = need(FULL_HD, FULL_HD.whole)
    several = replace(FULL_HD, references=6, references_at_once=3, cameras=10)
    six = need(several, several.whole)
    assert (six.background, six.frame, six.networks) == (6 * one.background, 3 * one.frame, one.networks)
    assert six.pictures > one.pictures
    on_gpu = replace(several, device_type="cuda", backend="triton")
    alone = need(replace(on_gpu, references=1, references_at_once=1, cameras=None), on_gpu.whole)
    assert need(on_gpu, on_gpu.whole).networks == 6 * alone.networks  # each graph keeps what it was recorded with
    plan = make_plan(several, 200 * round(GB), why="test")
    assert str(plan).endswith("; 6 references, 3 at once")
    with pytest.raises(InputError, match=r"for each of 6 references .* fewer --references"):
        make_plan(several, round(GB), why="test")


def test_a_background_from_many_more_cameras_may_take_more_than_a_frame() -> None:
    alone = need(FULL_HD, FULL_HD.whole)
    assert need(replace(FULL_HD, still_views=4), FULL_HD.whole) == alone
    assert need(replace(FULL_HD, still_views=6), FULL_HD.whole).total >= alone.total
    many = replace(FULL_HD, still_views=40)
    more = need(many, many.whole)
    assert more.total > alone.total
    least = ARCHITECTURES["semiglobal"].work["bf16"].mpi.of(40) * 64 * 1128 * 2008
    assert least <= more.background + more.frame + more.networks <= 1.01 * least
    stage_one = replace(many, has_mask=False)
    assert need(stage_one, many.whole) == need(replace(stage_one, still_views=4), many.whole)
    tiled = Tiling.of(FULL_HD.mpi_size, 4, 4, 8)
    assert need(many, tiled).total > need(FULL_HD, tiled).total
