"""Program options: a documented frozen dataclass, filled from the command line and a config file.

Each program declares its options once::

    @dataclass(frozen=True)
    class RenderOptions:
        ckpt_path: str = required("checkpoint to render with")
        img_wh: Size | None = option(None, "picture width and height in pixels", low=16)
        save_disparity: bool = option(False, "write disparity pictures too")

    options = parse_options(RenderOptions, prog="render.py", description="Render a clip.")

Field types: ``str``, ``int``, ``float``, ``bool``, ``Literal[...]``, ``tuple[T, T]``, ``tuple[T, ...]`` of the first
three, ``Size``, written ``W H``, and ``X | None`` of any of these, written ``none``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import configargparse

from maskvolume.io.files import atomic_path
from maskvolume.options.fields import (
    FALSE_WORDS,
    NONE_WORDS,
    TRUE_WORDS,
    OptionField,
    Size,
    convert,
    read_fields,
)
from maskvolume.runtime.errors import InputError

T = TypeVar("T")

CONFIGS_FOLDER = Path(__file__).resolve().parents[2] / "configs"

_CONFIG_LINE = re.compile(r"^(?P<key>[A-Za-z_][\w-]*)(?P<separator>\s*[=:]\s*|\s+|$)(?P<value>.*)$")
_COMMENT = re.compile(r"(^|\s)[#;].*$")
_QUOTED = re.compile(r"""^(?P<quote>["'])(?P<text>.*?)(?P=quote)\s*(?:[#;].*)?$""")


def parse_options(cls: type[T], argv: Sequence[str] | None = None, *, prog: str, description: str) -> T:
    """Read the options of a program from the command line and a config file.

    The command line takes precedence over the file that ``--config NAME`` names. NAME is a path, or a file in the
    ``configs`` folder. A list is written ``640 360``, ``640,360`` or ``[640, 360]``. In a config file, text that
    starts with ``./`` or ``../`` is a path relative to the folder of the file; all other paths are relative to the
    working directory.

    Args:
        cls: a frozen dataclass whose fields are declared by ``option``, ``required`` and ``positional``.
        argv: the command line without the program; None for ``sys.argv[1:]``.
        prog: name of the program in its help.
        description: first lines of the help.

    Returns:
        An instance of ``cls``.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, a placeholder left in the file, or a
            missing option; the message names the file, the line and the key.
    """
    fields = read_fields(cls)
    config = _ConfigFile(fields)
    parser = _build_parser(fields, config, prog, description)
    arguments = _settle_flags(sys.argv[1:] if argv is None else argv, fields)
    namespace, unknown = parser.parse_known_args(arguments)
    _take_positionals(namespace, unknown, fields)
    file_keys = {
        key
        for source, settings in parser.get_source_to_settings_dict().items()
        if source.startswith("config_file")
        for key in settings
    }
    values = {}
    for name, field in fields.items():
        if hasattr(namespace, name):
            place = config.place(name) if name in file_keys else f"--{name}"
            folder = config.folder if name in file_keys else None
            values[name] = convert(field, getattr(namespace, name), place, folder)
        elif field.required:
            where = f" or in {config.path}" if config.path else " or in a config file (--config)"
            option_text = name.upper() if field.positional else f"--{name}{where}"
            raise InputError(f"{name}: this option is missing; give {option_text}: {field.help}")
    return cls(**values)


def save_options(options: Any, path: str | os.PathLike[str]) -> None:
    """Write the options of a run to a JSON file.

    Args:
        options: an instance of a dataclass of options.
        path: the file; sizes are written as ``[w, h]``.
    """
    with atomic_path(Path(path)) as partial:
        text = json.dumps(_plain(dataclasses.asdict(options)), indent=2, default=str)
        partial.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a value as JSON types, with sizes as (width, height), as on the command line."""
    if isinstance(value, Size):
        return value.wh
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class _Parser(configargparse.ArgumentParser):
    """A parser whose errors are one line.

    It returns values as text, without ``type`` and ``choices``, because argparse's errors do not name the line of a
    config file.
    """

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help lists the options")


def _build_parser(
    fields: dict[str, OptionField], config: _ConfigFile, prog: str, description: str
) -> configargparse.ArgumentParser:
    words = "".join(f" {field.name.upper()}" for field in fields.values() if field.positional)
    parser = _Parser(
        prog=prog,
        usage=f"{prog}{words} [--config FILE] [--OPTION VALUE ...]",
        description=description,
        epilog="In a config file each line is `option = value`; # starts a comment. "
        "An option on the command line beats the file.",
        allow_abbrev=False,
        add_config_file_help=False,
        add_env_var_help=False,
        config_file_open_func=config.open,
        config_file_parser_class=type("_BoundConfigFile", (_BoundParser,), {"config": config}),
        argument_default=configargparse.SUPPRESS,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=_find_config,
        is_config_file=True,
        help="read options from this file, looked up as given and then in configs/",
    )
    for field in fields.values():
        _add_argument(parser, field)
    return parser


def _add_argument(parser: configargparse.ArgumentParser, field: OptionField) -> None:
    arguments: dict[str, Any] = {"dest": field.name, "help": _help_text(field)}
    if field.choices and not field.is_list:
        arguments["metavar"] = "{" + ",".join(str(choice) for choice in field.choices) + "}"
    else:
        arguments["metavar"] = {str: "TEXT", int: "N", float: "X", bool: "BOOL"}[field.kind]
    if field.is_list:
        arguments["nargs"] = "+"
    if field.kind is bool:
        arguments.update(nargs="?", const="true")
    parser.add_argument(f"--{field.name}", **arguments)


def _settle_flags(arguments: Sequence[str], fields: dict[str, OptionField]) -> list[str]:
    """Replace ``--flag`` and ``--no-flag`` by ``--flag=...``, so that no flag consumes the next word.

    argparse's ``BooleanOptionalAction`` takes no value, and an optional value would consume a positional word.
    """
    flags = {f"--{name}" for name, field in fields.items() if field.kind is bool}
    words = []
    for index, text in enumerate(arguments):
        flag = f"--{text.removeprefix('--no-')}"
        following = "".join(arguments[index + 1 : index + 2]).lower()
        if text in flags and (following.isdigit() or following not in TRUE_WORDS + FALSE_WORDS):
            text = f"{text}=true"
        elif text.startswith("--no-") and flag in flags:
            text = f"{flag}=false"
        words.append(text)
    return words


def _take_positionals(namespace: Any, words: list[str], fields: dict[str, OptionField]) -> None:
    """Assign the words that belong to no option to the positional fields, in order.

    argparse's positional arguments cannot also be given by name, on the command line or in a config file.
    """
    free_fields = [field for field in fields.values() if field.positional and not hasattr(namespace, field.name)]
    for word in words:
        if word.startswith("--") or not free_fields:
            raise InputError(_describe_unknown_argument(word, fields))
        setattr(namespace, free_fields.pop(0).name, word)


def _help_text(field: OptionField) -> str:
    if field.positional:
        note = f"required; given by its place, {field.name.upper()}"
    elif field.required:
        note = "required"
    elif field.default is None:
        note = "default: none"
    elif field.kind is bool:
        note = f"default: true; --no-{field.name} turns it off" if field.default else "default: false"
    elif isinstance(field.default, Size):
        note = f"default: {field.default.w} {field.default.h}"
    elif field.is_list:
        note = "default: " + (" ".join(str(item) for item in field.default) or "[]")
    else:
        note = f"default: {field.default}"
    return f"{field.help} ({note})".replace("%", "%%")


def _describe_unknown_argument(argument: str, fields: dict[str, OptionField]) -> str:
    if not argument.startswith("--"):
        return f"{argument}: this argument belongs to no option; --help lists the options"
    name = argument[2:].split("=")[0]
    return f"--{name}: there is no such option; the nearest one is --{_nearest(name, [*fields, 'config'])}"


def _nearest(name: str, names: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def _find_config(name: str) -> str:
    """Find a config file: at the path ``name``, else in the configs folder of the repository."""
    for path in (Path(name).expanduser(), CONFIGS_FOLDER / name):
        if path.is_file():
            return str(path)
        if path.is_dir():
            raise InputError(f"{path}: --config: is a folder where a file is expected; name a file in it")
    config_names = sorted(path.name for path in CONFIGS_FOLDER.glob("*.txt"))
    known = f"; {CONFIGS_FOLDER} has {', '.join(config_names)}" if config_names else "; check the name"
    raise InputError(f"{name}: no such config file, neither here nor in {CONFIGS_FOLDER}{known}")


class _ConfigFile:
    """The config file of one run, with the line of each key for messages.

    configargparse's own parsers do not keep line numbers, quotes or duplicate keys.
    """

    def __init__(self, fields: dict[str, OptionField]) -> None:
        self.fields = fields
        self.path: str | None = None
        self.lines: dict[str, int] = {}

    @property
    def folder(self) -> Path:
        """The folder that ``./`` and ``../`` in the file are relative to."""
        return Path(self.path or ".").resolve().parent

    def place(self, key: str) -> str:
        """The file, line and key, for messages."""
        return f"{self.path}, line {self.lines[key]}: {key}"

    def open(self, path: str) -> TextIO:
        """Open the file for configargparse, which closes it."""
        self.path = path
        return open(path, encoding="utf-8-sig")

    def read(self, stream: TextIO) -> dict[str, str]:
        """Read the values by key, as text for ``--key=`` on the command line."""
        try:
            lines = stream.read().splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{self.path}: --config: not a text file; name a config file") from None
        values = {}
        for number, line in enumerate(lines, start=1):
            line = line.strip()
            is_heading = line.startswith("---") or re.match(r"^\[[^\]]*\]\s*([#;].*)?$", line)
            if not line or line[0] in "#;" or is_heading:
                continue
            match = _CONFIG_LINE.match(line)
            if match is None:
                raise InputError(f"{self.path}, line {number}: `option = value` expected, got `{line}`")
            key = match["key"]
            self._check_key(key, number)
            self.lines[key] = number
            values[key] = self._read_value(key, match["value"], bare=not match["separator"])
        return values

    def _check_key(self, key: str, number: int) -> None:
        if key not in self.fields:
            raise InputError(
                f"{self.path}, line {number}: {key}: there is no such option; the nearest one is "
                f"{_nearest(key, self.fields)}"
            )
        if key in self.lines:
            raise InputError(f"{self.place(key)}: given again in line {number}; keep one of the two")

    def _read_value(self, key: str, text: str, bare: bool) -> str:
        field = self.fields[key]
        quoted = _QUOTED.match(text)
        if quoted and not field.is_list:
            return quoted["text"]
        if field.is_list and text.startswith("["):
            with contextlib.suppress(ValueError):
                return json.dumps(json.JSONDecoder().raw_decode(text)[0])
        text = _COMMENT.sub("", text).strip()
        if not text and field.kind is bool and bare:
            return "true"
        if not text and field.optional:
            return "none"
        if not text:
            raise InputError(f"{self.place(key)}: has no value; {field.expected} expected")
        if field.is_list and not (text.startswith("[") or text.lower() in NONE_WORDS):
            try:
                items = shlex.split(text.replace(",", " "))
            except ValueError:
                raise InputError(f"{self.place(key)}: a quote is not closed") from None
            return json.dumps(items)
        return text


class _BoundParser(configargparse.ConfigFileParser):
    """A parser class that reads through a ``_ConfigFile``; configargparse instantiates it itself."""

    config: _ConfigFile

    def parse(self, stream: TextIO) -> dict[str, str]:
        return self.config.read(stream)

    def get_syntax_description(self) -> str:
        return "option = value"
