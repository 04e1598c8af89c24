"""Options: the command line, the config file, and what is said about a mistake in either."""

from __future__ import annotations

import dataclasses
import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskvolume.options import (
    option,
    parse_options,
    positional,
    programs,
    required,
    save_options,
)
from maskvolume.runtime.errors import InputError


@dataclass(frozen=True)
class BaseOptions:
    """Options that several programs share."""

    num_steps: int = option(100, "steps to take")
    lr: float = option(5e-4, "learning rate")


@dataclass(frozen=True)
class Options(BaseOptions):
    """One option of each kind."""

    ckpt_path: str = required("checkpoint to use, 100% of it")
    img_wh: tuple[int, int] | None = option(None, "width and height in pixels")
    indices: tuple[int, ...] = option((4, 5), "cameras")
    scenes: tuple[str, ...] = option((), "names of scenes")
    loss_type: Literal["mse", "vgg"] = option("vgg", "loss")
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda"))
    debug: bool = option(False, "a short run")
    shuffle: bool = option(True, "shuffle the data")


def parse(*argv: str, cls: type = Options) -> Options:
    return parse_options(cls, argv, prog="prog.py", description="A program.")


def parse_file(path: Path, text: str, *argv: str) -> Options:
    path.write_text(text, encoding="utf-8")
    return parse("--config", str(path), *argv)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "run.txt"


def test_defaults():
    assert parse("--ckpt_path", "a.pt") == Options(ckpt_path="a.pt")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("--num_steps 7", "num_steps", 7),
        ("--lr=1e-3", "lr", 1e-3),
        ("--lr -2", "lr", -2.0),
        ("--img_wh 640 360", "img_wh", (640, 360)),
        ("--img_wh 640,360", "img_wh", (640, 360)),
        ("--img_wh [640, 360]", "img_wh", (640, 360)),
        ("--img_wh=[640,360]", "img_wh", (640, 360)),
        ("--img_wh none", "img_wh", None),
        ("--indices 3", "indices", (3,)),
        ("--indices -1 2 3", "indices", (-1, 2, 3)),
        ("--indices []", "indices", ()),
        ("--scenes a b", "scenes", ("a", "b")),
        ("--loss_type mse", "loss_type", "mse"),
        ("--device cpu", "device", "cpu"),
        ("--debug", "debug", True),
        ("--debug no", "debug", False),
        ("--shuffle=off", "shuffle", False),
        ("--no-shuffle", "shuffle", False),
        ("--no-shuffle --shuffle", "shuffle", True),
    ],
)
def test_command_line_values(text, name, value):
    assert getattr(parse("--ckpt_path", "a.pt", *text.split(" ")), name) == value


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("num_steps = 7", "num_steps", 7),
        ("num_steps: 7  # steps", "num_steps", 7),
        ("num_steps 7", "num_steps", 7),
        ("img_wh = [640, 360]", "img_wh", (640, 360)),
        ("img_wh = 640 360", "img_wh", (640, 360)),
        ("img_wh =", "img_wh", None),
        ("img_wh = None", "img_wh", None),
        ("indices = [0]", "indices", (0,)),
        ("scenes = [one, 'the second']", "scenes", ("one", "the second")),
        ('scenes = one "the second"', "scenes", ("one", "the second")),
        ('scenes = ["a # b", "c"]  # comment', "scenes", ("a # b", "c")),
        ("indices = [1, 2]  # comment", "indices", (1, 2)),
        ("debug", "debug", True),
        ("debug = True", "debug", True),
        ("shuffle = no", "shuffle", False),
        ("ckpt_path = 'a # b.pt'", "ckpt_path", "a # b.pt"),
        ("ckpt_path = my folder/a=b.pt ; comment", "ckpt_path", "my folder/a=b.pt"),
        ("ckpt_path = -x", "ckpt_path", "-x"),
    ],
)
def test_config_file_values(config, line, name, value):
    text = line if name == "ckpt_path" else f"ckpt_path = a.pt\n{line}"
    assert getattr(parse_file(config, text), name) == value


def test_config_file_may_hold_headings_comments_and_windows_line_ends(config):
    text = "\ufeff# comment\r\n[data]\r\n; comment\r\n---\r\n\r\nckpt_path = a.pt\r\nnum_steps = 3\r\n"
    config.write_bytes(text.encode())
    assert parse("--config", str(config)) == Options(ckpt_path="a.pt", num_steps=3)


def test_command_line_beats_the_file(config):
    text = "ckpt_path = file.pt\nimg_wh = 1 2\ndebug = true\nshuffle = false\nindices = 7\nnum_steps = 9"
    flags = ["--ckpt_path", "line.pt", "--img_wh", "3", "4", "--no-debug", "--shuffle", "--indices", "[1, 2]"]
    expected = Options(ckpt_path="line.pt", img_wh=(3, 4), shuffle=True, indices=(1, 2), num_steps=9)
    assert parse_file(config, text, *flags) == expected


def test_a_flag_mends_a_placeholder_of_the_file(config):
    assert parse_file(config, "ckpt_path = [path_to_ckpt]", "--ckpt_path", "a.pt").ckpt_path == "a.pt"


def test_paths_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "configs" / "run.txt"
    assert parse_file(path, "ckpt_path = ../a.pt").ckpt_path == str(tmp_path / "a.pt")
    assert parse_file(path, "ckpt_path = ./a.pt").ckpt_path == str(tmp_path / "configs" / "a.pt")
    assert parse_file(path, "ckpt_path = b/a.pt").ckpt_path == "b/a.pt"
    assert parse_file(path, "ckpt_path = ~/a.pt").ckpt_path == str(tmp_path / "home" / "a.pt")
    assert parse_file(path, "ckpt_path = x\nscenes = ../a b").scenes == (str(tmp_path / "a"), "b")
    assert parse_file(path, "ckpt_path = x", "--ckpt_path", "../a.pt").ckpt_path == "../a.pt"


def test_config_is_looked_up_in_the_working_folder_and_then_in_configs(tmp_path, monkeypatch):
    configs, work = tmp_path / "configs", tmp_path / "train"
    configs.mkdir()
    work.mkdir()
    monkeypatch.setattr(programs, "CONFIGS_FOLDER", configs)
    monkeypatch.chdir(work)
    (configs / "run.txt").write_text("ckpt_path = shipped.pt")
    assert parse("--config", "run.txt").ckpt_path == "shipped.pt"
    assert parse("--config", "../configs/run.txt").ckpt_path == "shipped.pt"
    (work / "run.txt").write_text("ckpt_path = own.pt")
    assert parse("--config", "run.txt").ckpt_path == "own.pt"
    with pytest.raises(InputError, match=r"^rum\.txt: no such config file.*run\.txt"):
        parse("--config", "rum.txt")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("img_hw = 360 640", ["img_hw", "nearest", "img_wh"]),
        ("numsteps = 3", ["numsteps", "nearest", "num_steps"]),
        ("config = other.txt", ["config", "no such option"]),
        ("num_steps = many", ["num_steps", "whole number", "many"]),
        ("num_steps = 1.5", ["num_steps", "whole number"]),
        ("num_steps =", ["num_steps", "no value"]),
        ("lr = nan", ["lr", "a number"]),
        ("img_wh = 640", ["img_wh", "2 whole numbers", "[640, 360]"]),
        ("img_wh = [640, 360, 3]", ["img_wh", "2 whole numbers"]),
        ("img_wh = none none", ["img_wh", "2 whole numbers"]),
        ("scenes = 'open", ["scenes", "quote"]),
        ("loss_type = l7", ["loss_type", "mse, vgg", "l7"]),
        ("device = tpu", ["device", "auto, cpu, cuda"]),
        ("debug = maybe", ["debug", "true or false"]),
        ("= 3", ["option = value"]),
        ("num_steps = 3\nnum_steps = 4", ["num_steps", "again"]),
        ("ckpt_path = [path_to_data]", ["ckpt_path", "[path_to_data]"]),
        ("ckpt_path = [frame folder]", ["ckpt_path", "is a placeholder"]),
        ("ckpt_path = <data>/a.pt", ["ckpt_path", "<data>/a.pt"]),
        ("ckpt_path = path/to/a.pt", ["ckpt_path", "path/to/a.pt"]),
        ("ckpt_path = /path/to/a.pt", ["ckpt_path", "/path/to/a.pt"]),
        ("ckpt_path = TODO", ["ckpt_path", "TODO"]),
        ("scenes = [path_to_scenes]", ["scenes", "path_to_scenes"]),
    ],
)
def test_mistake_in_a_file_names_file_line_and_key(config, line, words):
    text = line if line.startswith("ckpt_path") else f"ckpt_path = a.pt\n{line}"
    with pytest.raises(InputError) as caught:
        parse_file(config, text)
    message = str(caught.value)
    assert message.startswith(f"{config}, line {1 if line == text else 2}: ")
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--ckptpath a", ["--ckptpath", "--ckpt_path"]),
        ("--ckpt_path a --img_hw 3 4", ["--img_hw", "nearest", "--img_wh"]),
        ("--ckpt_path a --img", ["--img", "no such option"]),
        ("--ckpt_path a stray", ["stray"]),
        ("--ckpt_path", ["--ckpt_path", "expected one argument"]),
        ("--ckpt_path a --num_steps x", ["--num_steps", "whole number", "x"]),
        ("--ckpt_path a --img_wh 3", ["--img_wh", "2 whole numbers"]),
        ("--ckpt_path path/to/a.pt", ["--ckpt_path", "path/to/a.pt"]),
        ("--ckpt_path a --loss_type l7", ["--loss_type", "mse, vgg"]),
        ("--num_steps 3", ["ckpt_path", "missing", "checkpoint to use"]),
        ("--config", ["--config"]),
    ],
)
def test_mistake_on_the_command_line_names_the_flag(text, words):
    with pytest.raises(InputError) as caught:
        parse(*text.split())
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_config_that_is_no_text_file(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00\x93")
    with pytest.raises(InputError, match="not a text file"):
        parse("--config", str(tmp_path / "a.bin"))
    with pytest.raises(InputError, match="is a folder"):
        parse("--config", str(tmp_path))


def test_help_shows_every_option_with_its_text_and_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Options):
        assert f"--{field.name}" in text
        assert field.metadata["help"] in text
    assert "default: 0.0005" in text
    assert "required" in text
    assert "--no-shuffle turns it off" in text


@dataclass(frozen=True)
class WordOptions:
    """Options that are given by their place."""

    frames: str = positional("folder of frames")
    first: int = positional("first frame")
    fps: int = option(30, "frames per second")
    overwrite: bool = option(False, "start again")


@pytest.mark.parametrize(
    "text",
    ["in 3", "in --first 3", "--first 3 in", "--frames in --first 3", "--fps 30 in 3", "in 3 --fps 30"],
)
def test_positional_options(text):
    assert parse(*text.split(), cls=WordOptions) == WordOptions(frames="in", first=3)


def test_a_flag_takes_no_positional_word():
    assert parse("--overwrite", "in", "3", cls=WordOptions).overwrite
    assert not parse("--overwrite", "no", "in", "3", cls=WordOptions).overwrite


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["FRAMES", "missing", "folder of frames"]),
        ("in", ["FIRST", "missing"]),
        ("in x", ["--first", "whole number"]),
        ("in 3 4", ["4"]),
        ("in 3 --fbs 4", ["--fbs", "nearest", "--fps"]),
    ],
)
def test_mistake_in_positional_options(text, words):
    with pytest.raises(InputError) as caught:
        parse(*text.split(), cls=WordOptions)
    message = str(caught.value)
    assert all(word in message for word in words), message


def test_saved_options_are_json(tmp_path):
    options = Options(ckpt_path="a.pt", img_wh=(640, 360))
    save_options(options, tmp_path / "options.json")
    saved = json.loads((tmp_path / "options.json").read_text(encoding="utf-8"))
    assert saved == {**dataclasses.asdict(options), "img_wh": [640, 360], "indices": [4, 5], "scenes": []}


WORDS = st.text(string.ascii_letters + string.digits + " ._,#'\"=-[]", min_size=1).map(lambda word: f"a{word}z")


@given(steps=st.integers(), lr=st.floats(allow_nan=False, allow_infinity=False), scenes=st.lists(WORDS))
def test_a_file_gives_back_what_is_written_to_it(tmp_path_factory, steps, lr, scenes):
    path = tmp_path_factory.getbasetemp() / "round_trip.txt"
    text = f"ckpt_path = 'a.pt'\nnum_steps = {steps}\nlr = {lr!r}\nscenes = {json.dumps(scenes)}\n"
    got = parse_file(path, text)
    assert (got.num_steps, got.lr, got.scenes) == (steps, lr, tuple(scenes))
