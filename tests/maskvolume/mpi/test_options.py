"""The options that programs of this family share: their ranges, and that every program has all of them."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from maskvolume.mpi.options import MIN_SIDE, MPIOptions
from maskvolume.options import Size, check_ranges
from maskvolume.runtime.errors import InputError
from render.export_web import ExportOptions
from render.render_llff_video import RenderOptions

OPTIONS = MPIOptions(root_dir="a", ckpt_path="b", out_dir="c")


def test_numbers_out_of_range_are_one_line() -> None:
    check_ranges(OPTIONS)
    with pytest.raises(InputError, match="--num_planes: 2 to 1024 expected, got 1"):
        check_ranges(replace(OPTIONS, num_planes=1))
    with pytest.raises(InputError, match=f"--img_wh: {MIN_SIDE} or more expected, got 8"):
        check_ranges(replace(OPTIONS, img_wh=Size(h=8, w=64)))


@pytest.mark.parametrize("program", [RenderOptions, ExportOptions])
def test_programs_share_them(program: type) -> None:
    assert issubclass(program, MPIOptions)
    assert {field.name for field in fields(MPIOptions)} < {field.name for field in fields(program)}
