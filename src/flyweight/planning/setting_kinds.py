"""What a setting of a step may be, read off its annotation: checks of plain values, and the words for them."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from flyweight.bundle.strict_json import one_line
from flyweight.errors import InputError

#: What stands for None where that is not the default: files have no None.
NONE = "none"
#: Whole numbers of TOML have 64 bits.
_MOST = 2**63
_WORDS: dict[object, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    Any: "a value",
}
_SEVERAL = {float: "numbers", int: "whole numbers", str: "texts"}


def built(kind: type[Any], plain: Mapping[str, Any], where: str) -> Any:
    """Return a dataclass of plain settings, each checked against its annotation.

    Args:
        where: stands before what is wrong ("recipe.toml, step 2 (prune)").

    Raises:
        InputError: a key is unknown (with the nearest known one) or missing, or a value is of another kind, or the
            dataclass itself refuses it.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.init}
    for name in plain:
        if name not in known:
            near = get_close_matches(str(name), known, 1, 0.0)[0]
            raise InputError(f"{where}: {one_line(repr(name), 80)} is no setting of it; the nearest is {near!r}.")
    settings = {}
    for name, field in known.items():
        if name in plain:
            wanted = hints[name] if field.default is None else _spelled(hints[name])
            value = _checked(name, plain[name], wanted, where)
            settings[name] = None if wanted is not hints[name] and value == NONE else value
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{where}: {name} is missing; it must be {words_for(hints[name])}.")
    try:
        return kind(**settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _spelled(kind: Any) -> Any:
    """Return a choice of words that may be None as a file spells it: with one word more."""
    choices = [one for one in _choices(kind) if one is not type(None)]
    if len(choices) == len(_choices(kind)) or get_origin(choices[0]) is not Literal:
        return kind
    return Literal[(*get_args(choices[0]), NONE)]


def _checked(name: str, value: object, kind: Any, where: str) -> object:
    """Return a value as its setting wants it."""
    inner = next((one for one in _choices(kind) if isinstance(one, type) and is_dataclass(one)), None)
    if inner is not None and isinstance(value, Mapping):
        return built(inner, value, f"{where}, {name}")
    wrong = misfit(name, value, kind)
    if wrong is not None:
        raise InputError(f"{where}: {wrong}.")
    return value


def misfit(name: str, value: object, kind: Any) -> str | None:
    """Return in words what of a plain value is of another kind than its setting, or None.

    Example:
        >>> misfit("ratio", "half", float | None), misfit("kinds", ["a", 3], tuple[str, ...])
        ("ratio must be a number; seen 'half'", 'kinds, entry 2 must be a text; seen 3')
    """
    for choice in _choices(kind):
        origin, inner = get_origin(choice), get_args(choice)
        if origin is Mapping and isinstance(value, Mapping):
            entries = [(f"{name}.{one_line(key, 80)}", one, inner[1]) for key, one in value.items()]
            return next((wrong for entry in entries if (wrong := misfit(*entry))), None)
        if origin in (tuple, Sequence) and isinstance(value, (list, tuple)):
            entries = [(f"{name}, entry {number}", one, inner[0]) for number, one in enumerate(value, 1)]
            return next((wrong for entry in entries if (wrong := misfit(*entry))), None)
    if any(_is(value, choice) for choice in _choices(kind)):
        return None
    return f"{name} must be {words_for(kind)}; seen {shown(value)}"


def _is(value: object, kind: Any) -> bool:
    """Return whether a value that is no table and no list is of a kind."""
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(kind))
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    if kind in (int, float) and isinstance(value, int):
        return -_MOST <= value < _MOST
    return isinstance(value, kind) if kind in (float, str) else False


def words_for(kind: Any) -> str:
    """Return what a setting may be, in words.

    Example:
        >>> words_for(float | None), words_for(Literal["a", "b"])
        ('a number', "one of 'a', 'b'")
    """
    choices = [one for one in _choices(kind) if one is not type(None) and _is_plain(one)]
    if len(choices) > 1:
        return " or ".join(words_for(one) for one in choices)
    only = choices[0]
    origin, inner = get_origin(only), get_args(only)
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin in (tuple, Sequence):
        return f"a list of {_SEVERAL.get(inner[0], 'values')}"
    if origin is Mapping or is_dataclass(only):
        return "a table"
    return _WORDS[only]


def shown(value: object) -> str:
    """Return a value for a message, short whatever it is."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value):,}"
    if isinstance(value, int) and not -_MOST <= value < _MOST:
        return f"a number of {value.bit_length():,} bits"
    return one_line(repr(value), 80)


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_plain(kind: Any) -> bool:
    """Return whether a value of that kind can stand in a file."""
    return kind in _WORDS or get_origin(kind) is not None or is_dataclass(kind)
