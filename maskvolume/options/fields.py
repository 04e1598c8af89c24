"""The fields of an options dataclass: their declaration, their types, and conversion of text to values."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from maskvolume.runtime.errors import InputError

T = TypeVar("T")

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")
NONE_WORDS = ("none", "null")
_EXPECTED = {str: "text", int: "a whole number", float: "a number"}
_PLACEHOLDER = re.compile(r"^/?path/to(/|$)|<[^<>]+>|^TODO$|^path_to_\w+$")
_BRACKETED_WORDS = re.compile(r"^\[\s*[A-Za-z][^\[\],]*\]$")


class Size(NamedTuple):
    """A picture size (h, w) in pixels; as an option it is written ``W H``."""

    h: int
    w: int

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height, as on the command line."""
        return self.w, self.h


@dataclass(frozen=True)
class Limits:
    """The range of a number, or of each number of a list; None for no limit.

    Attributes:
        low, high: inclusive limits.
        above, below: exclusive limits.
        ascending: whether the numbers of a list must not decrease.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    ascending: bool = False

    def __contains__(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.above is not None and self.below is not None:
            return f"between {self.above:g} and {self.below:g}"
        lower = f"above {self.above:g}" if self.above is not None else ""
        lower = f"{self.low:g} or more" if self.low is not None else lower
        upper = f"below {self.below:g}" if self.below is not None else ""
        upper = f"at most {self.high:g}" if self.high is not None else upper
        return " and ".join(filter(None, (lower, upper)))


NO_LIMITS = Limits()


def option(
    default: T,
    help: str,
    choices: Sequence[Any] | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    ascending: bool = False,
    marks: Sequence[str] = (),
) -> T:
    """Declare an option with a default, as a dataclass field.

    Args:
        default: the default value.
        help: the text of the option in ``--help``.
        choices: the allowed values; None allows all.
        low: inclusive lower limit; for a list, of each item.
        high: inclusive upper limit.
        above: exclusive lower limit.
        below: exclusive upper limit.
        ascending: whether the items of a list must not decrease.
        marks: labels that ``marked`` finds.
    """
    limits = Limits(low, high, above, below, ascending)
    return dataclasses.field(default=default, kw_only=True, metadata=_metadata(help, choices, limits, marks))


def required(help: str, choices: Sequence[Any] | None = None, *, marks: Sequence[str] = ()) -> Any:
    """Declare an option without a default, which the command line or the config file must give; see ``option``."""
    return dataclasses.field(kw_only=True, metadata=_metadata(help, choices, NO_LIMITS, marks))


def positional(help: str) -> Any:
    """Declare a required option that is given by position, in the order of the fields, or as ``--name``."""
    return dataclasses.field(kw_only=True, metadata={**_metadata(help, None, NO_LIMITS, ()), "positional": True})


def _metadata(help: str, choices: Sequence[Any] | None, limits: Limits, marks: Sequence[str]) -> dict[str, Any]:
    return {"help": help, "choices": tuple(choices or ()), "limits": limits, "marks": tuple(marks)}


def marked(options: Any, mark: str) -> frozenset[str]:
    """Return the names of the options that have a mark.

    Args:
        options: a dataclass of options, or an instance.
        mark: the mark.
    """
    return frozenset(field.name for field in dataclasses.fields(options) if mark in field.metadata.get("marks", ()))


def check_ranges(options: Any) -> None:
    """Check the numbers of options that were built in code instead of parsed, before any work starts.

    Args:
        options: an instance of a dataclass of options.

    Raises:
        InputError: a number is out of its range; the message names the option, the range and the value.
    """
    for field in dataclasses.fields(options):
        _check_range(field.metadata.get("limits", NO_LIMITS), getattr(options, field.name), f"--{field.name}")


def _check_range(limits: Limits, value: Any, place: str) -> None:
    if limits == NO_LIMITS or value is None:
        return
    for item in value if isinstance(value, tuple) else (value,):
        if item not in limits:
            raise InputError(f"{place}: {limits} expected, got {item:g}")
    if limits.ascending and list(value) != sorted(value):
        raise InputError(f"{place}: ascending numbers expected, got {' '.join(f'{item:g}' for item in value)}")


@dataclass(frozen=True)
class OptionField:
    """One option; ``kind`` is the type of its value or of the items of a list, ``count`` the number of items."""

    name: str
    kind: type  # str, int, float or bool
    count: int | None  # None: a single value; -1: a list of any length
    optional: bool
    choices: tuple[Any, ...]
    help: str
    required: bool
    positional: bool
    default: Any
    limits: Limits
    is_size: bool

    @property
    def is_list(self) -> bool:
        return self.count is not None

    @property
    def expected(self) -> str:
        """The form of a value in words, for messages."""
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.kind is bool:
            return "true or false"
        if self.count is None:
            return _EXPECTED[self.kind]
        plural = {str: "texts", int: "whole numbers", float: "numbers"}[self.kind]
        return f"a list of {plural}" if self.count < 0 else f"{self.count} {plural}"


def read_fields(cls: type) -> dict[str, OptionField]:
    """Return the options that a dataclass declares, by name.

    Raises:
        TypeError: a field that is not declared by ``option``, ``required`` or ``positional``, or an unsupported type.
    """
    hints = get_type_hints(cls)
    return {field.name: _read_field(field, hints[field.name]) for field in dataclasses.fields(cls)}


def _read_field(field: dataclasses.Field[Any], annotation: Any) -> OptionField:
    if "help" not in field.metadata:
        raise TypeError(f"{field.name}: declare this field with option() or required()")
    choices = field.metadata["choices"]
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        members = [part for part in get_args(annotation) if part is not type(None)]
        optional = len(members) < len(get_args(annotation))
        annotation = members[0] if len(members) == 1 else None
    is_size = annotation is Size
    if is_size:
        annotation = tuple[int, int]
    count = None
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        count = -1 if items[-1] is Ellipsis else len(items)
        annotation = items[0] if len(set(items) - {Ellipsis}) == 1 else None
    if get_origin(annotation) is Literal:
        choices = choices or get_args(annotation)
        annotation = type(choices[0])
    if annotation not in (str, int, float, bool) or (annotation is bool and count is not None):
        raise TypeError(f"{field.name}: options of this type are not supported")
    return OptionField(
        name=field.name,
        kind=annotation,
        count=count,
        optional=optional,
        choices=choices,
        help=field.metadata["help"],
        required=field.default is dataclasses.MISSING,
        positional=field.metadata.get("positional", False),
        default=field.default,
        limits=field.metadata["limits"],
        is_size=is_size,
    )


def convert(field: OptionField, raw: str | list[str], place: str, folder: Path | None) -> Any:
    """Convert the text of an option to its value.

    Args:
        field: the option.
        raw: its text, or the words of a list.
        place: the option, or its file, line and name, for messages.
        folder: base of paths that start with ``./`` or ``../``; None leaves them unchanged.

    Returns:
        The value, in the declared type of the field.

    Raises:
        InputError: the text is not a value of this option, or a number is out of range.
    """
    value = _convert_text(field, raw, place, folder)
    _check_range(field.limits, value, place)
    return value


def _convert_text(field: OptionField, raw: str | list[str], place: str, folder: Path | None) -> Any:
    tokens = [raw] if isinstance(raw, str) else raw
    if field.optional and len(tokens) == 1 and tokens[0].lower() in NONE_WORDS:
        return None
    if not field.is_list:
        return _convert_item(field, tokens[0], place, folder)
    items = _split_list(tokens, field.kind)
    if field.count is not None and field.count >= 0 and len(items) != field.count:
        got = " ".join(tokens)
        raise InputError(f"{place}: {field.expected} expected, as in `[640, 360]`, got `{got}`")
    values = tuple(_convert_item(field, item, place, folder) for item in items)
    return Size(h=values[1], w=values[0]) if field.is_size else values


def _convert_item(field: OptionField, text: str, place: str, folder: Path | None) -> Any:
    if _PLACEHOLDER.search(text) or (not field.is_list and _BRACKETED_WORDS.match(text)):
        raise InputError(f"{place}: `{text}` is a placeholder; write your own value")
    try:
        value = _convert_scalar(field.kind, text)
    except ValueError:
        raise InputError(f"{place}: {field.expected} expected, got `{text}`") from None
    if field.choices and value not in field.choices:
        raise InputError(f"{place}: {field.expected} expected, got `{text}`")
    if isinstance(value, str):
        value = os.path.expanduser(value)
        if folder is not None and (value in (".", "..") or value.startswith(("./", "../"))):
            value = os.path.normpath(folder / value)
    return value


def _convert_scalar(kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in TRUE_WORDS + FALSE_WORDS:
            raise ValueError(text)
        return text.lower() in TRUE_WORDS
    value = kind(text)
    if kind is float and not math.isfinite(value):
        raise ValueError(text)
    return value


def _split_list(tokens: list[str], kind: type) -> list[str]:
    """Split a list such as ``640 360``, ``640,360``, ``[640, 360]`` or ``["a b", "c"]`` into its items."""
    text = tokens[0].strip()
    if len(tokens) == 1 and text.startswith("[") and text.endswith("]"):
        try:
            items = json.loads(text)
            if not any(isinstance(item, (list, dict)) for item in items):
                return [str(item) for item in items]
        except ValueError:
            pass
    tokens = [tokens[0].removeprefix("["), *tokens[1:]] if text.startswith("[") else list(tokens)
    if text.startswith("["):
        tokens[-1] = tokens[-1].removesuffix("]")
    separator = r"," if kind is str else r"[,\s]+"
    items = [item.strip().strip("\"'") for token in tokens for item in re.split(separator, token)]
    return [item for item in items if item]
