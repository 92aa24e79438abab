"""What a front and a shard's server say to each other over a socket: a header of a fixed size, then bytes.

    header    magic "FWSH", version, kind, tables, call, bytes of what follows        20 bytes, little-endian
    HELLO     hash of the plan, shard, shards                                          front to server, once
    WELCOME   the same of the server, and the hash of its rows                         its answer
    ASK       table and number of rows for each table, then their places, uint32 or uint64
    ROWS      the rows, in the order asked for
    REFUSED   why, in words; the connection ends

Nothing is ever built of what comes in but arrays of numbers, and nothing is read before its length was found to be
what is due, or at most what a message may have.
"""

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import ShardError

Bytes = bytes | bytearray | NDArray[Any]
VERSION = 1
MAGIC = b"FWSH"
#: The most bytes of a call, and of its answer: a front that asks for more splits its batch.
MAX_ASK = 2**28
MAX_ROWS = 2**31
MAX_WORDS = 4096
#: Parts that one call of the system takes: Linux refuses more than 1,024.
MAX_PARTS = 1024
HEADER = struct.Struct("<4sBBHIQ")
HELLO = struct.Struct("<32sII")
WELCOME = struct.Struct("<32sII32s")
WANTED = struct.Struct("<IQ")


class Kind(IntEnum):
    """What a message is."""

    HELLO = 1
    WELCOME = 2
    ASK = 3
    ROWS = 4
    REFUSED = 5


@dataclass(frozen=True)
class Header:
    """What comes before a message's bytes."""

    kind: Kind
    tables: int
    call: int
    bytes: int


class MessageError(ShardError):
    """The other side said what it may not; the connection is of no more use."""


def place_dtype(rows: int) -> np.dtype[Any]:
    """Return what places in a table of so many rows are sent as."""
    return np.dtype("<u4" if rows <= 2**32 else "<u8")


def send(link: socket.socket, kind: Kind, parts: Sequence[Bytes], *, tables: int = 0, call: int = 0) -> None:
    """Send a message of several parts; one call of the system where the other side takes it at once."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]  # type: ignore[arg-type]
    size = sum(view.nbytes for view in views)
    left = [memoryview(HEADER.pack(MAGIC, VERSION, kind, tables, call, size)), *views]
    for begin in range(0, len(left), MAX_PARTS):
        group = left[begin : begin + MAX_PARTS]
        sent = link.sendmsg(group)
        for view in group:
            if sent >= view.nbytes:
                sent -= view.nbytes
            else:
                link.sendall(view[sent:])
                sent = 0


def read_header(link: socket.socket, most: int, until: float | None = None) -> Header | None:
    """Return the next message's header; None where the other side has ended the connection.

    Args:
        most: bytes that the message may have.
        until: when to give up, as `time.monotonic` counts; None waits as long as the socket does.

    Raises:
        MessageError: it is no header, of another version, or of a message that is longer than it may be.
        OSError: the connection broke, or time was up.
    """
    data = _receive(link, HEADER.size, until, may_end=True)
    if data is None:
        return None
    magic, version, kind, tables, call, size = HEADER.unpack(data)
    if magic != MAGIC:
        raise MessageError(f"what came is no message of a shard: it begins with {magic!r}, and {MAGIC!r} is due")
    if version != VERSION:
        raise MessageError(f"it speaks version {version} of the protocol, this is {VERSION}: use one flyweight")
    if kind not in set(Kind):
        raise MessageError(f"the kind of message {kind} is unknown")
    if size > (MAX_WORDS if kind == Kind.REFUSED else most):
        raise MessageError(f"a message of {size:,} bytes was announced, at most {most:,} are due")
    return Header(Kind(kind), tables, call, size)


def read_exactly(link: socket.socket, size: int, until: float | None = None) -> bytearray:
    """Return so many bytes.

    Raises:
        OSError: the connection ended before, broke, or time was up.
    """
    data = _receive(link, size, until, may_end=False)
    assert data is not None
    return data


def read_words(link: socket.socket, header: Header, until: float | None = None) -> str:
    """Return the words of a refusal, freed of what a terminal would take for a command."""
    text = read_exactly(link, header.bytes, until).decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def rows_of_bytes(data: Bytes, dtype: np.dtype[Any], row: Sequence[int], offset: int, count: int) -> NDArray[Any]:
    """Return rows as they lie in an answer."""
    size = int(np.prod(row, dtype=np.int64))
    return np.frombuffer(data, dtype, count * size, offset).reshape(count, *row)


def _receive(link: socket.socket, size: int, until: float | None, *, may_end: bool) -> bytearray | None:
    data = bytearray(size)
    view, seen = memoryview(data), 0
    while seen < size:
        if until is not None:
            link.settimeout(max(until - time.monotonic(), 1e-4))
        read = link.recv_into(view[seen:])
        if not read:
            if may_end and not seen:
                return None
            raise ConnectionResetError(f"the connection ended after {seen:,} of {size:,} bytes")
        seen += read
    return data
