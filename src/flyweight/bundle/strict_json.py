"""JSON with exactly one spelling for one content, and reading it as if the author were hostile."""

import hashlib
import json
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from flyweight.errors import BundleError

MAX_BYTES = 64 * 2**20
#: Signs that open or separate values. Python needs up to about 100 bytes for each value.
MAX_VALUES = 8_000_000
MAX_CONTAINERS = 500_000
Model = TypeVar("Model", bound=BaseModel)


def canonical(value: Any) -> bytes:
    """Return JSON as UTF-8 bytes: keys sorted, shortest exact floats, one space of indent, a newline at the end.

    Raises:
        ValueError: the value holds NaN or infinity, or a text that is no Unicode.

    Example:
        >>> canonical({"b": 0.1, "a": [1, 2]})
        b'{\\n "a": [1,2],\\n "b": 0.1\\n}\\n'
    """
    return (_spelled(value, "\n") + "\n").encode()


def _spelled(value: Any, newline: str) -> str:
    """Spell a value: dicts over several lines, so that a person can read them; lists of plain values on one."""
    inner = newline + " "
    if isinstance(value, dict) and value:
        pairs = (f"{json.dumps(key, ensure_ascii=False)}: {_spelled(value[key], inner)}" for key in sorted(value))
        return "{" + inner + ("," + inner).join(pairs) + newline + "}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[" + inner + ("," + inner).join(_spelled(item, inner) for item in value) + newline + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def checksum(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def parse(data: bytes, where: str) -> Any:
    """Return the value of canonical JSON.

    Raises:
        BundleError: the bytes are too many, no JSON, nested too deeply, or not spelled canonically (which also
            excludes doubled keys, NaN and broken Unicode).
    """
    containers = data.count(b"[") + data.count(b"{")
    if len(data) > MAX_BYTES or containers > MAX_CONTAINERS or data.count(b",") > MAX_VALUES:
        raise BundleError(
            f"{where} is too large: {len(data):,} bytes, {containers:,} lists and objects; at most {MAX_BYTES:,} "
            f"bytes, {MAX_CONTAINERS:,} lists and objects and {MAX_VALUES:,} values are read. "
            "Get the bundle again from its source."
        )
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant)
        same = canonical(value) == data
    except RecursionError:
        raise BundleError(f"{where} is nested too deeply to be a bundle's. Get the bundle from its source.") from None
    except (ValueError, OverflowError) as error:
        raise BundleError(
            f"{where} is not JSON ({one_line(error)}). The file is damaged: get the bundle again."
        ) from None
    if not same:
        raise BundleError(
            f"{where} is not spelled as flyweight writes it (sorted keys, no doubles, fixed spacing); it was altered "
            "after it was written. Get the bundle again from its source."
        )
    return value


def validate(model: type[Model], value: Any, where: str) -> Model:
    """Return `value` as a `model`.

    Raises:
        BundleError: naming the place, what was seen and, for an unknown key, the nearest known one.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BundleError(f"{where}: {explain(error, model)} The bundle was altered or is of another format.") from None
    except (RecursionError, OverflowError):
        raise BundleError(f"{where} holds a value too deep or too large. Get the bundle from its source.") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first fault of a validation error as one sentence."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    more = "" if error.error_count() == 1 else f" ({error.error_count()} faults in all)"
    if fault["type"] == "extra_forbidden":
        key, known = str(fault["loc"][-1]), _keys_at(model, fault["loc"][:-1])
        near = get_close_matches(key, known, 1, 0.0) or [""]
        return f"key {_shown(place)} is unknown, the nearest known is {near[0]!r}{more}."
    if fault["type"] == "missing":
        return f"key {_shown(place)} is missing{more}."
    return f"{_shown(place)} is {_shown(fault['input'])}, {one_line(fault['msg'])}{more}."


def one_line(error: object, limit: int = 200) -> str:
    """Return the first line of an error's words, cut to `limit` characters and freed of control characters."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:limit].rstrip(".")


def _shown(value: object) -> str:
    text = f"an integer of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 64 else ""
    if isinstance(value, (dict, list)):
        text = f"{type(value).__name__} of {len(value)}"
    return text or one_line(repr(value), 80)


def _keys_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the keys known at a place, following fields, list elements and dict values."""
    for part in place:
        known = model.model_fields.get(str(part))
        inner = _models_in(known.annotation) if known else []
        model = inner[0] if inner else model
    return sorted(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
