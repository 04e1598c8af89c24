"""Options that both stages share."""

from __future__ import annotations

import pytest

from maskvolume.mpi.stage_options import StageOptions, check_stage_options
from maskvolume.options import check_ranges, marked
from maskvolume.runtime.errors import InputError
from maskvolume.training import FREE, PRIVATE


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_planes", 1, "2 to 1024 expected, got 1"),
        ("img_hw", (1, 64), "16 or more expected, got 1"),
        ("margin", -1, "0 to 4096 expected, got -1"),
        ("num_sources", (1, 2), "2 or more expected, got 1"),
        ("num_sources", (4, 2), "ascending numbers expected, got 4 2"),
        ("scale", (0.001, 2.0), "0.01 or more expected, got 0.001"),
        ("scale", (2.0, 1.0), "ascending numbers expected, got 2 1"),
        ("synthetic_share", 1.0, "between 0 and 1 expected, got 1"),
        ("jitter", 1.0, "0 or more and below 1 expected, got 1"),
    ],
)
def test_numbers_that_cannot_be_meant_are_named(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_ranges(StageOptions(**{name: value}))
    assert str(caught.value) == f"--{name}: {message}"


def test_an_architecture_limits_the_views() -> None:
    check_stage_options(StageOptions(num_sources=(2, 9)), "")
    with pytest.raises(InputError, match="--num_sources: at most 2 for --arch original expected, got 2 3"):
        check_stage_options(StageOptions(arch="original", num_sources=(2, 3)), "")


def test_missing_data_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"root_dir \(not given\): no such folder; make some"):
        check_stage_options(StageOptions(dataset_name="recorded"), "make some")


def test_paths_are_free_and_private() -> None:
    paths = {"root_dir", "val_dir", "vgg_weights", "init_ckpt"}
    assert marked(StageOptions, PRIVATE) - {"log_dir", "ckpt_dir"} == paths
    assert paths <= marked(StageOptions, FREE)
    assert not {"num_planes", "margin", "arch", "num_sources", "img_hw"} & marked(StageOptions, FREE)
