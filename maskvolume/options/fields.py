"""The fields of an options dataclass: their types, and their values from text."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from maskvolume.runtime.errors import InputError

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")
NONE_WORDS = ("none", "null")
_EXPECTED = {str: "text", int: "a whole number", float: "a number"}
_PLACEHOLDER = re.compile(r"^/?path/to(/|$)|<[^<>]+>|^TODO$|^path_to_\w+$")
_BRACKETED_WORDS = re.compile(r"^\[\s*[A-Za-z][^\[\],]*\]$")


@dataclass(frozen=True)
class OptionField:
    """One option: its name, the type of its value or of a list's items, and how many items."""

    name: str
    kind: type  # str, int, float or bool
    count: int | None  # None: a single value; -1: a list of any length
    optional: bool
    choices: tuple[Any, ...]
    help: str
    required: bool
    positional: bool
    default: Any

    @property
    def is_list(self) -> bool:
        return self.count is not None

    @property
    def expected(self) -> str:
        """What a value looks like, in words."""
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.kind is bool:
            return "true or false"
        if self.count is None:
            return _EXPECTED[self.kind]
        plural = {str: "texts", int: "whole numbers", float: "numbers"}[self.kind]
        return f"a list of {plural}" if self.count < 0 else f"{self.count} {plural}"


def read_fields(cls: type) -> dict[str, OptionField]:
    """The options that a dataclass declares, by name.

    Raises:
        TypeError: a field that is not made by ``option`` and its kin, or of a type that is not supported.
    """
    hints = get_type_hints(cls)
    return {field.name: _read_field(field, hints[field.name]) for field in dataclasses.fields(cls)}


def _read_field(field: dataclasses.Field[Any], annotation: Any) -> OptionField:
    if "help" not in field.metadata:
        raise TypeError(f"{field.name}: declare this field with option() or required()")
    choices = field.metadata["choices"]
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        optional = len(inner) < len(get_args(annotation))
        annotation = inner[0] if len(inner) == 1 else None
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
    )


def convert(field: OptionField, raw: str | list[str], place: str, folder: Path | None) -> Any:
    """The value of an option from its text.

    Args:
        field: the option.
        raw: its text, or the words of a list.
        place: names the option, and the file and line it stands in, in messages.
        folder: what a path that starts with ``./`` or ``../`` is relative to; None leaves it as it is.

    Raises:
        InputError: the text is no value of this option.
    """
    tokens = [raw] if isinstance(raw, str) else raw
    if field.optional and len(tokens) == 1 and tokens[0].lower() in NONE_WORDS:
        return None
    if not field.is_list:
        return _convert_item(field, tokens[0], place, folder)
    items = _split_list(tokens, field.kind)
    if field.count is not None and field.count >= 0 and len(items) != field.count:
        got = " ".join(tokens)
        raise InputError(f"{place}: {field.expected} expected, as in `[640, 360]`, got `{got}`")
    return tuple(_convert_item(field, item, place, folder) for item in items)


def _convert_item(field: OptionField, text: str, place: str, folder: Path | None) -> Any:
    if _PLACEHOLDER.search(text) or (not field.is_list and _BRACKETED_WORDS.match(text)):
        raise InputError(f"{place}: `{text}` only holds the place of a value; write your own")
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
    """The items of a list: ``640 360``, ``640,360``, ``[640, 360]``, ``["a b", "c"]``."""
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
