"""A walk over the protobuf wire format that counts before anything is built.

Two bytes on the wire can become a hundred in memory (an empty node), and a field this version does not know is
skipped by one parser and read by another. So the bytes are walked once against the schema: every field must be known,
of the wire type the schema gives it, and the whole small enough in number and depth.
"""

from typing import Any

from flyweight.errors import BundleError

MAX_FIELDS = 4_000_000
MAX_DEPTH = 24
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: google.protobuf.FieldDescriptor.type -> wire type; a message or text or bytes is 2.
_WIRE = {1: _FIXED64, 2: _FIXED32, 3: 0, 4: 0, 5: 0, 6: _FIXED64, 7: _FIXED32, 8: 0, 9: 2, 11: 2, 12: 2, 13: 0, 14: 0}
_MESSAGE, _STRING = 11, 9


def check_wire(data: bytes, descriptor: Any, where: str) -> None:
    """Walk `data` as a message of `descriptor`.

    Raises:
        BundleError: a field is unknown, cut short or of another wire type, or there are too many or too deep.
    """
    stack: list[tuple[int, int, Any]] = [(0, len(data), descriptor)]
    depth, seen = 1, 0
    known: dict[str, dict[int, tuple[int, Any]]] = {}
    while stack:
        position, end, message = stack.pop()
        depth = len(stack) + 1
        fields = known.get(message.full_name)
        if fields is None:
            fields = known[message.full_name] = _fields(message)
        while position < end:
            seen += 1
            if seen > MAX_FIELDS or depth > MAX_DEPTH:
                raise _refusal(where, f"it holds more than {MAX_FIELDS:,} parts or is nested deeper than {MAX_DEPTH}")
            tag, position = _varint(data, position, end, where)
            number, wire = tag >> 3, tag & 7
            if number not in fields:
                raise _refusal(where, f"{message.name} holds the unknown field {number}")
            due, inner = fields[number]
            if wire != due and wire != _BYTES:  # packed numbers travel as bytes
                raise _refusal(where, f"{message.name} field {number} has wire type {wire}, due is {due}")
            start, position = _skip(data, position, end, wire, where)
            if inner is _STRING:
                _check_text(data[start:position], where)
            elif inner is not None:
                stack.append((position, end, message))
                stack.append((start, position, inner))
                break


def _fields(message: Any) -> dict[int, tuple[int, Any]]:
    return {field.number: (_WIRE[field.type], _inner(field)) for field in message.fields}


def _inner(field: Any) -> Any:
    """Return what a field's bytes hold: a message's descriptor, text, or nothing to look into."""
    if field.type == _MESSAGE:
        return field.message_type
    return _STRING if field.type == _STRING else None


def _check_text(text: bytes, where: str) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise _refusal(where, f"the text {text[:40]!r} is not UTF-8") from None


def _skip(data: bytes, position: int, end: int, wire: int, where: str) -> tuple[int, int]:
    """Return where a field's content starts and ends."""
    start = position
    if wire == _VARINT:
        _, position = _varint(data, position, end, where)
    elif wire == _BYTES:
        length, start = _varint(data, position, end, where)
        position = start + length
    else:
        position += 8 if wire == _FIXED64 else 4
    if position > end:
        raise _refusal(where, "a part is cut short")
    return start, position


def _varint(data: bytes, position: int, end: int, where: str) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
    raise _refusal(where, "a number is cut short")


def _refusal(where: str, why: str) -> BundleError:
    return BundleError(f"{where} is not a sound ONNX file: {why}. Get the bundle again from its source.")
