"""Commands in the documentation could be run as they stand, and its links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from maskvolume.options import parse_options
from maskvolume.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
README = "README.md"
PROGRAM_FOLDERS = ("preprocessing", "data_tools", "train_mpi", "train_mask", "render", "examples", "benchmarks", "docs")
PAGES = (
    *(README, "CONTRIBUTING.md", "CHANGELOG.md", "preprocessing/README.md", "checkpoints/README.md"),
    *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
)
PAGES_WITH_COMMANDS = (
    README,
    "docs/programs.md",
    "docs/formats.md",
    "docs/rendering.md",
    "docs/training.md",
    "docs/your-own-rig.md",
    "docs/rigs.md",
    "docs/viewer.md",
)

RENDERER = ROOT / "render/render_llff_video.py"
# What render.sh gives to the renderer, before the options of its caller.
RENDER_SH_GIVES = ("--config", "render_video.txt", "--root_dir", "clip", "--out_dir", "out", "--path", "none")
RENDER_SH_PLACES = 4  # FRAMES FIRST END NAME

FENCE = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)|<(?:img|video|source|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A command of a page: its words, and the folder it is run in."""

    words: tuple[str, ...]
    cwd: Path

    def __str__(self) -> str:
        return shlex.join(self.words)


def read_page(page: str) -> str:
    path = ROOT / page
    if page == README and not path.exists():
        pytest.skip("there is no README yet")
    return path.read_text(encoding="utf-8")


def commands_of(text: str) -> Iterator[Command]:
    """The simple commands of the fenced shell blocks.

    A block starts in the root. A ``cd`` that stands alone on its line holds for the rest of the block, any other one
    for the rest of its line.
    """
    for block in FENCE.findall(text):
        start = ROOT
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            cwd, words, commands = start, [], 0
            for word in [*lexer, ";"]:
                if not set(word) <= set(";&|"):
                    words.append(word)
                    continue
                if words[:1] == ["cd"]:
                    cwd = cwd / words[1]
                elif words:
                    commands += 1
                    yield Command(tuple(words), cwd)
                words = []
            if not commands:
                start = cwd


def program_of(command: Command) -> Path | None:
    """The program of this repository that a command runs, None where it runs something else."""
    runner = Path(command.words[0]).name
    if not re.fullmatch(r"python[\d.]*|sh|bash", runner) or len(command.words) < 2 or command.words[1][0] == "-":
        return None
    return (command.cwd / command.words[1]).resolve()


@cache
def options_class(program: Path) -> type | None:
    """The options that a program declares; None where it reads its command line by itself."""
    spec = importlib.util.spec_from_file_location(f"program_{program.parent.name}_{program.stem}", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    kept = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = kept
    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == spec.name]
    declared = [cls for cls in classes if dataclasses.is_dataclass(cls) and declares_options(cls)]
    assert len(declared) < 2, program
    return declared[0] if declared else None


def declares_options(cls: type) -> bool:
    fields = dataclasses.fields(cls)
    return bool(fields) and all("help" in field.metadata for field in fields)


@cache
def help_of(program: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(program), "--help"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def check_arguments(program: Path, arguments: list[str]) -> None:
    """Assert that a program takes these arguments; whether the files they name exist doesn't matter."""
    if {"--help", "-h"} & {*arguments}:
        arguments = [word for word in arguments if word not in ("--help", "-h")]
        names = [word for word in arguments if word.startswith("--")]
        cls = options_class(program)
        assert cls is None or {name[2:] for name in names} <= {"config", *(f.name for f in dataclasses.fields(cls))}
        return
    cls = options_class(program)
    if cls is None:
        for word in arguments:
            if word.startswith("--"):
                assert re.search(rf"{re.escape(word.split('=')[0])}\b", help_of(program)), f"no option {word}"
        return
    # FIRST and the like stand for the number or the name that belongs there.
    places = {f.name.upper() for f in dataclasses.fields(cls) if f.metadata.get("positional")}
    parse_options(cls, ["0" if word in places else word for word in arguments], prog=program.name, description="")


def check_make(command: Command) -> None:
    """Assert that the Makefile has the targets, and that what ARGS is passed to takes it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = dict(re.findall(r"^([a-z-]+):[^\n]*\n((?:\t[^\n]*\n)*)", makefile, re.MULTILINE))
    for word in command.words[1:]:
        assert "=" in word or word in recipes, f"no target {word}"
    for word in command.words[1:]:
        if word.startswith("ARGS="):
            recipe = "".join(recipes.get(target, "") for target in command.words[1:])
            for program in re.findall(r"\S+\.py\b", recipe):
                check_arguments(ROOT / program, shlex.split(word.removeprefix("ARGS=")))


@pytest.mark.parametrize("page", PAGES)
def test_commands_could_be_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands_of(read_page(page)):
        assert command.cwd.is_dir(), f"{command}: no folder {command.cwd}"
        monkeypatch.chdir(command.cwd)
        if command.words[0] == "make":
            check_make(command)
        program = program_of(command)
        if program is None:
            continue
        assert program.is_file(), f"{command}: no program {program}"
        arguments = list(command.words[2:])
        if program.name == "render.sh":
            assert len(arguments) >= RENDER_SH_PLACES, f"{command}: FRAMES FIRST END NAME expected"
            program, arguments = RENDERER, [*RENDER_SH_GIVES, *arguments[RENDER_SH_PLACES:]]
        try:
            if program.suffix == ".py":
                check_arguments(program, arguments)
        except InputError as error:
            pytest.fail(f"{page}: {command}: {error}")


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS)
def test_pages_have_commands_of_ours(page: str) -> None:
    programs = {program_of(command) for command in commands_of(read_page(page))}
    folders = {program.parent.name for program in programs if program is not None}
    assert folders & {*PROGRAM_FOLDERS}


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_exist(page: str) -> None:
    text = FENCE.sub("", read_page(page))
    known = {"config", "help"}
    for folder in PROGRAM_FOLDERS:
        for program in sorted((ROOT / folder).glob("*.py")):
            if "run_program(main)" not in program.read_text(encoding="utf-8"):
                continue
            cls = options_class(program)
            if cls is None:
                known |= set(re.findall(r"--([a-z][\w-]*)", help_of(program)))
            else:
                known |= {name for field in dataclasses.fields(cls) for name in (field.name, f"no-{field.name}")}
    named = {name for code in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"(?<!\S)--([a-z][\w-]*)", code)}
    assert not named - known, "options of no program"


@pytest.mark.parametrize("page", [*PAGES, "examples/rig/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = read_page(page)
    for groups in LINK.findall(CODE.sub("", text)):
        link = "".join(groups)
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page}: {link}: no such file"
        if anchor:
            headings = HEADING.findall(CODE.sub(lambda code: code[0].strip("`"), target.read_text(encoding="utf-8")))
            assert anchor in {slug(heading) for heading in headings}, f"{page}: {link}: no such heading"


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")


def test_a_command_that_could_not_be_run_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "render")
    text = "```sh\ncd render && python render_llff_video.py --config render_video.txt \\\n --img_hw 3 4 | tee x\n```\n"
    first, second = commands_of(text)
    assert first.cwd == ROOT / "render"
    assert first.words[-3:] == ("--img_hw", "3", "4")
    assert second.words == ("tee", "x")
    assert program_of(first) == RENDERER
    alone, after = commands_of("```sh\ncd render\ncd x && make test\nmake lint\n```\n")
    assert (alone.cwd, after.cwd) == (ROOT / "render/x", ROOT / "render")
    with pytest.raises(InputError, match="img_wh"):
        check_arguments(RENDERER, list(first.words[2:]))
    with pytest.raises(AssertionError, match="bake"):
        check_make(Command(("make", "bake"), ROOT))
    with pytest.raises(AssertionError, match="--nonsense"):
        check_arguments(ROOT / "scenes/make_example_rig.py", ["--nonsense"])
