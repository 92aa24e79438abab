"""Which model a `ModelInferRequest` is for, told from its first bytes: a busy service must not decode what it refuses.

Source: https://protobuf.dev/programming-guides/encoding/, fields of bytes: a tag, a length, the bytes.
"""

#: Tags of `model_name` (field 1) and `model_version` (field 2), both of bytes.
NAME, VERSION = 0x0A, 0x12
#: Lengths from here on take more than one byte; no model has so long a name.
LONG = 0x80


def read_target(data: bytes) -> tuple[str, str | None] | None:
    """Return the model and the version that a message begins with; None where it begins otherwise, and must be decoded.

    Protobuf's own writers write fields by their numbers; a version that stands elsewhere is taken for none given.

    Example:
        >>> read_target(b"\\x0a\\x06ranker\\x12\\x012\\x2a\\x00")
        ('ranker', '2')
    """
    name, end = _text(data, 0, NAME)
    if not name:
        return None
    version, _ = _text(data, end, VERSION)
    return name, version or None


def _text(data: bytes, begin: int, tag: int) -> tuple[str, int]:
    """Return the text of a field that stands at a place, and where it ends; "" where another one does."""
    head = data[begin : begin + 2]
    if len(head) < 2 or head[0] != tag or head[1] >= LONG:
        return "", begin
    end = begin + 2 + head[1]
    try:
        return data[begin + 2 : end].decode() if len(data) >= end else "", end
    except UnicodeDecodeError:
        return "", begin
