"""Fields of options: ranges, sizes, marks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maskvolume.options import (
    Size,
    check_ranges,
    marked,
    option,
    parse_options,
    save_options,
)
from maskvolume.runtime.errors import InputError


def parse(*argv: str, cls: type) -> Any:
    return parse_options(cls, argv, prog="prog.py", description="A program.")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "run.txt"


def test_a_field_without_option_is_refused():
    @dataclass(frozen=True)
    class Plain:
        x: int = 3

    with pytest.raises(TypeError, match="declare this field"):
        parse(cls=Plain)


@dataclass(frozen=True)
class RangeOptions:
    """Numbers with limits, and sizes."""

    fps: float = option(30.0, "frames a second", low=0.1, high=1000, marks=("free",))
    count: int | None = option(None, "frames", low=1)
    share: float = option(0.5, "a part", above=0, below=1)
    jitter: float = option(0.0, "another part", low=0, below=1)
    strides: tuple[int, ...] = option((3, 10), "steps", low=1, high=20)
    img_wh: Size = option(Size(360, 640), "width and height", low=16)
    tile_wh: Size | None = option(None, "width and height of tiles", marks=("free", "other"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--fps 0", "--fps: 0.1 to 1000 expected, got 0"),
        ("--count 0", "--count: 1 or more expected, got 0"),
        ("--share 1", "--share: between 0 and 1 expected, got 1"),
        ("--jitter 1", "--jitter: 0 or more and below 1 expected, got 1"),
        ("--strides 3 21 4", "--strides: 1 to 20 expected, got 21"),
        ("--img_wh 8 360", "--img_wh: 16 or more expected, got 8"),
    ],
)
def test_a_number_out_of_range_is_named_wherever_it_comes_from(config, text, message):
    with pytest.raises(InputError) as caught:
        parse(*text.split(), cls=RangeOptions)
    assert str(caught.value) == message
    name, values = text.removeprefix("--").split(" ", 1)
    config.write_text(f"{name} = {values}\n")
    with pytest.raises(InputError) as caught:
        parse("--config", str(config), cls=RangeOptions)
    assert str(caught.value) == message.replace("--", f"{config}, line 1: ")
    numbers = [float(word) for word in values.split()]
    value = Size(int(numbers[1]), int(numbers[0])) if name == "img_wh" else tuple(numbers)
    built = RangeOptions(**{name: value if len(numbers) > 1 else numbers[0]})
    with pytest.raises(InputError) as caught:
        check_ranges(built)
    assert str(caught.value) == message


def test_numbers_in_range_pass():
    check_ranges(RangeOptions())
    found = parse("--count", "none", "--strides", "1", "20", "--fps", "0.1", cls=RangeOptions)
    assert (found.count, found.strides, found.fps) == (None, (1, 20), 0.1)


def test_a_size_is_written_width_first_and_read_height_first(tmp_path, config, capsys):
    options = parse("--img_wh", "640", "352", cls=RangeOptions)
    assert (options.img_wh.h, options.img_wh.w, options.img_wh) == (352, 640, (352, 640))
    config.write_text("img_wh = [64, 48]\ntile_wh = 32 16\n")
    options = parse("--config", str(config), cls=RangeOptions)
    assert (options.img_wh, options.tile_wh) == (Size(h=48, w=64), Size(h=16, w=32))
    save_options(options, tmp_path / "options.json")
    saved = json.loads((tmp_path / "options.json").read_text(encoding="utf-8"))
    assert (saved["img_wh"], saved["tile_wh"], saved["strides"]) == ([64, 48], [32, 16], [3, 10])
    with pytest.raises(SystemExit):
        parse("--help", cls=RangeOptions)
    assert "default: 640 360" in capsys.readouterr().out


def test_options_are_found_by_their_marks():
    assert marked(RangeOptions, "free") == marked(RangeOptions(), "free") == {"fps", "tile_wh"}
    assert marked(RangeOptions, "none") == frozenset()
