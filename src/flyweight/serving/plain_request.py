"""An inference request whose head is told by looking: what almost all clients send, and read at a tenth of the time.

A head is plain where nothing in it changes how the bytes after it are to be read: HTTP/1.1, POST, one Content-Length,
no transfer coding, nothing to be answered before the body. All else is left to the HTTP library, so that there is
nothing that this and the library could read in two ways.

Source: RFC 9112, HTTP/1.1, sections 2 to 6.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: Bytes of a head that is looked through; a longer one is left to the HTTP library, as is a body of 100 MB and more.
LONGEST_HEAD = 4096
#: Heads that are kept, as clients send the same again and again; when there are more, all are forgotten.
MOST_KEPT = 1024
_TARGET = re.compile(rb"POST (/v2/models/([\w.\-]+)(?:/versions/([\w.\-]+))?/infer) HTTP/1\.1\r\n", re.ASCII)
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\x20-\x7e\t]*)\r\n")
#: With any of these in a head, more must be known than path and length; a connection may be told to be kept.
_OTHERS = (b"expect", b"transfer-encoding", b"upgrade", b"trailer", b"te")
_NUMBER = re.compile(rb"\d{1,8}")


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain head.

    Args:
        model, version: that are asked for; the version is None where the path names none.
        head: bytes of the head.
        size: bytes of head and body.
        header_length: bytes of the body that are JSON, where numbers follow; 0 where none do.
        headers: by their names in small letters.
    """

    model: str
    version: str | None
    head: int
    size: int
    header_length: int
    headers: Mapping[bytes, bytes]


_kept: dict[bytes, Plain | None] = {}


def read_start(data: bytes | memoryview) -> Plain | None:
    """Return what the start of a request says; None where it is not plain, or its head is not whole.

    Example:
        >>> told = read_start(b"POST /v2/models/m/infer HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 3\\r\\n\\r\\nabc")
        >>> told.model, told.head, told.size
        ('m', 64, 67)
    """
    start = bytes(data[:LONGEST_HEAD])
    end = start.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = start[: end + 4]
    try:
        return _kept[head]
    except KeyError:
        pass
    if len(_kept) >= MOST_KEPT:
        _kept.clear()
    found = _kept[head] = _read(head)
    return found


def _read(head: bytes) -> Plain | None:
    target = _TARGET.match(head)
    if target is None:
        return None
    headers: dict[bytes, bytes] = {}
    place = target.end()
    while place < len(head) - 2:
        field = _FIELD.match(head, place)
        if field is None:
            return None
        name, value = field[1].lower(), field[2].strip(b" \t")
        if name in headers or name in _OTHERS or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        headers[name] = value
        place = field.end()
    length = headers.get(b"content-length", b"")
    if not _NUMBER.fullmatch(length):
        return None
    version = None if target[3] is None else target[3].decode()
    json = headers.get(b"inference-header-content-length", b"")
    header_length = int(json) if _NUMBER.fullmatch(json) else 0  # wrong ones are refused when the body is read
    return Plain(target[2].decode(), version, len(head), len(head) + int(length), header_length, headers)
