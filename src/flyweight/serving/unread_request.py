"""A request told from its first bytes, so that a busy service refuses it without parsing what comes after.

Under twice the load that a service can answer, half of what comes is refused, and what a refusal costs is taken from
the answers: parsed by the HTTP library, a refused request of 45 kB took 110 us, and a worker answered a seventh of what
it could.
"""

import re
from typing import NamedTuple

#: Bytes of a head that is looked through; a longer one is left to the HTTP library, as is a body of 100 MB and more.
LONGEST_HEAD = 4096
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,8})\r\n")
#: With any of these in a head, more must be known than path and length.
_OTHERS = re.compile(rb"\r\n(?:connection|expect|transfer-encoding|upgrade) *:")


class Unread(NamedTuple):
    """A request that was not parsed: its path, and how many bytes it has, head and body."""

    path: str
    size: int


def read_start(data: bytes) -> Unread | None:
    """Return what the start of a POST request says; None where it is not plain enough to be told by looking.

    Example:
        >>> read_start(b"POST /v2/models/m/infer HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 3\\r\\n\\r\\nabc")
        Unread(path='/v2/models/m/infer', size=72)
    """
    if not data.startswith(b"POST /"):
        return None
    end = data.find(b"\r\n\r\n", 0, LONGEST_HEAD)
    if end < 0:
        return None
    head = data[: end + 2].lower()
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or head.count(b"\r\ncontent-length") != 1 or _OTHERS.search(head):
        return None
    line = data[: data.find(b"\r\n")]
    path, gap, version = line[5:].partition(b" ")
    if not gap or version != b"HTTP/1.1" or not path.isascii() or b"%" in path or b"?" in path:
        return None
    return Unread(path.decode(), end + 4 + int(lengths[0]))
