"""TOML as recipes are written in it: a small writer, and a reader that bounds what it reads.

Written are tables of plain values, of lists, and of tables; a list of tables inside a step (the bands of a table of
embeddings) is one inline table a line, so that a band can be read, changed and compared line by line.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flyweight.bundle.strict_json import one_line
from flyweight.errors import InputError

#: A recipe is short. Keys of many parts would take `tomllib` minutes: its time grows with the square of their dots.
MOST_BYTES, MOST_IN_LINE, MOST_IN_HEADER, MOST_DOTS = 2 * 2**20, 1_000, 128, 100
#: Characters of a list that still stands in one line.
_ONE_LINE = 90
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_of(document: Mapping[str, Any]) -> str:
    """Return a document as TOML: plain values first, then a table or an array of tables for each other.

    Raises:
        ValueError: a value has no spelling in TOML: None, or a text that is no Unicode.

    Example:
        >>> print(toml_of({"steps": [{"step": "prune", "ratio": 0.5}]}), end="")
        [[steps]]
        step = "prune"
        ratio = 0.5
    """
    return "\n".join(_lines(document, ())).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    inner = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    several = {name: value for name, value in table.items() if not path and _is_tables(value)}
    lines = [f"{_key(name)} = {_value(value)}" for name, value in table.items() if name not in inner | several]
    for name, value in inner.items():
        lines += ["", f"[{_path((*path, name))}]", *_lines(value, (*path, name))]
    for name, values in several.items():
        for value in values:
            lines += ["", f"[[{_path((*path, name))}]]", *_lines(value, (*path, name))]
    return lines


def _is_tables(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _path(names: Sequence[str]) -> str:
    return ".".join(map(_key, names))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        entries = [_value(one) for one in value]
        line = "[" + ", ".join(entries) + "]"
        if len(line) <= _ONE_LINE and not _is_tables(value):
            return line
        return "[\n    " + ",\n    ".join(entries) + ",\n]"
    raise ValueError(f"{type(value).__name__} has no spelling in TOML")


def _text(text: str) -> str:
    """Spell a text as JSON does, which TOML reads alike but for one sign that it wants escaped."""
    text.encode()  # half of a surrogate pair is no Unicode
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the document in a file that need not be trusted.

    Raises:
        InputError: there is no such file, or it is not TOML, too long, or nested too deeply; says where.
    """
    text = _text_in(path)
    for number, line in enumerate(text.split("\n"), 1):
        most = MOST_IN_HEADER if line.lstrip().startswith("[") else MOST_IN_LINE
        if len(line) > most or line.count(".") > MOST_DOTS:
            raise InputError(
                f"{path}, line {number} is too long: {len(line):,} characters and {line.count('.'):,} dots, of at most "
                f"{most:,} and {MOST_DOTS}; put a long list on several lines."
            )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {one_line(error)}.") from None
    except (RecursionError, ValueError) as error:  # a number of thousands of digits is a plain ValueError
        why = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise InputError(f"{path} cannot be read as a recipe: {why}.") from None


def _text_in(path: Path) -> str:
    data: bytes | None = None
    try:
        there = path.exists()
        if path.is_file():  # of a pipe or a device there may be no end
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise InputError(f"The recipe {str(path)!r} cannot be read: {one_line(error)}.") from error
    if data is None:
        why = f"{path} is no file; give the recipe itself, as in recipe.toml." if there else f"There is no file {path}."
        raise InputError(why)
    if len(data) > MOST_BYTES:
        raise InputError(f"{path} is too large for a recipe: over {MOST_BYTES:,} bytes.")
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start:,} is 0x{data[error.start]:02x}); a recipe is a text file."
        ) from None
