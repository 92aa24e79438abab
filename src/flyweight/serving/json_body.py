"""A request's body as a JSON object; what is none is told together with what has most likely gone wrong."""

from typing import Any

import orjson

from flyweight.serving.refusal import Refusal

_KINDS: dict[type, str] = {
    dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip
LENGTHS = "check Content-Length, and Inference-Header-Content-Length where binary tensors follow the JSON"


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in JSON's words rather than Python's.

    Example:
        >>> kind_of({}), kind_of(None)
        ('an object', 'null')
    """
    return _KINDS.get(type(value), type(value).__name__)


def json_object(data: bytes) -> dict[str, Any]:
    """Return the object that bytes hold.

    Raises:
        Refusal: they hold none.
    """
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"The request is no JSON: {_fault(data, error)}.") from None
    if not isinstance(found, dict):
        raise Refusal(f"The request must be a JSON object; seen {kind_of(found)}.")
    return found


def _fault(data: bytes, error: orjson.JSONDecodeError) -> str:
    if not data:
        return "it is empty"
    try:
        text = data.decode()
    except UnicodeDecodeError as bad:
        return f"byte {bad.start:,} of {len(data):,} is no UTF-8 text; {LENGTHS}"
    if "after document" in error.msg:
        return f"{error}; {LENGTHS}"
    if error.pos >= len(text.rstrip()) - 1:
        return f"{error}; it ends there, after {len(data):,} bytes: {LENGTHS}"
    if text[error.pos - 1 :].lstrip(" -[,").startswith(("NaN", "Infinity")):
        return f"{error}; JSON has no NaN and no infinite numbers, and neither is scored"
    return str(error)
